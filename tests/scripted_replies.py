"""A strategy that receives scripted replies from four hospitals, or as many as a test needs."""

import itertools
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Error, Message, MetricRecord, RecordDict

from fl_ppae import client_app, messages
from fl_ppae.messages import ARRAYS, CLAIM, METRICS, Claim
from fl_ppae.privacy.accounting import epsilon
from fl_ppae.privacy.events import Event, PoissonGaussian, updates
from fl_ppae.privacy.terms import Terms
from fl_ppae.simulation.in_process import InProcessGrid
from strategies.private_fedavg import PrivateFedAvg
from strategies.replies import RoundReport
from strategies.server_ledger import Account, ServerLedger

SHAPES = {"weight": (3, 4), "bias": (3,)}
RECORDS = (100, 200, 300, 400)
DELTA = 1e-3
START = ArrayRecord({name: Array(np.zeros(shape, np.float32)) for name, shape in SHAPES.items()})


@dataclass
class Server:
    """A strategy and its server ledger. `ask` starts a round, `take` ends it with the replies."""

    history: tuple[PoissonGaussian, ...] = ()
    noise: float | None = 1.5
    hospitals: int = 4
    reports: list[RoundReport] = field(default_factory=list)

    def __post_init__(self) -> None:
        nodes = {f"hospital-{index}": 1000 - index for index in range(self.hospitals)}
        InProcessGrid(
            client_app.app, {}, [{}] * self.hospitals
        )  # sets the task that Flower stamps messages with
        scope = "autoencoder" if self.noise is not None else "none"
        accounts = {
            name: Account(Terms("run-a", scope, records, self.noise, 0.25, 4, 1.0, 8.0, DELTA), self.history)
            for name, records in zip(nodes, itertools.cycle(RECORDS), strict=False)
        }
        self.server_ledger = ServerLedger(accounts)
        self.strategy = PrivateFedAvg(
            nodes,
            self.server_ledger,
            SHAPES,
            shares_updates=True,
            diagnostics=False,
            report=self.reports.append,
        )
        self.names = {node: name for name, node in nodes.items()}

    def ask(self, server_round: int = 1) -> list[Message]:
        grid: Any = None
        return list(self.strategy.configure_train(server_round, START, ConfigRecord(), grid))

    def take(self, replies: Iterable[Message], server_round: int = 1) -> dict[str, np.ndarray] | None:
        arrays, _ = self.strategy.aggregate_train(server_round, replies)
        return None if arrays is None else {name: array.numpy() for name, array in arrays.items()}

    def status(self, name: str) -> str:
        return self.reports[-1].replies[name].status


def events(*rounds: int) -> tuple[PoissonGaussian, ...]:
    return tuple(PoissonGaussian(1.5, 0.25, 4, number) for number in rounds)


def update(seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in SHAPES.items()}


def reply(
    question: Message,
    values: dict[str, np.ndarray],
    *,
    claimed: tuple[Event, ...] = events(1),
    spent: float | None = None,
    status: str = "trained",
    metrics: dict[str, Any] | None = None,
    hospital: str = "",
) -> Message:
    cost = epsilon(updates(claimed), DELTA).spent if spent is None else spent
    name = hospital or f"hospital-{1000 - question.metadata.dst_node_id}"
    content = {
        CLAIM: messages.claim_record(Claim(name, status, "", claimed, 0.0)),
        METRICS: MetricRecord(metrics or {"num-examples": 1}),
        ARRAYS: ArrayRecord({name: Array(value) for name, value in values.items()}),
    }
    content[CLAIM]["epsilon"] = cost
    return sent(Message(RecordDict(content), reply_to=question), question)


def failure(question: Message) -> Message:
    return sent(Message(Error(0, "it crashed"), reply_to=question), question)


def sent(message: Message, question: Message) -> Message:
    message.metadata.__dict__["_src_node_id"] = question.metadata.dst_node_id
    return message
