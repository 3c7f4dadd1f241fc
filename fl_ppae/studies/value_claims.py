"""Tests on a value study's table of whether joining pays in a setting."""

from __future__ import annotations

import math

import pandas as pd

from fl_ppae.leakage.intervals import paired_difference
from fl_ppae.studies.hits import stacked
from fl_ppae.studies.summary import numbers
from fl_ppae.studies.table import succeeded
from fl_ppae.studies.value_grid import DATASET
from fl_ppae.studies.verdict import Verdict, decide

NOTE = (
    "One hospital a seed, the median one. Intervals cover seeds and test images; none is corrected for their "
    "number. A hospital alone is the best of three by test accuracy, which flatters it."
)
_KEYS = ["hospitals", "public_records", "privacy", "noise", "partition"]


def value_verdicts(table: pd.DataFrame) -> list[Verdict]:
    """For each setting, whether the personal model is above the better of alone and server alone."""
    rows = succeeded(table)
    if rows.empty:
        return []
    return [
        _verdict(dict(zip(_KEYS, keys, strict=True)), group)
        for keys, group in rows.groupby(_KEYS, sort=False)
    ]


def _verdict(keys: dict[str, str], rows: pd.DataFrame) -> Verdict:
    personal, better = stacked(rows["hits"]), stacked(rows["hits_better"])
    gain = float(numbers(rows, "gain").mean())
    low = high = math.nan
    if personal is not None and better is not None:
        found = paired_difference(personal, better)
        low, high = found.low, found.high
    setting = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in keys.items())
    compared = (
        f"personal: {numbers(rows, 'accuracy_personal').mean():.3f}; "
        f"alone: {numbers(rows, 'accuracy_alone').mean():.3f}"
    )
    verdict = decide(low, high, 0.0, at_least=True)
    return Verdict(
        "joining", "pays", DATASET, setting, compared, verdict, gain, low, high, len(rows), threshold=0.0
    )
