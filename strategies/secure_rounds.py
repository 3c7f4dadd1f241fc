"""The server's side of secure aggregation over Flower's messages: it learns the sum of each round alone.

A block of rounds begins with two exchanges (keys, sealed shares); each round ends with two (survivors signed,
sum unmasked). A hospital that doesn't answer, declines or answers wrongly in one of them is left out by name,
and the rest goes on without it as long as `min-hospitals` are left.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from logging import INFO, WARNING

import numpy as np
from flwr.app import ConfigRecord
from flwr.common.logger import log
from flwr.serverapp import Grid

from fl_ppae.masked_updates import length_of, mean_of
from fl_ppae.messages import CONSISTENT, KEYS, SECAGG, SHARES, UNMASK, Shapes
from fl_ppae.secagg.roster import Roster
from fl_ppae.secagg.server import Block, read_bundles, read_dealings, read_signatures, read_vectors
from fl_ppae.secagg.terms import MAX_ROUNDS, Terms
from fl_ppae.secagg.unmasking import unmasked_sum
from fl_ppae.secagg.wire import Refused
from fl_ppae.secure_messages import data_record, named_record, training_digest
from strategies.exchange import Exchange
from strategies.replies import TrainReply

Records = Mapping[str, ConfigRecord]
Reasons = dict[str, str]
"""Why hospitals are left out, by name."""


@dataclass(frozen=True)
class Summing:
    """What the sums of a run are made of.

    Attributes:
        shapes: of an update's arrays.
        step: of the ring.
        divisors: by hospital, what the sum is divided by for each that took part, see `masked_updates`.
    """

    shapes: Shapes
    step: float
    divisors: Mapping[str, float]


@dataclass(frozen=True)
class Asked:
    """The hospitals that can train in a round, with the records that each needs; and why others can't."""

    records: Mapping[str, Records]
    left_out: Reasons


@dataclass(frozen=True)
class Result:
    """A round's mean by the names of arrays, or None and why; and what hospitals did wrong after training."""

    mean: dict[str, np.ndarray] | None
    reason: str
    faults: Reasons

    def applied_to(self, name: str, reply: TrainReply) -> TrainReply:
        """The reply of a hospital, with what came of it."""
        if reply.content is None:
            return reply
        unused = f"not combined: {self.reason}" if self.reason else ""
        return replace(reply, reason=self.faults.get(name, unused))


