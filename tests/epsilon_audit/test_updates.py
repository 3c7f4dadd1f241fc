"""The audit of a hospital's real training: an honest one holds, and each planted fault is refuted."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from epsilon_audit.audited import CALIBRATED, audit, subject_of
from support import real_data
from torch import Tensor

from fl_ppae import client_app
from fl_ppae.catalogue import find
from fl_ppae.config import RunConfig
from fl_ppae.epsilon_audit.canaries import gradients, lay_out
from fl_ppae.epsilon_audit.checks import PASSED
from fl_ppae.epsilon_audit.hostile_server import hostile_server
from fl_ppae.epsilon_audit.trainings import HOSTILE, REAL, Training, hostile_weights, train_with_canaries
from fl_ppae.epsilon_audit.updates import HALF, NO_NOISE, ONE_ROUND, audit_updates, noised_shapes
from fl_ppae.epsilon_audit.verdicts import CONSISTENT, REFUTED
from fl_ppae.errors import UserError
from fl_ppae.hospital import training
from fl_ppae.hospital.watch import Watch, watched
from fl_ppae.models.build import local_model_of
from fl_ppae.privacy.clipping import ClippedSum
from fl_ppae.privacy.ledger import Ledger
from fl_ppae.privacy.randomness import Stream, Streams, seeded_stream

Small = Callable[..., RunConfig]
Patch = pytest.MonkeyPatch
SAMPLED = {"batch_size": 120}  # of 300 records

real_add, real_clip, real_batch = training.add_noise, training.clipped_sum, training.poisson_batch


def clip_each_parameter(grads: list[Any], bound: float) -> ClippedSum:
    parts = [real_clip([grad], bound) for grad in grads]
    return ClippedSum([part.total[0] for part in parts], parts[0].norms)


def do_not_clip(grads: list[Any], _bound: float) -> ClippedSum:
    return real_clip(grads, 1e6)


def clip_to_twice_the_bound(grads: list[Any], bound: float) -> ClippedSum:
    return real_clip(grads, 2 * bound)


def scaled(factor: float) -> Callable[..., list[Tensor]]:
    return lambda sums, std, stream: real_add(sums, factor * std, stream)


def noise_then_clip(sums: list[Tensor], std: float, stream: Stream) -> list[Tensor]:
    noisy = real_add(sums, std, stream)
    norm = torch.stack([part.square().sum() for part in noisy]).sum().sqrt()
    return [part * (1e-3 / norm) for part in noisy]


def noise_on_the_encoder(sums: list[Tensor], std: float, stream: Stream) -> list[Tensor]:
    half = len(sums) // 2
    return [*real_add(sums[:half], std, stream), *sums[half:]]


def noise_of_one_stream(sums: list[Tensor], std: float, _stream: Stream) -> list[Tensor]:
    return real_add(sums, std, seeded_stream("always the same"))


class FirstStepOnly:
    """Noise on every third sum: the first of each round."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, sums: list[Tensor], std: float, stream: Stream) -> list[Tensor]:
        self.calls += 1
        return real_add(sums, std, stream) if self.calls % 3 == 1 else sums


def fixed_batch(stream: Stream, records: int, rate: float) -> Any:
    return torch.from_numpy(stream.permutation(records)[: round(rate * records)]).sort().values.numpy()


def often_drawn(stream: Stream, records: int, rate: float) -> Any:
    return real_batch(stream, records, min(1.0, 1.3 * rate))


def forget_the_second_round(monkeypatch: Patch) -> None:
    real = Ledger.announce

    def announce(ledger: Ledger, *events: Any) -> Ledger:
        return ledger if events[0].round == 2 else real(ledger, *events)

    monkeypatch.setattr(Ledger, "announce", announce)


