"""What a run guarantees of each artefact that left a hospital, and whether all of it is formal."""

from __future__ import annotations

from collections.abc import Mapping

from fl_ppae.config import RunConfig
from fl_ppae.privacy.scopes import SCOPES, Guarantee

_NOT_SHARED = "not shared: it never left a hospital"


def guarantees(config: RunConfig, epsilon: Mapping[str, float | None]) -> dict[str, Guarantee]:
    """The guarantee of each artefact, under add-or-remove-one record of one hospital.

    `epsilon` is what each hospital's encoder training cost, by hospital; the federation's is the
    largest, because hospitals hold disjoint records.
    """
    scope = SCOPES[config.dp_scope]
    spent = [value for value in epsilon.values() if value is not None]
    trained = scope.guarantee(max(spent) if spent else None, config.target_delta)
    shares_updates = config.share != "encodings"
    shares_encodings = config.share != "updates"
    nothing = Guarantee(0.0, 0.0, True, _NOT_SHARED)
    plain = Guarantee(None, None, False, "plain: no guarantee, only measured leakage")
    result = {
        "updates": trained if shares_updates else nothing,
        "encodings": plain if shares_encodings else nothing,
        "labels": Guarantee(None, None, False, "in the clear: no guarantee") if shares_encodings else nothing,
        "classifier": Guarantee(None, None, False, "trained on plain encodings: no guarantee")
        if shares_encodings
        else Guarantee(
            trained.epsilon,
            trained.delta,
            trained.formal,
            "sees hospital records only through the encoder updates; "
            "the server's own training split is not protected",
        ),
    }
    if config.diagnostics:
        result["diagnostics"] = Guarantee(None, None, False, "un-noised statistics: no guarantee")
    return result


def is_formal(all_guarantees: Mapping[str, Guarantee]) -> bool:
    """True only if everything that left a hospital has a guarantee."""
    return all(guarantee.formal for guarantee in all_guarantees.values())
