"""`fl-ppae study`: resumable grids of runs and their results."""

from __future__ import annotations

import argparse
import re
import shlex
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from fl_ppae.commands.output import notes, show
from fl_ppae.data.registry import DATASETS
from fl_ppae.errors import UserError, did_you_mean, printable
from fl_ppae.steps import count, step

if TYPE_CHECKING:
    from fl_ppae.studies.cells import CellWork, StudyCell
    from fl_ppae.studies.kinds import Kind
    from fl_ppae.studies.study import Study
    from fl_ppae.studies.study_data import StudyData
    from fl_ppae.studies.workers import Outcome


def paper(arguments: argparse.Namespace) -> int:
    """Run the paper's study; 0 if every requested cell succeeded."""
    from fl_ppae.studies.cells import CellWork
    from fl_ppae.studies.kinds import PAPER
    from fl_ppae.studies.paper_grid import SCALES, paper_cells

    scale = SCALES[arguments.scale]
    datasets = _datasets(arguments.datasets, scale.datasets)
    cells = _chosen(paper_cells(scale, datasets, _seeds(arguments.seeds)), arguments.only)
    sizes = {"train": scale.train_images, "val": scale.server_images, "test": scale.test_images}
    study, data = _open(arguments, PAPER, cells, sizes, {"scale": asdict(scale)})
    from fl_ppae.studies.paper_cell import measure  # slow to import, so arguments are checked first

    return _run(arguments, study, cells, CellWork(partial(measure, scale=scale), data))


def partitions(arguments: argparse.Namespace) -> int:
    """Run the study of non-IID hospitals; 0 if every requested cell succeeded."""
    from fl_ppae.studies import partition_grid as grid
    from fl_ppae.studies.cells import CellWork
    from fl_ppae.studies.kinds import PARTITIONS

    cells = _chosen(grid.partition_cells(_seeds(arguments.seeds)), arguments.only)
    sizes = {"train": grid.TRAIN_IMAGES, "val": grid.SERVER_IMAGES, "test": grid.TEST_IMAGES}
    study, data = _open(arguments, PARTITIONS, cells, sizes, {})
    from fl_ppae.studies.partition_cell import measure  # slow to import, so arguments are checked first

    return _run(arguments, study, cells, CellWork(measure, data))


def frontier(arguments: argparse.Namespace) -> int:
    """Run the study of small codes; 0 if every requested cell succeeded."""
    from fl_ppae.studies.cells import CellWork
    from fl_ppae.studies.frontier_grid import SCALES, frontier_cells
    from fl_ppae.studies.kinds import FRONTIER

    scale = SCALES[arguments.scale]
    cells = _chosen(frontier_cells("bloodmnist", _seeds(arguments.seeds)), arguments.only)
    everything = dict.fromkeys(("train", "val", "test"), 0)
    study, data = _open(arguments, FRONTIER, cells, everything, {"scale": asdict(scale)})
    from fl_ppae.studies.frontier_cell import measure  # slow to import, so arguments are checked first

    return _run(arguments, study, cells, CellWork(partial(measure, scale=scale), data))


def value(arguments: argparse.Namespace) -> int:
    """Run the study of where joining pays; 0 if every requested cell succeeded."""
    from fl_ppae.studies.cells import CellWork
    from fl_ppae.studies.kinds import VALUE
    from fl_ppae.studies.value_grid import value_cells

    cells = _chosen(value_cells(_seeds(arguments.seeds)), arguments.only)
    study, data = _open(arguments, VALUE, cells, {"train": 0, "val": 0, "test": 0}, {})
    from fl_ppae.studies.value_cell import measure  # slow to import, so arguments are checked first

    return _run(arguments, study, cells, CellWork(measure, data))


def _open(
    arguments: argparse.Namespace,
    kind: Kind,
    cells: Sequence[StudyCell],
    sizes: dict[str, int],
    settings: Mapping[str, Any],
) -> tuple[Study, dict[str, StudyData]]:
    """The study and its images; a folder that holds another study is refused."""
    from fl_ppae.studies.study import Study, record_settings, study_folder
    from fl_ppae.studies.study_data import parse_files, study_data

    if arguments.workers < 0:
        raise UserError(f"--workers {arguments.workers}: must be at least 1, or 0 for one per core")
    files = parse_files(arguments.data)
    study = Study(study_folder(arguments.output_dir, kind.name), kind)
    folder, source = study.path / "data", arguments.data_source or ""
    data = {
        name: study_data(name, files.get(name), source, sizes, folder)
        for name in dict.fromkeys(cell.dataset for cell in cells)
    }
    sources = {name: _source(one) for name, one in data.items()}
    record_settings(study, {**settings, "sources": sources}, _command(arguments, kind.name))
    return study, data


