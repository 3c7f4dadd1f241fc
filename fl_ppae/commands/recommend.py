"""`fl-ppae recommend`: the best configuration in a study's table, or the nearest if none is acceptable."""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from fl_ppae.commands import recommend_joining
from fl_ppae.commands.output import show
from fl_ppae.errors import UserError, did_you_mean
from fl_ppae.files import read_json
from fl_ppae.privacy.figures import written
from fl_ppae.reporting.tables import title

if TYPE_CHECKING:
    from fl_ppae.studies.recommendation import Choice, Requirements
    from fl_ppae.studies.summary import Group

NOTES = (
    "Epsilon covers the encoder updates and protects only the records they were trained on. Encodings shared "
    "in the clear have no guarantee; the SSIM is one attacker's, and a stronger one may do better.",
    "Values are means over seeds at the study's scale; rounds and batch size are the simulation's. "
    "Run and audit the configuration before relying on it.",
)


def command(arguments: argparse.Namespace) -> int:
    """Show the frontier and the pick; 1 if no configuration meets the requirements."""
    if arguments.joining is not None:
        return recommend_joining.command(arguments)
    from fl_ppae.studies.frontier import frontier, ranked
    from fl_ppae.studies.recommendation import choice, meets, nearest, pick, without_training
    from fl_ppae.studies.summary import where

    required = _requirements(arguments)
    folder, groups = _groups(arguments.study)
    settings = read_json(folder / "study.json")["settings"] if (folder / "study.json").is_file() else {}
    fc_size = settings.get("scale", {}).get("fc_size", 0)
    dataset = _dataset(arguments.dataset, groups)
    subset = where(groups, dataset=dataset)
    candidates = [choice(group, fc_size) for group in ranked(subset)]
    if not candidates:
        raise UserError(f"{folder}: no trained configuration of {dataset} has finished yet")
    best = [choice(group, fc_size) for group in frontier(subset) if group.formal or not required.formal_only]
    chosen = pick(candidates, required)
    if chosen is not None:
        why = _why(chosen, required, [one for one in best if meets(one, required)])
        line = _line(chosen)
    else:
        miss = nearest(candidates, required)
        assert miss is not None
        reasons = ", and ".join(miss.violations)
        why = f"No configuration meets the requirements. Nearest: {_name(miss.choice)}; {reasons}."
        line = _line(miss.choice)
    cheap = without_training(subset, required.max_ssim)
    if cheap is not None and (chosen is None or cheap.means["accuracy"].value >= chosen.accuracy):
        why += f" {_baseline(cheap)}"
    source = subset[0].keys["source"]
    document = {
        "study": str(folder),
        "data_source": source,
        "wish": asdict(required),
        "satisfied": chosen is not None,
        "why": why,
        "command": line,
        "pick": _document(chosen),
        "frontier": [_document(one) for one in best],
        "notes": list(NOTES),
    }
    style = "bold green" if chosen is not None else "bold yellow"
    shown: list[RenderableType] = [_table(best, chosen, source), Text(why, style=style), Text(line)]
    show(document, [*shown, *map(Text, NOTES)], as_json=arguments.json)
    return 0 if chosen is not None else 1


def _requirements(arguments: argparse.Namespace) -> Requirements:
    from fl_ppae.studies.recommendation import Requirements

    if not arguments.max_epsilon > 0:
        raise UserError(f"--max-epsilon {arguments.max_epsilon:g}: must be above 0")
    if not -1 <= arguments.max_inversion_ssim <= 1:
        raise UserError(f"--max-inversion-ssim {arguments.max_inversion_ssim:g}: must be from -1 to 1")
    accuracy = 0.0 if arguments.min_accuracy is None else arguments.min_accuracy
    if not 0 <= accuracy <= 1:
        raise UserError(f"--min-accuracy {accuracy:g}: must be from 0 to 1")
    return Requirements(arguments.max_epsilon, arguments.max_inversion_ssim, accuracy, arguments.formal_only)


