"""A search for weights under which one record moves the clipped sum by more than the clipping norm."""

import time

import numpy as np
import pytest
import torch
from hospital.test_physical_batches import RECORDS, cancelling, farthest, model_of, terms_of
from support import records_of

from fl_ppae.hospital import training
from fl_ppae.hospital.physical_batches import FULL
from fl_ppae.models.autoencoders import NAMES
from fl_ppae.models.objectives import OBJECTIVES, LocalModel

SECONDS = 600  # for each architecture


def search(name: str, seconds: float, seed: int) -> float:
    """The largest distance found, in clipping norms: a (1+1) evolution strategy from cancelling weights.

    Each step changes the scale of one layer, redraws some weights, or starts afresh.
    """
    generator = np.random.default_rng(seed)
    images = generator.integers(0, 256, (RECORDS, 12, 12, 3), np.uint8)
    records = records_of(images, generator.integers(0, 4, RECORDS))
    end, best, highest = time.monotonic() + seconds, 0.0, 0.0
    while time.monotonic() < end:
        objective = str(generator.choice(list(OBJECTIVES)))
        terms = terms_of(objective, "autoencoder", bfloat16=bool(generator.integers(2)))
        model = cancelling(model_of(name, objective), 10 ** generator.uniform(-2, 8))
        best = farthest(model, records, terms)
        for _ in range(20):
            kept = {key: value.clone() for key, value in model.state_dict().items()}
            mutate(model, generator)
            found = farthest(model, records, terms)
            if found < best:
                model.load_state_dict(kept)
            best = max(best, found)
        highest = max(highest, best)
    return highest


def mutate(model: LocalModel, generator: np.random.Generator) -> None:
    parameters = list(model.parameters())
    chosen = parameters[generator.integers(len(parameters))]
    with torch.no_grad():
        if generator.integers(2):
            chosen.mul_(10.0 ** generator.normal(0, 2))
        else:
            drawn = torch.from_numpy(generator.standard_normal(chosen.shape)).float()
            chosen.add_(chosen.abs().mean() * 10.0 ** generator.normal(-3, 2) * drawn)


@pytest.mark.long
@pytest.mark.parametrize("name", NAMES)
def test_a_search_finds_no_weights_that_exceed_the_clipping_norm(name: str) -> None:
    assert search(name, SECONDS, seed=1) <= 1


@pytest.mark.long
def test_the_search_finds_such_weights_without_padding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "padded_sizes", lambda *_, **__: range(1, FULL["cpu"] + 1))
    assert search("fc-deep", 30, seed=1) > 1
