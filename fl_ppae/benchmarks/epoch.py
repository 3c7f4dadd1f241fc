"""One epoch of DP training on as many images as PathMNIST has, on the device that a hospital would use."""

from __future__ import annotations

import time

import numpy as np

from fl_ppae.benchmarks.results import Aim, Line, Measurement, Size
from fl_ppae.config import RunConfig
from fl_ppae.data.cache import Split
from fl_ppae.data.records import HospitalRecords
from fl_ppae.hardware import device_name, device_of, uses_bfloat16
from fl_ppae.hospital.training import TrainingTerms, train_round
from fl_ppae.models.build import local_model_of
from fl_ppae.models.objectives import OBJECTIVES
from fl_ppae.privacy.randomness import streams
from fl_ppae.privacy.scopes import SCOPES

_SECONDS_ON_CUDA = 1.0  # the aim on an H200


def measure(size: Size) -> Measurement:
    """Seconds of an epoch by scope, including the transfer to the device; a few steps warm up."""
    device, rng = device_of("auto"), np.random.default_rng(0)
    count = max(size.totals)
    images = rng.integers(0, 256, (count, 28, 28, 3), np.uint8)
    records = HospitalRecords(Split(images, np.zeros(count, np.int64)), np.arange(count))
    aim = Aim(_SECONDS_ON_CUDA) if device.type == "cuda" else None
    seconds, lines = {}, []
    for scope in ("encoder", "autoencoder"):
        for steps in (3, -(-count // size.batch)):
            terms = TrainingTerms(
                SCOPES[scope],
                OBJECTIVES["reconstruction"],
                1.0,
                1e-3,
                min(1.0, size.batch / count),
                steps,
                1e-3,
                uses_bfloat16("auto", device),
                device,
            )
            model = local_model_of(RunConfig(seed=0))
            start = time.perf_counter()
            train_round(model, records, terms, streams(0, 0, 1))
            seconds[scope] = time.perf_counter() - start
        where = f"{device_name(device)}, scope {scope}: an epoch of {count:,} images"
        lines.append(Line(where, seconds[scope], "s", aim))
    return Measurement({"device": device_name(device), "images": count, "seconds": seconds}, tuple(lines))
