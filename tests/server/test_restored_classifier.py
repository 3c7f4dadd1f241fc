"""A classifier on disk answers as the one that was fitted."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fl_ppae.models.autoencoders import build_head
from fl_ppae.server.classification import restore_classifier


@pytest.mark.parametrize("classifier", ["lr", "mlp", "resnet18"])
def test_a_classifier_is_restored_from_its_state(classifier: str):
    from fl_ppae.server.classification import NetworkTraining, classifier_state, fit_and_score

    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(60, 49)).astype(np.float32), rng.integers(0, 3, 60)
    fitted, _ = fit_and_score(classifier, x, y, x, y, 3, 0, 1, resnet=NetworkTraining(steps=2))
    restored = restore_classifier(classifier, classifier_state(fitted), 3)
    np.testing.assert_array_equal(restored.probabilities(x), fitted.probabilities(x))


@pytest.mark.parametrize("encoding", [(16,), (4, 7, 7)])
def test_the_common_head_is_a_classifier_that_later_rounds_do_not_change(encoding: tuple[int, ...]):
    from fl_ppae.server.classification import classifier_state, score_head

    head = build_head(encoding, 3, seed=1)
    x, y = torch.randn(60, *encoding), np.arange(60) % 3
    with torch.no_grad():
        expected = head(x).softmax(1).numpy()
        classifier, score = score_head(head, x.numpy(), y)
        head[-1].weight.zero_()
    assert score.accuracy == np.mean(expected.argmax(1) == y)
    for one in (classifier, restore_classifier("head", classifier_state(classifier), 3)):
        np.testing.assert_allclose(one.probabilities(x.numpy()), expected, rtol=1e-5)
