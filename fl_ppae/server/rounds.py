"""The rounds of a run: federated training, with its log, its evaluations and, on request, its messages."""

from __future__ import annotations

from flwr.app import ArrayRecord, ConfigRecord, MetricRecord
from safetensors.numpy import save_file

from fl_ppae import message_arrays, messages
from fl_ppae.config import RunConfig
from fl_ppae.masked_updates import divisor_of, ring_step
from fl_ppae.messages import Shapes
from fl_ppae.models.build import shared_of, update_shapes_of
from fl_ppae.models.objectives import LocalModel
from fl_ppae.paths import path_text
from fl_ppae.protection import COMMON_HEAD, SECAGG, quorum_of
from fl_ppae.secagg.terms import Terms
from fl_ppae.secure_messages import config_digest
from fl_ppae.server.evaluation import Labelled, Measured, measure_encoder
from fl_ppae.server.round_log import RoundLog
from fl_ppae.server.session import Session
from strategies.private_fedavg import PrivateFedAvg
from strategies.replies import RoundReport
from strategies.secure_rounds import SecureRounds, Summing
from strategies.server_optimiser import ServerAdam


def train_all_rounds(session: Session, model: LocalModel, *, evaluate: bool = True) -> Measured | None:
    """Train all rounds from `model`. Leaves the last common encoder in it (and head, see `shared_of`).

    Returns the last measurement, if any. `evaluate`: False skips the server's evaluations, to time the
    rounds alone.

    Raises:
        RuntimeError: every hospital failed or was excluded in every round, or no round had as many updates as
            its aggregation needs. If hospitals declined, the encoder stays as it is, which is a valid result.
    """
    config, run = session.config, session.run
    shared, head = shared_of(config, model), model.partner if config.classifier == COMMON_HEAD else None
    shapes = message_arrays.shapes_of(shared.state_dict())
    round_log = RoundLog(run, session.server_ledger, config.dp_scope, config.target_delta)
    reports: list[RoundReport] = []
    measured: list[Measured] = []

    def after_round(server_round: int, arrays: ArrayRecord) -> MetricRecord | None:
        if server_round == 0:
            return None
        row: dict[str, float | None] = {}
        if evaluate and config.shares_updates and _is_evaluated(server_round, config):
            shared.load_state_dict(message_arrays.from_arrays(arrays, shapes))
            with run.phase("evaluating"):
                split = Labelled(session.dataset.val.images, session.dataset.val.labels)
                measured.append(measure_encoder(model.encoder, session.dataset, config, split, head))
            row = measured[-1].as_row()
        round_log.write(reports[-1], row)
        return MetricRecord({key: value for key, value in row.items() if value is not None}) if row else None

    strategy = PrivateFedAvg(
        session.nodes,
        session.server_ledger,
        update_shapes_of(config),
        shares_updates=config.shares_updates,
        diagnostics=config.diagnostics,
        report=lambda report: _keep(report, reports, session),
        aggregation=config.aggregation,
        optimiser=ServerAdam(config.learning_rate) if config.local_steps else None,
        secure=_secure_rounds(session, update_shapes_of(config)) if config.protection == SECAGG else None,
    )
    where = ConfigRecord({"run-directory": path_text(run.path)})
    strategy.start(
        session.grid,
        message_arrays.to_arrays(shared.state_dict()),
        num_rounds=config.num_server_rounds,
        timeout=config.reply_timeout,
        train_config=where,
        evaluate_config=where,
        evaluate_fn=after_round,
    )
    _check_that_something_was_learned(reports)
    return measured[-1] if measured else None


def _secure_rounds(session: Session, shapes: Shapes) -> SecureRounds:
    """What unmasks the sums of this session's rounds."""
    config, hospitals = session.config, len(session.members)
    plans = {name: account.terms for name, account in session.server_ledger.accounts.items()}
    quorum, run = quorum_of(config, hospitals), str(session.grid.run.run_id)
    terms = Terms(run, tuple(plans), quorum.minimum, quorum.colluders, 1, 1, config_digest(config))
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


def _is_evaluated(server_round: int, config: RunConfig) -> bool:
    last = server_round == config.num_server_rounds
    return last or (config.evaluate_every > 0 and server_round % config.evaluate_every == 0)


def _keep(report: RoundReport, reports: list[RoundReport], session: Session) -> None:
    """Keep the round for its table row and, with `record-messages`, every update as received."""
    reports.append(report)
    if not session.config.record_messages:
        return
    folder = session.run.path / "received" / f"round-{report.server_round}"
    for name, reply in report.replies.items():
        arrays = reply.content.array_records.get(messages.ARRAYS) if reply.content is not None else None
        if arrays is not None:
            folder.mkdir(parents=True, exist_ok=True)
            tensors = {key: array.numpy() for key, array in arrays.items()}
            save_file(tensors, folder / f"{name}.safetensors")