def use_noise_twice(monkeypatch: Patch) -> None:
    real = client_app.streams

    def halved(seed: int, hospital: int, draw: int) -> Streams:
        return replace(real(seed, hospital, draw), noise=real(seed, hospital, (draw + 1) // 2).noise)

    monkeypatch.setattr(client_app, "streams", halved)


def replacing(name: str, fault: Any) -> Callable[[Patch], None]:
    return lambda monkeypatch: monkeypatch.setattr(training, name, fault)


def noise_then_no_clipping_before(monkeypatch: Patch) -> None:
    monkeypatch.setattr(training, "clipped_sum", do_not_clip)
    monkeypatch.setattr(training, "add_noise", noise_then_clip)


def first_step_only(monkeypatch: Patch) -> None:
    monkeypatch.setattr(training, "add_noise", FirstStepOnly())


# Each with the tests beside the bound that name it; "bound" where the lower bound alone refutes the claim.
FAULTS: dict[str, tuple[Callable[[Patch], None], dict[str, Any], set[str]]] = {
    "each parameter clipped by itself": (replacing("clipped_sum", clip_each_parameter), {}, {"bound"}),
    "noise divided by the batch twice": (
        replacing("add_noise", scaled(1 / 300)),
        {},
        {"bound", "fresh noise"},
    ),
    "clipped after noise": (noise_then_no_clipping_before, {}, {"bound", "fresh noise"}),
    "batches of fixed size": (replacing("poisson_batch", fixed_batch), SAMPLED, {"Poisson sampling"}),
    "a forgotten round": (forget_the_second_round, {}, {"steps paid"}),
    "noise on the first step only": (first_step_only, {"local_epochs": 3}, {"bound", "fresh noise"}),
    "clipped to twice the bound": (replacing("clipped_sum", clip_to_twice_the_bound), {}, {"bound"}),
    "a higher sample rate": (replacing("poisson_batch", often_drawn), SAMPLED, {"Poisson sampling"}),
    "one noise stream for all": (replacing("add_noise", noise_of_one_stream), {}, {"fresh noise"}),
    "noise on the encoder only": (replacing("add_noise", noise_on_the_encoder), {}, {"bound", "fresh noise"}),
    "each round's noise in two rounds": (use_noise_twice, {}, {"fresh noise"}),
}


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_refuted(fault: str, small: Small, monkeypatch: Patch) -> None:
    plant, changes, expected = FAULTS[fault]
    plant(monkeypatch)
    found = audit(small(**{**CALIBRATED, **changes}))
    assert found.sums.verdict == REFUTED
    named = {name for name, outcome in found.checks.items() if outcome != PASSED}
    refuted = {"bound"} if found.sums.lower_bound > found.sums.claimed else set()
    assert expected <= named | refuted


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        {"target_epsilon": 1.0},
        {"target_epsilon": 8.0, "num_server_rounds": 15, **SAMPLED},
        {"dp_scope": "frozen-decoder", "canaries": 3000},
        {"objective": "task", "canaries": 3000},
        {"share": "encodings"},
    ],
    ids=lambda changes: " ".join(f"{value}" for value in changes.values()),
)
def test_an_honest_training_is_consistent(changes: dict[str, Any], small: Small) -> None:
    canaries = changes.pop("canaries", 6000)
    found = audit(small(**{**CALIBRATED, **changes}), canaries=canaries, trainings=5)
    assert found.sums.verdict == CONSISTENT
    assert set(found.checks.values()) == {PASSED}
    assert 0.5 * found.sums.claimed < found.sums.lower_bound < found.sums.claimed


