"""`fl-ppae run`: check the input, run the simulation, follow it and show its results."""

from __future__ import annotations

import argparse
import contextlib
import logging
import secrets
import shlex
import sys
import threading
import traceback
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from fl_ppae.catalogue import keys_of_paths
from fl_ppae.commands.output import notes, show, warn
from fl_ppae.commands.prepared import Chosen, Prepared, choose, choose_again, prepare
from fl_ppae.commands.run_progress import RunProgress
from fl_ppae.commands.run_signals import EndsAfterRound
from fl_ppae.config import RunConfig
from fl_ppae.data.repeats import examine
from fl_ppae.errors import UserError, printable
from fl_ppae.paths import path_text
from fl_ppae.privacy.plan import make_plan
from fl_ppae.privacy.repeated_records import in_words, planned_costs, repeated_in
from fl_ppae.reporting.tables import run_tables, title
from fl_ppae.runs.directory import check_free, new_run_path
from fl_ppae.runs.resuming import find_interrupted
from fl_ppae.runs.status import RunFailed, cause_of, mark_failed, summary_so_far
from fl_ppae.runs.stored import open_run

_HOSPITALS = 5
_POLL_SECONDS = 0.25


@dataclass(frozen=True)
class _Start:
    """A checked run, about to start."""

    prepared: Prepared
    config: RunConfig
    run_directory: Path
    given: frozenset[str]


def command(arguments: argparse.Namespace) -> int:
    """Run a simulation to its end; 0 only if it completed."""
    console = notes()
    start = _check(arguments, console)
    failure: str | None = None
    end = EndsAfterRound(start.run_directory)
    try:
        progress = RunProgress(start.run_directory, start.config.num_server_rounds)
        with end:
            if arguments.in_process:
                _run_in_process(start, progress)
            else:
                _run_on_superlink(start, progress)
        summary = summary_so_far(start.run_directory)
        status = summary.get("status")
        if status == "interrupted" and end.number is not None:
            command = f"fl-ppae run --resume {shlex.quote(printable(str(start.run_directory)))}"
            print(f"fl-ppae: interrupted: {summary.get('error')}; go on with: {command}", file=sys.stderr)
            return 128 + end.number
        if status != "completed":
            failure = f"the run ended with status {status!r}"
    except RunFailed as error:
        failure = str(error)
    if failure is None:
        run = open_run(start.run_directory)
        show(run.document(), run_tables(run), as_json=arguments.json)
    console.print(f"artefacts: {printable(str(start.run_directory))}", soft_wrap=True, highlight=False)
    if failure is not None:
        print(f"fl-ppae: run failed: {failure}", file=sys.stderr)
        return 1
    return 0


def _check(arguments: argparse.Namespace, console: Console) -> _Start:
    """Check everything that is quick to check, before any process starts."""
    if arguments.resume:
        chosen, hospitals, run_directory = _interrupted(arguments)
    else:
        if not arguments.simulation:
            raise UserError("name a simulation, its folder, or with --resume an interrupted run")
        chosen, hospitals = choose(arguments.simulation, arguments.overrides), arguments.hospitals
        hospitals = _HOSPITALS if hospitals is None else hospitals
        run_directory = new_run_path(chosen.config.output_dir, chosen.simulation.name, secrets.token_hex(3))
        check_free(run_directory)
    simulation, config = chosen.simulation, chosen.config
    prepared = prepare(chosen, hospitals)
    plan = make_plan(config, prepared.records)
    # Fix the source found now: `auto` could find a different one a minute later.
    fixed: dict[str, str] = {"data-source": prepared.source.kind}
    if not config.resume:
        fixed["output-dir"] = path_text(run_directory)
    config = config.model_copy(update={key.replace("-", "_"): value for key, value in fixed.items()})
    given = {*fixed, *chosen.overrides}
    given |= set(keys_of_paths(config.to_flat()))
    if not arguments.in_process:
        simulation.check_listed(given)
    console.print(title(simulation.name, prepared.source.label))
    console.print(f"{len(prepared.records)} hospitals, {config.num_server_rounds} rounds", highlight=False)
    console.print(f"artefacts: {printable(str(run_directory))}", soft_wrap=True, highlight=False)
    if config.adversary != "none":
        who = f"adversary-hospitals {config.adversary_hospitals} will act as {config.adversary}"
        console.print(f"attack run: {who}", style="bold white on red", highlight=False)
    found = examine(prepared.deal.dataset).in_words()
    found += in_words(planned_costs(repeated_in(prepared.deal, config), plan, config))
    for warning in (*plan.warnings, *found):
        warn(console, warning)
    return _Start(prepared, config, run_directory, frozenset(given))


def _interrupted(arguments: argparse.Namespace) -> tuple[Chosen, int, Path]:
    """The interrupted run that is to go on: its keys, its number of hospitals and its directory."""
    if arguments.overrides or arguments.hospitals is not None:
        raise UserError("a resumed run keeps its keys and hospitals: leave out -c and --hospitals")
    run = open_run(find_interrupted(arguments.resume))
    return choose_again(run, arguments.simulation or ""), int(run.config["hospitals"]), run.path


def _run_on_superlink(start: _Start, progress: RunProgress) -> None:
    from fl_ppae.hardware import device_of
    from fl_ppae.simulation.superlink import Submission, run_simulation

    config = start.config
    values = {key: value for key, value in config.to_flat().items() if key in start.given}
    directory = start.prepared.chosen.simulation.directory
    gpus = 1 / config.hospitals_per_gpu if device_of(config.device).type == "cuda" else 0.0
    hospitals = len(start.prepared.records)
    run_simulation(Submission(directory, values, hospitals, config.threads_per_hospital, gpus), progress.poll)


def _run_in_process(start: _Start, progress: RunProgress) -> None:
    from flwr.common.logger import update_console_handler

    from fl_ppae.simulation.in_process import run_in_process

    update_console_handler(level="WARNING")  # progress shows the rest
    logging.getLogger("flwr").propagate = False  # some libraries add a root handler too
    done = threading.Event()

    def follow() -> None:
        while not done.wait(_POLL_SECONDS):
            progress.poll()

    follower = threading.Thread(target=follow, daemon=True)
    follower.start()
    try:
        with contextlib.redirect_stdout(sys.stderr):
            run_in_process(start.config, start.prepared.deal, start.prepared.chosen.simulation.name)
    except BaseException as error:
        cause = mark_failed(start.run_directory, cause_of(error))
        if isinstance(error, UserError) or not isinstance(error, Exception):
            raise
        log = start.run_directory / "error.log"
        try:
            log.write_text(traceback.format_exc(), encoding="utf-8")
        except OSError:  # on a full disk
            raise RunFailed(cause) from error
        raise RunFailed(f"{cause} (log: {log})") from error
    finally:
        done.set()
        follower.join()
        progress.poll()
