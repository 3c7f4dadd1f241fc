"""The server: meets the hospitals, keeps their book, runs the rounds, measures, and reports."""

from __future__ import annotations

import logging
import sys
from dataclasses import asdict, dataclass, replace
from logging import ERROR, INFO, WARNING
from pathlib import Path

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Context, MetricRecord
from flwr.common.logger import log
from flwr.serverapp import Grid, ServerApp
from safetensors.numpy import save_file as save_numpy
from safetensors.torch import save_file
from torch import nn

from fl_ppae import messages
from fl_ppae.config import RunConfig
from fl_ppae.data.cache import Dataset
from fl_ppae.data.sources import resolve
from fl_ppae.errors import UserError
from fl_ppae.evaluation import classifier_state, encode, images_to_tensor
from fl_ppae.files import write_json
from fl_ppae.models.build import autoencoder_of, encoding_shape_of
from fl_ppae.planning import make_plan
from fl_ppae.reporting.figures import plot_encodings, plot_label_distributions, write_figures
from fl_ppae.reporting.guarantees import guarantees, is_formal
from fl_ppae.reporting.privacy_card import privacy_card
from fl_ppae.reporting.run_directory import RunDirectory, create_run_directory, new_run_path, versions
from fl_ppae.round_log import RoundLog
from fl_ppae.server_evaluation import (
    Labelled,
    Measured,
    fit,
    measure_encoder,
    measure_pixels,
    similarity_of,
)
from fl_ppae.simulator import Deal, make_deal, pooled, write_deal
from strategies.book import ACTIVE, EXCLUDED, STOPPED, Account, Book
from strategies.encoding_upload import Refused, Upload, collect
from strategies.federation import Enrolment, Member, enrol, meet
from strategies.private_fedavg import PrivateFedAvg
from strategies.replies import RoundReport

ROUND_TIMEOUT_SECONDS = 24 * 3600.0

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
    path = new_run_path(config.output_dir, simulation, str(grid.run.run_id))
    run = create_run_directory(path, simulation)
    log(INFO, "artefacts: %s", path)
    try:
        with run.phase("starting"):
            session = _start(grid, config, simulation, run)
        _carry_out(session)
    except BaseException as problem:
        run.update(status="failed", error=str(problem) or type(problem).__name__)
        raise
    run.update(status="completed", phase="done")
    log(INFO, "artefacts: %s", path)
    return path


@dataclass(frozen=True)
class Session:
    """Everything a run holds on to, made before round 1. `deal` is the simulator's; None if deployed."""

    grid: Grid
    config: RunConfig
    run: RunDirectory
    dataset: Dataset
    members: tuple[Member, ...]
    enrolments: dict[str, Enrolment]
    book: Book
    deal: Deal | None

    @property
    def nodes(self) -> dict[str, int]:
        """Hospital name to node id, in the hospitals' order."""
        return {member.name: member.node_id for member in self.members}

    @property
    def labelled(self) -> Labelled:
        """What the classifier learns from, for baselines on the same records as the encodings.

        Encodings of hospitals' records are only matched by those records, which the simulator has;
        else it is the server's own split.
        """
        if self.deal is not None and self.config.share != "updates":
            return Labelled(*pooled(self.deal.train))
        return Labelled(self.dataset.val.images, self.dataset.val.labels)


