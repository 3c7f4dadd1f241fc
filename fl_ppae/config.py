"""Every key of a run's configuration: type, range, unit, default and meaning, in one frozen object.

Keys are kebab-case in `[tool.flwr.app.config]` and on the command line (`-c target-epsilon=3`),
snake_case in Python (`config.target_epsilon`).
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self, get_args
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import ErrorDetails

from fl_ppae.errors import UserError, did_you_mean

Scalar = bool | int | float | str
MIN_NOISE_MULTIPLIER = 0.2  # below it a few steps cost more than epsilon 100, and PLD takes minutes


def _kebab(name: str) -> str:
    return name.replace("_", "-")


class RunConfig(BaseModel):
    """One run, resolved. Build it with `RunConfig.from_flat`, which turns mistakes into `UserError`."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, alias_generator=_kebab, populate_by_name=True
    )

    # Data
    dataset: Literal["pathmnist", "bloodmnist", "mnist", "cifar10"] = Field(
        "pathmnist", description="image set; its images are (H, W, C) uint8"
    )
    data_source: Literal["auto", "medmnist", "torchvision", "file", "stand-in"] = Field(
        "auto",
        description="where the images come from; `auto`: the official file, else downloaded, "
        "else the stand-in with a warning",
    )
    data_root: str = Field(
        "",
        description="folder of the official files; empty: ~/.medmnist (MedMNIST) or "
        "~/.fl_ppae/torchvision (MNIST, CIFAR-10)",
    )
    data_file: str = Field("", description="the .npz for data-source = file")
    partition: Literal["iid", "dirichlet", "pathological", "quantity-skew", "acquisition-shift"] = Field(
        "iid", description="how the train split is dealt out to the hospitals"
    )
    dirichlet_alpha: float = Field(
        0.5, gt=0, le=1e4, description="concentration of partition = dirichlet; smaller is more skewed"
    )
    classes_per_hospital: int = Field(
        3, ge=1, le=100, description="classes a hospital holds under partition = pathological"
    )
    min_records: int = Field(
        64, ge=1, description="a hospital with fewer train records is an error that names it"
    )

    # Training
    num_server_rounds: int = Field(10, ge=1, le=10_000, description="rounds of local training")
    local_epochs: int = Field(
        1, ge=1, le=1_000, description="passes over a hospital's records a round, in expectation"
    )
    batch_size: int = Field(
        256,
        ge=1,
        le=65_536,
        description="expected batch: sample rate = batch-size / records, rounded up a little, at most 1",
    )
    learning_rate: float = Field(4e-3, gt=0, le=10, description="of Adam, in every round")
    objective: Literal["reconstruction", "task"] = Field(
        "reconstruction", description="what the encoder learns: the image, or the label"
    )
    autoencoder: Literal["fc", "fc-deep", "conv", "conv-image"] = Field(
        "conv", description="architecture of encoder and decoder"
    )
    encoding_size: int = Field(
        0,
        ge=0,
        le=65_536,
        description="numbers in an encoding; 0: the architecture's own (fc, fc-deep: 784; "
        "conv: 16 channels; conv-image: the image's shape)",
    )

    # Privacy
    dp_scope: Literal["none", "encoder", "frozen-decoder", "autoencoder"] = Field(
        "autoencoder", description="which gradients are clipped and noised"
    )
    target_epsilon: float = Field(
        8.0, gt=0, le=1e3, description="a hospital's budget for its encoder updates, all rounds together"
    )
    target_delta: float = Field(1e-5, gt=0, lt=1, description="must be below 1 / records in every hospital")
    noise_multiplier: float = Field(
        0.0,
        ge=0,
        le=1e4,
        description="0: calibrated per hospital to target-epsilon; else this one for all, >= 0.2",
    )
    max_grad_norm: float = Field(
        0.001,
        ge=1e-6,
        le=1e6,
        description="L2 norm to which a record's gradient is clipped; a mean over pixels has small ones",
    )
    encoding_noise_epsilon: float = Field(
        0.0,
        ge=0,
        le=1e3,
        description="budget of the Gaussian mechanism on encodings, replace-one, at target-delta; "
        "0: encodings leave plain",
    )
    projection_size: int = Field(
        16,
        ge=1,
        le=65_536,
        description="numbers to which an encoding is projected, by public data, before it is noised; "
        "only with encoding-noise-epsilon",
    )
    label_epsilon: float = Field(
        0.0,
        ge=0,
        le=100,
        description="epsilon of randomised response on labels, delta 0; 0: labels leave in the clear",
    )
    diagnostics: bool = Field(
        False, description="hospitals also report losses and clipping; costs the run its guarantee"
    )

    # Sharing, server
    share: Literal["updates", "encodings", "updates+encodings"] = Field(
        "updates", description="what leaves a hospital"
    )
    classifier: Literal["lr", "resnet18"] = Field("lr", description="the server's classifier")
    evaluate_every: int = Field(
        5, ge=0, description="rounds between evaluations; the last round is always evaluated; 0: only it"
    )
    aggregation: Literal["average", "median", "trimmed-mean", "krum"] = Field(
        "average",
        description="how updates are combined: weighted by records, or by a rule that outvotes a few",
    )
    adversary: Literal["none", "label-flip", "backdoor", "sign-flip", "scaled", "random", "free-rider"] = (
        Field("none", description="behaviour of the hospitals in adversary-hospitals")
    )
    adversary_hospitals: str = Field("", description='hospital numbers from 0, comma-separated: "0,3"')
    record_messages: bool = Field(False, description="keep every received update under received/, for audits")

    # The run
    checkpoint_every: int = Field(0, ge=0, description="rounds between checkpoints; 0: none")
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        "auto",
        description="of layers in training; auto: bfloat16 where the processor multiplies it. Clipping, "
        "noise and weights are float32",
    )
    threads_per_hospital: int = Field(1, ge=1, le=256, description="CPU threads of a hospital's training")
    device: Literal["auto", "cpu", "cuda"] = Field(
        "auto", description="where layers run; auto: a CUDA device where there is one"
    )
    hospitals_per_gpu: int = Field(
        4, ge=1, le=256, description="hospitals that train at once on a CUDA device, in simulation"
    )
    seed: int = Field(
        42,
        ge=-1,
        lt=2**31,
        description="of initialisation, partitions and, in simulation, noise and sampling; "
        "-1: noise and sampling from the operating system's entropy",
    )
    tensorboard: bool = Field(
        False, description="also write rounds and results as TensorBoard event files under tensorboard/"
    )
    mlflow_tracking_uri: str = Field(
        "",
        description="also log them to this MLflow server, or sqlite:///FILE, as experiment fl-ppae; "
        "empty: off",
    )
    output_dir: str = Field(
        "", description="run directory; empty: ~/.fl_ppae/runs/<simulation>-<UTC time>-<run id>"
    )

    @model_validator(mode="after")
    def _values_fit_together(self) -> Self:
        medical = self.dataset in ("pathmnist", "bloodmnist")
        if self.data_source == "file" and not self.data_file:
            raise ValueError('data-source = "file" needs data-file, the path of an .npz')
        if self.data_source != "file" and self.data_file:
            raise ValueError(f'data-file is only read with data-source = "file", not "{self.data_source}"')
        if self.data_source == "medmnist" and not medical:
            raise ValueError(
                f'data-source = "medmnist" has no {self.dataset}; use "torchvision", "file" or "auto"'
            )
        if self.data_source == "torchvision" and medical:
            raise ValueError(
                f'data-source = "torchvision" has no {self.dataset}; use "medmnist", "file" or "auto"'
            )
        if 0 < self.noise_multiplier < MIN_NOISE_MULTIPLIER:
            raise ValueError(
                f"noise-multiplier = {self.noise_multiplier:g}: must be 0 (calibrated to target-epsilon) or "
                f'at least {MIN_NOISE_MULTIPLIER}; for no noise at all use dp-scope = "none"'
            )
        if "@" in urlsplit(self.mlflow_tracking_uri).netloc:
            raise ValueError(
                "mlflow-tracking-uri holds a user name or password, and every key is written to config.json; "
                "use MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
            )
        _check_noised_upload(self)
        _check_adversary(self)
        if self.aggregation != "average" and not self.shares_updates:
            raise ValueError(
                f'aggregation = "{self.aggregation}" combines encoder updates, and with share = "encodings" '
                'none leaves a hospital; use "average"'
            )
        _refuse_unbuilt(self)
        return self

    @classmethod
    def from_flat(cls, values: Mapping[str, object]) -> Self:
        """Check kebab-case `values`; keys left out take their defaults.

        Raises:
            UserError: one line naming the first wrong key or value and what would be right.
        """
        known = [_kebab(name) for name in cls.model_fields]
        for key in values:
            if key not in known:
                raise UserError(f"unknown key {key!r}{did_you_mean(key, known)}")
        try:
            return cls.model_validate(dict(values))
        except ValidationError as error:
            raise UserError(_one_line(error.errors()[0])) from None

    @property
    def shares_updates(self) -> bool:
        """True if encoder updates leave the hospitals."""
        return "updates" in shared_artefacts(self.share)

    @property
    def shares_encodings(self) -> bool:
        """True if encodings leave the hospitals, with their labels."""
        return "encodings" in shared_artefacts(self.share)

    @property
    def learns_labels(self) -> bool:
        """True if the encoder learns from labels, as `models.objectives` has it."""
        return self.objective == "task"

    def adversary_numbers(self) -> tuple[int, ...]:
        """The numbers in adversary-hospitals."""
        return tuple(int(number) for number in self.adversary_hospitals.split(",") if number.strip())

    def to_flat(self) -> dict[str, Scalar]:
        """Every key, kebab-case, resolved: what `config.json` and `flwr run` take."""
        return self.model_dump(by_alias=True)


