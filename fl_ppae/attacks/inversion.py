"""What the inversion attacks share: attackers fitted once, their reconstructions scored and drawn."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path

import torch
from torch import Tensor

from fl_ppae.attacks.attack import Findings, Result, ThreatModel, result
from fl_ppae.attacks.audited_run import AuditedRun
from fl_ppae.attacks.groups import by_class
from fl_ppae.attacks.scenes import Scene, black_box
from fl_ppae.leakage.image_quality import ImageQuality, class_mean_images, image_quality, mean_images
from fl_ppae.leakage.intervals import bootstrap_mean
from fl_ppae.leakage.inversion import Inverter, Pairs, fit_inverters
from fl_ppae.plotting import plot_image_rows

_METRICS = ("ssim", "psnr", "mse")
_DRAWN = 10


@dataclass(frozen=True, eq=False)
class Fitted:
    """A scene and the black-box attackers fitted to it, the best on its own held-out pairs first."""

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
    """Black-box attackers fitted to what the attacker holds."""
    return Fitted(scene, fit_inverters(known_pairs(scene), audited.effort.network_steps))


def known_pairs(scene: Scene) -> Pairs:
    """The attacker's pairs."""
    assert scene.known is not None
    return scene.known


def inversion_findings(
    audited: AuditedRun, attack: str, scene: Scene, inverters: tuple[Inverter, ...], undefended: Tensor
) -> Findings:
    """Score attackers on the victims: the first is the result, the others are details.

    `undefended`: reconstructions (N, C, H, W) of the same victims without defence.
    """
    victims, known = scene.victims, known_pairs(scene)
    images = {inverter.name: inverter.decode(victims.encodings) for inverter in inverters}
    mean = mean_images(known.images, len(victims))
    class_mean = class_mean_images(known.images, known.labels, victims.labels)
    qualities = {name: image_quality(victims.images, made) for name, made in images.items()}
    floors = tuple(image_quality(victims.images, guess) for guess in (mean, class_mean, undefended))

    def rows(name: str) -> Callable[[Tensor, str], list[Result]]:
        return partial(_rows, attack, scene.threat, name, qualities[name], floors)

    best, *others = images
    everyone = torch.arange(len(victims))
    details = [row for name in others for row in rows(name)(everyone, "all")]
    shown: Mapping[str, Tensor] = {
        "original": victims.images,
        **{f"{name}{' (best)' if name == best else ''}": made for name, made in images.items()},
        "without defence": undefended,
        "class-mean image": class_mean,
        "mean image": mean,
    }
    drawn = torch.linspace(0, len(victims) - 1, min(_DRAWN, len(victims))).long()
    title = f"{attack}: {scene.threat}"

    def draw(path: Path) -> None:
        panels = {name: made[drawn].numpy() for name, made in shown.items()}
        plot_image_rows(panels, path, title, audited.stored.data_label)

    return Findings(
        tuple(rows(best)(everyone, "all")),
        (*details, *by_class(audited, scene, rows(best))),
        {f"{attack}_{scene.threat.split(',')[0]}.png": draw},
    )


def _rows(
    attack: str,
    threat: str,
    name: str,
    quality: ImageQuality,
    floors: tuple[ImageQuality, ...],
    positions: Tensor,
    group: str,
) -> list[Result]:
    rows = []
    for metric in _METRICS:
        chance, class_chance, undefended = (float(floor.of(metric)[positions].mean()) for floor in floors)
        rows.append(
            result(
                attack,
                threat,
                metric,
                bootstrap_mean(quality.of(metric)[positions.numpy()]),
                chance=chance,
                undefended=undefended,
                class_chance=class_chance,
                variant=name,
                group=group,
            )
        )
    return rows