def _start(grid: Grid, config: RunConfig, simulation: str, run: RunDirectory) -> Session:
    dataset = resolve(config, warn=lambda text: log(WARNING, "%s", text))
    run.update(data_source=dataset.source.label)
    members = meet(grid)
    deal = None
    if not any(member.deployed for member in members):
        deal = make_deal(dataset, config, [member.name for member in members])
        write_deal(deal, dataset, run.path)
        labels = {name: records.labels().tolist() for name, records in deal.train.items()}
        figure = run.path / "figures" / "label_distributions.png"
        plot_label_distributions(labels, dataset.spec.class_names, dataset.source.label, figure)
    elif config.share == "encodings":
        raise UserError(
            'share = "encodings" is tested on encodings of the official test split, which only a simulation '
            'can hand to hospitals; deployed, use share = "updates" or "updates+encodings"'
        )
    enrolments = enrol(grid, members, str(run.path))
    plan = make_plan(config, {name: enrolment.records for name, enrolment in enrolments.items()})
    for warning in plan.warnings:
        log(WARNING, "%s", warning)
    accounts = {}
    for hospital_plan in plan.hospitals:
        enrolment = enrolments[hospital_plan.name]
        accounts[hospital_plan.name] = Account(
            hospital_plan,
            enrolment.history,
            status=STOPPED if enrolment.declined else ACTIVE,
            reason=enrolment.declined,
        )
    source = dataset.source
    document = {
        "simulation": simulation,
        "config": config.to_flat(),
        "data_source": {"label": source.label, "kind": source.kind, "file": source.file, "md5": source.md5},
        "hospitals": len(members),
        "records": {name: enrolment.records for name, enrolment in enrolments.items()},
        "deployed": deal is None,
        "seed": config.seed,
        "versions": versions(),
    }
    write_json(run.path / "config.json", document)
    return Session(grid, config, run, dataset, members, enrolments, Book(accounts), deal)


def _carry_out(session: Session) -> None:
    config, run = session.config, session.run
    labelled = session.labelled
    encoder = autoencoder_of(config).encoder
    with run.phase("baselines"):
        random = measure_encoder(encoder, session.dataset, config, labelled)
        pixels = measure_pixels(session.dataset, config, labelled)
        baselines = {
            "trained_on": f"{len(labelled.labels)} records",
            "raw_pixels": asdict(pixels),
            "random_encoder": random.as_row(),
        }
        run.update(baselines=baselines)
    with run.phase("training"):
        trained = _train(session, encoder)
    with run.phase("encodings"):
        result = trained if config.share == "updates" else _upload(session, encoder, trained)
    _report(session, encoder, result)


def _train(session: Session, encoder: nn.Module) -> Measured | None:
    """All rounds. Leaves the last common encoder in `encoder`; returns its last measurement, if any."""
    config, run = session.config, session.run
    shapes = messages.shapes_of(encoder.state_dict())
    log_book = RoundLog(run, session.book, config.dp_scope, config.target_delta)
    reports: list[RoundReport] = []
    measured: list[Measured] = []

    def after_round(server_round: int, arrays: ArrayRecord) -> MetricRecord | None:
        if server_round == 0:
            return None
        row: dict[str, float | None] = {}
        if config.share != "encodings" and _is_evaluated(server_round, config):
            encoder.load_state_dict(messages.from_arrays(arrays, shapes))
            with run.phase("evaluating"):
                split = Labelled(session.dataset.val.images, session.dataset.val.labels)
                measured.append(measure_encoder(encoder, session.dataset, config, split))
            row = measured[-1].as_row()
        log_book.write(reports[-1], row)
        return MetricRecord({key: value for key, value in row.items() if value is not None}) if row else None

    strategy = PrivateFedAvg(
        session.nodes,
        session.book,
        shapes,
        shares_updates=config.share != "encodings",
        diagnostics=config.diagnostics,
        report=lambda report: _keep(report, reports, session),
    )
    where = ConfigRecord({"run-directory": str(run.path)})
    strategy.start(
        session.grid,
        messages.to_arrays(encoder.state_dict()),
        num_rounds=config.num_server_rounds,
        timeout=ROUND_TIMEOUT_SECONDS,
        train_config=where,
        evaluate_config=where,
        evaluate_fn=after_round,
    )
    return measured[-1] if measured else None


def _is_evaluated(server_round: int, config: RunConfig) -> bool:
    last = server_round == config.num_server_rounds
    return last or (config.evaluate_every > 0 and server_round % config.evaluate_every == 0)


