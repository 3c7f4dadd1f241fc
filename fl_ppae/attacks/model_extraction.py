"""Copies the central classifier through its answers."""

from __future__ import annotations

from pathlib import Path

import torch

from fl_ppae.attacks.attack import COLLUDING_HOSPITAL, Attack, Findings, ThreatModel, result
from fl_ppae.attacks.audited_run import AuditedRun
from fl_ppae.attacks.needs import black_box_missing, classifier_missing, one_class_missing
from fl_ppae.attacks.scenes import black_box
from fl_ppae.leakage.extraction import extract
from fl_ppae.leakage.intervals import share
from fl_ppae.plotting import plot_extraction

NAME = "model-extraction"
_QUERIES = (30, 100, 300, 1000, 3000)


def run(audited: AuditedRun, threat_model: ThreatModel) -> Findings:
    """Train surrogates on 30 answers and more; chance is to guess the most frequent answer every time.

    The most queries give the results; the others are details.
    """
    scene = black_box(audited, threat_model)
    assert audited.classifier is not None
    assert scene.known is not None
    order = torch.randperm(len(scene.known), generator=torch.Generator().manual_seed(0))
    asked = scene.known.rows(order[: audited.effort.queries]).encodings
    answers = torch.from_numpy(audited.classifier.probabilities(asked.numpy()))
    tested, labels = scene.victims.encodings, scene.victims.labels
    given = torch.from_numpy(audited.classifier.probabilities(tested.numpy())).argmax(1)
    usual = int(answers.argmax(1).bincount().argmax())
    steps = sorted({count for count in _QUERIES if count < len(asked)} | {len(asked)})
    rows = []
    for count in steps:
        guesses = extract(asked[:count], answers[:count])(tested)
        for metric, truth in (("agreement", given), ("accuracy", labels)):
            rows.append(
                result(
                    NAME,
                    f"{threat_model.name}, asks for probabilities",
                    metric,
                    share((guesses == truth).sum().item(), len(truth)),
                    chance=(truth == usual).sum().item() / len(truth),
                    variant=f"{count} queries",
                )
            )
    copied = share((given == labels).sum().item(), len(labels))
    original = result(NAME, rows[-1].threat_model, "accuracy", copied, variant="of the classifier copied")
    by_queries = {
        metric: [row.value for row in rows if row.metric == metric] for metric in ("agreement", "accuracy")
    }

    def draw(path: Path) -> None:
        plot_extraction(steps, by_queries, copied.value, path, audited.stored.data_label)

    return Findings((*rows[-2:], original), tuple(rows[:-2]), {f"{NAME}.png": draw})


ATTACK = Attack(
    NAME,
    "the classifier copied by a surrogate trained on its answers: agreement, accuracy by number of queries",
    "Tramer et al. 2016 (arXiv:1609.02943); Orekondy et al. 2019 (arXiv:1812.02766)",
    run,
    (COLLUDING_HOSPITAL,),
    (one_class_missing, classifier_missing, black_box_missing),
)
