"""What the inversion attacks share: attackers fitted once, their reconstructions scored and drawn."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fl_ppae.attacks.attack import Findings, Result, ThreatModel, result
from fl_ppae.attacks.audited_run import AuditedRun
from fl_ppae.attacks.groups import by_class
from fl_ppae.attacks.scenes import Scene, black_box, released
from fl_ppae.attacks.shadows import SEED, shadow_encoder
from fl_ppae.data.records import HospitalRecords
from fl_ppae.leakage.image_quality import ImageQuality, class_mean_images, image_quality, mean_images
from fl_ppae.leakage.intervals import t_mean
from fl_ppae.leakage.inversion import (
    Inverter,
    Pairs,
    best_inverter,
    fit_inverters,
    measured_on,
    split_own,
)
from fl_ppae.plotting import plot_image_rows
from fl_ppae.runs.kept import digest

_METRICS = ("ssim", "psnr", "mse")
_DRAWN = 10


@dataclass(frozen=True, eq=False)
class Fitted:
    """A scene and the attackers fitted to it, the best on its own held-out pairs first."""

    scene: Scene
    inverters: tuple[Inverter, ...]


@lru_cache(maxsize=4)  # the white-box attack starts from the same attackers
def fitted_black_box(audited: AuditedRun, threat_model: ThreatModel) -> tuple[Fitted, Fitted]:
    """The attackers against the run, and against its random initial encoder."""
    scene = black_box(audited, threat_model)
    audited.say(f"{scene.threat}: fitting the attackers")
    attackers = fit_attackers(audited, scene)
    audited.say(f"{scene.threat}: the same without defence")
    return attackers, fit_attackers(audited, scene.through(audited.initial_encoder))


def fit_attackers(audited: AuditedRun, scene: Scene) -> Fitted:
    """Black-box attackers fitted to what the attacker holds.

    If the victims' encoders are not its own, it chooses by encodings of one that is not its own either.
    """
    known = known_pairs(scene)
    inverters = fit_inverters(known, audited.effort.network_steps, losses=audited.effort.losses)
    if scene.foreign:
        inverters = measured_on(inverters, _through_another_encoder(audited, known))
    return Fitted(scene, inverters)


def known_pairs(scene: Scene) -> Pairs:
    """The attacker's pairs."""
    assert scene.known is not None
    return scene.known


def _through_another_encoder(audited: AuditedRun, known: Pairs) -> Pairs:
    """The attacker's held-out images, as a hospital with half of its records would have released them."""
    assert audited.deal is not None
    name = audited.hospitals[0]
    records = audited.deal.train[name]
    half = np.sort(np.random.default_rng(SEED).permutation(records.indices)[: len(records) // 2])
    other = HospitalRecords(records.split, half, records.shift)
    encoder = shadow_encoder(audited, audited.config, other, digest(half), index=0)
    own = split_own(known)[1]
    return released(audited, own.images, own.labels, encoder)


def inversion_findings(audited: AuditedRun, attack: str, attacked: Fitted, plain: Fitted) -> Findings:
    """Score the attackers on the victims: by each metric the best on its own pairs, the others as details.

    `plain`: the same without defence.
    """
    scene, inverters = attacked.scene, attacked.inverters
    victims, known = scene.victims, known_pairs(scene)
    images = {each.name: each.decode(victims.encodings) for each in inverters}
    unprotected = {best_inverter(plain.inverters, metric).name for metric in _METRICS}
    undefended = {
        each.name: each.decode(plain.scene.victims.encodings)
        for each in plain.inverters
        if each.name in unprotected
    }
    mean = mean_images(known.images, len(victims))
    class_mean = class_mean_images(known.images, known.labels, victims.labels)
    qualities = {name: image_quality(victims.images, made) for name, made in images.items()}
    floors = [image_quality(victims.images, guess) for guess in (mean, class_mean)]
    plain_qualities = {name: image_quality(victims.images, made) for name, made in undefended.items()}

    def rows(metric: str, name: str) -> Callable[[Tensor, str, int], list[Result]]:
        without = plain_qualities[best_inverter(plain.inverters, metric).name]
        return partial(_rows, attack, scene.threat, metric, name, (qualities[name], *floors, without))

    best = {metric: best_inverter(inverters, metric).name for metric in _METRICS}
    everyone, others = torch.arange(len(victims)), len(inverters)

    def of_best(positions: Tensor, group: str, among: int) -> list[Result]:
        return [row for metric in _METRICS for row in rows(metric, best[metric])(positions, group, among)]

    details = [
        row
        for name in images
        for metric in _METRICS
        if name != best[metric]
        for row in rows(metric, name)(everyone, "all", others)
    ]
    shown: Mapping[str, Tensor] = {
        "original": victims.images,
        **{f"{name}{' (best)' if name == best['ssim'] else ''}": made for name, made in images.items()},
        "without defence": undefended[best_inverter(plain.inverters, "ssim").name],
        "class-mean image": class_mean,
    }
    drawn = torch.linspace(0, len(victims) - 1, min(_DRAWN, len(victims))).long()
    title = f"{attack}: {scene.threat}"

    def draw(path: Path) -> None:
        panels = {name: made[drawn].numpy() for name, made in shown.items()}
        plot_image_rows(panels, path, title, audited.stored.data_label)

    return Findings(
        tuple(of_best(everyone, "all", 1)),
        (*details, *by_class(audited, scene, of_best)),
        {f"{attack}_{scene.threat.split(',')[0]}.png": draw},
    )


def _rows(
    attack: str,
    threat: str,
    metric: str,
    name: str,
    qualities: tuple[ImageQuality, ...],
    positions: Tensor,
    group: str,
    among: int,
) -> list[Result]:
    """The row of one attacker; `qualities`: its own, the mean image's, the class mean's, without defence."""
    own, *compared = (quality.of(metric)[positions.numpy()] for quality in qualities)
    chance, class_chance, undefended = (float(values.mean()) for values in compared)
    return [
        result(
            attack,
            threat,
            metric,
            t_mean(own, among),
            chance=chance,
            undefended=undefended,
            class_chance=class_chance,
            variant=name,
            group=group,
        )
    ]
