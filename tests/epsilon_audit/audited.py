"""A small hospital to audit, and guesses by the real Gaussian mechanism."""

from typing import Any

import numpy as np
from scipy.stats import norm

from fl_ppae.config import RunConfig
from fl_ppae.data.deal import Deal, hospital_names, make_deal
from fl_ppae.data.sources import resolve
from fl_ppae.epsilon_audit.bounds import Guessed, guess
from fl_ppae.epsilon_audit.trainings import Subject
from fl_ppae.epsilon_audit.updates import UpdateFinding, audit_updates
from fl_ppae.privacy.plan import plan_hospital
from fl_ppae.privacy.trade_offs import Curve, curve_through

# Calibrated noise; a sample rate of 1, for which accountants are quick.
CALIBRATED: dict[str, Any] = {
    "noise_multiplier": 0.0,
    "target_delta": 1e-5,
    "target_epsilon": 4.0,
    "batch_size": 500,
    "num_server_rounds": 4,
}


def subject_of(config: RunConfig, hospitals: int = 1) -> Subject:
    """Hospital-0 of `hospitals`."""
    deal = make_deal(resolve(config), config, hospital_names(hospitals))
    own = {"hospital-0": deal.train["hospital-0"]}
    plan = plan_hospital("hospital-0", len(own["hospital-0"]), config)
    return Subject(0, hospitals, Deal(deal.dataset, own, deal.seed, deal.shift_seed), plan)


def audit(config: RunConfig, canaries: int = 6000, trainings: int = 3, **changes: Any) -> UpdateFinding:
    """What an audit of hospital-0 finds."""
    values: dict[str, Any] = {"confidence": 0.95, **changes}
    return audit_updates(subject_of(config), config, canaries=canaries, trainings=trainings, **values)


def gaussian_curve(mu: float) -> Curve:
    """The curve of the Gaussian mechanism, from its exact delta(epsilon) (arXiv:1805.06530)."""
    epsilons = np.linspace(0, 30, 600)
    deltas = norm.cdf(mu / 2 - epsilons / mu) - np.exp(epsilons) * norm.cdf(-mu / 2 - epsilons / mu)
    return curve_through(epsilons, deltas)


def gaussian_guesses(mu: float, canaries: int, rng: np.random.Generator) -> Guessed:
    """Guesses about canaries that a Gaussian mechanism moves by `mu` standard deviations."""
    included = rng.random(canaries) < 0.5
    return guess(rng.normal(size=canaries) + mu * included, included)
