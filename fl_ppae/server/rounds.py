"""The rounds of a run: federated training, with its log, its evaluations and, on request, its messages."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from logging import INFO

from flwr.app import ArrayRecord, ConfigRecord, Message
from flwr.common.logger import log
from safetensors.numpy import save_file

from fl_ppae import message_arrays, messages
from fl_ppae.config import RunConfig
from fl_ppae.masked_updates import divisor_of, ring_step
from fl_ppae.messages import CHECKPOINTED, Shapes
from fl_ppae.models.build import shared_of, update_shapes_of
from fl_ppae.models.objectives import LocalModel
from fl_ppae.protection import COMMON_HEAD, SECAGG, quorum_of
from fl_ppae.runs.stopping import Stopped, is_told_to_stop
from fl_ppae.secagg.terms import Terms
from fl_ppae.secure_messages import config_digest
from fl_ppae.server.checkpoints import Checkpoints, restore
from fl_ppae.server.evaluation import Labelled, Measured, measure_encoder
from fl_ppae.server.round_log import RoundLog
from fl_ppae.server.session import Session
from strategies.private_fedavg import PrivateFedAvg
from strategies.replies import RoundReport, without_arrays
from strategies.returning import find_returned
from strategies.secure_rounds import SecureRounds, Summing
from strategies.server_optimiser import ServerAdam


def train_all_rounds(session: Session, model: LocalModel, *, evaluate: bool = True) -> Measured | None:
    """Train all rounds that are left, from `model` or, if the run goes on, from its checkpoint.

    Leaves the last common encoder in `model` (and head, see `shared_of`).

    Returns the last measurement, if any. `evaluate`: False skips the server's evaluations, to time the
    rounds alone.

    Raises:
        RuntimeError: Ray has ended, every hospital failed or was excluded in every round, or no round had as
            many updates as its aggregation needs. If hospitals declined, the encoder stays as it is, which is
            a valid result.
        Stopped: the run was told to stop after its round.
    """
    config, run, checkpoint = session.config, session.run, session.checkpoint
    shared, head = shared_of(config, model), model.partner if config.classifier == COMMON_HEAD else None
    shapes = message_arrays.shapes_of(shared.state_dict())
    round_log = RoundLog(run, session.server_ledger, config.dp_scope, config.target_delta)
    optimiser = ServerAdam(config.learning_rate) if config.local_steps else None
    reports: list[RoundReport] = []
    measured: Measured | None = None
    learned = restore(checkpoint, run.path, shared, optimiser) if checkpoint is not None else False
    arrays, checkpoints = message_arrays.to_arrays(shared.state_dict()), Checkpoints(session)

    def measure(arrays: ArrayRecord) -> Measured:
        shared.load_state_dict(message_arrays.from_arrays(arrays, shapes))
        with run.phase("evaluating"):
            split = Labelled(session.dataset.val.images, session.dataset.val.labels)
            return measure_encoder(model.encoder, session.dataset, config, split, head)

    strategy = PrivateFedAvg(
        session.nodes,
        session.server_ledger,
        update_shapes_of(config),
        shares_updates=config.shares_updates,
        diagnostics=config.diagnostics,
        report=lambda report: _keep(report, reports, session),
        aggregation=config.aggregation,
        min_hospitals=config.min_hospitals,
        optimiser=optimiser,
        secure=_secure_rounds(session, update_shapes_of(config)) if config.protection == SECAGG else None,
    )
    if checkpoint is None:
        checkpoints.write(0, arrays, optimiser, learned=False)
    first = _first_round(session, strategy, round_log, reports)
    for server_round in range(first, config.num_server_rounds + 1):
        log(INFO, "[ROUND %s/%s]", server_round, config.num_server_rounds)
        where = ConfigRecord({**session.where, CHECKPOINTED: checkpoints.round})
        arrays = _one_round(session, strategy, server_round, arrays, where)
        row: dict[str, float | None] = {}
        if evaluate and config.shares_updates and _is_evaluated(server_round, config):
            measured = measure(arrays)
            row = measured.as_row()
        round_log.write(reports[-1], row)
        stop = is_told_to_stop(run.path)
        learned = learned or _has_learned(reports[-1])
        if server_round == config.num_server_rounds or stop or checkpoints.is_due(server_round):
            checkpoints.write(server_round, arrays, optimiser, learned=learned)
        if stop:
            raise Stopped(f"it was stopped after round {server_round} of {config.num_server_rounds}")
    if not learned:
        _check_that_something_was_learned(reports)
    if measured is None and evaluate and config.shares_updates:  # the run goes on after its last round
        measured = measure(arrays)
    return measured


def _one_round(
    session: Session, strategy: PrivateFedAvg, server_round: int, arrays: ArrayRecord, where: ConfigRecord
) -> ArrayRecord:
    """One round from the common `arrays`; returns what the next one starts from.

    As `strategy.start` of Flower, which can neither begin at a later round nor stop after one.

    Raises:
        RuntimeError: Ray has ended, so that no later round could be trained either.
    """

    grid, timeout = session.grid, session.config.reply_timeout
    find_returned(grid, session.members, session.nodes, timeout)

    def ask(questions: Iterable[Message]) -> Iterable[Message]:
        return grid.send_and_receive(questions, timeout=timeout)

    trained = list(ask(strategy.configure_train(server_round, arrays, where, grid)))
    if trained and all(_is_ended_ray(reply) for reply in trained):
        raise RuntimeError(
            f"Ray ended in round {server_round}, and every hospital with it; `fl-ppae run --resume` goes on"
        )
    combined, _ = strategy.aggregate_train(server_round, trained)
    arrays = arrays if combined is None else combined
    evaluated = ask(strategy.configure_evaluate(server_round, arrays, where, grid))
    if losses := strategy.aggregate_evaluate(server_round, evaluated):
        log(INFO, "hospitals' mean loss: %s", losses)
    return arrays


def _is_ended_ray(reply: Message) -> bool:
    """Whether Flower's simulation says, in place of a hospital, that Ray could not run it."""
    return reply.has_error() and str(reply.error.reason).startswith("<class 'ray.exceptions.")


