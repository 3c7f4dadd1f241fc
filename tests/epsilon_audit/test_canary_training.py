"""The audit of a hospital's real training: what it catches and what it leaves alone."""

from collections.abc import Callable
from typing import Any

import pytest
from epsilon_audit.canary_runs import CALIBRATED, Small, audit, scale_noise
from support import REAL_DATA, real_data

from fl_ppae.catalogue import find
from fl_ppae.epsilon_audit.bounds import Bound
from fl_ppae.hospital import training
from fl_ppae.privacy.clipping import ClippedSum, clipped_sum

BLOOD = REAL_DATA / "bloodmnist.npz"


def switch_clipping_off(monkeypatch: pytest.MonkeyPatch) -> None:
    def unclipped(grads: Any, max_grad_norm: float) -> ClippedSum:
        return clipped_sum(grads, 1e6)

    monkeypatch.setattr(training, "clipped_sum", unclipped)


@pytest.mark.parametrize("scope", ["autoencoder", "frozen-decoder", "encoder"])
@pytest.mark.parametrize("epsilon", [1.0, 8.0])
def test_an_honest_training_is_not_refuted(small: Small, scope: str, epsilon: float) -> None:
    bound, claim = audit(small(**CALIBRATED, dp_scope=scope, target_epsilon=epsilon))
    assert claim == pytest.approx(epsilon, rel=0.01)
    assert bound.epsilon < claim


@pytest.mark.parametrize("scope", ["autoencoder", "frozen-decoder"])
def test_noise_switched_off_is_caught(small: Small, scope: str, monkeypatch: pytest.MonkeyPatch) -> None:
    scale_noise(monkeypatch, 0.0)
    bound, claim = audit(small(**CALIBRATED, dp_scope=scope, target_epsilon=1.0))
    assert bound.epsilon > 1.0 >= claim


def test_noise_at_a_tenth_is_caught(small: Small, monkeypatch: pytest.MonkeyPatch) -> None:
    scale_noise(monkeypatch, 0.1)
    bound, claim = audit(small(**CALIBRATED, target_epsilon=1.0))
    assert bound.epsilon > claim


def test_clipping_switched_off_is_caught(small: Small, monkeypatch: pytest.MonkeyPatch) -> None:
    switch_clipping_off(monkeypatch)
    bound, claim = audit(small(**CALIBRATED, target_epsilon=1.0))
    assert bound.epsilon > claim


def test_without_dp_a_claim_is_refuted(small: Small) -> None:
    bound, _ = audit(small(**CALIBRATED, dp_scope="none"))
    assert bound.epsilon > 1.0


def test_the_same_seed_gives_the_same_bound_and_another_seed_another(small: Small) -> None:
    config = small(**CALIBRATED)
    assert audit(config) == audit(config)
    assert audit(config) != audit(small(**CALIBRATED, seed=43))


@pytest.fixture
def blood(monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[Bound, float]]:
    real_data(BLOOD.name)

    def audited(canaries: int, **changes: Any) -> tuple[Bound, float]:
        values = {"data-root": str(BLOOD.parent), "num-server-rounds": 2, "target-epsilon": 1.0}
        config = find("bloodmnist_iid").config(values | changes)
        return audit(config, canaries, hospitals=5)

    return audited


@pytest.mark.slow
@pytest.mark.parametrize("scope", ["autoencoder", "frozen-decoder"])
def test_on_real_images_the_promise_is_not_refuted_and_without_noise_it_is(
    scope: str, blood: Callable[..., tuple[Bound, float]], monkeypatch: pytest.MonkeyPatch
) -> None:
    honest, claim = blood(200, **{"dp-scope": scope})
    assert honest.epsilon < claim
    scale_noise(monkeypatch, 0.0)
    silent, claim = blood(200, **{"dp-scope": scope})
    assert silent.epsilon > 1.0 >= claim
