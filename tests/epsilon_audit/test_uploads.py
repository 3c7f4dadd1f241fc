"""The audit of encodings and labels: an honest upload holds, faults are refuted."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from fl_ppae.config import RunConfig
from fl_ppae.epsilon_audit.uploads import Uploaded, audit_encodings, audit_labels, upload_canaries
from fl_ppae.epsilon_audit.verdicts import CONSISTENT, REFUTED
from fl_ppae.hospital import release

Small = Callable[..., RunConfig]
NOISED = {
    "share": "encodings",
    "encoding_noise_epsilon": 4.0,
    "label_epsilon": 2.0,
    "projection_size": 3,
    "target_delta": 1e-5,
}


def uploads(config: RunConfig, count: int = 1, canaries: int = 4000) -> list[Uploaded]:
    return [upload_canaries(config, 0, 1, canaries, number) for number in range(count)]


@pytest.mark.parametrize("share", ["encodings", "updates+encodings"])
def test_canaries_are_opposite_vectors_at_the_full_clipping_norm(
    share: str, small: Small, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(release, "noised", lambda rows, _noise, _stream: rows.astype(np.float32))
    (bare,) = uploads(small(**{**NOISED, "share": share}), canaries=200)
    assert 60 < bare.white.sum() < 140
    assert np.sign(bare.along).tolist() == np.where(bare.white, 1, -1).tolist()
    assert np.abs(bare.along) == pytest.approx(1, abs=2e-5)


def test_an_honest_upload_is_consistent(small: Small) -> None:
    made = uploads(small(**NOISED), count=3)
    encodings = audit_encodings(made, 0.95, 1e-5)
    assert encodings.verdict == CONSISTENT
    assert encodings.claimed == pytest.approx(4, rel=0.01)
    assert 0.5 * encodings.claimed < encodings.lower_bound < encodings.claimed
    labels = audit_labels(made[0], 0.95, seed=1)
    assert labels.verdict == CONSISTENT
    assert labels.claimed == 2.0
    assert 0.75 * labels.claimed < labels.lower_bound < labels.claimed


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("less noise", lambda rows, noise, stream: release_noised(rows, noise / 2, stream)),
        ("twice the norm", lambda rows, noise, stream: release_noised(2 * rows, noise, stream)),
    ],
)
def test_faulty_noise_on_encodings_is_refuted(
    name: str, fault: Any, small: Small, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(release, "noised", fault)
    assert audit_encodings(uploads(small(**NOISED), count=3), 0.95, 1e-5).verdict == REFUTED, name


release_noised = release.noised


def test_labels_that_are_kept_too_often_are_refuted(small: Small, monkeypatch: pytest.MonkeyPatch) -> None:
    real = release.randomised_response
    monkeypatch.setattr(
        release, "randomised_response", lambda labels, _epsilon, *others: real(labels, 2.5, *others)
    )
    (made,) = uploads(small(**NOISED))
    assert audit_labels(made, 0.95, seed=1).verdict == REFUTED


def test_a_true_claim_about_labels_is_refuted_at_most_as_often_as_the_confidence_says(small: Small) -> None:
    (made,) = uploads(small(**NOISED), canaries=100)
    rng = np.random.default_rng(0)
    keep = np.expm1(2.0) / (np.expm1(2.0) + 10)

    def once() -> bool:
        white = rng.random(500) < 0.5
        labels = np.where(rng.random(500) < keep, white, rng.integers(0, 10, 500))
        return audit_labels(Uploaded(white, made.along, labels, made.events), 0.9, 1).lower_bound > 2

    assert sum(once() for _ in range(300)) <= 52  # of an expected 30 at most: probability 1e-4