def _first_round(
    session: Session, strategy: PrivateFedAvg, round_log: RoundLog, reports: list[RoundReport]
) -> int:
    """The round to begin with.

    A masked round that some hospital has paid for is lost, because nobody answers it again: it is charged and
    written into the tables.
    """
    if session.checkpoint is None:
        return 1
    first = session.checkpoint.round + 1
    while session.config.protection == SECAGG and session.server_ledger.has_paid(first):
        strategy.lose(first, "the run was interrupted in this round, and masked rounds are answered once")
        round_log.write(reports[-1], {})
        first += 1
    return first


def _secure_rounds(session: Session, shapes: Shapes) -> SecureRounds:
    """What unmasks the sums of this session's rounds."""
    config, hospitals = session.config, len(session.members)
    plans = {name: account.terms for name, account in session.server_ledger.accounts.items()}
    quorum = quorum_of(config, hospitals)
    terms = Terms(session.run_id, tuple(plans), quorum.minimum, quorum.colluders, 1, 1, config_digest(config))
    summing = Summing(
        shapes,
        ring_step(plans.values(), config, hospitals),
        {name: divisor_of(plan) for name, plan in plans.items()},
    )
    return SecureRounds(session.nodes, terms, config.num_server_rounds, summing, config.reply_timeout)


def _check_that_something_was_learned(reports: list[RoundReport]) -> None:
    replies = [(name, reply) for report in reports for name, reply in report.replies.items()]
    if replies and all(reply.status in ("failed", "excluded") for _, reply in replies):
        name, reply = replies[0]
        raise RuntimeError(f"no hospital trained in any round; {name} {reply.status}: {reply.reason}")
    trained = [
        report for report in reports if any(reply.content is not None for reply in report.replies.values())
    ]
    if trained and all(report.not_combined for report in trained):
        raise RuntimeError(f"no round was combined, so nothing was learned: {trained[0].not_combined}")


def _has_learned(report: RoundReport) -> bool:
    trained = any(reply.content is not None for reply in report.replies.values())
    return trained and not report.not_combined


def _is_evaluated(server_round: int, config: RunConfig) -> bool:
    last = server_round == config.num_server_rounds
    return last or (config.evaluate_every > 0 and server_round % config.evaluate_every == 0)


def _keep(report: RoundReport, reports: list[RoundReport], session: Session) -> None:
    """Keep the round for its table row and, with `record-messages`, every update as received.

    Updates are not kept in memory, which would grow with every round.
    """
    light = {name: without_arrays(reply) for name, reply in report.replies.items()}
    reports.append(replace(report, replies=light))
    if not session.config.record_messages:
        return
    folder = session.run.path / "received" / f"round-{report.server_round}"
    for name, reply in report.replies.items():
        arrays = reply.content.array_records.get(messages.ARRAYS) if reply.content is not None else None
        if arrays is not None:
            folder.mkdir(parents=True, exist_ok=True)
            tensors = {key: array.numpy() for key, array in arrays.items()}
            save_file(tensors, folder / f"{name}.safetensors")
