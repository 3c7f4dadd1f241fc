"""What stands behind a number of the privacy card: a proof, a conjecture, or a measurement alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

PROVEN, CONJECTURED, NONE = "proven", "conjectured", "none"
_PROVEN_ALONE = ("updates", "head", "labels")


def grounds(artefact: str, guarantee: Mapping[str, Any], shared: Sequence[str]) -> str:
    """The grounds of one artefact's epsilon; `shared`: what left the hospitals.

    What counts training under replace-one neighbours is conjectured: encodings, a classifier that learned
    from them, and the total.
    """
    if not guarantee.get("formal"):
        return NONE
    from_updates = artefact == "classifier" and "encodings" not in shared
    never_left = guarantee.get("epsilon") == 0
    return PROVEN if artefact in _PROVEN_ALONE or from_updates or never_left else CONJECTURED


def grounds_in_words() -> str:
    """The meaning of each of the grounds, as a Markdown list."""
    return (
        "- **Proven**: the epsilon of the updates, for adding or removing one record, and that of labels. A "
        "theorem bounds each, for exact numbers and ideal random bits. That the program keeps to the theorem "
        "(clipping, sampling, noise, ledger) is tested, not proven.\n"
        "- **Conjectured**: each epsilon that counts training for replacing one record, such as the total. "
        "It assumes which pair of data sets is the worst case for a Poisson sample. That is widely assumed, "
        "but not proven (Lebeda et al. 2024, arXiv:2405.20769).\n"
        "- **Only measured**: leakage, inversion, membership and other attacks. They show what the attacks "
        "that were tried have found. Another attack may find more, so a low value is no guarantee."
    )


def threats_in_words(*, deployed: bool, honest: int | None = None) -> str:
    """Against whom the formal guarantees hold, as Markdown; `docs/threat_model.md` has the reasons.

    `honest`: how many honest hospitals in a round they assume; None if they assume nothing of the others.
    """
    readers = (
        "They hold against whoever reads what the server keeps, too."
        if deployed
        else "They do not hold against whoever reads a simulation's directory: it holds what hospitals keep "
        "to themselves, and the seed if there is one."
    )
    colluding = "" if honest is None else f" as long as {honest} hospitals in a round don't"
    return (
        "The formal guarantees hold against a server that chooses weights, configuration, order and number "
        f"of rounds, and against hospitals that collude with it{colluding}. {readers} Each hospital must be "
        "honest about its own records, and its machine and its node config must be its own. Timing, failures "
        "and the choice of hyper-parameters are not covered. The page `docs/threat_model.md` in fl-ppae's "
        "source says what enforces this and which test shows it."
    )
