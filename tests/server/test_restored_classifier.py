"""A classifier on disk answers as the one that was fitted."""

from __future__ import annotations

import numpy as np
import pytest

from fl_ppae.server.classification import restore_classifier


@pytest.mark.parametrize("classifier", ["lr", "mlp", "resnet18"])
def test_a_classifier_is_restored_from_its_state(classifier: str):
    from fl_ppae.server.classification import NetworkTraining, classifier_state, fit_and_score

    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(60, 49)).astype(np.float32), rng.integers(0, 3, 60)
    fitted, _ = fit_and_score(classifier, x, y, x, y, 3, 0, 1, resnet=NetworkTraining(steps=2))
    restored = restore_classifier(classifier, classifier_state(fitted), 3)
    np.testing.assert_array_equal(restored.probabilities(x), fitted.probabilities(x))
