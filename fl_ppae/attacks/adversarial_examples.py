"""Adversarial examples: images perturbed until encoder and classifier together are wrong, by ART."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fl_ppae.attacks.attack import Attack, Findings, Result, ThreatModel, result
from fl_ppae.attacks.audited_run import AuditedRun
from fl_ppae.attacks.needs import classifier_missing, known_encoder_missing, one_class_missing
from fl_ppae.attacks.scenes import through_known_encoder
from fl_ppae.leakage.adversarial_losses import Loss, losses_for
from fl_ppae.leakage.intervals import share
from fl_ppae.leakage.inversion import Encode
from fl_ppae.server.classification import FittedClassifier

NAME = "adversarial-examples"
WHITE_BOX = ThreatModel("white-box", "has the encoder and the classifier, and takes gradients through both")
_RADII = (1, 2, 4, 8)  # of 255, L-infinity
_SHOWN = 4
_PGD_STEPS = 20

Perturb = Callable[[np.ndarray, np.ndarray, float], np.ndarray]


class _EncoderAndClassifier(nn.Module):
    def __init__(self, encode: Encode, classifier: FittedClassifier) -> None:
        super().__init__()
        self.encode, self.network = encode, classifier.network
        self.mean, self.scale = classifier.mean, classifier.scale

    def forward(self, images: Tensor) -> Tensor:
        scores: Tensor = self.network((self.encode(images) - self.mean) / self.scale)
        return scores


class _Summed(nn.Module):
    """A loss as ART takes it: of scores (N, K) and one-hot labels (N, K), summed over records."""

    def __init__(self, loss: Loss) -> None:
        super().__init__()
        self.loss = loss

    def forward(self, scores: Tensor, one_hot: Tensor) -> Tensor:
        return self.loss(scores, one_hot.argmax(1)).sum()


def run(audited: AuditedRun, _: ThreatModel) -> Findings:
    """Accuracy on perturbed images by radius; chance is a perturbation of that radius with random signs.

    The attacker sees whether an image is still recognised, so it also tries random signs, no change, and one
    loss after another. Radius 4/255 is the result; the other radii are details.
    """
    scene = through_known_encoder(audited)
    victims, threat = scene.victims, f"{WHITE_BOX.name}, {scene.threat}"
    assert scene.encode is not None
    assert audited.classifier is not None
    model = _EncoderAndClassifier(scene.encode, audited.classifier).eval()
    images, labels = victims.images.numpy(), victims.labels.numpy()
    attacks = _attacks(model, victims.images.shape[1:], audited.dataset.spec.num_classes)
    signs = np.random.default_rng(0).choice(np.array([-1, 1], np.float32), images.shape)

    def right(changed: np.ndarray, labels: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            guesses = torch.cat([model(part).argmax(1) for part in torch.from_numpy(changed).split(256)])
        recognised: np.ndarray = guesses.numpy() == labels
        return recognised

    unchanged = right(images, labels)
    shown = [result(NAME, threat, "accuracy", share(unchanged.sum(), len(labels)), variant="unchanged")]
    details: list[Result] = []
    for radius in _RADII:
        random = right(np.clip(images + radius / 255 * signs, 0, 1), labels)
        for name, by_loss in attacks.items():
            still = unchanged & random
            for attack in by_loss:
                if (left := np.flatnonzero(still)).size:
                    still[left] = right(attack(images[left], labels[left], radius / 255), labels[left])
            variant = f"{name}, {radius}/255"
            row = result(
                NAME,
                threat,
                "accuracy",
                share(still.sum(), len(labels)),
                chance=float(random.mean()),
                variant=variant,
            )
            (shown if radius == _SHOWN else details).append(row)
    return Findings(tuple(shown), tuple(details))


def _attacks(model: nn.Module, image_shape: torch.Size, classes: int) -> dict[str, list[Perturb]]:
    """FGSM and PGD, each with every loss, which perturb images (N, C, H, W) in [0, 1] with labels (N,) by an
    L-infinity radius."""
    # Imported here because it takes seconds.
    from art.attacks.evasion import FastGradientMethod, ProjectedGradientDescent
    from art.estimators.classification import PyTorchClassifier

    estimators: list[Any] = [
        PyTorchClassifier(
            model,
            loss=_Summed(loss),
            input_shape=tuple(image_shape),
            nb_classes=classes,
            clip_values=(0.0, 1.0),
            device_type="cpu",
        )
        for loss in losses_for(classes).values()
    ]

    def fgsm(estimator: Any, images: np.ndarray, labels: np.ndarray, radius: float) -> np.ndarray:
        changed: np.ndarray = FastGradientMethod(estimator, eps=radius, batch_size=256).generate(
            images, labels
        )
        return changed

    def pgd(estimator: Any, images: np.ndarray, labels: np.ndarray, radius: float) -> np.ndarray:
        attack = ProjectedGradientDescent(
            estimator,
            norm=np.inf,
            eps=radius,
            eps_step=2.5 * radius / _PGD_STEPS,
            max_iter=_PGD_STEPS,
            batch_size=256,
            verbose=False,
        )
        changed: np.ndarray = attack.generate(images, labels)
        return changed

    return {
        name: [partial(perturb, estimator) for estimator in estimators]
        for name, perturb in (("FGSM", fgsm), ("PGD", pgd))
    }


ATTACK = Attack(
    NAME,
    "images perturbed by FGSM and PGD within an L-infinity radius, through encoder and classifier",
    "Goodfellow et al. 2014 (arXiv:1412.6572); Madry et al. 2017 (arXiv:1706.06083); "
    "Croce & Hein 2020 (arXiv:2003.01690)",
    run,
    (WHITE_BOX,),
    (one_class_missing, classifier_missing, known_encoder_missing),
)
