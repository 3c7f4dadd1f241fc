"""The terms that a hospital trains under, calibrated by the hospital itself."""

from __future__ import annotations

from dataclasses import replace

from fl_ppae.config import RunConfig
from fl_ppae.errors import UserError
from fl_ppae.hospital.site import Hospital
from fl_ppae.privacy.ledger import Terms
from fl_ppae.privacy.plan import plan_hospital, planned_terms, upload_terms


def terms_of(hospital: Hospital, config: RunConfig, run: str) -> Terms:
    """The terms this hospital trains under, calibrated from its number of records.

    Raises:
        UserError: as `plan_hospital`, or fewer than min-records.
    """
    name, records = hospital.identity.name, len(hospital.train)
    if records < config.min_records:
        raise UserError(f"{name} has {records} records, fewer than min-records = {config.min_records}")
    known = hospital.state.agreed_terms(run)
    if known is not None and _asks_the_same(known, config):
        return known
    return planned_terms(plan_hospital(name, records, config), config, run)


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
    )
