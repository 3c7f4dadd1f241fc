"""The server app: carries out a run, from its session to its report."""

from __future__ import annotations

import logging
import shlex
import shutil
import sys
from logging import ERROR, INFO, WARNING
from pathlib import Path

from flwr.app import Context
from flwr.common.logger import log
from flwr.serverapp import Grid, ServerApp
from torch import nn

from fl_ppae.config import RANDOM, RunConfig
from fl_ppae.data.deal import Deal
from fl_ppae.errors import UserError, printable
from fl_ppae.models.build import encoding_shape_of
from fl_ppae.models.encoding import encode, images_to_tensor
from fl_ppae.models.views import viewed
from fl_ppae.reporting.evidence import gather_from
from fl_ppae.reporting.figures import plot_encodings, write_figures
from fl_ppae.reporting.privacy_card import privacy_card
from fl_ppae.reporting.run_report import write_run_report
from fl_ppae.reporting.worth_line import headline
from fl_ppae.runs.checkpoint import FILE
from fl_ppae.runs.directory import claim, new_run_path, start_run
from fl_ppae.runs.liveness import held
from fl_ppae.runs.resuming import find_interrupted, reopen
from fl_ppae.runs.status import cause_of
from fl_ppae.runs.stopping import Stopped, forget
from fl_ppae.runs.stored import open_run
from fl_ppae.runs.tracking import check_trackers, open_trackers
from fl_ppae.server.results import measure_baselines, write_results
from fl_ppae.server.rounds import train_all_rounds
from fl_ppae.server.session import Session, start_session
from fl_ppae.server.start import check_start, common_start
from fl_ppae.server.start_file import START_FILE, write_start
from fl_ppae.server.uploads import learn_from_uploads
from fl_ppae.server.worth_joining import worth_joining
from fl_ppae.source_label import data_label
from fl_ppae.steps import watched_by

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Flower's entry point. The run holds the configuration, the app's name is the simulation's."""
    # Some libraries add a root handler, which would print each line twice.
    logging.getLogger("flwr").propagate = False
    try:
        config = RunConfig.from_flat(context.run_config)
        serve(grid, config, grid.run.fab_id.rpartition("/")[2].replace("-", "_"))
    except UserError as mistake:
        log(ERROR, "fl-ppae: %s", mistake)
        sys.tracebacklimit = 0  # the line above is enough for a user
        raise


def serve(grid: Grid, config: RunConfig, simulation: str, deal: Deal | None = None) -> Path:
    """Run the whole federation over `grid` and return the run directory.

    `deal`: as `start_session`.

    Raises:
        UserError: a mistake in the input. Other exceptions pass through; `summary.json` then says
            `failed` and why.
    """
    encoding_shape_of(config)
    check_start(config)
    check_trackers(config)
    if config.resume:
        path = find_interrupted(config.resume)
    else:
        path = new_run_path(config.output_dir, simulation, str(grid.run.run_id))
        claim(path)
    with held(path):
        run, checkpoint = reopen(path) if config.resume else (start_run(path, simulation), None)
        forget(path)
        log(INFO, "artefacts: %s", printable(str(path)))
        try:
            with watched_by(run):
                with run.phase("starting"):
                    session = start_session(grid, config, simulation, run, deal, checkpoint)
                    run.trackers = open_trackers(config, path, simulation)
                _carry_out(session)
        except Stopped as stop:
            run.update(status="interrupted", error=str(stop))
            run.close_trackers()
            log(INFO, "%s; go on with: fl-ppae run --resume %s", stop, shlex.quote(printable(str(path))))
            return path
        except BaseException as problem:
            run.update(status="failed", error=cause_of(problem))
            run.close_trackers()
            raise
        finally:
            forget(path)
        _remove_what_only_an_interrupted_run_needs(path)
        run.update(status="completed", phase="reporting, report.html")
    run.close_trackers()
    _write_report(session)
    run.update(phase="done")
    if line := headline(run.summary):
        log(INFO, "%s", line)
    log(INFO, "artefacts: %s", printable(str(path)))
    return path


def _remove_what_only_an_interrupted_run_needs(path: Path) -> None:
    for answers in path.glob("hospitals/*/answers"):
        shutil.rmtree(answers)
    (path / FILE).unlink(missing_ok=True)


def _carry_out(session: Session) -> None:
    run = session.run
    with run.phase("common start"):
        model = common_start(session.config, session.dataset)
        if session.config.start != RANDOM:
            write_start(run.path / START_FILE, model.state_dict())
    encoder = model.encoder
    with run.phase("training"):
        trained = train_all_rounds(session, model)
    with run.phase("encodings"):
        uploads = session.config.shares_encodings
        result = learn_from_uploads(session, encoder, trained) if uploads else trained
        assert result is not None  # the last round of common training is always evaluated
    with run.phase("baselines"):  # last, so that no hospital waits for them
        run.update(baselines=measure_baselines(session))
    write_results(session, encoder, result)
    if session.deal is not None and session.config.worth_joining != "none":
        with run.phase("worth joining"):
            run.update(worth_joining=worth_joining(session.config, session.deal, result.recognised))
    with run.phase("reporting"):
        _draw_figures(session, encoder)
        (run.path / "privacy_card.md").write_text(privacy_card(run.path), encoding="utf-8")


def _draw_figures(session: Session, encoder: nn.Module) -> None:
    run = session.run
    write_figures(run.path)
    if session.config.shares_updates:
        shown = session.dataset.test.images[:8]
        images = images_to_tensor(shown).numpy()
        encodings = encode(viewed(encoder, session.config.views), shown, bits=session.config.encoding_bits)
        plot_encodings(images, encodings, run.path / "figures" / "encodings.png", data_label(run.summary))


def _write_report(session: Session) -> None:
    """Write `report.html`. A run is complete without it, so a failure is only a warning."""
    stored = open_run(session.run.path)
    try:
        write_run_report(stored, gather_from(stored, session.config, session.dataset, session.deal))
    except Exception as problem:
        log(WARNING, "report.html was not written (fl-ppae report makes it later): %s", problem)
