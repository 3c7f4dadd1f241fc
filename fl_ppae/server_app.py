"""The server: meets the hospitals, keeps the server ledger, runs the rounds, measures, and reports."""

from __future__ import annotations

import logging
import sys
from dataclasses import asdict
from logging import ERROR, INFO, WARNING
from pathlib import Path

from flwr.app import Context
from flwr.common.logger import log
from flwr.serverapp import Grid, ServerApp
from safetensors.torch import save_file
from torch import nn

from fl_ppae.config import RunConfig
from fl_ppae.errors import UserError
from fl_ppae.models.build import autoencoder_of, encoding_shape_of
from fl_ppae.models.encoding import encode, images_to_tensor
from fl_ppae.privacy.guarantees import guarantees, is_formal, spending_of
from fl_ppae.reporting.figures import plot_encodings, write_figures
from fl_ppae.reporting.privacy_card import privacy_card
from fl_ppae.reporting.run_report import write_run_report
from fl_ppae.runs.directory import create_run_directory, new_run_path
from fl_ppae.runs.stored import open_run
from fl_ppae.runs.tracking import check_trackers, open_trackers
from fl_ppae.server.classification import classifier_state
from fl_ppae.server.evaluation import Measured, measure_encoder, measure_pixels
from fl_ppae.server.round_log import RoundLog
from fl_ppae.server.rounds import train_all_rounds
from fl_ppae.server.session import Session, start_session
from fl_ppae.server.uploads import learn_from_uploads
from fl_ppae.source_label import data_label

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Flower's entry: the configuration is the run's, the simulation's name is the app's."""
    logging.getLogger("flwr").propagate = False  # libraries give the root logger a handler: lines twice
    try:
        config = RunConfig.from_flat(context.run_config)
        serve(grid, config, grid.run.fab_id.rpartition("/")[2].replace("-", "_"))
    except UserError as mistake:
        log(ERROR, "fl-ppae: %s", mistake)
        sys.tracebacklimit = 0  # the line above is all that a user needs; this process ends with it
        raise


def serve(grid: Grid, config: RunConfig, simulation: str) -> Path:
    """Run the whole federation over `grid` and return the run directory.

    Raises:
        UserError: a mistake in the input. Whatever else goes wrong is raised too; `summary.json` then
            says `failed` and why.
    """
    encoding_shape_of(config)
    check_trackers(config)
    path = new_run_path(config.output_dir, simulation, str(grid.run.run_id))
    run = create_run_directory(path, simulation)
    log(INFO, "artefacts: %s", path)
    try:
        with run.phase("starting"):
            session = start_session(grid, config, simulation, run)
            run.trackers = open_trackers(config, path, simulation)
        _carry_out(session)
    except BaseException as problem:
        run.update(status="failed", error=str(problem) or type(problem).__name__)
        run.close_trackers()
        raise
    run.update(status="completed", phase="done")
    run.close_trackers()
    _write_report(path)
    log(INFO, "artefacts: %s", path)
    return path


def _carry_out(session: Session) -> None:
    config, run = session.config, session.run
    encoder = autoencoder_of(config).encoder
    with run.phase("training"):
        trained = train_all_rounds(session, encoder)
    with run.phase("encodings"):
        result = learn_from_uploads(session, encoder, trained) if config.shares_encodings else trained
    with run.phase("baselines"):  # last, because no hospital waits for them
        labelled = session.labelled
        random = measure_encoder(autoencoder_of(config).encoder, session.dataset, config, labelled)
        pixels = measure_pixels(session.dataset, config, labelled)
        baselines = {
            "trained_on": f"{len(labelled.labels)} records",
            "raw_pixels": asdict(pixels),
            "random_encoder": {**random.as_row(), **random.attack_success},
        }
        run.update(baselines=baselines)
    _report(session, encoder, result)


def _report(session: Session, encoder: nn.Module, result: Measured | None) -> None:
    config, run = session.config, session.run
    assert result is not None  # the last round is always evaluated
    spent = {
        name: spending_of(
            account.counted_events(), config.target_delta, private_training=config.dp_scope != "none"
        )
        for name, account in session.server_ledger.accounts.items()
    }
    RoundLog(run, session.server_ledger, config.dp_scope, config.target_delta).write_ledger(spent)
    known = [one.updates for one in spent.values() if one.updates is not None]
    promised = guarantees(config, spent)
    save_file(classifier_state(result.classifier), run.path / "classifier.safetensors")
    if config.shares_updates:
        save_file(encoder.state_dict(), run.path / "encoder.safetensors")
    run.update(
        rounds=config.num_server_rounds,
        accuracy=result.score.accuracy,
        auc=result.score.auc,
        **_noised(result),
        reconstruction_loss=result.reconstruction_loss,
        **result.attack_success,
        epsilon={name: one.updates for name, one in spent.items()},
        epsilon_max=max(known) if known else None,
        guarantees={artefact: asdict(guarantee) for artefact, guarantee in promised.items()},
        formal=is_formal(promised),
        leakage=result.leakage,
    )
    with run.phase("reporting"):
        write_figures(run.path)
        if config.shares_updates:
            shown = session.dataset.test.images[:8]
            figure = run.path / "figures" / "encodings.png"
            images = images_to_tensor(shown).numpy()
            plot_encodings(images, encode(encoder, shown), figure, data_label(run.summary))
        (run.path / "privacy_card.md").write_text(privacy_card(run.path), encoding="utf-8")


def _write_report(path: Path) -> None:
    """`report.html`. The run is complete without it, so a report that can't be made is a warning."""
    try:
        write_run_report(open_run(path))
    except Exception as problem:
        log(WARNING, "report.html was not written (fl-ppae report makes it later): %s", problem)


def _noised(result: Measured) -> dict[str, float]:
    """The classifier's score on encodings noised as a new patient's would be, where they are."""
    found = result.noised_score
    return {} if found is None else {"accuracy_noised": found.accuracy, "auc_noised": found.auc}
