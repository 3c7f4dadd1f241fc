"""Which keys of one-step rounds, secure aggregation and joint noise fit together.

`config` checks the keys alone; `quorum_of` needs the size of the federation.
"""

from __future__ import annotations

from dataclasses import dataclass

from fl_ppae.errors import UserError
from fl_ppae.keys import Keys

SECAGG, JOINT = "secagg", "joint"
COMMON_HEAD = "head"  # the classifier that hospitals train together
_FROZEN, _TOGETHER = "frozen-decoder", "autoencoder"  # the scopes under which everything shared is noised
_IN_LABELS = ("none", "label-flip", "backdoor")  # adversaries whose updates are those of an honest training


@dataclass(frozen=True)
class Quorum:
    """How many hospitals a masked sum takes (Bonawitz et al. 2017, doi:10.1145/3133956.3133982, section 6).

    Attributes:
        hospitals: in the federation.
        minimum: fewest whose updates a round is made of; below it nobody unmasks.
        colluders: the most that may work with the server.
    """

    hospitals: int
    minimum: int
    colluders: int

    @property
    def threshold(self) -> int:
        """Shares that unmask: 2 threshold > hospitals + colluders, so that only one list of survivors can."""
        return (self.hospitals + self.colluders) // 2 + 1


def check_protection(keys: Keys) -> None:
    """Refuse keys of one-step rounds, secure aggregation and joint noise that contradict each other.

    Raises:
        ValueError: names the first mistake and what would be right.
    """
    if keys.local_steps:
        _check_one_step(keys)
    if keys.classifier == COMMON_HEAD and not shares_head(keys):
        raise ValueError(
            'classifier = "head" is the head that hospitals train together: it needs local-steps = 1, '
            'objective = "task" and dp-scope = "autoencoder"'
        )
    if keys.protection == SECAGG:
        _check_masked(keys)
    else:
        _check_unmasked(keys)
    if keys.noise == JOINT:
        _check_joint(keys)


def quorum_of(keys: Keys, hospitals: int) -> Quorum:
    """The quorum of a run with `protection = "secagg"` and this many `hospitals`.

    Raises:
        UserError: they are too few, or too many may collude.
    """
    if hospitals < 2:
        raise UserError(f'protection = "secagg" needs at least 2 hospitals, not {hospitals}')
    minimum = keys.min_hospitals or hospitals
    if minimum > hospitals:
        raise UserError(_fewer_than(minimum, hospitals))
    if keys.honest_hospitals > minimum:
        raise UserError(
            f"honest-hospitals = {keys.honest_hospitals}: a round may have only {minimum} hospitals"
        )
    honest = keys.honest_hospitals or minimum
    enough = hospitals - keys.honest_hospitals + 1 if keys.honest_hospitals else hospitals // 2 + 1
    colluders = minimum - honest
    if keys.noise == JOINT:
        # Its epsilon assumes `honest` in every list of survivors and nothing else. If just these are honest,
        # each list has all of them, and no hospital of theirs can stand in one and be missing in another. If
        # there are more, all the others but one may collude.
        colluders = max(colluders, hospitals - honest - 1)
        enough = max(honest, hospitals - honest // 2)
    quorum = Quorum(hospitals, minimum, colluders)
    if quorum.threshold > minimum:
        raise UserError(
            f"min-hospitals = {minimum} of {hospitals}: two lists of survivors could both be unmasked; "
            f"use at least {enough}"
        )
    return quorum


def check_quorum(keys: Keys, hospitals: int) -> None:
    """Refuse a federation of `hospitals` that is too small for its rounds, or for safe masked sums.

    Raises:
        UserError: as `quorum_of`, or min-hospitals is larger.
    """
    if keys.protection == SECAGG:
        quorum_of(keys, hospitals)
    elif keys.min_hospitals > hospitals:
        raise UserError(_fewer_than(keys.min_hospitals, hospitals))


def _fewer_than(minimum: int, hospitals: int) -> str:
    return f"min-hospitals = {minimum}: the federation has only {hospitals} hospitals"


def honest_of(keys: Keys) -> int:
    """How many hospitals' noise makes up one epsilon's worth; 0 if each adds all of its own."""
    return keys.honest_hospitals if keys.noise == JOINT else 0


def shares_head(keys: Keys) -> bool:
    """True if the server learns a task head too: its gradient is in the noised sum of a one-step round."""
    return bool(keys.local_steps) and keys.objective == "task" and keys.dp_scope == _TOGETHER


def _check_one_step(keys: Keys) -> None:
    if keys.share != "updates":
        raise ValueError(f'local-steps = 1 needs share = "updates", not "{keys.share}"')
    if keys.local_epochs != 1:
        raise ValueError(f"local-epochs = {keys.local_epochs} has no meaning with local-steps = 1; use 1")
    scopes = (_FROZEN, _TOGETHER) if keys.objective == "task" else (_FROZEN,)
    if keys.dp_scope not in scopes:
        reason = (
            "the decoder never leaves a hospital, so it can't learn from the sum of all"
            if keys.objective == "reconstruction"
            else "only a clipped sum leaves a hospital"
        )
        raise ValueError(
            f'dp-scope = "{keys.dp_scope}" with local-steps = 1 and objective = "{keys.objective}": '
            f"{reason}; use {_either(scopes)}"
        )


def _check_masked(keys: Keys) -> None:
    if keys.share != "updates":
        raise ValueError(f'protection = "secagg" needs share = "updates", not "{keys.share}"')
    if keys.aggregation != "average":
        raise ValueError(
            f'aggregation = "{keys.aggregation}" compares single updates, which protection = "secagg" hides; '
            'use "average"'
        )
    if keys.adversary not in _IN_LABELS:
        raise ValueError(
            f'adversary = "{keys.adversary}" changes an update, which is not simulated under '
            'protection = "secagg"; use protection = "none"'
        )
    if keys.diagnostics:
        raise ValueError(
            'diagnostics = true shows statistics of single hospitals, which protection = "secagg" hides; '
            "use false"
        )
    if keys.min_hospitals and keys.honest_hospitals > keys.min_hospitals:
        raise ValueError(
            f"min-hospitals = {keys.min_hospitals}: must be at least honest-hospitals = "
            f"{keys.honest_hospitals}, or 0 for all"
        )


def _check_unmasked(keys: Keys) -> None:
    if keys.honest_hospitals:
        raise ValueError(
            f'honest-hospitals = {keys.honest_hospitals} is only used with protection = "secagg", not "none"'
        )


def _check_joint(keys: Keys) -> None:
    for missing, needed in (
        (keys.protection != SECAGG, 'protection = "secagg"'),
        (keys.local_steps != 1, "local-steps = 1"),
        (not keys.sample_rate, "sample-rate, one rate for all, such as 0.1"),
        (not keys.honest_hospitals, "honest-hospitals, at least 1 and without the colluders, such as 3"),
    ):
        if missing:
            raise ValueError(f'noise = "joint" needs {needed}')


def _either(names: tuple[str, ...]) -> str:
    return " or ".join(f'"{name}"' for name in names)
