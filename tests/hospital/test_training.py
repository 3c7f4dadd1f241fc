"""A round of local training: what moves, what is noised and by how much, and that it repeats."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from support import records_of
from torch import nn

from fl_ppae.data.records import HospitalRecords
from fl_ppae.hospital import physical_batches, training
from fl_ppae.hospital.training import Diagnostics, TrainingTerms, train_round
from fl_ppae.models.autoencoders import build_autoencoder
from fl_ppae.models.objectives import OBJECTIVES, LocalModel
from fl_ppae.privacy.clipping import CLIP_MARGIN
from fl_ppae.privacy.randomness import Stream, streams
from fl_ppae.privacy.scopes import MODULES, SCOPES

IMAGE = (1, 28, 28)
State = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def records() -> HospitalRecords:
    rng = np.random.default_rng(0)
    labels = np.arange(80) % 4
    images = rng.integers(0, 200, (4, 28, 28, 1))[labels] + rng.integers(0, 55, (80, 28, 28, 1))
    return records_of(images.astype(np.uint8), labels)


def model_of(objective: str = "reconstruction", name: str = "fc", size: int = 8) -> LocalModel:
    autoencoder = build_autoencoder(name, size, IMAGE, seed=1)
    return LocalModel(autoencoder.encoder, OBJECTIVES[objective].partner(autoencoder, (size,), 4, 1))


def terms_of(scope: str = "autoencoder", objective: str = "reconstruction", **changes: Any) -> TrainingTerms:
    values = {
        "noise_multiplier": 1.0,
        "max_grad_norm": 1.0,
        "sample_rate": 0.25,
        "steps": 3,
        "learning_rate": 1e-2,
    }
    return TrainingTerms(SCOPES[scope], OBJECTIVES[objective], **{**values, **changes})


def copy_of(module: nn.Module) -> State:
    return {name: value.clone() for name, value in module.state_dict().items()}


def same(one: State, other: State) -> bool:
    return all(torch.equal(one[name], other[name]) for name in one)


def spy_on_noise(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The std of every draw of noise from here on."""
    add, seen = training.add_noise, []

    def spy(sums: list[torch.Tensor], std: float, stream: Stream) -> list[torch.Tensor]:
        seen.append(std)
        return add(sums, std, stream)

    monkeypatch.setattr(training, "add_noise", spy)
    return seen


def record_gradients(monkeypatch: pytest.MonkeyPatch) -> list[list[torch.Tensor]]:
    """What each Adam step is given, one list of gradients an optimiser and step."""
    step, seen = torch.optim.Adam.step, []

    def spy(self: torch.optim.Adam, closure: Callable[[], float] | None = None) -> Any:
        seen.append([parameter.grad.clone() for parameter in self.param_groups[0]["params"]])
        return step(self, closure)

    monkeypatch.setattr(torch.optim.Adam, "step", spy)
    return seen


@pytest.mark.parametrize("objective", list(OBJECTIVES))
@pytest.mark.parametrize("scope", list(SCOPES))
def test_each_scope_moves_what_it_says(records: HospitalRecords, scope: str, objective: str) -> None:
    model = model_of(objective)
    before = {module: copy_of(model.get_submodule(module)) for module in MODULES}
    train_round(model, records, terms_of(scope, objective=objective), streams(1, 0, 1))
    for module, state in before.items():
        after = model.get_submodule(module).state_dict()
        assert same(state, after) == (module in SCOPES[scope].frozen), module