def shared_artefacts(share: str) -> tuple[str, ...]:
    """What leaves a hospital under this value of the key `share`: "updates", "encodings" or both."""
    return tuple(share.split("+"))


def _check_noised_upload(config: RunConfig) -> None:
    """Noise on what doesn't leave, or on what its classifier can't learn from, is a mistake."""
    asked = {
        "encoding-noise-epsilon": config.encoding_noise_epsilon,
        "label-epsilon": config.label_epsilon,
    }
    for key, value in asked.items():
        if value and not config.shares_encodings:
            raise ValueError(
                f'{key} = {value:g} needs share = "encodings" or "updates+encodings"; '
                'with "updates" no encodings or labels leave a hospital'
            )
    if config.encoding_noise_epsilon and config.classifier != "lr":
        raise ValueError(
            f'classifier = "{config.classifier}" can\'t learn from noised encodings, vectors of '
            'projection-size numbers; use "lr"'
        )


def _check_adversary(config: RunConfig) -> None:
    """An adversary that is nobody, or that acts on what doesn't leave or isn't learned from, is a mistake."""
    behaviour, listed = config.adversary, config.adversary_hospitals
    numbers = [number.strip() for number in listed.split(",")]
    plain = all(number.isascii() and number.isdigit() for number in numbers)
    if listed and not (plain and len(set(map(int, numbers))) == len(numbers)):
        raise ValueError(
            f'adversary-hospitals = {listed!r}: must be different hospital numbers from 0, such as "0,3"'
        )
    if behaviour == "none" and listed:
        raise ValueError(
            f"adversary-hospitals = {listed!r} needs an adversary that says what they do, such as label-flip"
        )
    if behaviour == "none":
        return
    if not listed:
        raise ValueError(
            f'adversary = "{behaviour}" needs adversary-hospitals, the numbers of those who do it: "0,3"'
        )
    on_labels = behaviour in ("label-flip", "backdoor")
    if on_labels and not config.learns_labels and not config.shares_encodings:
        raise ValueError(
            f'adversary = "{behaviour}" changes labels, which play no role with objective = '
            f'"{config.objective}" and share = "updates"; use objective = "task", or a share with encodings'
        )
    if not on_labels and not config.shares_updates:
        raise ValueError(
            f'adversary = "{behaviour}" changes encoder updates, and with share = "encodings" none leaves a '
            'hospital; use "updates" or "updates+encodings"'
        )
    if behaviour == "free-rider" and config.diagnostics:
        raise ValueError(
            'adversary = "free-rider" trains nothing and has no diagnostics; use diagnostics = false'
        )


