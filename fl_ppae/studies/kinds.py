"""The kinds of study: the contents of their tables and how results are derived from them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from fl_ppae.studies import columns
from fl_ppae.studies.columns import Column
from fl_ppae.studies.frontier_figures import draw_frontier_figures
from fl_ppae.studies.paper_claims import NOTE as PAPER_NOTE
from fl_ppae.studies.paper_claims import paper_verdicts
from fl_ppae.studies.paper_figures import draw_paper_figures
from fl_ppae.studies.partition_claims import NOTE as PARTITION_NOTE
from fl_ppae.studies.partition_claims import partition_verdicts
from fl_ppae.studies.partition_figures import draw_partition_figures
from fl_ppae.studies.summary import Group
from fl_ppae.studies.value_claims import NOTE as VALUE_NOTE
from fl_ppae.studies.value_claims import value_verdicts
from fl_ppae.studies.value_figures import draw_value_figures
from fl_ppae.studies.verdict import Verdict


@dataclass(frozen=True)
class Kind:
    """One kind of study.

    Attributes:
        columns: the columns of its `cells.csv`.
        keys, metrics: the columns of `results.md`; the terminal shows the same metrics.
        labels: the texts that identify a configuration on the terminal, by heading.
        order: sort key of the configurations; None keeps the table's order.
        draw: writes its figures into a folder.
    """

    name: str
    title: str
    columns: tuple[Column, ...]
    keys: tuple[str, ...]
    metrics: tuple[str, ...]
    labels: Callable[[Group], dict[str, str]]
    order: Callable[[Group], Any] | None
    verdicts: Callable[[pd.DataFrame], list[Verdict]]
    note: str
    draw: Callable[[Sequence[Group], Path], None]


def _paper_labels(group: Group) -> dict[str, str]:
    keys = group.keys
    return {
        "encoding": group.encoder,
        "DP": "none" if keys["privacy"] == "none" else f"{keys['privacy']}, {keys['scope']}",
        "hospitals": keys["hospitals"],
        "classifier": keys["classifier"],
    }


def _paper_order(group: Group) -> tuple[Any, ...]:
    keys = group.keys
    epsilon = math.inf if keys["privacy"] == "none" else float(keys["privacy"])
    rank = ("pixels", "pca", "scatternet", "random", "trained").index(keys["encoding"])
    return (keys["dataset"], rank, keys["autoencoder"], -epsilon, keys["scope"], keys["hospitals"])


_PARTITION_KEYS = ("partition", "setting", "noise", "hospitals")

PAPER = Kind(
    name="paper",
    title="Paper study",
    columns=columns.PAPER,
    keys=("encoding", "autoencoder", "privacy", "scope", "hospitals", "classifier"),
    metrics=("accuracy", "auc", "cosine", "cosine_centred", "inversion_ssim", "epsilon"),
    labels=_paper_labels,
    order=_paper_order,
    verdicts=paper_verdicts,
    note=PAPER_NOTE,
    draw=draw_paper_figures,
)
PARTITIONS = Kind(
    name="partitions",
    title="Partition study",
    columns=columns.PARTITIONS,
    keys=_PARTITION_KEYS,
    metrics=(
        "accuracy",
        "accuracy_hospitals",
        "accuracy_worst",
        "epsilon_min",
        "epsilon_max",
        "hellinger",
    ),
    labels=lambda group: {name: group.keys[name] for name in _PARTITION_KEYS},
    order=None,
    verdicts=partition_verdicts,
    note=PARTITION_NOTE,
    draw=draw_partition_figures,
)

_FRONTIER_KEYS = ("autoencoder", "code_numbers", "code_bits", "classifier", "run_formal")
FRONTIER = Kind(
    name="frontier",
    title="Frontier study",
    columns=columns.FRONTIER,
    keys=_FRONTIER_KEYS,
    metrics=("accuracy", "inversion_ssim", "inversion_psnr", "retrieval_augmented_top1", "linkage_auc"),
    labels=lambda group: {columns.titled(name): group.keys[name] for name in _FRONTIER_KEYS},
    order=None,
    verdicts=lambda _: [],
    note="No claim is tested.",
    draw=draw_frontier_figures,
)

_VALUE_KEYS = ("hospitals", "public_records", "privacy", "noise", "partition")

VALUE = Kind(
    name="value",
    title="Value study",
    columns=columns.VALUE,
    keys=_VALUE_KEYS,
    metrics=("accuracy", "accuracy_personal", "accuracy_alone", "accuracy_server", "gain", "gain_common"),
    labels=lambda group: {name: group.keys[name] for name in _VALUE_KEYS},
    order=None,
    verdicts=value_verdicts,
    note=VALUE_NOTE,
    draw=draw_value_figures,
)
