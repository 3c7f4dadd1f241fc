"""Beside a membership figure stands the most that the accountant's trade-off curve allows."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from attacks.attacked import PLAIN, attacked, opened
from scipy.stats import norm
from support import Run

from fl_ppae.attacks import membership_encoder
from fl_ppae.attacks.allowed import Allowed, allowed_on_classifier, allowed_on_updates
from fl_ppae.leakage.membership import membership_auc, true_positive_rate
from fl_ppae.privacy.accounting import losses_of_updates
from fl_ppae.privacy.events import PoissonGaussian
from fl_ppae.privacy.noise import SAMPLER_EPSILON
from fl_ppae.privacy.trade_offs import INTERVAL, curve_of
from fl_ppae.reporting.audit_report import audit_tables


def of_gaussian(sigma: float, steps: int = 1) -> Allowed:
    losses = losses_of_updates([PoissonGaussian(sigma, 1.0, steps, 1)], INTERVAL)
    return Allowed(curve_of(losses, SAMPLER_EPSILON))


@pytest.mark.parametrize("sigma", [0.5, 1.0, 4.0])
@pytest.mark.parametrize("steps", [1, 9])
def test_the_gaussian_mechanism_allows_what_its_closed_form_says(sigma: float, steps: int):
    """f-DP, Dong et al. 2019 (arXiv:1905.02383): TPR = Phi(Phi^-1(FPR) + mu), mu = sqrt(steps) / sigma."""
    allowed, mu = of_gaussian(sigma, steps), steps**0.5 / sigma
    for false in (0.001, 0.01, 0.1, 0.5):
        exact = norm.cdf(norm.ppf(false) + mu)
        assert exact <= allowed.true_positive_rate(false) <= min(1.0, 1.03 * exact + 0.003)
    area = norm.cdf(mu / 2**0.5)
    assert area <= allowed.area() <= min(1.0, area + 0.01)
    false, true = allowed.edge()
    assert np.all(np.diff(true) >= 0) and np.all(true >= false)


def test_the_best_attack_stays_within_and_half_the_noise_does_not():
    rng, allowed = np.random.default_rng(0), of_gaussian(2.0)
    others = rng.normal(size=20_000)
    honest, wrong = (others + 1 / sigma for sigma in (2.0, 1.0))
    assert true_positive_rate(honest, others, 0.01).low < allowed.true_positive_rate(0.01)
    assert membership_auc(honest, others).low < allowed.area()
    assert true_positive_rate(wrong, others, 0.01).low > allowed.true_positive_rate(0.01)
    assert membership_auc(wrong, others).low > allowed.area()


@pytest.mark.slow
def test_a_formal_run_s_rows_hold_it_and_others_say_that_nothing_is_guaranteed(federate: Callable[..., Run]):
    run = federate("formal")
    rows = attacked(run, membership_encoder.ATTACK, shadows=0).results
    allowed = allowed_on_updates(opened(run), "hospital-0")
    assert allowed is not None
    for row in rows:
        assert row.allowed is not None and row.chance is not None and row.chance < row.allowed <= 1
    assert rows[0].allowed == pytest.approx(allowed.area())
    for settings in (PLAIN, {"dp_scope": "encoder"}):
        other = federate(str(len(settings)), **settings)
        findings = attacked(other, membership_encoder.ATTACK, shadows=0)
        assert {row.allowed for row in findings.results} == {None}


@pytest.mark.parametrize("labels", [0.0, 2.0])
def test_a_classifier_of_noised_encodings_and_labels_has_a_curve(federate: Callable[..., Run], labels: float):
    run = federate(
        "run", share="updates+encodings", encoding_noise_epsilon=4.0, projection_size=8, label_epsilon=labels
    )
    allowed = allowed_on_classifier(opened(run))
    if labels:
        assert allowed is not None and 0.01 < allowed.true_positive_rate(0.01) <= 1
    else:
        assert allowed is None  # labels in the clear: the classifier has no guarantee


def test_the_table_says_that_there_is_no_guarantee(federate: Callable[..., Run]):
    run = federate("plain", **PLAIN)
    findings = attacked(run, membership_encoder.ATTACK, shadows=0)
    audit = type("Audit", (), {"results": findings.results, "skipped": ()})()
    (table,) = audit_tables("plain", "tiny.npz", audit)
    (column,) = [each for each in table.columns if "guarantee" in str(each.header)]
    assert "no guarantee" in list(column.cells)
