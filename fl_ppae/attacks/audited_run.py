"""A finished run, opened for attacks: its data and partition rebuilt, its encoders and uploads loaded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors.torch import load_file
from torch import nn

from fl_ppae.adversary import held_by
from fl_ppae.attacks.noised_release import NoisedRelease, noised_release
from fl_ppae.config import RunConfig
from fl_ppae.data.cache import Dataset
from fl_ppae.data.deal import Deal, make_deal
from fl_ppae.data.records import Records
from fl_ppae.data.registry import DATASETS
from fl_ppae.data.sources import resolve
from fl_ppae.errors import UserError
from fl_ppae.models.build import autoencoder_of
from fl_ppae.runs.stored import StoredRun
from fl_ppae.server.classification import FittedClassifier, restore_classifier


@dataclass(frozen=True)
class Effort:
    """How much work an audit does.

    Attributes:
        victims: images attacked at most.
        pairs: pairs that an attacker holds at most.
        network_steps: of a trained attacker.
        gradient_steps: of one that follows gradients.
        queries: to the classifier, at most.
        origins: encodings of each hospital, for telling hospitals apart.
        shadows: shadow models that a membership attack compares with; even. 0: it trains no models of its
            own, not even those without defence.
        update_rounds: rounds whose updates are attacked, at most.
        simulated: hospitals that property inference learns from.
        searches: steps of a search for images by their gradient.
    """

    victims: int
    pairs: int
    network_steps: int
    gradient_steps: int
    queries: int
    origins: int
    shadows: int = 0
    update_rounds: int = 1
    simulated: int = 12
    searches: int = 60


FULL = Effort(1000, 3000, 800, 200, 3000, 600, shadows=4, update_rounds=5, simulated=60, searches=600)
QUICK = Effort(300, 1000, 100, 20, 1000, 100)


@dataclass(frozen=True, eq=False)
class AuditedRun:
    """A run with everything that its attackers may need.

    Attributes:
        deal: who holds which records, in a simulation; None if hospitals were deployed.
        encoder: the common one; None where every hospital kept its own.
        initial_encoder: the random one from which all started.
        classifier: the central one, of encodings; None if the run left none.
        release: what was done to encodings before they left; None if they left plain, or not at all.
        say: tells the user what is going on.
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
        """The hospitals' names, in order; where encodings are shared, of those that uploaded theirs.

        None if the hospitals were deployed: their records are not here.
        """
        if self.deal is None:
            return ()
        if not self.config.shares_encodings:
            return tuple(self.deal.train)
        return tuple(name for name in self.deal.train if self.uploaded(name) is not None)

    def records(self, hospital: str) -> Records:
        """The train records that a hospital used: of an adversary that poisons data, what it made of them."""
        assert self.deal is not None
        return held_by(self.deal.train[hospital], self.config, list(self.deal.train).index(hospital))

    def uploaded(self, hospital: str) -> np.ndarray | None:
        """The encodings (N, *encoding) of its train part that a hospital released; None if it didn't."""
        (path, *_) = [*(self.path / "hospitals" / hospital).glob("released-*-train.npy"), None]
        if path is None:
            return None
        encodings: np.ndarray = np.load(path, mmap_mode="r", allow_pickle=False)
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
        say: told what is going on.
        data_file: where the run's data file is now, if not where it was.

    Raises:
        UserError: the run did not complete, its data is gone or is not the data it was made from.
    """
    status = stored.summary.get("status")
    if status != "completed":
        raise UserError(f"{stored.name} has status {status!r}; only a completed run can be audited")
    source = stored.config.get("data_source") or {}
    if "md5" not in source or "records" not in stored.config:
        raise UserError(f"{stored.path / 'config.json'} does not say which data the run used")
    changes = {"data-source": source["kind"]}
    if data_file:
        if source["kind"] != "file":
            raise UserError(f"--data-file: the run used {source['label']}, not a file of one's own")
        changes["data-file"] = data_file
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
        frozen(autoencoder_of(config).encoder),
        _load_classifier(config, stored.path / "classifier.safetensors"),
        noised_release(config, stored.path),
        effort,
        say,
    )


def _check_deal(deal: Deal, stored: StoredRun) -> None:
    """The rebuilt partition must be the run's: its hospitals kept theirs."""
    for name, records in deal.train.items():
        dealt = stored.path / "hospitals" / name / "train_records.npy"
        if not dealt.exists() or not np.array_equal(np.load(dealt, allow_pickle=False), records.indices):
            raise UserError(f"{dealt} is not what the run's configuration deals to {name}")


def _load_encoder(config: RunConfig, path: Path) -> nn.Module | None:
    if not path.exists():
        return None
    encoder = autoencoder_of(config).encoder
    try:
        encoder.load_state_dict(load_file(path))
    except RuntimeError:
        raise UserError(f"{path} is not an encoder of autoencoder = {config.autoencoder}") from None
    return frozen(encoder)


def _load_classifier(config: RunConfig, path: Path) -> FittedClassifier | None:
    if not path.exists():
        return None
    classes = DATASETS[config.dataset].num_classes
    try:
        return restore_classifier(config.classifier, load_file(path), classes)
    except (RuntimeError, KeyError):
        raise UserError(f"{path} is not a classifier = {config.classifier}") from None


def frozen(encoder: nn.Module) -> nn.Module:
    """For use, not for training."""
    return encoder.eval().requires_grad_(False)
