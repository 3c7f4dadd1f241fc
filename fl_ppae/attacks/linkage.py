"""Whether two encodings are of one image: the same patient's sample, captured and encoded once more."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from fl_ppae.attacks.attack import SERVER_SPLIT, Attack, Findings, ThreatModel, result
from fl_ppae.attacks.audited_run import AuditedRun
from fl_ppae.attacks.inversion import known_pairs
from fl_ppae.attacks.needs import black_box_missing, one_class_missing
from fl_ppae.attacks.scenes import Scene, black_box, released_once
from fl_ppae.leakage.matching import fit_matcher, linkage_scores
from fl_ppae.leakage.membership import membership_auc
from fl_ppae.leakage.recapture import recaptured
from fl_ppae.models.encoding import encode

NAME = "linkage"
Again = Callable[[Tensor], Tensor]
"""From images to the encodings of another capture of them."""


def run(audited: AuditedRun, threat_model: ThreatModel) -> Findings:
    """The AUC of telling pairs of one image from pairs of two; chance is 0.5.

    The class alone links images, too: `class_chance` is the AUC of "both are of one class".
    """
    scene, encoder, initial = black_box(audited, threat_model), audited.encoder, audited.initial_encoder
    assert encoder is not None
    any_way_up = audited.dataset.spec.any_way_up

    def again(images: Tensor) -> Tensor:
        # With noise of its own: the same noise twice would link them.
        return released_once(audited, recaptured(images, any_way_up=any_way_up), encoder, seed=1)

    same, different, others = _scores(scene, again)
    undefended = _scores(
        scene.through(initial),
        lambda images: torch.from_numpy(encode(initial, recaptured(images, any_way_up=any_way_up))),
    )
    labels = scene.victims.labels.numpy()
    one_class = (labels == labels[others]).astype(float)
    row = result(
        NAME,
        scene.threat,
        "linkage_auc",
        membership_auc(same, different),
        chance=0.5,
        class_chance=membership_auc(np.ones_like(one_class), one_class).value,
        undefended=membership_auc(*undefended[:2]).value,
    )
    return Findings((row,))


def _scores(scene: Scene, again: Again) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """As `linkage_scores`, for the victims' encodings and those of another capture of their images."""
    known, victims = known_pairs(scene), scene.victims
    matcher = fit_matcher(known.encodings, again(known.images))
    same, different, others = linkage_scores(matcher, victims.encodings, again(victims.images))
    return same.numpy(), different.numpy(), others.numpy()


ATTACK = Attack(
    NAME,
    "whether two encodings are of one image, moved, brightened and turned in between",
    "canonical correlations (Hotelling 1936), or nearest neighbour",
    run,
    (SERVER_SPLIT,),
    (one_class_missing, black_box_missing),
)
