"""What a hospital refuses, whatever a run asks for: its node config decides, not a message."""

from __future__ import annotations

import math
from dataclasses import dataclass
from operator import itemgetter

from fl_ppae.config import RunConfig
from fl_ppae.errors import UserError
from fl_ppae.hardware import device_of
from fl_ppae.hospital.node_keys import NodeKeys
from fl_ppae.privacy.budget import Ceilings
from fl_ppae.privacy.scopes import SCOPES
from fl_ppae.protection import JOINT

LARGEST_DELTA = 1e-5
_FORMAL = tuple(scope.name for scope in SCOPES.values() if scope.formal)


@dataclass(frozen=True)
class Limits:
    """The most that a hospital agrees to.

    Attributes:
        deployed: it has records of its own; it then takes part in no simulated attack.
        ceilings: over everything that its records ever release, see `budget.over_ceiling`.
        takes_joint_noise: it knows how much it may spend if all other hospitals collude, or needs no limit.
        max_delta: the largest target-delta.
        allowed_scopes: each dp-scope that it trains under.
        allow_plain_encodings: encodings and labels may leave without noise.
        allow_diagnostics: losses and clipping may leave without noise.
        allow_test_encodings: encodings of the test part may leave, and its number of records.
        allow_after_unprotected: under a ceiling, records may be used again although an earlier run
            released something of them without a guarantee.
        allow_new_keys: signing keys of other hospitals are pinned at the first meeting; false: before it.
    """

    deployed: bool
    ceilings: Ceilings
    takes_joint_noise: bool
    max_delta: float
    allowed_scopes: tuple[str, ...]
    allow_plain_encodings: bool
    allow_diagnostics: bool
    allow_test_encodings: bool
    allow_after_unprotected: bool
    allow_new_keys: bool


def limits_of(node: NodeKeys, records: int) -> Limits:
    """The limits in a node's config, and the default of each that it doesn't set.

    A deployed node allows what has a formal guarantee: formal scopes, no plain encodings or labels, no
    diagnostics, and a delta of at most min(1e-5, 1 / (10 `records`)). With a delta near 1 / records, a
    hospital that publishes one record in the clear would count as private. A simulated node allows
    everything, except that with a ceiling it trains under formal scopes only.
    """
    ceilings = Ceilings(node.max_epsilon, node.max_epsilon_alone)
    cautious = node.deployed or bool(ceilings.set_ones())

    def allowed(choice: bool | None) -> bool:
        return not node.deployed if choice is None else choice

    return Limits(
        deployed=node.deployed,
        ceilings=ceilings,
        takes_joint_noise=(not node.deployed or node.allow_unlimited_epsilon or ceilings.alone is not None),
        max_delta=node.max_delta or (min(LARGEST_DELTA, 1 / (10 * records)) if node.deployed else 1.0),
        allowed_scopes=node.allowed_scopes or (_FORMAL if cautious else tuple(SCOPES)),
        allow_plain_encodings=allowed(node.allow_plain_encodings),
        allow_diagnostics=allowed(node.allow_diagnostics),
        allow_test_encodings=allowed(node.allow_test_encodings),
        allow_after_unprotected=node.allow_after_unprotected,
        allow_new_keys=node.allow_new_keys,
    )


def refusal(limits: Limits, config: RunConfig) -> str:
    """Why the hospital's limits forbid the run: the limit, its value and what was asked. Empty if they don't.

    This reads the run's configuration alone. `budget.over_ceiling` adds up what the run costs.
    """
    if limits.deployed and config.adversary != "none":
        return f"the run simulates adversaries ({config.adversary}), this hospital has a data file of its own"
    key, ceiling = min(limits.ceilings.set_ones().items(), key=itemgetter(1), default=("", math.inf))
    plain = _plain(config)
    for forbidden, asked, limit in (
        (
            config.dp_scope not in limits.allowed_scopes,
            f"dp-scope = {config.dp_scope}",
            f"allowed-scopes = {', '.join(limits.allowed_scopes)}",
        ),
        (
            config.dp_scope == "none" and math.isfinite(ceiling),
            "dp-scope = none, of infinite epsilon",
            f"{key} = {ceiling:g}",
        ),
        (
            config.target_epsilon > ceiling,
            f"target-epsilon = {config.target_epsilon:g}",
            f"{key} = {ceiling:g}",
        ),
        (
            config.noise == JOINT and not limits.takes_joint_noise,
            "joint noise, which assumes that other hospitals are honest",
            "no max-epsilon-alone, the most that its records may spend if they are not",
        ),
        (
            config.encoding_noise_epsilon > ceiling,
            f"encoding-noise-epsilon = {config.encoding_noise_epsilon:g}",
            f"{key} = {ceiling:g}",
        ),
        (
            config.label_epsilon > ceiling,
            f"label-epsilon = {config.label_epsilon:g}",
            f"{key} = {ceiling:g}",
        ),
        (
            config.target_delta > limits.max_delta,
            f"target-delta = {config.target_delta:g}",
            f"max-delta = {limits.max_delta:g}",
        ),
        (config.diagnostics and not limits.allow_diagnostics, "diagnostics", "allow-diagnostics = false"),
        (plain and not limits.allow_plain_encodings, f"plain {plain}", "allow-plain-encodings = false"),
    ):
        if forbidden:
            return f"the run asks for {asked}; this hospital has {limit}"
    return _no_device(config)


def _plain(config: RunConfig) -> str:
    """What this run shares without noise of its own."""
    if not config.shares_encodings:
        return ""
    noise = {"encodings": config.encoding_noise_epsilon, "labels": config.label_epsilon}
    return " and ".join(what for what, noised in noise.items() if not noised)


def _no_device(config: RunConfig) -> str:
    try:
        device_of(config.device)
    except UserError as problem:
        return str(problem)
    return ""
