"""Log-odds keep the order of records whose probabilities round to 0 and 1."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.special import expit, logit
from torch.nn import functional as F

from fl_ppae.models.log_odds import cross_entropies, log_odds


def drawn(classes: int, scale: float) -> torch.Tensor:
    return scale * torch.randn(200, classes, generator=torch.Generator().manual_seed(classes))


@pytest.mark.parametrize("classes", [2, 3, 11])
def test_they_are_the_logit_of_the_softmax_and_their_loss_the_cross_entropy(classes: int) -> None:
    scores, labels = drawn(classes, 3.0).double(), torch.arange(200) % classes
    np.testing.assert_allclose(log_odds(scores), logit(scores.softmax(1)), atol=1e-9)
    expected = F.cross_entropy(scores, labels, reduction="none")
    torch.testing.assert_close(cross_entropies(scores, labels), expected)


@pytest.mark.parametrize("classes", [2, 3, 11])
@pytest.mark.parametrize("scale", [1.0, 10.0, 50.0])
def test_no_two_records_share_a_rank_that_probabilities_or_losses_round_together(
    classes: int, scale: float
) -> None:
    scores, labels = drawn(classes, scale), torch.arange(200) % classes
    assert len(log_odds(scores)[:, 0].unique()) == len(cross_entropies(scores, labels).unique()) == 200
    if scale == 50.0:  # the controls
        assert len(scores.softmax(1)[:, 0].unique()) < 190
        assert len(F.cross_entropy(scores.double(), labels, reduction="none").unique()) < 200


def test_losses_far_below_float64s_resolution_at_1_are_exact() -> None:
    for lead in (20.0, 40.0, 300.0):
        loss = cross_entropies(torch.tensor([[lead, 0.0]]), torch.tensor([0])).item()
        assert loss == pytest.approx(expit(-lead), rel=1e-9)
        assert loss > 0
