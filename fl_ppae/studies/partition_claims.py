"""Tests on a partition study's table of whether a split costs accuracy compared with IID."""

from __future__ import annotations

import pandas as pd

from fl_ppae.studies.partition_grid import CALIBRATED, DATASET, FEDERATED
from fl_ppae.studies.table import succeeded
from fl_ppae.studies.verdict import Claim, Verdict

NOTE = (
    "Federated, noise calibrated per hospital, paired by seed. A verdict follows the whole 95 % interval of "
    "the difference; none is corrected for their number."
)


def partition_verdicts(table: pd.DataFrame) -> list[Verdict]:
    """Compare every split with IID for the same number of hospitals, if any seed has both."""
    rows = succeeded(table)
    rows = rows[(rows["setting"] == FEDERATED) & (rows["noise"] == CALIBRATED)] if len(rows) else rows
    if rows.empty:
        return []
    splits = [split for split in rows["partition"].unique() if split != "iid"]
    found = []
    for hospitals in sorted(rows["hospitals"].unique(), key=int):
        by_split = rows[rows["hospitals"] == hospitals].groupby("partition")
        for split in splits:
            claim = Claim(split, "costs accuracy", DATASET, f"{hospitals} hospitals", 0.0, at_least=False)
            if {split, "iid"} <= set(by_split.groups):
                found.append(claim.test(by_split.get_group(split), by_split.get_group("iid"), (split, "iid")))
    return [one for one in found if one.n]
