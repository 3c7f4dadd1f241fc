"""Whether a hospital should join, and with what settings: the nearest setting of a value study's table."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pandas as pd

from fl_ppae.studies.summary import numbers
from fl_ppae.studies.value_claims import value_verdicts
from fl_ppae.studies.value_grid import ALL_PUBLIC
from fl_ppae.studies.verdict import FAILS, HOLDS, Verdict

YES, NO, UNSHOWN = "yes", "no", "not shown"


@dataclass(frozen=True)
class Asked:
    """A federation: hospitals, labelled public images at the server, and the largest epsilon."""

    hospitals: int
    public: int
    max_epsilon: float


@dataclass(frozen=True)
class Advice:
    """The answer for one setting of the study.

    Attributes:
        answer: `yes`, `no` or `not shown`, by the interval of the gain.
        row: the columns of a cell of this setting.
    """

    answer: str
    row: dict[str, str]
    verdict: Verdict


def advice(table: pd.DataFrame, asked: Asked) -> Advice | None:
    """The setting with the largest gain of those nearest in hospitals and public images; None without any.

    Only even splits and epsilons up to the largest count. Distances are logarithmic.
    """
    if table.empty:
        return None
    fits = (table["error"] == "") & (table["partition"] == "iid") & (table["privacy"] != "none")
    fits &= pd.to_numeric(table["privacy"], errors="coerce") <= asked.max_epsilon
    rows = table[fits]
    if rows.empty:
        return None
    far = numbers(rows, "hospitals").map(lambda count: abs(math.log(count / asked.hospitals)))
    far += numbers(rows, "public_records").map(lambda count: abs(_size(count) - _size(asked.public)))
    near = rows[far <= far.min() + 1e-9]
    settings = [group for _, group in near.groupby(["privacy", "noise"], sort=False)]
    found = max(settings, key=lambda group: numbers(group, "gain").mean())
    (verdict,) = value_verdicts(found)
    return Advice({HOLDS: YES, FAILS: NO}.get(verdict.verdict, UNSHOWN), found.iloc[0].to_dict(), verdict)


def _size(public: float) -> float:
    """On a logarithmic scale, where 0 images are a tenth of 100 images, and the whole split is 1,712."""
    return math.log(max(1_712.0 if public == ALL_PUBLIC else public, 10.0))
