import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hospital.test_physical_batches import terms_of
from torch import nn

from fl_ppae.hospital.fixed_codes import Codes
from fl_ppae.hospital.training import LocalTrainer
from fl_ppae.models.objectives import LocalModel
from fl_ppae.studies.value_head import clipped_sums, summed_noise, train_head

CLASSES, SIZE, RECORDS = 4, 10, 60


@pytest.fixture
def codes() -> Codes:
    generator = torch.Generator().manual_seed(2)
    labels = torch.randint(CLASSES, (RECORDS,), generator=generator)
    centres = 3 * torch.randn(CLASSES, SIZE, generator=generator)
    return Codes(centres[labels] + torch.randn(RECORDS, SIZE, generator=generator), labels)


@pytest.mark.parametrize("max_grad_norm", [0.01, 1.0, 100.0])  # all clipped, some, none
def test_sums_are_those_of_all_hospitals_together(codes: Codes, max_grad_norm: float) -> None:
    layer = nn.Linear(SIZE, CLASSES)
    head = {name: value.detach().numpy() for name, value in layer.named_parameters()}
    found = clipped_sums(codes.every_code, codes.every_label, head, max_grad_norm)
    trainer = LocalTrainer(
        LocalModel(nn.Identity(), layer),
        replace(terms_of("task", "autoencoder", max_grad_norm=max_grad_norm), trains="head"),
        expected_batch=1.0,
    )
    dealt = np.array_split(np.random.default_rng(0).permutation(RECORDS), 3)
    each = [trainer.clipped_sums(codes, np.sort(rows)) for rows in dealt]
    trainer.close()
    for total, parts in zip(found.values(), zip(*each, strict=True), strict=True):
        torch.testing.assert_close(total.double(), torch.stack(parts).sum(0), rtol=1e-4, atol=1e-5)


def test_without_noise_the_head_learns_and_noise_harms_it(codes: Codes) -> None:
    def accuracy(noise_std: float) -> float:
        head = train_head(codes.every_code, codes.every_label, CLASSES, 40, 0.3, 2.0, noise_std, seed=0)
        scores = codes.every_code @ torch.from_numpy(head["weight"]).T + torch.from_numpy(head["bias"])
        return float((scores.argmax(1) == codes.every_label).float().mean())

    assert accuracy(0.0) > 0.95
    assert accuracy(1e6) < 0.7


@pytest.mark.parametrize(("hospitals", "honest"), [(100, 80), (100, 1), (5, 3)])
def test_noise_of_all_hospitals_adds_up(hospitals: int, honest: int) -> None:
    shares = np.random.default_rng(1).normal(0, 2.0 * 3.0 / math.sqrt(honest), (20_000, hospitals)).sum(1)
    assert summed_noise(2.0, 3.0, hospitals, honest) == pytest.approx(shares.std(), rel=0.03)
