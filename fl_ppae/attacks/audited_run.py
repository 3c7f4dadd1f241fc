"""A finished run, opened for attacks: its data and partition rebuilt, its encoders and uploads loaded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from fl_ppae.adversary import used_records
from fl_ppae.attacks.noised_release import NoisedRelease, noised_release
from fl_ppae.config import RunConfig
from fl_ppae.data.cache import Dataset
from fl_ppae.data.deal import Deal, make_deal
from fl_ppae.data.records import Records
from fl_ppae.data.registry import spec_of
from fl_ppae.data.sources import resolve
from fl_ppae.errors import UserError
from fl_ppae.hospital.simulated import directory_of, in_dealt_order, knows_order
from fl_ppae.models.build import autoencoder_of, local_model_of, released_format_of
from fl_ppae.models.views import viewed
from fl_ppae.paths import path_of, path_text
from fl_ppae.privacy.events import TRAIN_PART
from fl_ppae.runs.arrays import read_array, read_tensors
from fl_ppae.runs.stored import StoredRun
from fl_ppae.server.classification import FittedClassifier, restore_classifier
from fl_ppae.server.start_file import START_FILE, load_start


@dataclass(frozen=True)
class Effort:
    """How much work an audit does.

    Attributes:
        victims: images attacked, at most.
        pairs: pairs that an attacker holds, at most.
        network_steps: training steps of a network.
        gradient_steps: steps of gradient descent through the encoder.
        queries: queries to the classifier, at most.
        origins: encodings per hospital, for telling hospitals apart.
        shadows: shadow models of a membership attack, at most; an even number. 0: the attack trains no
            models, not even undefended ones.
        shadow_passes: records that all shadows of an attack may train on, each counted as often as it is
            used; 200,000 take about 3 minutes with DP, on a core. If that is not enough, the attack trains
            fewer shadows, but at least 4.
        update_rounds: rounds whose updates are attacked, at most.
        simulated: simulated hospitals that property inference learns from.
        searches: optimisation steps of gradient inversion.
        losses: what convolutional inverters are trained for, one each.
    """

    victims: int
    pairs: int
    network_steps: int
    gradient_steps: int
    queries: int
    origins: int
    shadows: int = 0
    shadow_passes: int = 200_000
    update_rounds: int = 1
    simulated: int = 12
    searches: int = 60
    losses: tuple[str, ...] = ("L1",)


FULL = Effort(
    1000,
    3000,
    800,
    200,
    3000,
    600,
    shadows=64,
    update_rounds=5,
    simulated=60,
    searches=600,
    losses=("L1", "MSE", "SSIM"),
)
QUICK = Effort(300, 1000, 100, 20, 1000, 100)


@dataclass(frozen=True, eq=False)
class AuditedRun:
    """A run with everything that its attackers may need.

    Attributes:
        deal: which hospital holds which records, in a simulation; None if hospitals were deployed.
        encoder: the common encoder; None if every hospital kept its own.
        initial_encoder: the one that all hospitals started from.
        classifier: the central classifier of encodings; None if the run left none.
        release: how encodings were noised before they left; None if they left plain, or not at all.
        say: reports progress to the user.
    """

    stored: StoredRun
    config: RunConfig
    dataset: Dataset
    deal: Deal | None
    encoder: nn.Module | None
    initial_encoder: nn.Module
    classifier: FittedClassifier | None
    release: NoisedRelease | None
    effort: Effort
    say: Callable[[str], None]

    @property
    def path(self) -> Path:
        """The run's directory."""
        return self.stored.path

    @property
    def hospitals(self) -> tuple[str, ...]:
        """The hospitals' names, in order; if encodings are shared, of those whose uploads can be paired.

        Empty if the hospitals were deployed: their records are not here.
        """
        if self.deal is None:
            return ()
        if not self.config.shares_encodings:
            return tuple(self.deal.train)
        known = [name for name in self.deal.train if knows_order(name, TRAIN_PART, self.path)]
        return tuple(name for name in known if self.uploads(name))

    def uploads(self, hospital: str, part: str = TRAIN_PART) -> tuple[Path, ...]:
        """The files of what a hospital released of a part: one, or none."""
        return tuple(directory_of(self.path, hospital).glob(f"released-*-{part}.npy"))

    def records(self, hospital: str) -> Records:
        """The train records that a hospital used; those of an adversary that poisons data are poisoned."""
        assert self.deal is not None
        return used_records(self.deal.train[hospital], self.config, list(self.deal.train).index(hospital))

    def uploaded(self, hospital: str, part: str = TRAIN_PART) -> np.ndarray | None:
        """The encodings (N, *encoding) that a hospital released of a part; None if there are none.

        In the order of the records, which the simulation left in `audit-only/`: an attacker does not have it,
        but without it no attack could be scored.

        Raises:
            UserError: the order is missing, or an encoding is not finite.
        """
        if not (paths := self.uploads(hospital, part)):
            return None
        (path,) = paths
        sent = in_dealt_order(read_array(path), hospital, part, self.path)
        try:
            encodings = released_format_of(self.config).unpacked(sent)
        except (ValueError, TypeError):
            raise UserError(f"{path} does not hold encodings of this run") from None
        if not np.isfinite(encodings).all():
            raise UserError(f"{path} holds numbers that are not finite: nothing can be measured on them")
        return encodings

    def own_encoder(self, hospital: str) -> nn.Module | None:
        """The encoder that never left this hospital, from `audit-only/`; None if there is none."""
        return _load_encoder(self.config, self.path / "audit-only" / f"{hospital}.safetensors")


