"""A DP step, compared with stock Opacus and with training the same network without DP.

All three use the same batches of the same uint8 images and end with a step of Adam. The two baselines run
in float32 and the default layout, as a user would write them.
"""

from __future__ import annotations

import statistics
import time
import warnings
from collections.abc import Callable, Mapping

import numpy as np
import torch
from opacus import GradSampleModule
from opacus.optimizers import DPOptimizer

from fl_ppae.benchmarks.results import Aim, Line, Measurement, Size
from fl_ppae.config import RunConfig
from fl_ppae.data.cache import Split
from fl_ppae.data.records import HospitalRecords
from fl_ppae.hardware import uses_bfloat16
from fl_ppae.hospital.training import LocalTrainer, TrainingTerms, noised
from fl_ppae.models.build import local_model_of
from fl_ppae.models.objectives import OBJECTIVES
from fl_ppae.privacy.randomness import seeded_stream
from fl_ppae.privacy.scopes import SCOPES, Scope

Step = Callable[[], None]

_NOISE, _CLIP, _RATE = 1.0, 1e-3, 1e-3
_AIMS = {"autoencoder": 3.0, "encoder": 2.5, "frozen-decoder": 2.5}
_PLAIN = "non-private"


def measure(size: Size) -> Measurement:
    """Records per second for every scope, with fl-ppae and with Opacus, and without DP."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (4 * size.batch, 28, 28, 3), np.uint8)
    records = HospitalRecords(Split(images, np.zeros(len(images), np.int64)), np.arange(len(images)))
    contestants: dict[str, Step] = {_PLAIN: _plain_step(records, size.batch)}
    for name in _AIMS:
        contestants[f"{name} fl-ppae"] = _own_step(records, size.batch, SCOPES[name])
        contestants[f"{name} opacus"] = _opacus_step(records, size.batch, SCOPES[name])
    speeds = {name: size.batch / spent for name, spent in interleaved(contestants, size.repeats).items()}
    numbers: dict[str, object] = {"records_per_second": speeds}
    lines = [Line("non-private, float32, default layout", speeds[_PLAIN], "records/s")]
    for name, aim in _AIMS.items():
        own, stock = speeds[f"{name} fl-ppae"], speeds[f"{name} opacus"]
        ratios = {"ratio_to_opacus": own / stock, "ratio_to_non_private": own / speeds[_PLAIN]}
        numbers[name] = ratios
        lines += [
            Line(f"{name}: fl-ppae", own, "records/s"),
            Line(f"{name}: stock Opacus", stock, "records/s"),
            Line(f"{name}: ratio to Opacus", ratios["ratio_to_opacus"], "", Aim(aim, at_least=True)),
            Line(
                f"{name}: ratio to non-private", ratios["ratio_to_non_private"], "", Aim(1.0, at_least=True)
            ),
        ]
    return Measurement(numbers, tuple(lines))


def interleaved(contestants: Mapping[str, Step], repeats: int) -> dict[str, float]:
    """Median seconds of each, taken in turns, so that a busy moment affects all; the first turn warms up.

    A turn is two steps, and only the second counts: the first finds the caches and memory of another
    contestant, unlike the steps of a run.
    """
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for turn in range(repeats + 1):
        for name, step in contestants.items():
            step()
            start = time.perf_counter()
            step()
            if turn:
                seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(times) for name, times in seconds.items()}


def _batches(records: HospitalRecords, batch: int) -> Callable[[], np.ndarray]:
    rng = np.random.default_rng(1)
    return lambda: np.sort(rng.choice(len(records), batch, replace=False))


def _own_step(records: HospitalRecords, batch: int, scope: Scope) -> Step:
    """The step of a hospital, with the precision that `auto` chooses on this machine."""
    bfloat16 = uses_bfloat16("auto")
    terms = TrainingTerms(
        scope, OBJECTIVES["reconstruction"], _NOISE, _CLIP, batch / len(records), 1, _RATE, bfloat16=bfloat16
    )
    trainer = LocalTrainer(local_model_of(RunConfig(seed=0)), terms, batch)
    draw, stream = _batches(records, batch), seeded_stream(2)

    def step() -> None:
        trainer.step(noised(trainer.clipped_sums(records, draw()), terms, stream))

    return step


def _opacus_step(records: HospitalRecords, batch: int, scope: Scope) -> Step:
    """The same step with Opacus's GradSampleModule and DPOptimizer."""
    model = local_model_of(RunConfig(seed=0)).requires_grad_(False)
    noised = model.part(scope.noised).requires_grad_(True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about hooks that it will replace
        wrapped = GradSampleModule(
            model, loss_reduction="mean"
        )  # hooks what requires gradients at this point
    plain = model.part(scope.plain).requires_grad_(True)
    optimisers: list[torch.optim.Optimizer] = [
        DPOptimizer(
            torch.optim.Adam(noised.parameters(), lr=_RATE),
            noise_multiplier=_NOISE,
            max_grad_norm=_CLIP,
            expected_batch_size=batch,
            loss_reduction="mean",
        )
    ]
    if scope.plain:
        optimisers.append(torch.optim.Adam(plain.parameters(), lr=_RATE))
    return _stock(records, batch, wrapped, optimisers)


def _plain_step(records: HospitalRecords, batch: int) -> Step:
    model = local_model_of(RunConfig(seed=0))
    return _stock(records, batch, model, [torch.optim.Adam(model.parameters(), lr=_RATE)])


def _stock(
    records: HospitalRecords,
    batch: int,
    network: Callable[[torch.Tensor], torch.Tensor],
    optimisers: list[torch.optim.Optimizer],
) -> Step:
    draw = _batches(records, batch)

    def step() -> None:
        images = records.images(draw()).contiguous(memory_format=torch.contiguous_format)
        for optimiser in optimisers:
            optimiser.zero_grad()
        (network(images) - images).square().mean().backward()
        for optimiser in optimisers:
            optimiser.step()

    return step
