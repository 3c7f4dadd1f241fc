"""Whether joining is worth it: what a hospital and the server reach without the federation. Simulations only.

All networks are those of `models.residual`, trained without privacy. Nothing of it leaves a hospital: it is
the simulator that has all records, and a real hospital computes its own part alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from fl_ppae.config import RunConfig
from fl_ppae.data.deal import Deal
from fl_ppae.data.records import HospitalRecords
from fl_ppae.leakage.intervals import t_mean
from fl_ppae.server.evaluation import Recognised
from fl_ppae.server.plain_networks import Budget, network_config, public_network, trained

MOST_HOSPITALS = 3
_HOSPITAL = Budget(passes=4, fewest=50, most=100)
_POOLED = Budget(passes=3, fewest=50, most=250)
_FROM_RANDOM = Budget(passes=36, fewest=200, most=300)  # without public images there is nothing to tune


def worth_joining(config: RunConfig, deal: Deal, recognised: Recognised) -> dict[str, Any]:
    """What a hospital gains by joining: the federation's accuracy minus the better of two others.

    These are the accuracy of the hospital alone and of the server alone, on the same images of the official
    test split. A hospital alone tunes the server's network on its own and the public records. At most
    `MOST_HOSPITALS` are measured: the smallest, the median and the largest. `pooled` is the same network
    trained on all records at once.

    `recognised`: which test images the federation's classifier recognises.
    """
    config = network_config(config)
    public = HospitalRecords(deal.dataset.val, np.arange(len(deal.dataset.val)))
    server = public_network(config, deal.dataset) if len(public) else None
    budget, budget_of_all = (_HOSPITAL, _POOLED) if server is not None else (_FROM_RANDOM, _FROM_RANDOM)
    alone = {
        name: trained(config, deal.dataset, f"{name} alone", (deal.train[name], public), budget, server)
        for name in measured_hospitals({name: len(records) for name, records in deal.train.items()})
    }
    everything = (*deal.train.values(), public)
    pooled = trained(config, deal.dataset, "all records pooled", everything, budget_of_all, server)
    rows = recognised.rows
    found = gains(
        recognised.hits,
        {name: reached.hits[rows] for name, reached in alone.items()},
        None if server is None else server.hits[rows],
    )
    return {**found, "pooled": float(pooled.hits[rows].mean()), "training": config.worth_joining}


def measured_hospitals(records: Mapping[str, int]) -> list[str]:
    """The names of the smallest, the median and the largest hospital, by their numbers of records."""
    by_size = sorted(records, key=lambda name: records[name])
    if len(by_size) <= MOST_HOSPITALS:
        return by_size
    return [by_size[0], by_size[len(by_size) // 2], by_size[-1]]


def gains(
    federation: np.ndarray, alone: Mapping[str, np.ndarray], server: np.ndarray | None
) -> dict[str, Any]:
    """Gains over the better of alone and server, from who recognises which test image (N,).

    Intervals are over test images, paired; that of the worst hospital holds for all hospitals together. They
    don't cover other seeds.
    """
    better = {
        name: own if server is None or own.mean() >= server.mean() else server for name, own in alone.items()
    }
    gained = {name: float(federation.mean() - best.mean()) for name, best in better.items()}
    worst = min(gained, key=lambda name: gained[name])
    mean = t_mean(federation - np.mean(list(better.values()), axis=0))
    least = t_mean(federation - better[worst].astype(float), among=len(better))
    return {
        "mean_gain": mean.value,
        "worst_gain": gained[worst],
        "worst_hospital": worst,
        "gain": gained,
        "interval": {"mean_gain": [mean.low, mean.high], "worst_gain": [least.low, least.high]},
        "accuracy": float(federation.mean()),
        "alone": {name: float(own.mean()) for name, own in alone.items()},
        "server_alone": None if server is None else float(server.mean()),
        "images": len(federation),
    }