def _command(arguments: argparse.Namespace, name: str) -> str:
    """The command line that runs the study again, without the folders of its files."""
    words = ["fl-ppae", "study", name]
    words += [word for one in arguments.data for word in ("--data", one.split("=")[0] + "=" + Path(one).name)]
    for option in ("scale", "datasets", "data_source", "seeds", "only"):
        value = getattr(arguments, option, None)
        words += [f"--{option.replace('_', '-')}", value] if value else []
    return shlex.join(words)


def _source(data: StudyData) -> dict[str, Any]:
    return {"label": data.label, "md5": data.md5, "stand_in": data.stand_in, "records": data.records}


def _run(arguments: argparse.Namespace, study: Study, cells: Sequence[StudyCell], work: CellWork) -> int:
    """Run the remaining cells and show the results; 1 if a cell failed."""
    from fl_ppae.hardware import usable_cores
    from fl_ppae.studies.results import write_results
    from fl_ppae.studies.study import remaining, run_and_record

    console = notes()
    workers = arguments.workers or usable_cores()
    lock = study.lock()
    try:
        left = remaining(study, cells, retry_failed=arguments.retry_failed)
        console.print(f"study: {printable(str(study.path))}", soft_wrap=True, highlight=False)
        done = len(cells) - len(left)
        console.print(f"{len(cells)} cells, {done} done earlier, {workers} workers", highlight=False)
        run_and_record(study, left, work, workers, _progress(len(cells), done, console))
    finally:
        lock.release()
    step("comparing and drawing the results")
    document, tables = write_results(study)
    show(document, tables, as_json=arguments.json)
    wanted = {cell.name for cell in cells}
    failed = [one for one in document["failed"] if one["cell"] in wanted]
    for one in failed[:5]:
        console.print(f"failed: {one['cell']}: {one['error']}", style="red", highlight=False)
    if failed:
        console.print(f"{len(failed)} cells failed; --retry-failed runs them again", style="red")
    console.print(f"artefacts: {printable(str(study.path))}", soft_wrap=True, highlight=False)
    return 1 if failed else 0


def _datasets(text: str | None, default: tuple[str, ...]) -> tuple[str, ...]:
    if text is None:
        return default
    chosen = tuple(name.strip() for name in text.split(",") if name.strip())
    for name in chosen:
        if name not in DATASETS:
            raise UserError(f"--datasets {name!r} is unknown{did_you_mean(name, DATASETS)}")
        if DATASETS[name].multi_label:
            raise UserError(f"--datasets {name}: a study needs records of one class each, not several labels")
    if not chosen:
        raise UserError("--datasets is empty; give one or more, comma-separated")
    return tuple(dict.fromkeys(chosen))


def _seeds(text: str) -> tuple[int, ...]:
    numbers = [part.strip() for part in text.split(",")]
    if not all(part.isascii() and part.isdigit() and int(part) < 2**31 for part in numbers):
        raise UserError(f'--seeds {text!r}: must be comma-separated numbers from 0, such as "0,1,2"')
    return tuple(dict.fromkeys(map(int, numbers)))


def _chosen(cells: Sequence[Any], pattern: str | None) -> list[Any]:
    """The cells whose names match the pattern anywhere."""
    if pattern is None:
        return list(cells)
    try:
        wanted = re.compile(pattern)
    except re.error as problem:
        raise UserError(f"--only {pattern!r} is not a regular expression: {problem}") from None
    found = [cell for cell in cells if wanted.search(cell.name)]
    if not found:
        raise UserError(f"--only {pattern!r} matches no cell; cells are named like {cells[0].name!r}")
    return found


def _progress(total: int, done: int, console: Console) -> Callable[[Outcome], None]:
    """To be called after each cell: tells how many are done, and estimates the time left."""
    started = time.monotonic()
    finished = done

    def on_outcome(outcome: Outcome) -> None:
        nonlocal finished
        finished += 1
        # Counts cells finished since the start, so it holds for any number of workers.
        minutes = (time.monotonic() - started) / (finished - done) * (total - finished) / 60
        if outcome.error:
            console.print(f"failed: {outcome.cell.name}: {outcome.error}", style="red", highlight=False)
        count(finished, total)
        step(f"{finished}/{total} {outcome.cell.name}, about {minutes:.0f} min left", aloud=True)

    count(done, total)
    step(f"{done}/{total} cells")
    return on_outcome
