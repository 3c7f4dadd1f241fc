"""One record moves the sum by at most the clip, whatever weights a server sends and whatever images show."""

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hospital.test_physical_batches import (
    CASES,
    CLASSES,
    FORMAL,
    IMAGE,
    RECORDS,
    farthest,
    model_of,
    terms_of,
)
from support import records_of

from fl_ppae.data.records import HospitalRecords
from fl_ppae.hospital import training
from fl_ppae.models.objectives import OBJECTIVES, LocalModel
from fl_ppae.models.own_encoder import own_network
from fl_ppae.privacy.alone import Alone
from fl_ppae.privacy.clipping import ClippedSum

EXAMPLES = Path(__file__).parents[2] / "examples"
MAGNITUDES = [-44, -38, -23, -12, -3, 3, 8, 17, 25, 38]


@pytest.fixture(scope="module")
def records() -> HospitalRecords:
    """Black, white, a single bright pixel, a checkerboard, and noise."""
    images = np.random.default_rng(5).integers(0, 256, (RECORDS, 12, 12, 3)).astype(np.uint8)
    images[:3] = 0
    images[1] = 255
    images[2, 6, 6] = 255
    images[3] = 255 * (np.indices((12, 12)).sum(0) % 2)[..., None]
    return records_of(images, np.arange(RECORDS) % CLASSES)


def hostile(model: LocalModel) -> Iterator[LocalModel]:
    """The same network under weights of every magnitude, mixed magnitudes, and none that are numbers."""
    generator = torch.Generator().manual_seed(1)

    def filled(make: Callable[[torch.Tensor], torch.Tensor]) -> LocalModel:
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.copy_(make(parameter))
        return model

    def normal(like: torch.Tensor) -> torch.Tensor:
        return torch.randn(like.shape, generator=generator)

    def mixed(like: torch.Tensor) -> torch.Tensor:
        powers = torch.rand(like.shape, generator=generator, dtype=torch.float64) * 82 - 44
        return (normal(like).sign() * 10**powers).float()

    for power in MAGNITUDES:
        yield filled(lambda like, power=power: normal(like) * 10.0**power)  # type: ignore[misc]
    layers = itertools.cycle((10.0, -10.0, 18.0, -22.0))  # one layer undoes what the last one did
    yield filled(lambda like: normal(like) * 10.0 ** next(layers))
    yield filled(mixed)
    yield filled(mixed)
    for value in (0.0, float("nan"), float("inf"), 3.4e38):
        yield filled(lambda like, value=value: torch.full_like(like, value))  # type: ignore[misc]


@pytest.mark.parametrize(("name", "objective", "scope", "bfloat16"), CASES)
def test_one_record_moves_the_sum_by_at_most_the_clipping_norm(
    records: HospitalRecords, name: str, objective: str, scope: str, bfloat16: bool
) -> None:
    for number, model in enumerate(hostile(model_of(name, objective))):
        clip = (1e-6, 1.0)[number % 2]
        terms = terms_of(objective, scope, bfloat16=bfloat16, max_grad_norm=clip)
        assert farthest(model, records, terms) <= 1, number


@pytest.mark.parametrize(
    ("objective", "scope"),
    [
        case if case == ("task", "autoencoder") else pytest.param(*case, marks=pytest.mark.slow)
        for case in itertools.product(OBJECTIVES, FORMAL)
    ],
)
def test_one_record_moves_the_sum_of_an_encoder_of_ones_own_by_at_most_the_clipping_norm(
    records: HospitalRecords, objective: str, scope: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is unknown, so it sees one record at a time."""
    monkeypatch.syspath_prepend(str(EXAMPLES))
    own = own_network("own_encoder:build", 16, IMAGE, 0)
    partner = OBJECTIVES[objective].partner(own.autoencoder, own.shape, CLASSES, 0)
    model = LocalModel(own.autoencoder.encoder, partner)
    assert isinstance(model.encoder, Alone)
    for number, hostile_model in enumerate(hostile(model)):
        terms = terms_of(objective, scope, max_grad_norm=(1e-6, 1.0)[number % 2])
        assert farthest(hostile_model, records, terms) <= 1, number


def test_norms_of_float32_squares_let_a_record_through(
    records: HospitalRecords, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control: with norms that underflow, some of these weights exceed the bound."""
    monkeypatch.setattr(training, "clipped_sum", underflowing)
    terms = terms_of("reconstruction", "autoencoder", max_grad_norm=1e-6)
    found = [farthest(model, records, terms) for model in hostile(model_of("fc-deep", "reconstruction"))]
    assert not max(found) <= 1


def underflowing(grads: list, max_grad_norm: float) -> ClippedSum:
    squares = []
    for grad in grads:
        parts = (grad.left, grad.right) if hasattr(grad, "left") else (grad.values.float().flatten(1),)
        squares.append(torch.stack([part.square().sum(1) for part in parts]).prod(0))
    norms = torch.stack(squares).sum(0).sqrt()
    factors = (max_grad_norm / norms.clamp(min=max_grad_norm)).nan_to_num(0.0)
    return ClippedSum([grad.weighted_sum(factors) for grad in grads], norms)