def _keep(report: RoundReport, reports: list[RoundReport], session: Session) -> None:
    """Remember the round for its table row, and with `record-messages` every update as it was received."""
    reports.append(report)
    if not session.config.record_messages:
        return
    folder = session.run.path / "received" / f"round-{report.server_round}"
    for name, reply in report.replies.items():
        arrays = reply.content.array_records.get(messages.ARRAYS) if reply.content is not None else None
        if arrays is not None:
            folder.mkdir(parents=True, exist_ok=True)
            tensors = {key: array.numpy() for key, array in arrays.items()}
            save_numpy(tensors, folder / f"{name}.safetensors")


def _upload(session: Session, encoder: nn.Module, trained: Measured | None) -> Measured:
    """Collect the hospitals' encodings and train the final classifier on them."""
    config, dataset = session.config, session.dataset
    shape = encoding_shape_of(config)
    common = config.share == "updates+encodings"
    nodes = {
        name: node for name, node in session.nodes.items() if session.book.accounts[name].status != EXCLUDED
    }

    def ask(part: str) -> dict[str, Upload | Refused]:
        held = {name: session.enrolments[name] for name in nodes}
        records = {
            name: told.records if part == "train" else told.test_records for name, told in held.items()
        }
        arrays = messages.to_arrays(encoder.state_dict()) if common else None
        where = str(session.run.path)
        return collect(session.grid, nodes, records, part, shape, dataset.spec.num_classes, where, arrays)

    train = ask("train")
    session.run.update(
        uploads={
            name: {"records": 0, "refused": upload.reason}
            if isinstance(upload, Refused)
            else {"records": len(upload.encodings)}
            for name, upload in train.items()
        }
    )
    taken = {name: upload for name, upload in train.items() if isinstance(upload, Upload)}
    if not taken:
        raise RuntimeError("no hospital uploaded encodings; summary.json says why, by hospital")
    known = np.concatenate([upload.encodings for upload in taken.values()])
    labels = np.concatenate([upload.labels for upload in taken.values() if upload.labels is not None])
    if trained is not None:
        test = encode(encoder, dataset.test.images)
        classifier, score = fit(config, known, labels, test, dataset.test.labels)
        return replace(trained, score=score, classifier=classifier)
    assert session.deal is not None  # share = encodings is refused in a deployment
    tested = {name: upload for name, upload in ask("test").items() if isinstance(upload, Upload)}
    originals, test_labels = pooled({name: session.deal.test[name] for name in tested})
    test = np.concatenate([upload.encodings for upload in tested.values()])
    classifier, score = fit(config, known, labels, test, test_labels)
    return Measured(score, None, similarity_of(originals, test), classifier)


def _report(session: Session, encoder: nn.Module, result: Measured | None) -> None:
    config, run = session.config, session.run
    assert result is not None  # the last round is always evaluated
    spent = session.book.spent()
    known = [value for value in spent.values() if value is not None]
    promised = guarantees(config, spent)
    save_file(classifier_state(result.classifier), run.path / "classifier.safetensors")
    if config.share != "encodings":
        save_file(encoder.state_dict(), run.path / "encoder.safetensors")
    run.update(
        rounds=config.num_server_rounds,
        accuracy=result.score.accuracy,
        auc=result.score.auc,
        reconstruction_loss=result.reconstruction_loss,
        epsilon=spent,
        epsilon_max=max(known) if known else None,
        guarantees={artefact: asdict(guarantee) for artefact, guarantee in promised.items()},
        formal=is_formal(promised),
        leakage=result.leakage,
    )
    with run.phase("reporting"):
        write_figures(run.path)
        if config.share != "encodings":
            shown = session.dataset.test.images[:8]
            figure = run.path / "figures" / "encodings.png"
            images = images_to_tensor(shown).numpy()
            plot_encodings(images, encode(encoder, shown), figure, session.dataset.source.label)
        (run.path / "privacy_card.md").write_text(privacy_card(run.path), encoding="utf-8")