@pytest.mark.slow
def test_a_training_without_noise_is_refuted_and_an_honest_one_is_not(
    small: Small, monkeypatch: Patch
) -> None:
    config = small(**{**CALIBRATED, "num_server_rounds": 2})
    held = audit(config, canaries=3000, trainings=2)
    assert held.sums.lower_bound < held.sums.claimed == pytest.approx(4, rel=0.01)
    assert held.weights is not None
    assert held.weights < held.sums.lower_bound < held.sums.largest_possible
    assert set(held.checks.values()) == {PASSED}
    assert held.sums.controls.keys() == {NO_NOISE, HALF, ONE_ROUND}
    monkeypatch.setattr(training, "add_noise", scaled(1e-6))
    bare = audit(config, canaries=3000, trainings=2)
    assert bare.sums.verdict == REFUTED
    assert bare.sums.lower_bound > bare.sums.claimed == held.sums.claimed
    assert bare.sums.lower_bound == pytest.approx(held.sums.controls[NO_NOISE], rel=0.1)


def trained(config: RunConfig) -> Training:
    layout = lay_out(noised_shapes(config), 100)
    return train_with_canaries(subject_of(config), config, layout, {}, 0, lambda: None)


def test_the_same_seed_trains_the_same_and_another_seed_something_else(small: Small) -> None:
    one, again, other = (trained(small(seed=seed)) for seed in (42, 42, 43))
    assert np.array_equal(one.scores[REAL], again.scores[REAL])
    assert np.array_equal(one.included, again.included)
    assert not np.array_equal(one.scores[REAL], other.scores[REAL])
    assert not np.array_equal(one.included, other.included)


def test_the_ledger_is_the_handler_s_own(small: Small) -> None:
    config = small(num_server_rounds=3)
    found = trained(config)
    plan = subject_of(config).plan
    assert found.events == tuple(plan.event(number) for number in (1, 2, 3))


def test_no_ledger_or_model_is_left(small: Small, tmp_path: Path) -> None:
    trained(small())
    assert not [path for path in tmp_path.rglob("*") if "ledger" in path.name or "training" in path.name]


def test_a_hospital_that_declines_is_one_line(small: Small, monkeypatch: Patch) -> None:
    monkeypatch.setattr(client_app, "refusal", lambda *_: "not today")
    with pytest.raises(UserError, match="declined round 1: not today"):
        trained(small())


@pytest.mark.long
@pytest.mark.parametrize("epsilon", [1.0, 4.0, 8.0])
def test_on_real_images_half_the_claim_is_shown_and_every_control_refuted(epsilon: float) -> None:
    path = real_data("bloodmnist.npz")
    config = find("bloodmnist_iid").config({"data-root": str(path.parent), "target-epsilon": epsilon})
    subject = subject_of(config, hospitals=5)
    found = audit_updates(subject, config, canaries=15_000, trainings=12, confidence=0.95).sums
    assert found.verdict == CONSISTENT
    assert found.largest_possible >= 8
    assert found.lower_bound >= 0.5 * found.claimed


@pytest.mark.parametrize("autoencoder", ["conv", "fc", pytest.param("residual", marks=pytest.mark.slow)])
def test_where_the_server_sends_the_head_too_only_its_bias_has_a_gradient(
    autoencoder: str, small: Small
) -> None:
    """A wrong answer has one, however sure it is: so weights that saturate don't do."""
    together = {"local_steps": 1, "objective": "task", "dp_scope": "autoencoder", "sample_rate": 1.0}
    config = small(**together, autoencoder=autoencoder, encoding_size=0)
    layout, nothing = lay_out(noised_shapes(config), 20), np.empty(0, np.int64)
    subject, seen = subject_of(config), []

    def observe(sums: Sequence[Tensor], _: Sequence[Tensor]) -> None:
        seen.append([float(total.norm()) for total in sums])

    watch = Watch(20, lambda _: gradients(layout, nothing, config.max_grad_norm), observe)
    sent = hostile_weights(config)
    saturating = {
        name: HOSTILE * value for name, value in local_model_of(config).state_dict().items() if name in sent
    }
    with hostile_server(subject.deal, config, 0, 1) as server, watched(watch):
        server.train(sent, 1)
        server.train(saturating, 2)
    (*others, bias), (*control, _) = seen
    assert bias > 0 and not any(others)
    assert max(control) > config.max_grad_norm