def _refuse_unbuilt(config: RunConfig) -> None:
    """Refuse by value what later work adds, rather than ignore it."""
    unbuilt = {
        "checkpoint-every": (config.checkpoint_every, 0),
    }
    for key, (value, only) in unbuilt.items():
        if value != only:
            raise ValueError(f"{key} = {value!r} is not built yet; only {only!r} works")


def _one_line(error: ErrorDetails) -> str:
    """A pydantic error as `key = value: what would be right`."""
    if not error["loc"]:
        return str(error["ctx"]["error"])
    key = _kebab(str(error["loc"][0]))
    value = error["input"]
    field = RunConfig.model_fields[key.replace("-", "_")]
    if error["type"] == "literal_error":
        choices = get_args(field.annotation)
        valid = ", ".join(repr(choice) for choice in choices)
        return f"{key} = {value!r} is unknown; valid: {valid}"
    wanted = error["msg"].removeprefix("Input should be ")
    return f"{key} = {value!r}: must be {wanted}"


def read_simulation(path: Path) -> dict[str, Any]:
    """The `[tool.flwr.app.config]` table of a simulation's `pyproject.toml`.

    Raises:
        UserError: the file is missing, is no TOML, or has no such table.
    """
    file = path / "pyproject.toml"
    try:
        table = tomllib.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path} is no simulation: it has no pyproject.toml") from None
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"{file} is not valid TOML: {error}") from None
    try:
        values: dict[str, Any] = table["tool"]["flwr"]["app"]["config"]
    except KeyError:
        raise UserError(f"{file} has no [tool.flwr.app.config] table") from None
    return values
