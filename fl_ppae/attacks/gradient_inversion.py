"""Reconstructs images from the encoder's gradient on one batch.

The gradients are computed here, from the run's data, architecture and initial weights; the run's own updates
cover several steps on large batches and are not attacked. At the first step of round 1 the encoder and its
partner (the decoder or task head that never leaves a hospital) still have their public initial weights, so
the attacker knows both.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fl_ppae.attacks.attack import Attack, Findings, Result, ThreatModel, result
from fl_ppae.attacks.audited_run import AuditedRun
from fl_ppae.attacks.needs import one_class_missing
from fl_ppae.attacks.shadows import SEED
from fl_ppae.data.records import HospitalRecords
from fl_ppae.leakage.gradient_inversion import in_best_order, invert_gradient
from fl_ppae.leakage.gradients import encoder_gradient, noised_encoder_gradient
from fl_ppae.leakage.image_quality import class_mean_images, image_quality, mean_images
from fl_ppae.leakage.intervals import t_mean
from fl_ppae.leakage.inversion import MEAN_IMAGE
from fl_ppae.models.build import local_model_of
from fl_ppae.models.objectives import OBJECTIVES, LocalModel
from fl_ppae.plotting import plot_image_rows
from fl_ppae.privacy.plan import plan_hospital
from fl_ppae.privacy.scopes import SCOPES

NAME = "gradient-inversion"
KNOWN_GRADIENT = ThreatModel(
    "known-gradient",
    "has the encoder's gradient of one small batch at the first step, labels if the objective needs them, "
    "the public initial weights of encoder and partner, and the validation split to practise on; "
    "stronger than the server, which sees the sum of several large batches",
)
BATCHES = (1, 2, 4, 8)
_IMAGES = 8  # of each batch size
_METRICS = ("ssim", "psnr")
_TV_WEIGHT = 0.01
_GRADIENT = "gradient"


@dataclass(frozen=True, eq=False)
class _Batches:
    """Images whose gradients are attacked, and the blind guesses of an attacker who has other images."""

    images: Tensor
    labels: Tensor
    blind: dict[str, Tensor]
    seed: int  # of the noise


def run(audited: AuditedRun, threat_model: ThreatModel) -> Findings:
    """Reconstructions from batches of 1, 2, 4 and 8, with the run's clipping and noise and without defence.

    The attacker first practises on images of its own. For each metric it uses the gradient only if that did
    better there than the mean image (with labels: or the class mean). Chance is the mean image. Batches of 2
    to 8 are details.
    """
    model, victims = local_model_of(audited.config), _victims(audited)
    attacked, practice, class_means = _batches(audited, victims)
    private = bool(SCOPES[audited.config.dp_scope].noised)
    floors = [image_quality(attacked.images, guess) for guess in (attacked.blind[MEAN_IMAGE], class_means)]
    rows: list[Result] = []
    made: dict[str, Tensor] = {}
    for size in BATCHES:
        audited.say(f"{NAME}, batch {size}")
        plain = _chosen(audited, model, attacked, practice, size, private=False)
        chosen = plain
        if private:
            chosen = _chosen(audited, model, attacked, practice, size, private=True)
            made[f"batch {size}"] = chosen[_METRICS[0]][1]
        made[f"batch {size}, no DP"] = plain[_METRICS[0]][1]
        for metric in _METRICS:
            name, images = chosen[metric]
            quality, undefended = (
                image_quality(attacked.images, guess).of(metric) for guess in (images, plain[metric][1])
            )
            chance, class_chance = (float(floor.of(metric).mean()) for floor in floors)
            rows.append(
                result(
                    NAME,
                    threat_model.name,
                    metric,
                    t_mean(quality),
                    chance=chance,
                    undefended=float(undefended.mean()),
                    class_chance=class_chance,
                    variant=f"batch {size}" + ("" if name == _GRADIENT else f", {name}"),
                )
            )
    panels = {"original": attacked.images, **made, MEAN_IMAGE: attacked.blind[MEAN_IMAGE]}

    def draw(path: Path) -> None:
        title = f"{NAME}: {threat_model.name}"
        plot_image_rows(
            {key: each.numpy() for key, each in panels.items()}, path, title, audited.stored.data_label
        )

    first = len(_METRICS)
    return Findings(tuple(rows[:first]), tuple(rows[first:]), {f"{NAME}.png": draw})


def _batches(audited: AuditedRun, victims: HospitalRecords) -> tuple[_Batches, _Batches, Tensor]:
    """The victims' batches, those that the attacker practises on, and the victims' class means.

    The blind guesses come from the rest of the validation split.
    """
    split = audited.dataset.val
    order = np.random.default_rng(SEED).permutation(len(split))
    own, rest = (HospitalRecords(split, rows) for rows in (order[:_IMAGES], order[_IMAGES:]))
    known, known_labels = rest.images(), rest.labels()
    with_labels = OBJECTIVES[audited.config.objective].learns_labels

    def batches(records: HospitalRecords, seed: int) -> tuple[_Batches, Tensor]:
        images, labels = records.images(), records.labels()
        class_means = class_mean_images(known, known_labels, labels)
        blind = {MEAN_IMAGE: mean_images(known, len(images))}
        if with_labels:
            blind["class-mean image"] = class_means
        return _Batches(images, labels, blind, seed), class_means

    attacked, class_means = batches(victims, SEED + 1)
    return attacked, batches(own, SEED + 2)[0], class_means


def _chosen(
    audited: AuditedRun,
    model: LocalModel,
    attacked: _Batches,
    practice: _Batches,
    size: int,
    *,
    private: bool,
) -> dict[str, tuple[str, Tensor]]:
    """By metric what the attacker's practice says is best: its name, and the guess of each attacked image."""
    found = []
    for batches in (practice, attacked):
        gradient = _attack(audited, model, batches, size, private=private)
        found.append({_GRADIENT: gradient, **batches.blind})
    tried, guesses = found
    own = {name: image_quality(practice.images, guess) for name, guess in tried.items()}
    best = {metric: max(own, key=lambda name: own[name].goodness(metric)) for metric in _METRICS}
    return {metric: (name, guesses[name]) for metric, name in best.items()}


