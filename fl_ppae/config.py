"""One run's configuration: the keys of `keys`, checked to fit together, in one frozen object."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Self, get_args
from urllib.parse import urlsplit

from pydantic import ValidationError, model_validator
from pydantic_core import ErrorDetails

from fl_ppae.declared import DECLARING_KEYS, OWN_DATA, Declared, declared
from fl_ppae.errors import UserError, did_you_mean
from fl_ppae.keys import Keys, kebab
from fl_ppae.protection import check_protection, shares_head

Scalar = bool | int | float | str
MIN_NOISE_MULTIPLIER = 0.2  # below it, a few steps cost more than epsilon 100 and PLD takes minutes
MIN_LABEL_EPSILON = 1e-6  # below it, float64 can't hold the weights that undo the randomisation of labels

RANDOM, PUBLIC = "random", "public"  # values of start that are not paths
MIN_SAMPLE_RATE = 1e-5  # a pass then takes 100,000 steps


class RunConfig(Keys):
    """One run, resolved. Build it with `RunConfig.from_flat`, which reports mistakes as `UserError`."""

    @model_validator(mode="after")
    def _values_fit_together(self) -> Self:
        _check_own_data(self)
        if self.data_source == "file" and not self.data_file:
            raise ValueError('data-source = "file" needs data-file, the path of an .npz file')
        if self.data_source != "file" and self.data_file:
            raise ValueError(f'data-file is only read with data-source = "file", not "{self.data_source}"')
        if 0 < self.noise_multiplier < MIN_NOISE_MULTIPLIER:
            raise ValueError(
                f"noise-multiplier = {self.noise_multiplier:g}: must be 0 (calibrated to target-epsilon) or "
                f'at least {MIN_NOISE_MULTIPLIER}; for no noise at all use dp-scope = "none"'
            )
        if 0 < self.sample_rate < MIN_SAMPLE_RATE:
            raise ValueError(
                f"sample-rate = {self.sample_rate:g}: must be 0 (each hospital's own, from batch-size) or at "
                f"least {MIN_SAMPLE_RATE:g}"
            )
        if "@" in urlsplit(self.mlflow_tracking_uri).netloc:
            raise ValueError(
                "mlflow-tracking-uri holds a user name or password, and every key is written to config.json; "
                "use MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
            )
        _check_noised_upload(self)
        _check_adversary(self)
        _check_what_learns(self)
        check_protection(self)
        if self.aggregation != "average" and not self.shares_updates:
            raise ValueError(
                f'aggregation = "{self.aggregation}" combines encoder updates, but with share = "encodings" '
                'none leaves a hospital; use "average"'
            )
        if self.resume and self.output_dir:
            raise ValueError("output-dir is that of the run to resume; leave it empty")
        return self

    @classmethod
    def from_flat(cls, values: Mapping[str, object]) -> Self:
        """Check kebab-case `values`; missing keys take their defaults.

        Raises:
            UserError: one line naming the first wrong key or value and what would be right.
        """
        known = [kebab(name) for name in cls.model_fields]
        for key in values:
            if key not in known:
                raise UserError(f"unknown key {key!r}{did_you_mean(key, known)}")
        if values.get("dataset") == OWN_DATA and values.get("data-source", "auto") == "auto":
            values = {**values, "data-source": "file"}  # nobody publishes it
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

    def adversary_numbers(self) -> tuple[int, ...]:
        """The numbers in adversary-hospitals."""
        return tuple(int(number) for number in self.adversary_hospitals.split(",") if number.strip())

    def to_flat(self) -> dict[str, Scalar]:
        """Every key, kebab-case and resolved, as `config.json` and `flwr run` take them."""
        return self.model_dump(by_alias=True)

    def lasting(self) -> dict[str, Scalar]:
        """Every key that stays the same when a run is interrupted and resumed."""
        return {key: value for key, value in self.to_flat().items() if key not in ("resume", "output-dir")}


def shared_artefacts(share: str) -> tuple[str, ...]:
    """What this value of the key `share` lets leave a hospital: "updates", "encodings" or both."""
    return tuple(share.split("+"))


def declared_in(config: RunConfig) -> Declared:
    """What the configuration declares of a user's own images.

    Raises:
        UserError: a value can't be read, or contradicts another.
    """
    return declared(
        config.image_shape, config.class_names, config.intensity_range, config.resize, config.max_unreadable
    )


def _check_own_data(config: RunConfig) -> None:
    """Refuse keys of a user's own images with another data set, and their wrong values."""
    if config.dataset == OWN_DATA:
        if config.data_source != "file":
            raise ValueError(
                f'dataset = "{OWN_DATA}" is your own data-file; data-source must be "file", '
                f'not "{config.data_source}"'
            )
        if config.image_size:
            raise ValueError(
                f"image-size = {config.image_size} is for published data sets; with dataset = "
                f'"{OWN_DATA}", use resize'
            )
        if not config.data_file:
            raise ValueError(
                f'dataset = "{OWN_DATA}" needs data-file, the path of an .npz, a folder or a manifest'
            )
        declared_in(config)
        return
    for key in (*DECLARING_KEYS, "any-way-up"):
        if value := getattr(config, key.replace("-", "_")):
            raise ValueError(f'{key} = {value!r} is only used with dataset = "{OWN_DATA}"')
    if config.partition == "natural":
        raise ValueError(
            f'partition = "natural" needs dataset = "{OWN_DATA}" and a manifest with the column hospital'
        )


