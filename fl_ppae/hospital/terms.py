"""The terms that a hospital trains under, calibrated by itself, and what its budgets still allow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from fl_ppae.config import RunConfig
from fl_ppae.errors import PublicMistake, UserError
from fl_ppae.hospital.site import Hospital
from fl_ppae.privacy.budget import over_ceiling, over_target
from fl_ppae.privacy.events import Event
from fl_ppae.privacy.ledger import Ledger
from fl_ppae.privacy.plan import plan_hospital, planned_terms, upload_terms
from fl_ppae.privacy.terms import Terms
from fl_ppae.protection import honest_of


def terms_of(hospital: Hospital, config: RunConfig, run: str) -> Terms:
    """The terms this hospital trains under, calibrated from its number of records.

    Raises:
        PublicMistake: as `plan_hospital`, or fewer than min-records.
        UserError: the ledger can't be read.
    """
    name, records = hospital.identity.name, len(hospital.train)
    if records < config.min_records:
        raise PublicMistake(f"{name} has {records} records, fewer than min-records = {config.min_records}")
    known = hospital.state.agreed_terms(run)
    if known is not None and _asks_the_same(known, config):
        return known
    try:
        return planned_terms(plan_hospital(name, records, config), config, run)
    except UserError as mistake:
        raise PublicMistake(str(mistake)) from None


def over_budget(ledger: Ledger, costs: Sequence[Event], hospital: Hospital) -> str:
    """Why `costs` would exceed a budget of the run or of this hospital; empty if they wouldn't."""
    return over_target(ledger.events, costs, ledger.terms) or over_limit(
        ledger, ledger.events, costs, hospital
    )


def over_limit(ledger: Ledger, spent: Sequence[Event], costs: Sequence[Event], hospital: Hospital) -> str:
    """Why `costs` on top of `spent` would exceed one of this hospital's ceilings; empty if they wouldn't."""
    return over_ceiling(
        spent,
        costs,
        ledger.terms,
        hospital.limits.ceilings,
        after_unprotected=hospital.limits.allow_after_unprotected,
    )


def _asks_the_same(terms: Terms, config: RunConfig) -> bool:
    """True if the configuration still requests what `terms` were calibrated for."""
    return terms == replace(
        terms,
        scope=config.dp_scope,
        max_grad_norm=config.max_grad_norm,
        target_epsilon=config.target_epsilon,
        delta=config.target_delta,
        upload=upload_terms(config),
        shares_updates=config.shares_updates,
        diagnostics=config.diagnostics,
        honest=honest_of(config),
    )