def _victims(audited: AuditedRun) -> HospitalRecords:
    """Test images: the gradients are computed here, so it makes no difference who holds the records."""
    test = audited.dataset.test
    return HospitalRecords(test, np.random.default_rng(SEED).permutation(len(test))[:_IMAGES])  # in batches


def _attack(
    audited: AuditedRun,
    model: LocalModel,
    batches: _Batches,
    size: int,
    *,
    private: bool,
) -> Tensor:
    """The reconstruction of each image, (N, C, H, W), from gradients on `size` images each."""
    objective = OBJECTIVES[audited.config.objective]
    gradient = _private_gradient(audited, batches.seed) if private else encoder_gradient
    generator = torch.Generator().manual_seed(SEED)
    parts, mean_image = [], batches.blind[MEAN_IMAGE][0]
    for some, theirs in zip(batches.images.split(size), batches.labels.split(size), strict=True):
        seen = gradient(model, some, theirs, objective).detach()
        start = (mean_image + 0.1 * torch.randn(some.shape, generator=generator)).clamp(0, 1)
        found = invert_gradient(
            model, seen, theirs, objective, start, steps=audited.effort.searches, tv_weight=_TV_WEIGHT
        )
        parts.append(in_best_order(some, found))
    return torch.cat(parts)


def _private_gradient(audited: AuditedRun, seed: int) -> partial[Tensor]:
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
        generator=torch.Generator().manual_seed(seed),
    )


ATTACK = Attack(
    NAME,
    "images optimised until their encoder gradient is the one seen; batches of 1 to 8, with the run's noise",
    "Zhu et al. 2019 (arXiv:1906.08935); Geiping et al. 2020 (arXiv:2003.14053)",
    run,
    (KNOWN_GRADIENT,),
    (one_class_missing,),
)
