"""The audit's seam: inert without an audit, out of reach of messages, and in the path of every step."""

import re
import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from support import records_of
from torch import Tensor

import fl_ppae
from fl_ppae.hospital.training import TrainingTerms, train_round
from fl_ppae.hospital.watch import Watch, current_watch, watched
from fl_ppae.keys import Keys
from fl_ppae.models.autoencoders import build_autoencoder
from fl_ppae.models.objectives import OBJECTIVES, LocalModel
from fl_ppae.privacy.per_sample import Dense
from fl_ppae.privacy.randomness import streams
from fl_ppae.privacy.scopes import SCOPES

TERMS = TrainingTerms(SCOPES["autoencoder"], OBJECTIVES["reconstruction"], 1.0, 1e-3, 0.5, 3, 1e-3)
RECORDS = records_of(
    np.random.default_rng(0).integers(0, 255, (40, 28, 28, 1)).astype(np.uint8), np.arange(40) % 10
)


def model_of() -> LocalModel:
    autoencoder = build_autoencoder("fc", 16, (1, 28, 28), seed=1)
    return LocalModel(autoencoder.encoder, autoencoder.decoder)


class Seen:
    """A watch that adds `canary` for each canary drawn, and keeps what it sees."""

    def __init__(self, slots: int, length: float = 0.0) -> None:
        self.sums: list[list[Tensor]] = []
        self.released: list[list[Tensor]] = []
        self.drawn: list[np.ndarray] = []
        self.length = length
        self.watch = Watch(slots, self.gradients, self.observe)

    def gradients(self, drawn: np.ndarray) -> list[Dense]:
        self.drawn.append(drawn)
        rows = []
        for parameter in model_of().parameters():
            values = torch.zeros(len(drawn), *parameter.shape)
            values.flatten(1)[:, 0] = self.length
            rows.append(Dense(values))
        return rows

    def observe(self, sums: Sequence[Tensor], released: Sequence[Tensor]) -> None:
        self.sums.append([part.clone() for part in sums])
        self.released.append([part.clone() for part in released])


def trained(seen: Seen | None) -> dict[str, Tensor]:
    model = model_of()
    if seen is None:
        train_round(model, RECORDS, TERMS, streams(1, 0, 1))
    else:
        with watched(seen.watch):
            train_round(model, RECORDS, TERMS, streams(1, 0, 1))
    return model.state_dict()


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return all(torch.equal(one[name], other[name]) for name in one)


def test_watching_alone_changes_no_bit() -> None:
    assert same(trained(None), trained(Seen(0)))
    assert not same(trained(None), trained(Seen(30, length=1.0)))


def test_what_is_seen_is_what_the_step_is_made_of() -> None:
    seen = Seen(0)
    trained(seen)
    assert len(seen.sums) == len(seen.released) == TERMS.steps
    noise = torch.cat(
        [
            (r - s).flatten()
            for step in zip(seen.sums, seen.released, strict=True)
            for s, r in zip(*step, strict=True)
        ]
    )
    assert float(noise.std()) == pytest.approx(1e-3, rel=0.02)


def test_canaries_are_drawn_like_records_and_clipped_like_them() -> None:
    """Half of 400 slots, each with one clipping norm on top of what records add."""
    seen, without = Seen(400, length=50.0), Seen(400)
    trained(seen)
    trained(without)
    for drawn in seen.drawn:
        assert abs(len(drawn) - 200) < 6 * 100**0.5
        assert 0 <= drawn.min() <= drawn.max() < 400
    added = torch.stack(
        [(a.flatten()[0] - b.flatten()[0]) for a, b in zip(seen.sums[0], without.sums[0], strict=True)]
    )
    assert float(added.norm()) <= len(seen.drawn[0]) * TERMS.max_grad_norm
    assert float(added.norm()) > 0.9999 * len(seen.drawn[0]) * TERMS.max_grad_norm


def test_a_watch_ends_with_its_block_and_is_unseen_by_other_threads() -> None:
    elsewhere: list[Watch | None] = []
    with watched(Seen(1).watch):
        assert current_watch() is not None
        thread = threading.Thread(target=lambda: elsewhere.append(current_watch()))
        thread.start()
        thread.join()
    assert elsewhere == [None]
    assert current_watch() is None


def test_only_the_audit_sets_a_watch_and_no_key_names_one() -> None:
    package = Path(fl_ppae.__file__).parent
    users = {
        path.relative_to(package).parts[0]
        for path in package.rglob("*.py")
        if re.search(r"\bwatched\(", path.read_text(encoding="utf-8"))
    }
    assert users == {"hospital", "epsilon_audit"}
    assert (package / "hospital" / "watch.py").read_text(encoding="utf-8").count("_watch.set(") == 1
    assert not [name for name in Keys.model_fields if "watch" in name or "canar" in name]