class SecureRounds:
    """One run's masked rounds.

    Args:
        nodes: Flower node ids by hospital name, in the order of the hospitals' index.
        terms: of the run, as one block of its first round.
        rounds: of the run.
        reply_timeout: seconds that each exchange waits.
    """

    def __init__(
        self, nodes: Mapping[str, int], terms: Terms, rounds: int, summing: Summing, reply_timeout: float
    ) -> None:
        self._nodes, self._terms, self._rounds, self._summing = nodes, terms, rounds, summing
        self._reply_timeout = reply_timeout
        self._block: Block | None = None
        self._waiting: set[str] = set()  # for their parcels
        self._wrong_dealers: set[str] = set()
        self._absent: Reasons = {}  # from the block that is open
        self._trained_on = b""

    def begin(
        self,
        grid: Grid,
        server_round: int,
        names: Iterable[str],
        where: ConfigRecord,
        sent: Mapping[str, np.ndarray],
    ) -> Asked:
        """Make ready for a round of the hospitals `names` from the weights `sent`, in a new block if need be.

        With fewer than `min-hospitals`, nobody is asked.
        """
        names = list(names)
        if len(names) >= self._terms.min_hospitals and not self._reaches(server_round, names):
            self._open(grid, server_round, names, where)
        self._trained_on = training_digest(self._summing.step, sent.items())
        ready = [name for name in self._block.sharers if name in names] if self._block is not None else []
        enough = len(ready) >= self._terms.min_hospitals
        short = "it has no keys in this block of rounds" if enough else self._too_few(len(ready), "can train")
        asked = ready if enough else []
        left_out = {name: self._absent.get(name, short) for name in names if name not in asked}
        return Asked({name: {SECAGG: self._train_record(name)} for name in asked}, left_out)

    def finish(
        self, grid: Grid, server_round: int, vectors: Mapping[str, np.ndarray], where: ConfigRecord
    ) -> Result:
        """The mean of the hospitals whose masked `vectors` arrived, after they agreed on who they are."""
        exchange = Exchange(grid, self._nodes, where, self._reply_timeout, server_round)
        block, kept = self._block, dict(vectors)
        if block is not None:
            kept = exchange.keep(*read_vectors(block, vectors.items(), length_of(self._summing.shapes)))
        survivors = tuple(kept)
        self._waiting -= set(survivors)
        if block is None or len(survivors) < self._terms.min_hospitals:
            return _without_mean(exchange, self._too_few(len(survivors), "sent a masked vector"))
        survived = ConfigRecord({"survivors": list(survivors)})
        answers = exchange.ask(CONSISTENT, dict.fromkeys(survivors, survived))
        signatures = exchange.keep(
            *read_signatures(block, server_round, survivors, self._trained_on, answers.items())
        )
        if len(signatures) < self._terms.threshold:
            signed = f"only {_hospitals(len(signatures))} signed who took part"
            return _without_mean(exchange, f"{signed}; it takes {self._terms.threshold}")
        told = ConfigRecord({**survived, **named_record(signatures)})
        answers = exchange.ask(UNMASK, dict.fromkeys(signatures, told))
        unmasked = unmasked_sum(block, server_round, self._trained_on, kept, answers.items())
        total = exchange.keep(unmasked.total, unmasked.faults)
        self._wrong_dealers |= set(unmasked.wrong_dealers)
        if total is None:
            return _without_mean(exchange, "the masks could not be removed")
        divisor = sum(self._summing.divisors[name] for name in survivors)
        return Result(mean_of(total, self._summing.step, divisor, self._summing.shapes), "", exchange.reasons)

    def _reaches(self, server_round: int, names: list[str]) -> bool:
        """True if the block that is open has this round, and enough hospitals that can be asked."""
        block = self._block
        if block is None or server_round >= block.terms.first_round + block.terms.rounds:
            return False
        able = set(block.sharers) & set(names)
        return not self._wrong_dealers & able and len(able) >= self._terms.min_hospitals

    def _open(self, grid: Grid, server_round: int, names: list[str], where: ConfigRecord) -> None:
        """Open a block from this round on, if enough hospitals can be in it."""
        rounds = min(MAX_ROUNDS, self._rounds - server_round + 1)
        terms = replace(self._terms, first_round=server_round, rounds=rounds)
        exchange = Exchange(grid, self._nodes, where, self._reply_timeout)
        self._block, self._waiting = None, set()
        exchange.reasons |= dict.fromkeys(self._wrong_dealers, "it dealt wrong shares in an earlier block")
        self._absent = exchange.reasons
        invited = [name for name in names if name not in self._wrong_dealers]
        try:
            answers = exchange.ask(KEYS, dict.fromkeys(invited, data_record(terms.pack())))
            roster = Roster(terms, exchange.keep(*read_bundles(terms, answers.items())))
            bundles = named_record({name: bundle.pack() for name, bundle in roster.bundles.items()})
            answers = exchange.ask(SHARES, dict.fromkeys(roster.bundles, bundles))
            self._block = Block(roster, exchange.keep(*read_dealings(roster, answers.items())))
        except Refused as shortage:
            log(WARNING, "no masked rounds from round %s on: %s", server_round, shortage)
            return
        self._waiting = set(self._block.sharers)
        last = server_round + rounds - 1
        log(INFO, "masked rounds %s to %s: %s hospitals", server_round, last, len(self._waiting))

    def _train_record(self, name: str) -> ConfigRecord:
        assert self._block is not None
        parcels = named_record(self._block.parcels_for(name)) if name in self._waiting else {}
        return ConfigRecord({"step": self._summing.step, **parcels})

    def _too_few(self, count: int, did: str) -> str:
        return f"only {_hospitals(count)} {did}, fewer than min-hospitals = {self._terms.min_hospitals}"


def _hospitals(count: int) -> str:
    return "1 hospital" if count == 1 else f"{count} hospitals"


def _without_mean(exchange: Exchange, reason: str) -> Result:
    log(WARNING, "the round is not used: %s", reason)
    return Result(None, reason, exchange.reasons)