def _check_noised_upload(config: RunConfig) -> None:
    """Refuse noise on what is not shared, or what the classifier can't learn from."""
    asked = {
        "encoding-noise-epsilon": config.encoding_noise_epsilon,
        "label-epsilon": config.label_epsilon,
    }
    for key, value in asked.items():
        if value and not config.shares_encodings:
            raise ValueError(
                f'{key} = {value:g} needs share = "encodings" or "updates+encodings"; '
                'with "updates", no encodings or labels leave a hospital'
            )
    if 0 < config.label_epsilon < MIN_LABEL_EPSILON:
        raise ValueError(
            f"label-epsilon = {config.label_epsilon:g}: must be 0 (labels are shared in the clear) or at "
            f"least {MIN_LABEL_EPSILON:g}; with less, nothing can be learned from the labels"
        )
    if config.encoding_noise_epsilon and config.encoding_bits:
        raise ValueError(
            f"encoding-bits = {config.encoding_bits} rounds plain encodings; with encoding-noise-epsilon "
            "they leave as noised floats: set one of the two to 0"
        )
    if config.encoding_noise_epsilon and config.classifier != "lr":
        raise ValueError(
            f'classifier = "{config.classifier}" can\'t learn from noised encodings, which are '
            'vectors of projection-size numbers; use "lr"'
        )


def _check_what_learns(config: RunConfig) -> None:
    """Refuse to train a head that is not shared, or to start from images that the server does not have."""
    if config.trains == "head" and not shares_head(config):
        raise ValueError(
            'trains = "head" trains the head that the server learns too: it needs local-steps = 1, '
            'objective = "task" and dp-scope = "autoencoder"'
        )
    if config.trains == "head" and config.augmentations:
        raise ValueError(
            f'augmentations = {config.augmentations} with trains = "head": a record is encoded once, as '
            "it is; use 0"
        )
    if config.autoencoder == "scatter" and config.trains != "head":
        raise ValueError(
            f'autoencoder = "scatter" has nothing to learn, so trains = "{config.trains}" can\'t be done; '
            'use trains = "head"'
        )
    if config.encoder and config.autoencoder != "conv":
        raise ValueError(
            f'encoder = "{config.encoder}" takes the place of autoencoder = "{config.autoencoder}"; leave '
            'autoencoder at "conv"'
        )
    if config.encoder and config.trains == "last":
        raise ValueError(
            f'trains = "last" with encoder = "{config.encoder}": which layer is its last is not known; '
            'use "all"'
        )
    if config.start == PUBLIC and not config.public_records:
        raise ValueError(
            'start = "public" needs labelled images at the server, but public-records = 0; '
            'use "random", or a file that "fl-ppae make-start" made from another data set'
        )


def _check_adversary(config: RunConfig) -> None:
    """Refuse an adversary with no hospitals, or one that changes what is not shared."""
    behaviour, listed = config.adversary, config.adversary_hospitals
    numbers = [number.strip() for number in listed.split(",")]
    plain = all(number.isascii() and number.isdigit() for number in numbers)
    if listed and not (plain and len(set(map(int, numbers))) == len(numbers)):
        raise ValueError(
            f'adversary-hospitals = {listed!r}: must be distinct hospital numbers from 0, such as "0,3"'
        )
    if behaviour == "none" and listed:
        raise ValueError(
            f"adversary-hospitals = {listed!r} needs adversary, their behaviour, such as label-flip"
        )
    if behaviour == "none":
        return
    if not listed:
        raise ValueError(
            f'adversary = "{behaviour}" needs adversary-hospitals, the numbers of the hospitals that '
            'misbehave, such as "0,3"'
        )
    if behaviour not in ("label-flip", "backdoor") and not config.shares_updates:
        raise ValueError(
            f'adversary = "{behaviour}" changes encoder updates, but with share = "encodings" none leaves a '
            'hospital; use "updates" or "updates+encodings"'
        )
    if behaviour == "free-rider" and config.diagnostics:
        raise ValueError(
            'adversary = "free-rider" trains nothing and has no diagnostics; use diagnostics = false'
        )


def _one_line(error: ErrorDetails) -> str:
    """A pydantic error as `key = value: what would be right`."""
    if not error["loc"]:
        return str(error["ctx"]["error"])
    key = kebab(str(error["loc"][0]))
    value = error["input"]
    field = RunConfig.model_fields[key.replace("-", "_")]
    if error["type"] == "string_pattern_mismatch":
        return f"{key} = {value!r}: must be package.module:function"
    if error["type"] == "literal_error":
        choices = get_args(field.annotation)
        valid = ", ".join(repr(choice) for choice in choices)
        return f"{key} = {value!r} is unknown; valid: {valid}"
    if isinstance(value, float) and math.isnan(value):
        return f"{key} = nan: must be a number"
    wanted = error["msg"].removeprefix("Input should be ")
    return f"{key} = {value!r}: must be {wanted}"
