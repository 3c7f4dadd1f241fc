"""Reconstructs images from the encoder's gradient on one batch.

The gradients are computed here, from the run's data, architecture and initial weights; the run's own updates
cover several steps on large batches and are not attacked. At the first step of round 1 the encoder and its
partner (the decoder or task head that never leaves a hospital) still have their public initial weights, so
the attacker knows both.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fl_ppae.attacks.attack import Attack, Findings, Result, ThreatModel, result
from fl_ppae.attacks.audited_run import AuditedRun
from fl_ppae.attacks.shadows import SEED
from fl_ppae.data.records import HospitalRecords, to_float
from fl_ppae.leakage.gradient_inversion import in_best_order, invert_gradient
from fl_ppae.leakage.gradients import encoder_gradient, noised_encoder_gradient
from fl_ppae.leakage.image_quality import class_mean_images, image_quality, mean_images
from fl_ppae.leakage.intervals import bootstrap_mean
from fl_ppae.models.build import local_model_of
from fl_ppae.models.objectives import OBJECTIVES, LocalModel
from fl_ppae.plotting import plot_image_rows
from fl_ppae.privacy.plan import plan_hospital
from fl_ppae.privacy.scopes import SCOPES

NAME = "gradient-inversion"
KNOWN_GRADIENT = ThreatModel(
    "known-gradient",
    "has the encoder's gradient of one small batch at the first step, labels if the objective needs them, "
    "the public initial weights of encoder and partner, and the validation split's mean image; "
    "stronger than the server, which sees the sum of several large batches",
)
BATCHES = (1, 2, 4, 8)
_IMAGES = 8  # of each batch size
_METRICS = ("ssim", "psnr")
_TV_WEIGHT = 0.01


def run(audited: AuditedRun, threat_model: ThreatModel) -> Findings:
    """Reconstructions from batches of 1, 2, 4 and 8, with the run's clipping and noise and without defence.

    Chance is the mean image. Batches of 2 to 8 are details.
    """
    model, victims = local_model_of(audited.config), _victims(audited)
    images, labels = victims.images(), victims.labels()
    split = audited.dataset.val
    known, known_labels = to_float(split.images), torch.from_numpy(np.array(split.labels))
    floors = [
        image_quality(images, mean_images(known, len(images))),
        image_quality(images, class_mean_images(known, known_labels, labels)),
    ]
    private = bool(SCOPES[audited.config.dp_scope].noised)
    rows: list[Result] = []
    made: dict[str, Tensor] = {}
    for size in BATCHES:
        audited.say(f"{NAME}, batch {size}")
        plain = _attack(audited, model, images, labels, known.mean(0), size, private=False)
        attacked = plain
        if private:
            attacked = _attack(audited, model, images, labels, known.mean(0), size, private=True)
            made[f"batch {size}"] = attacked
        made[f"batch {size}, no DP"] = plain
        quality, undefended = image_quality(images, attacked), image_quality(images, plain)
        for metric in _METRICS:
            chance, class_chance = (float(floor.of(metric).mean()) for floor in floors)
            rows.append(
                result(
                    NAME,
                    threat_model.name,
                    metric,
                    bootstrap_mean(quality.of(metric)),
                    chance=chance,
                    undefended=float(undefended.of(metric).mean()),
                    class_chance=class_chance,
                    variant=f"batch {size}",
                )
            )
    panels = {"original": images, **made, "mean image": mean_images(known, len(images))}

    def draw(path: Path) -> None:
        title = f"{NAME}: {threat_model.name}"
        plot_image_rows(
            {key: each.numpy() for key, each in panels.items()}, path, title, audited.stored.data_label
        )

    first = len(_METRICS)
    return Findings(tuple(rows[:first]), tuple(rows[first:]), {f"{NAME}.png": draw})


def _victims(audited: AuditedRun) -> HospitalRecords:
    """Test images: the gradients are computed here, so it makes no difference who holds the records."""
    test = audited.dataset.test
    return HospitalRecords(test, np.sort(np.random.default_rng(SEED).permutation(len(test))[:_IMAGES]))


def _attack(
    audited: AuditedRun,
    model: LocalModel,
    images: Tensor,
    labels: Tensor,
    mean_image: Tensor,
    size: int,
    *,
    private: bool,
) -> Tensor:
    """The reconstruction of each image, (N, C, H, W), from gradients on `size` images each."""
    objective = OBJECTIVES[audited.config.objective]
    gradient = _private_gradient(audited) if private else encoder_gradient
    generator = torch.Generator().manual_seed(SEED)
    parts = []
    for some, theirs in zip(images.split(size), labels.split(size), strict=True):
        seen = gradient(model, some, theirs, objective).detach()
        start = (mean_image + 0.1 * torch.randn(some.shape, generator=generator)).clamp(0, 1)
        found = invert_gradient(
            model, seen, theirs, objective, start, steps=audited.effort.searches, tv_weight=_TV_WEIGHT
        )
        parts.append(in_best_order(some, found))
    return torch.cat(parts)


def _private_gradient(audited: AuditedRun) -> partial[Tensor]:
    """The gradient as the first hospital would clip and noise it."""
    config = audited.config
    name, records = next(iter(audited.stored.config["records"].items()))
    multiplier = plan_hospital(name, records, config).noise_multiplier
    assert multiplier is not None
    return partial(
        noised_encoder_gradient,
        max_grad_norm=config.max_grad_norm,
        noise_std=multiplier * config.max_grad_norm,
        scope=SCOPES[config.dp_scope],
        generator=torch.Generator().manual_seed(SEED + 1),
    )


ATTACK = Attack(
    NAME,
    "images optimised until their encoder gradient is the one seen; batches of 1 to 8, with the run's noise",
    "Zhu et al. 2019 (arXiv:1906.08935); Geiping et al. 2020 (arXiv:2003.14053)",
    run,
    (KNOWN_GRADIENT,),
)
