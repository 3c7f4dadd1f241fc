"""Federated averaging (arXiv:1602.05629) of encoders or of gradients, with a server ledger."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from logging import INFO, WARNING

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MessageType, MetricRecord, RecordDict
from flwr.common.logger import log
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAvg

from fl_ppae import message_arrays, messages
from fl_ppae.masked_updates import length_of
from fl_ppae.messages import ABSENT, ARRAYS, CLAIM, CONFIG, MASKED, METRICS, TRAINED, Malformed, Shapes
from strategies.replies import RoundReport, TrainReply, by_hospital
from strategies.robust import AVERAGE, combine, too_few
from strategies.secure_rounds import Asked, Records, SecureRounds
from strategies.server_ledger import ServerLedger
from strategies.server_optimiser import ServerAdam

ReportFn = Callable[[RoundReport], None]


class PrivateFedAvg(FedAvg):
    """`FedAvg` that charges before it sends, filters before it sums, and sums in the hospitals' order.

    Args:
        nodes: Flower node ids by hospital name, in the order of the hospitals' index.
        server_ledger: what each hospital was charged; decides who is asked.
        shapes: of an update's arrays. A hospital whose update has other shapes is excluded.
        shares_updates: False if hospitals train alone; no arrays are then expected or kept.
        aggregation: "average", weighted by records, or a rule from `robust`.
        diagnostics: True to collect hospitals' un-noised statistics and their loss after each round.
        min_hospitals: fewest updates that a round in the clear is made of.
        report: called once per round with each hospital's result.
        optimiser: None if updates are encoders, whose combination is the next encoder; if they are gradients,
            what steps on their combination.
        secure: None if updates arrive in the clear; otherwise what unmasks the sum of masked ones.
    """

    def __init__(
        self,
        nodes: Mapping[str, int],
        server_ledger: ServerLedger,
        shapes: Shapes,
        *,
        shares_updates: bool,
        diagnostics: bool,
        report: ReportFn,
        aggregation: str = AVERAGE,
        min_hospitals: int = 0,
        optimiser: ServerAdam | None = None,
        secure: SecureRounds | None = None,
    ) -> None:
        super().__init__(fraction_evaluate=1.0 if diagnostics else 0.0, min_available_nodes=1)
        self.diagnostics = diagnostics
        self.nodes = nodes
        self.server_ledger = server_ledger
        self.shapes = shapes
        self.shares_updates = shares_updates
        self.report = report
        self.aggregation = aggregation
        self.min_hospitals = min_hospitals
        self.optimiser = optimiser
        self.secure = secure
        self._asked = Asked({}, {})

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Ask every active hospital that can take part; the round is charged before its message exists."""
        self._grid, self._config = grid, config
        self._sent = {name: array.numpy() for name, array in arrays.items()}
        active = self.server_ledger.active()
        self._asked = Asked({name: {} for name in active}, {})
        if self.secure is not None:
            self._asked = self.secure.begin(grid, server_round, active, config, self._sent)
        for name in self._asked.records:
            self.server_ledger.charge(name, server_round)
        log(INFO, "configure_train: asking %s of %s hospitals", len(self._asked.records), len(self.nodes))
        return self._ask(self._asked.records, server_round, arrays, config, MessageType.TRAIN)

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Combine the updates of the hospitals that trained, as `aggregation` says.

        Declined replies, errors, malformed updates and claims that don't hold are left out. If fewer updates
        are left than a robust rule needs, nothing is combined.
        """
        sorted_replies = by_hospital(replies, self.nodes)
        judged = {
            name: self._judge(name, sorted_replies.get(name), server_round) for name in self._asked.records
        }
        if self.secure is not None:
            return self._unmasked(self.secure, server_round, judged), MetricRecord()
        accepted = [reply.content for reply in judged.values() if reply.content is not None]
        reason = self._too_few(len(accepted)) if accepted else ""
        if reason:
            log(WARNING, "round %s is not combined, the encoder stays as it is: %s", server_round, reason)
            judged = {
                name: reply if reply.content is None else replace(reply, reason=f"not combined: {reason}")
                for name, reply in judged.items()
            }
        self.report(RoundReport(server_round, judged, reason))
        if not accepted or reason or not self.shares_updates:
            return None, None
        averaged, metrics = super().aggregate_train(server_round, [_weighed(content) for content in accepted])
        assert averaged is not None  # there is at least one update
        updates = [self._numbers(content.array_records[ARRAYS]) for content in accepted]
        if self.aggregation == AVERAGE:
            return self._next(self._numbers(averaged)), metrics
        return self._next(combine(self.aggregation, updates)), metrics

    def lose(self, server_round: int, reason: str) -> None:
        """Charge and report a round that some hospital has answered and nobody can combine."""
        active = self.server_ledger.active()
        for name in active:
            self.server_ledger.charge(name, server_round)
        lost = {name: TrainReply("failed", reason) for name in active}
        self.report(RoundReport(server_round, lost, reason))

    def _too_few(self, accepted: int) -> str:
        """Why so many updates are not combined; empty if they are."""
        if accepted < self.min_hospitals:
            return f"{accepted} updates, fewer than min-hospitals = {self.min_hospitals}"
        return too_few(self.aggregation, accepted)

    def _unmasked(
        self, secure: SecureRounds, server_round: int, judged: Mapping[str, TrainReply]
    ) -> ArrayRecord | None:
        """What follows from the sum of masked updates; None if nobody may unmask it, or it can't be."""
        vectors = {
            name: reply.content.array_records[ARRAYS][MASKED].numpy()
            for name, reply in judged.items()
            if reply.content is not None
        }
        result = secure.finish(self._grid, server_round, vectors, self._config)
        left_out = {name: TrainReply("failed", reason) for name, reason in self._asked.left_out.items()}
        used = {name: result.applied_to(name, reply) for name, reply in judged.items()}
        self.report(RoundReport(server_round, {**left_out, **used}, result.reason))
        if result.mean is None:
            return None
        if self.optimiser is not None:
            return self._next(result.mean)
        return self._next({name: self._sent[name] + moved for name, moved in result.mean.items()})

    def _next(self, combined: Mapping[str, np.ndarray]) -> ArrayRecord:
        """What the next round starts from: what was sent, with what learns replaced."""
        if self.optimiser is not None:
            learning = {name: self._sent[name] for name in combined}
            combined = self.optimiser.step(learning, combined)
        arrays = {**self._sent, **combined}
        return ArrayRecord({name: Array(value.astype(np.float32)) for name, value in arrays.items()})

    def _numbers(self, arrays: ArrayRecord) -> dict[str, np.ndarray]:
        return {name: arrays[name].numpy() for name in self.shapes}

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Ask all hospitals, even those without budget: a loss is a release that no budget covers."""
        if self.fraction_evaluate == 0.0:
            return []
        for name in self.nodes:
            self.server_ledger.charge_diagnostics(name, server_round)
        asked: dict[str, Records] = {name: {} for name in self.nodes}
        return self._ask(asked, server_round, arrays, config, MessageType.EVALUATE)

    def aggregate_evaluate(self, server_round: int, replies: Iterable[Message]) -> MetricRecord | None:
        """The mean loss of the hospitals that sent one; refusals and malformed replies are left out."""
        accepted = []
        for name, reply in by_hospital(replies, self.nodes).items():
            if reply.has_error():
                continue
            try:
                metrics = messages.read_metrics(reply.content, ("loss",))
            except Malformed as problem:
                log(WARNING, "no loss from %s: %s", name, problem)
                continue
            weighed = MetricRecord(
                {**metrics, messages.RECORDS: self.server_ledger.accounts[name].terms.records}
            )
            accepted.append(_weighed(RecordDict({METRICS: weighed})))
        return super().aggregate_evaluate(server_round, accepted)

    def _ask(
        self,
        records: Mapping[str, Records],
        server_round: int,
        arrays: ArrayRecord,
        config: ConfigRecord,
        kind: str,
    ) -> list[Message]:
        """One message to each hospital, with its own `records` beside the common ones."""
        config["server-round"] = server_round
        return [
            Message(
                RecordDict({ARRAYS: arrays, CONFIG: config, **own}),
                dst_node_id=self.nodes[name],
                message_type=kind,
            )
            for name, own in records.items()
        ]

    def _judge(self, name: str, message: Message | None, server_round: int) -> TrainReply:
        """One hospital's reply; it has `content` only if it may be averaged."""
        if message is None or message.has_error():
            reason = (
                messages.reason_text(str(message.error.reason)) if message is not None else "no reply in time"
            )
            log(WARNING, "%s failed in round %s: %s", name, server_round, reason)
            return TrainReply("failed", reason)
        exclude: Callable[[str, str], None] = (
            self.server_ledger.refute
        )  # a claim that can't be read does not hold
        try:
            claim = messages.read_claim(message.content)
            exclude = self.server_ledger.exclude
            messages.check_name(message.content.config_records[CLAIM], name)
            self.server_ledger.settle(name, claim, server_round)
            account = self.server_ledger.accounts[name]
            if claim.status == ABSENT and not account.reason:
                log(WARNING, "%s is absent from round %s: %s", name, server_round, claim.reason)
                return TrainReply("failed", claim.reason)
            if claim.status != TRAINED or account.reason:
                log(WARNING, "%s %s in round %s: %s", name, account.status, server_round, account.reason)
                return TrainReply(account.status, account.reason)
            content = self._checked(name, message.content)
        except Malformed as problem:
            exclude(name, f"malformed reply: {problem}")
            log(WARNING, "%s excluded in round %s: %s", name, server_round, problem)
            return TrainReply("excluded", self.server_ledger.accounts[name].reason)
        return TrainReply(TRAINED, "", content)

    def _checked(self, name: str, content: RecordDict) -> RecordDict:
        """Only what is averaged: the arrays, if any, and the metrics, weighted by the enrolled records."""
        records: dict[str, ArrayRecord | MetricRecord] = {}
        messages.check_records(content, {CLAIM, METRICS, *([ARRAYS] if self.shares_updates else [])})
        if self.shares_updates:
            arrays = content.array_records[ARRAYS]
            records[ARRAYS] = (
                message_arrays.to_arrays(message_arrays.from_arrays(arrays, self.shapes))
                if self.secure is None
                else message_arrays.masked_in(arrays, length_of(self.shapes))
            )
        metrics = messages.read_metrics(content, messages.DIAGNOSTICS if self.diagnostics else ())
        weight = self.server_ledger.accounts[name].terms.records
        records[METRICS] = MetricRecord({**metrics, messages.RECORDS: weight})
        return RecordDict(dict(records))


def _weighed(content: RecordDict) -> Message:
    """Checked content as a message that FedAvg averages."""
    return Message(content, dst_node_id=0, message_type=MessageType.TRAIN)