def open_for_audit(
    stored: StoredRun, effort: Effort, say: Callable[[str], None], data_file: str = ""
) -> AuditedRun:
    """Rebuild what a completed run was made from, and load what it left.

    Args:
        stored: the run.
        effort: how much work its attacks may do.
        say: receives progress messages.
        data_file: where the run's data file is now, if it has moved.

    Raises:
        UserError: the run did not complete, or its data is missing or has changed.
    """
    if stored.state != "completed":
        raise UserError(f"{stored.name} has status {stored.state!r}; only a completed run can be audited")
    source = stored.config.get("data_source") or {}
    if "md5" not in source or "records" not in stored.config:
        raise UserError(f"{stored.path / 'config.json'} does not say which data the run used")
    changes = {"data-source": source["kind"]}
    if data_file:
        if source["kind"] != "file":
            raise UserError(f"--data-file: the run used {source['label']}, not a data file")
        changes["data-file"] = path_text(path_of(data_file, "--data-file"))
    config = RunConfig.from_flat({**stored.values, **changes})
    say("data")
    dataset = resolve(config)
    if dataset.source.md5 != source["md5"]:
        raise UserError(
            f"the data has changed: the run used {source['label']} with MD5 {source['md5']}, "
            f"now it has {dataset.source.md5}"
        )
    deal = None
    if not stored.config.get("deployed"):
        deal = make_deal(dataset, config, list(stored.config["records"]))
        _check_deal(deal, stored)
    return load_artefacts(stored, config, dataset, deal, effort, say)


def load_artefacts(
    stored: StoredRun,
    config: RunConfig,
    dataset: Dataset,
    deal: Deal | None,
    effort: Effort,
    say: Callable[[str], None],
) -> AuditedRun:
    """A completed run whose data is at hand, with everything that it left.

    Raises:
        UserError: an artefact does not fit the run's configuration.
    """
    return AuditedRun(
        stored,
        config,
        dataset,
        deal,
        _load_encoder(config, stored.path / "encoder.safetensors"),
        frozen(viewed(_start(config, stored.path / START_FILE), config.views)),
        _load_classifier(config, stored.path / "classifier.safetensors"),
        noised_release(config, stored.path),
        effort,
        say,
    )


def _check_deal(deal: Deal, stored: StoredRun) -> None:
    """The rebuilt partition must match the record indices that the hospitals saved."""
    for name, records in deal.train.items():
        dealt = stored.path / "hospitals" / name / "train_records.npy"
        if not np.array_equal(read_array(dealt), records.indices):
            raise UserError(f"{dealt} is not what the run's configuration deals to {name}")


def _load_encoder(config: RunConfig, path: Path) -> nn.Module | None:
    if not path.exists():
        return None
    encoder = autoencoder_of(config).encoder
    try:
        encoder.load_state_dict(_weights(path))
    except RuntimeError:
        raise UserError(f"{path} is not an encoder of autoencoder = {config.autoencoder}") from None
    return frozen(viewed(encoder, config.views))


def _start(config: RunConfig, path: Path) -> nn.Module:
    """The encoder that all hospitals started from."""
    model = local_model_of(config)
    if path.exists():
        load_start(path, model)
    return model.encoder


def _load_classifier(config: RunConfig, path: Path) -> FittedClassifier | None:
    if not path.exists():
        return None
    classes = spec_of(config).num_classes
    try:
        return restore_classifier(config.classifier, _weights(path), classes)
    except (RuntimeError, KeyError):
        raise UserError(f"{path} is not a classifier = {config.classifier}") from None


def _weights(path: Path) -> dict[str, Tensor]:
    tensors = read_tensors(path)
    if not all(torch.isfinite(tensor).all() for tensor in tensors.values()):
        raise UserError(f"{path} holds numbers that are not finite: no attack on it would mean anything")
    return tensors


def frozen(encoder: nn.Module) -> nn.Module:
    """The encoder in evaluation mode, without gradients of its own."""
    return encoder.eval().requires_grad_(False)
