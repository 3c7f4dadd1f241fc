"""A record's gradient has the same bits in any batch, even under weights that cancel."""

import itertools

import numpy as np
import pytest
import torch
from support import records_of
from torch import nn

from fl_ppae.data.records import HospitalRecords
from fl_ppae.hospital import training
from fl_ppae.hospital.physical_batches import FULL, full_batch, padded, padded_sizes, physical_batches
from fl_ppae.hospital.training import LocalTrainer, TrainingTerms
from fl_ppae.models.augment import DRAWS
from fl_ppae.models.autoencoders import NAMES, build_autoencoder, encoding_shape
from fl_ppae.models.objectives import OBJECTIVES, LocalModel
from fl_ppae.privacy.scopes import SCOPES

IMAGE = (3, 12, 12)
CLASSES = 4
RECORDS = 16  # kernels for fewer rows than 16 add in another order
FORMAL = [scope.name for scope in SCOPES.values() if scope.formal]
CASES = [
    pytest.param(*case, marks=pytest.mark.slow) if case[0] == "residual" else case
    for case in itertools.product(NAMES, OBJECTIVES, FORMAL, (False, True))
]


@pytest.fixture(scope="module")
def records() -> HospitalRecords:
    rng = np.random.default_rng(3)
    return records_of(rng.integers(0, 256, (RECORDS, 12, 12, 3), np.uint8), rng.integers(0, CLASSES, RECORDS))


def model_of(name: str, objective: str) -> LocalModel:
    size = 18 if name.startswith("fc") else 0
    autoencoder = build_autoencoder(name, size, IMAGE, seed=0)
    shape = encoding_shape(name, size, IMAGE)
    return LocalModel(autoencoder.encoder, OBJECTIVES[objective].partner(autoencoder, shape, CLASSES, 0))


def cancelling(model: LocalModel, factor: float) -> LocalModel:
    """Pairs of units that the next layer subtracts, so that only their rounding errors remain."""
    layers = [layer for layer in model.modules() if isinstance(layer, nn.Linear | nn.Conv2d)]
    with torch.no_grad():
        for first, second in itertools.pairwise(layers):
            half = len(first.weight) // 2
            if second.weight.shape[1] != len(first.weight) or not half:
                continue
            first.weight[:half] = 10 * first.weight[:half].abs()
            first.weight[half : 2 * half] = 0.7 * first.weight[:half]
            second.weight[:, :half] = factor * second.weight[:, :half].sign()
            second.weight[:, half : 2 * half] = -second.weight[:, :half] / 0.7
            for bias in (first.bias, second.bias):
                if bias is not None:
                    bias.zero_()
    return model


def farthest(model: LocalModel, records: HospitalRecords, terms: TrainingTerms) -> float:
    """The largest distance of the clipped sums of all records and of all but one, in clipping norms."""
    trainer = LocalTrainer(model, terms, expected_batch=4.0)
    whole = np.arange(len(records))
    draws = None
    if terms.augmentations:
        draws = torch.rand(len(records), terms.augmentations, DRAWS, dtype=torch.float64)
    larger = trainer.clipped_sums(records, whole, draws)
    distances = []
    for removed in (0, len(records) // 2, len(records) - 1):
        smaller = trainer.clipped_sums(records, np.delete(whole, removed), draws)
        squares = [(a - b).double().square().sum() for a, b in zip(larger, smaller, strict=True)]
        distances.append(float(torch.stack(squares).sum().sqrt()))
    trainer.close()
    return max(distances) / terms.max_grad_norm


def terms_of(
    objective: str, scope: str, *, bfloat16: bool = False, max_grad_norm: float = 1e-3
) -> TrainingTerms:
    return TrainingTerms(SCOPES[scope], OBJECTIVES[objective], 1.0, max_grad_norm, 0.5, 1, 1e-3, bfloat16)


@pytest.mark.parametrize(("name", "objective", "scope", "bfloat16"), CASES)
def test_one_record_moves_the_sum_by_at_most_the_clipping_norm_whatever_the_weights(
    records: HospitalRecords, name: str, objective: str, scope: str, bfloat16: bool
) -> None:
    for factor, clip in itertools.product((1.0, 3e3, 1e5), (1e-6, 1e-3)):
        model = cancelling(model_of(name, objective), factor)
        terms = terms_of(objective, scope, bfloat16=bfloat16, max_grad_norm=clip)
        assert farthest(model, records, terms) <= 1


def test_without_padding_the_same_weights_exceed_the_clipping_norm(
    records: HospitalRecords, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control: the property above can fail.

    Whether a processor's own kernels round otherwise at another batch size differs, so that is planted: the
    last bits of a layer's outputs depend on the size of the batch.
    """
    model = cancelling(model_of("fc-deep", "reconstruction"), 3e3)
    layer = next(module for module in model.modules() if isinstance(module, torch.nn.Linear))
    layer.register_forward_hook(lambda _module, _inputs, outputs: outputs * (1 + 2**-21 * (len(outputs) % 2)))
    terms = terms_of("reconstruction", "autoencoder")
    assert farthest(model, records, terms) <= 1
    monkeypatch.setattr(training, "padded_sizes", lambda *_, **__: range(1, FULL["cpu"] + 1))
    assert farthest(model, records, terms) > 2


def test_sizes_are_probed_once_for_each_network() -> None:
    model = model_of("conv", "task")
    first = padded_sizes(model, OBJECTIVES["task"], torch.channels_last, torch.Size(IMAGE), bfloat16=False)
    assert first[-1] == FULL["cpu"] or first == (1,)
    assert list(first) == sorted(first)
    again = padded_sizes(model, OBJECTIVES["task"], torch.channels_last, torch.Size(IMAGE), bfloat16=False)
    assert again is first


@pytest.mark.parametrize("sizes", [(1,), (16, 32), (5,)])
@pytest.mark.parametrize("count", [0, 1, 5, 16, 17, 100])
def test_every_position_is_in_one_physical_batch_and_fits_it(count: int, sizes: tuple[int, ...]) -> None:
    batch = np.arange(count) * 3
    parts = list(physical_batches(batch, sizes))
    assert np.array_equal(np.concatenate([batch[:0], *(part for part, _ in parts)]), batch)
    assert all(len(part) <= size and size in sizes for part, size in parts)


def test_empty_rows_are_zeros_behind_the_records() -> None:
    rows = torch.arange(6.0).view(2, 3)
    assert padded(rows, 2) is rows
    assert torch.equal(padded(rows, 4), torch.cat([rows, torch.zeros(2, 3)]))


@pytest.mark.parametrize(("size", "records"), [(28, 256), (32, 256), (64, 64), (128, 16), (224, 5)])
def test_a_full_batch_holds_fewer_of_larger_images(size: int, records: int) -> None:
    assert full_batch(torch.device("cpu"), torch.Size((3, size, size))) == records
