"""What a run's guarantee allows a membership attack: the accountant's own trade-off curve.

It bounds every test of whether one record was trained on, whatever the attacker knows of the others: by
PLD, add or remove one record for encoder updates, replace one for encodings. An epsilon that is no guarantee
has no curve.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import brentq

from fl_ppae.attacks.audited_run import AuditedRun
from fl_ppae.privacy.accounting import losses_of_updates, replace_one_epsilon
from fl_ppae.privacy.events import Event, from_dict, trained, updates
from fl_ppae.privacy.figures import is_guarantee
from fl_ppae.privacy.honest import shares_of_noise
from fl_ppae.privacy.noise import SAMPLER_EPSILON
from fl_ppae.privacy.trade_offs import INTERVAL, Curve, curve_of, curve_through
from fl_ppae.runs.stored import basis_of

_STEPS = 2000
_DELTAS = np.geomspace(1e-12, 0.5, 12)


@dataclass(frozen=True, eq=False)
class Allowed:
    """The most that a test for one record may find; `curve` as in `privacy.trade_offs`."""

    curve: Curve

    def true_positive_rate(self, false_positives: float) -> float:
        """The largest true-positive rate at this false-positive rate, in [0, 1]."""
        if self.curve(1.0) <= false_positives:
            return 1.0
        return float(brentq(lambda rate: self.curve(rate) - false_positives, 0.0, 1.0))

    def area(self) -> float:
        """The largest area under a ROC curve, rounded up."""
        middles = (np.arange(_STEPS) + 0.5) / _STEPS  # of a convex curve: below its mean over each step
        return 1 - float(np.mean([self.curve(rate) for rate in middles]))

    def edge(self) -> tuple[np.ndarray, np.ndarray]:
        """False- and true-positive rates on the edge of what is allowed, for a figure."""
        false = np.geomspace(1e-4, 1, 60)
        return false, np.array([self.true_positive_rate(rate) for rate in false])


def allowed_on_updates(audited: AuditedRun, hospital: str) -> Allowed | None:
    """What the guarantee of this hospital's updates allows on anything made from them.

    None without one, or where only its epsilon is known: a declared cost has no curve.
    """
    account = audited.stored.ledger["hospitals"][hospital]
    events = _events(account)
    training = trained(events)
    if not account["formal"] or not training or len(training) < len(updates(events)):
        return None
    samplers = shares_of_noise(events) * SAMPLER_EPSILON
    return Allowed(curve_of(losses_of_updates(training, INTERVAL), samplers))


def allowed_on_classifier(audited: AuditedRun) -> Allowed | None:
    """What the guarantee of a classifier of noised encodings and labels allows, replace one record.

    Of the hospital with the largest cost, at each of a few deltas. None without a guarantee.
    """
    if not is_guarantee(basis_of((audited.stored.summary.get("guarantees") or {}).get("classifier") or {})):
        return None
    accounts = audited.stored.ledger["hospitals"].values()
    every = {_events(account) for account in accounts}
    spent = np.array([max(replace_one_epsilon(events, delta) for events in every) for delta in _DELTAS])
    known = np.isfinite(spent)
    return Allowed(curve_through(spent[known], _DELTAS[known])) if known.any() else None


def _events(account: dict[str, Any]) -> tuple[Event, ...]:
    """The events of a hospital in `ledger.json`."""
    return tuple(from_dict(row) for row in account["events"])
