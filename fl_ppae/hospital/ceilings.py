"""What a hospital refuses, whatever a run asks for: its node configuration decides, not a message."""

from __future__ import annotations

from fl_ppae.config import RunConfig
from fl_ppae.errors import UserError
from fl_ppae.hardware import device_of
from fl_ppae.hospital.identity import NodeConfig
from fl_ppae.privacy.scopes import SCOPES


def refusal(node: NodeConfig, config: RunConfig) -> str | None:
    """Why this hospital's own ceiling forbids the run; None if it doesn't.

    The node config may set `max-epsilon`, `allowed-scopes` (comma-separated; if there is a `max-epsilon`,
    by default the scopes with a guarantee), and `allow-plain-encodings` (which also covers labels in the
    clear) and `allow-diagnostics` (both true by default in a simulation, false if the node has its own
    data file). The run's configuration comes from outside and can't raise them. `budget.over_ceiling`
    compares everything that the records have spent with `max-epsilon`.
    """
    impossible = _impossible(node, config)
    if impossible is not None:
        return impossible
    ceiling = ceiling_of(node)
    if ceiling is not None and (config.dp_scope == "none" or config.target_epsilon > ceiling):
        asked = "no DP" if config.dp_scope == "none" else f"target-epsilon {config.target_epsilon:g}"
        return f"the run asks for {asked}, this hospital allows at most epsilon {ceiling:g}"
    guaranteed = ", ".join(scope.name for scope in SCOPES.values() if scope.formal)
    allowed = node.get("allowed-scopes", guaranteed if ceiling is not None else None)
    if allowed is not None:
        scopes = [scope.strip() for scope in str(allowed).split(",")]
        if config.dp_scope not in scopes:
            return f"the run asks for dp-scope {config.dp_scope}, this hospital allows {', '.join(scopes)}"
    simulated = "data-file" not in node
    if config.diagnostics and not node.get("allow-diagnostics", simulated):
        return "the run asks for diagnostics, this hospital does not allow them (allow-diagnostics)"
    plain = [
        what
        for what, noised in (
            ("encodings", config.encoding_noise_epsilon),
            ("labels", config.label_epsilon),
        )
        if not noised
    ]
    if config.shares_encodings and plain and not node.get("allow-plain-encodings", simulated):
        asked = " and ".join(plain)
        return f"the run asks for plain {asked}, this hospital does not allow that (allow-plain-encodings)"
    return None


def _impossible(node: NodeConfig, config: RunConfig) -> str | None:
    if config.adversary != "none" and "data-file" in node:
        return f"the run simulates adversaries ({config.adversary}), this hospital has a data file of its own"
    try:
        device_of(config.device)
    except UserError as problem:
        return str(problem)
    return None


def ceiling_of(node: NodeConfig) -> float | None:
    """The most that this hospital's records may spend in total; None if the hospital sets no limit."""
    ceiling = node.get("max-epsilon")
    return None if ceiling is None else float(ceiling)


def allows_after_unprotected(node: NodeConfig) -> bool:
    """Whether records may be used under `max-epsilon` although an earlier run released something of them
    without a guarantee; false unless the node config sets `allow-after-unprotected`."""
    return bool(node.get("allow-after-unprotected", False))
