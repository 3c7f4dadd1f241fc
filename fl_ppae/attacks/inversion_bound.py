"""How badly an unbiased attacker must reconstruct the images of noised encodings."""

from __future__ import annotations

from fl_ppae.attacks.attack import MEASUREMENT, Attack, Findings, ThreatModel, result
from fl_ppae.attacks.audited_run import AuditedRun
from fl_ppae.attacks.needs import common_encoder_missing, noise_missing
from fl_ppae.attacks.scenes import measurement
from fl_ppae.leakage.fisher import fisher_leakage
from fl_ppae.leakage.image_quality import image_quality, mean_images
from fl_ppae.leakage.intervals import Estimate, t_mean

NAME = "inversion-bound"


def run(audited: AuditedRun, _: ThreatModel) -> Findings:
    """dFIL, mean over images, and 1 / dFIL, which bounds the mean squared error; chance: the mean image's.

    Above that chance, an attacker who reconstructs without bias does worse than one who guesses.
    """
    scene, release = measurement(audited), audited.release
    assert scene.encode is not None
    assert release is not None
    images = scene.victims.images
    dfil = t_mean(fisher_leakage(scene.encode, images, release.noise_multiplier).numpy())
    guess = image_quality(images, mean_images(images, len(images))).mse.mean()
    bound = Estimate(_inverse(dfil.value), _inverse(dfil.high), _inverse(dfil.low), dfil.n)
    return Findings(
        (
            result(NAME, scene.threat, "dfil", dfil),
            result(NAME, scene.threat, "mse_bound", bound, chance=float(guess)),
        )
    )


def _inverse(dfil: float) -> float:
    """Infinite where the encoding shows nothing."""
    return 1 / dfil if dfil > 0 else float("inf")


ATTACK = Attack(
    NAME,
    "the least error of unbiased inversions of noised encodings, by Fisher information",
    "Maeng et al. 2023 (arXiv:2305.04146)",
    run,
    (MEASUREMENT,),
    (noise_missing, common_encoder_missing),
)