def _groups(study: str) -> tuple[Path, list[Group]]:
    from fl_ppae.studies import table
    from fl_ppae.studies.columns import PAPER
    from fl_ppae.studies.study import study_folder
    from fl_ppae.studies.summary import summarise

    folder = study_folder(study, "paper")
    rows = table.read(folder / table.FILE)
    if rows.empty:
        raise UserError(f"{folder} holds no study yet; make one with: fl-ppae study paper")
    missing = [one.name for one in PAPER if one.role == "key" and one.name not in rows]
    if missing:
        raise UserError(
            f"{folder / table.FILE} is not the table of a paper study: it has no column {missing[0]!r}"
        )
    return folder, summarise(rows)


def _dataset(asked: str | None, groups: Sequence[Group]) -> str:
    present = list(dict.fromkeys(group.keys["dataset"] for group in groups))
    if asked is not None and asked not in present:
        raise UserError(f"--dataset {asked!r} is not in the study{did_you_mean(asked, present)}")
    if asked is None and len(present) != 1:
        raise UserError(f"the study has several data sets; choose one with --dataset: {', '.join(present)}")
    return asked or present[0]


def _why(chosen: Choice, required: Requirements, fitting: Sequence[Choice]) -> str:
    """Why it is the pick; `fitting` are the choices on the frontier that meet the requirements."""
    bounds = [f"epsilon <= {required.max_epsilon:g}", f"inversion SSIM <= {required.max_ssim:g}"]
    if required.min_accuracy:
        bounds.append(f"accuracy >= {required.min_accuracy:g}")
    among = "the only one" if len(fitting) == 1 else f"the most accurate of {len(fitting)}"
    what = f"{among} on the frontier with {', '.join(bounds)}."
    if chosen not in fitting:
        what = f"the most accurate with {', '.join(bounds)}, not on the frontier: nominal counts as no DP."
    warning = "" if chosen.status == "formal" else f" Its epsilon is {chosen.status}: not a guarantee."
    return f"{_name(chosen)}: {what}{warning}"


def _baseline(group: Group) -> str:
    keys, means = group.keys, group.means
    kind = {"pca": "PCA", "scatternet": "ScatterNet"}.get(group.encoder, f"a {group.encoder}")
    return (
        f"But {keys['classifier']} on {kind}, which uses no hospital's records and spends no epsilon, "
        f"has accuracy {means['accuracy'].value:.3f} at inversion SSIM "
        f"{means['inversion_ssim'].value:.3f}."
    )


def _name(one: Choice) -> str:
    keys = one.keys
    hospitals = "1 hospital" if keys["hospitals"] == "1" else f"{keys['hospitals']} hospitals"
    dp = "no DP" if keys["privacy"] == "none" else f"epsilon {keys['privacy']}, scope {keys['scope']}"
    return f"{keys['classifier']} on {keys['autoencoder']}, {dp}, {hospitals}"


def _line(one: Choice) -> str:
    return f"fl-ppae run {one.keys['dataset']}_iid --hospitals {one.keys['hospitals']} {one.overrides()}"


def _document(one: Choice | None) -> dict[str, Any] | None:
    return None if one is None else {**asdict(one), "command": _line(one)}


def _table(best: Sequence[Choice], chosen: Choice | None, source: str) -> Table:
    table = Table(title=title("Frontier of accuracy, epsilon and leakage", source), title_justify="left")
    for name in ("", "configuration", "accuracy", "epsilon (encoder updates)", "inversion SSIM", "seeds"):
        table.add_column(name)
    for one in sorted(best, key=lambda one: -one.accuracy):
        epsilon = written(one.epsilon if math.isfinite(one.epsilon) else None, one.status, nothing="none")
        mark = ">" if one == chosen else ""
        table.add_row(mark, _name(one), f"{one.accuracy:.3f}", epsilon, f"{one.ssim:.3f}", str(one.seeds))
    return table