@pytest.mark.parametrize("scope", list(SCOPES))
def test_noise_is_drawn_for_exactly_the_modules_that_a_scope_names(
    records: HospitalRecords, scope: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    add = training.add_noise
    seen: list[torch.Size] = []

    def spy(sums: list[torch.Tensor], std: float, stream: Stream) -> list[torch.Tensor]:
        seen.extend(total.shape for total in sums)
        return add(sums, std, stream)

    monkeypatch.setattr(training, "add_noise", spy)
    model = model_of()
    train_round(model, records, terms_of(scope, steps=1), streams(1, 0, 1))
    noised = [model.get_submodule(module).parameters() for module in SCOPES[scope].noised]
    assert seen == [parameter.shape for parameters in noised for parameter in parameters]


@pytest.mark.parametrize(("scope", "noised"), [("none", 0), ("encoder", 3), ("autoencoder", 3)])
def test_every_step_is_noised_once_with_the_planned_std(
    records: HospitalRecords, scope: str, noised: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = spy_on_noise(monkeypatch)
    train_round(
        model_of(), records, terms_of(scope, noise_multiplier=1.7, max_grad_norm=0.3), streams(1, 0, 1)
    )
    assert seen == pytest.approx([1.7 * 0.3] * noised)


def test_without_dp_nothing_is_drawn_from_the_noise_stream(records: HospitalRecords) -> None:
    found = streams(1, 0, 1)
    train_round(model_of(), records, terms_of("none"), found)
    assert np.array_equal(found.noise.words(8), streams(1, 0, 1).noise.words(8))


@pytest.mark.parametrize("scope", ["encoder", "frozen-decoder", "autoencoder"])
def test_where_nothing_is_to_be_learned_the_gradient_is_noise_of_the_planned_size(
    records: HospitalRecords, scope: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A clipping norm too small to count against the noise leaves noise alone: std = multiplier * norm."""
    seen = record_gradients(monkeypatch)
    terms = terms_of(scope, noise_multiplier=200.0, max_grad_norm=0.5, steps=4)
    train_round(model_of(size=32), records, terms, streams(1, 0, 1))
    noised = seen[:: 2 if scope == "encoder" else 1]
    expected = 200.0 * 0.5 / (0.25 * len(records))
    for gradients in noised:
        drawn = torch.cat([gradient.flatten() for gradient in gradients]).double()
        assert float(drawn.std()) == pytest.approx(expected, rel=4 / math.sqrt(len(drawn)))


def test_an_empty_batch_is_a_step_and_is_noised(
    records: HospitalRecords, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = spy_on_noise(monkeypatch)
    model = model_of()
    before = copy_of(model)
    state, diagnostics = train_round(model, records, terms_of(sample_rate=1e-9), streams(1, 0, 1))
    assert len(seen) == 3
    assert not same(before, model.state_dict())
    assert {int(value) for key, value in state.items() if key.endswith(".step")} == {3}
    assert diagnostics == Diagnostics(0.0, 0.0, 0.0)


@pytest.mark.parametrize("name", ["fc", "fc-deep", "conv", "conv-image"])
def test_every_architecture_survives_an_empty_batch(records: HospitalRecords, name: str) -> None:
    model = model_of(name=name, size={"conv": 49, "conv-image": 0}.get(name, 8))
    train_round(model, records, terms_of(sample_rate=1e-9, steps=1), streams(1, 0, 1))
    train_round(model, records, terms_of(sample_rate=0.1, steps=1), streams(1, 0, 2))
    assert all(value.isfinite().all() for value in model.state_dict().values())


@pytest.mark.parametrize("scope", list(SCOPES))
def test_physical_batches_do_not_change_the_gradient(
    records: HospitalRecords, scope: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = record_gradients(monkeypatch)
    terms = terms_of(scope, steps=1, sample_rate=0.5)
    train_round(model_of(), records, terms, streams(1, 0, 1))
    monkeypatch.setattr(training, "padded_sizes", lambda *_, **__: (7,))
    monkeypatch.setitem(physical_batches.FULL, "cpu", 7)
    train_round(model_of(), records, terms, streams(1, 0, 1))
    half = len(seen) // 2
    for whole, split in zip(seen[:half], seen[half:], strict=True):
        for one, other in zip(whole, split, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


def test_the_noised_gradient_is_the_clipped_mean_of_each_records_own(
    records: HospitalRecords, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against autograd, one record at a time; all records in the batch and hardly any noise."""
    model, bound = model_of("task"), 0.5
    expected = [torch.zeros_like(parameter) for parameter in model.parameters()]
    for position in range(len(records)):
        rows = np.array([position])
        images, labels = records.images(rows), records.labels(rows)
        loss = OBJECTIVES["task"].loss(model(images), images, labels).sum()
        grads = torch.autograd.grad(loss, list(model.parameters()))
        norm = float(torch.stack([grad.square().sum() for grad in grads]).sum().sqrt())
        for total, grad in zip(expected, grads, strict=True):
            total.add_(grad * min(1.0, bound / norm) / len(records))
    seen = record_gradients(monkeypatch)
    terms = terms_of(objective="task", steps=1, sample_rate=1.0, max_grad_norm=bound, noise_multiplier=1e-9)
    train_round(model, records, terms, streams(1, 0, 1))
    for one, other in zip(seen[0], expected, strict=True):
        torch.testing.assert_close(one, other, rtol=5 * CLIP_MARGIN, atol=1e-6)


def loss_of(model: LocalModel, records: HospitalRecords, objective: str) -> float:
    with torch.inference_mode():
        images, labels = records.images(), records.labels()
        return float(OBJECTIVES[objective].loss(model(images), images, labels).mean())


@pytest.mark.parametrize("objective", list(OBJECTIVES))
def test_both_objectives_learn(records: HospitalRecords, objective: str) -> None:
    model = model_of(objective)
    before = loss_of(model, records, objective)
    terms = terms_of("none", objective=objective, steps=40)
    _, diagnostics = train_round(model, records, terms, streams(1, 0, 1))
    assert loss_of(model, records, objective) < 0.6 * before
    assert 0 < diagnostics.loss < before


def test_per_sample_losses_are_of_a_record_and_not_of_the_batch(records: HospitalRecords) -> None:
    images, labels = records.images(), records.labels()
    for name, objective in OBJECTIVES.items():
        outputs = model_of(name)(images)
        together = objective.loss(outputs, images, labels)
        alone = [
            objective.loss(outputs[row : row + 1], images[row : row + 1], labels[row : row + 1])
            for row in range(len(images))
        ]
        torch.testing.assert_close(together, torch.cat(alone))


@pytest.mark.parametrize("scope", list(SCOPES))
def test_the_same_streams_give_the_same_bits_and_others_do_not(records: HospitalRecords, scope: str) -> None:
    def result(server_round: int) -> State:
        model = model_of()
        train_round(model, records, terms_of(scope), streams(1, 0, server_round))
        return copy_of(model)

    assert same(result(1), result(1))
    assert not same(result(1), result(2))


@pytest.mark.parametrize("scope", list(SCOPES))
def test_moments_bring_no_learning_rate_with_them(records: HospitalRecords, scope: str) -> None:
    model = model_of()
    moments, _ = train_round(model, records, terms_of(scope), streams(1, 0, 1))
    before = copy_of(model)
    train_round(model, records, terms_of(scope, learning_rate=0.0), streams(1, 0, 2), moments)
    assert same(before, copy_of(model))


@pytest.mark.parametrize("scope", list(SCOPES))
def test_adams_moments_last_over_rounds(records: HospitalRecords, scope: str) -> None:
    model = model_of()
    state, _ = train_round(model, records, terms_of(scope), streams(1, 0, 1))
    start = copy_of(model)
    continued, _ = train_round(model, records, terms_of(scope), streams(1, 0, 2), state)
    fresh = model_of()
    fresh.load_state_dict(start)
    train_round(fresh, records, terms_of(scope), streams(1, 0, 2))
    assert {key.split(".")[0] for key in continued} == ({"0", "1"} if scope == "encoder" else {"0"})
    assert {int(value) for key, value in continued.items() if key.endswith(".step")} == {6}
    assert not same(fresh.encoder.state_dict(), model.encoder.state_dict())


def test_batches_are_drawn_at_the_accounted_rate(
    records: HospitalRecords, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw, sizes = training.poisson_batch, []

    def spy(*arguments: Any) -> np.ndarray:
        batch = draw(*arguments)
        sizes.append(len(batch))
        return batch

    monkeypatch.setattr(training, "poisson_batch", spy)
    steps, rate = 60, 0.2
    train_round(
        model_of(), records, terms_of("frozen-decoder", steps=steps, sample_rate=rate), streams(1, 0, 1)
    )
    drawn, trials = sum(sizes), steps * len(records)
    assert len(sizes) == steps
    assert abs(drawn - rate * trials) < 4 * math.sqrt(trials * rate * (1 - rate)), "binomial"
    assert len(set(sizes)) > 10, "a Poisson batch has no fixed size"


def test_diagnostics_count_clipped_records_and_signal_to_noise(records: HospitalRecords) -> None:
    small, large = (
        train_round(model_of(), records, terms_of(max_grad_norm=bound), streams(1, 0, 1))[1]
        for bound in (1e-4, 1e4)
    )
    assert (small.clipped_fraction, large.clipped_fraction) == (1.0, 0.0)
    assert small.signal_to_noise > large.signal_to_noise > 0
