"""What the privacy card says about masked updates and joint noise."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fl_ppae.privacy.figures import assumed_honest
from fl_ppae.protection import JOINT


def honest_in(summary: Mapping[str, Any]) -> int | None:
    """How many honest hospitals in a round the run's epsilons assume; None if they assume nothing."""
    assumed = [assumed_honest(str(basis)) for basis in (summary.get("epsilon_basis") or {}).values()]
    return max((honest for honest in assumed if honest is not None), default=None)


def joint_noise_in_words(honest: int) -> list[str]:
    """What the epsilons of a run with joint noise assume, as Markdown lines."""
    return [
        f"- Noise: joint. These numbers count the noise of {honest} hospitals together, to which each adds a "
        f"share of 1/{honest} of its variance. **They hold if at least {honest} hospitals in each round, the "
        "record's own included, keep their shares to themselves**, and if nobody sees a single hospital's "
        "part of a sum (secure aggregation). The number was fixed before round 1, and a hospital that drops "
        "out lowers no charge.",
        "- If all others collude, what is left is the noise of the hospital's own share.",
    ]


def masked_in_words(config: Mapping[str, Any], hospitals: int) -> str:
    """What the server sees of masked updates, as a Markdown line; `config` holds the run's keys."""
    minimum = config["min-hospitals"] or hospitals
    if config["noise"] == JOINT:
        unless = f"as long as {config['honest-hospitals']} of them are honest in each round"
    elif colluders := minimum - (config["honest-hospitals"] or minimum):
        unless = f"unless more than {colluders} of them collude with the server"
    else:
        unless = "unless one of them colludes with the server"
    return (
        "- Of the updates, only their sum over the hospitals of a round, at least "
        f"{minimum} of {hospitals}. What a single hospital sends is masked, {unless}."
    )
