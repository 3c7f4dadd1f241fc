"""A federation with masked rounds, whose messages can be lost, replaced or forged anywhere."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Error, Message, RecordDict
from support import SMALL, simulated_nodes, write_npz

from fl_ppae import client_app, message_arrays
from fl_ppae.config import RunConfig
from fl_ppae.data.deal import hospital_names, make_deal
from fl_ppae.data.sources import resolve
from fl_ppae.hospital.simulated import directory_of, write_deal
from fl_ppae.masked_updates import divisor_of, ring_step
from fl_ppae.messages import TRAIN, Shapes
from fl_ppae.models.build import local_model_of, shared_of
from fl_ppae.privacy.events import Event
from fl_ppae.privacy.ledger import read_ledger
from fl_ppae.privacy.plan import make_plan, planned_terms
from fl_ppae.protection import SECAGG, quorum_of
from fl_ppae.secagg.terms import Terms
from fl_ppae.secure_messages import config_digest
from fl_ppae.simulation.in_process import InProcessGrid
from strategies.private_fedavg import PrivateFedAvg
from strategies.replies import RoundReport
from strategies.secure_rounds import SecureRounds, Summing
from strategies.server_ledger import Account, ServerLedger
from strategies.server_optimiser import ServerAdam

Deliver = Callable[[Message], Message]
Tamper = Callable[[str, str, Message, Deliver], Message | None]
"""What happens to a message of this kind to this hospital: its reply, or None for no reply."""

LATE = "hospital-1"
"""The hospital that is lost, lied to or wrong in tests."""

STEP = {"local_steps": 1, "dp_scope": "frozen-decoder"}
JOINT = {**STEP, "noise": "joint", "sample_rate": 0.5, "honest_hospitals": 2, "min_hospitals": 3}
"""Of four hospitals, one may collude and one more may be lost."""


class Network(InProcessGrid):
    """A grid in whose way stands `tamper`; it keeps every reply that a hospital made.

    Attributes:
        carried: (kind, hospital, question, reply) of each message, in order.
    """

    tamper: Tamper | None = None

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.carried: list[tuple[str, str, Message, Message]] = []

    def _deliver(self, message: Message) -> Message:
        kind, node = message.metadata.message_type, message.metadata.dst_node_id
        name = f"hospital-{list(self._contexts).index(node)}"

        def deliver(question: Message) -> Message:
            reply = super(Network, self)._deliver(question)
            self.carried.append((kind, name, copy.deepcopy(question), copy.deepcopy(reply)))
            return reply

        if self.tamper is None:
            return deliver(message)
        reply = self.tamper(kind, name, message, deliver)
        if reply is not None:
            reply.metadata.__dict__["_src_node_id"] = node
        return reply  # type: ignore[return-value]

    def pull_messages(self, message_ids: Any) -> list[Message]:
        return [reply for reply in super().pull_messages(message_ids) if reply is not None]


class Federation:
    """Hospitals that train tiny encoders, and the server's strategy. `keys` change the configuration."""

    def __init__(
        self,
        folder: Path,
        hospitals: int = 4,
        tamper: Tamper | None = None,
        node: Mapping[str, Any] | None = None,
        **keys: Any,
    ) -> None:
        """`node`: keys of every node's config."""
        folder.mkdir()
        data = write_npz(folder / "tiny.npz", 40 * hospitals, test_records=max(60, hospitals))
        kebab = {key.replace("_", "-"): value for key, value in keys.items()}
        values = {**SMALL, "data-file": str(data), "protection": "secagg", "learning-rate": 0.05}
        self.config = RunConfig.from_flat({**values, **kebab})
        names = hospital_names(hospitals)
        deal = make_deal(resolve(self.config), self.config, names)
        write_deal(deal, folder)
        self.folder, self.reports = folder, list[RoundReport]()
        nodes = [{**one, **(node or {})} for one in simulated_nodes(hospitals)]
        self.network = Network(client_app.app, self.config.to_flat(), nodes)
        self.network.tamper = tamper
        run = str(self.network.run.run_id)
        plan = make_plan(self.config, {name: len(records) for name, records in deal.train.items()})
        self.plans = {one.name: planned_terms(one, self.config, run) for one in plan.hospitals}
        self.ledger = ServerLedger({name: Account(terms) for name, terms in self.plans.items()})
        shared = shared_of(self.config, local_model_of(self.config))
        self.shapes: Shapes = message_arrays.shapes_of(shared.state_dict())
        self.arrays = message_arrays.to_arrays(shared.state_dict())
        self.nodes = dict(zip(names, self.network.get_node_ids(), strict=True))
        self.step = ring_step(self.plans.values(), self.config, hospitals)
        self.strategy = PrivateFedAvg(
            self.nodes,
            self.ledger,
            self.shapes,
            shares_updates=True,
            diagnostics=False,
            report=self.reports.append,
            optimiser=ServerAdam(self.config.learning_rate) if self.config.local_steps else None,
            secure=self._secure(run) if self.config.protection == SECAGG else None,
        )

    def _secure(self, run: str) -> SecureRounds:
        quorum = quorum_of(self.config, len(self.nodes))
        numbers = quorum.minimum, quorum.colluders, 1, 1
        terms = Terms(run, tuple(self.nodes), *numbers, config_digest(self.config))
        divisors = {name: divisor_of(plan) for name, plan in self.plans.items()}
        summing = Summing(self.shapes, self.step, divisors)
        rounds, patience = self.config.num_server_rounds, self.config.reply_timeout
        return SecureRounds(self.nodes, terms, rounds, summing, patience)

    def round(self, server_round: int = 1) -> bool:
        """Play one round; True if it was used. `arrays` are then the next round's."""
        config = ConfigRecord({"run-directory": str(self.folder)})
        questions = self.strategy.configure_train(server_round, self.arrays, config, self.network)
        replies = self.network.send_and_receive(questions)
        arrays, _ = self.strategy.aggregate_train(server_round, replies)
        self.arrays = arrays or self.arrays
        return arrays is not None

    @property
    def weights(self) -> dict[str, np.ndarray]:
        return {name: self.arrays[name].numpy() for name in self.shapes}

    def ask(self, name: str, kind: str, content: RecordDict) -> Message:
        """The reply of one hospital to a message of its own."""
        (reply,) = self.network.send_and_receive([Message(content, self.nodes[name], kind)])
        return reply

    def sent(self, kind: str, name: str) -> tuple[Message, Message]:
        """The last message of this kind to this hospital, and its reply."""
        return next(
            (question, reply)
            for each, other, question, reply in reversed(self.network.carried)
            if (each, other) == (kind, name)
        )

    def check_close(self, expected: Mapping[str, np.ndarray]) -> None:
        """Check that the weights are these, up to the ring's rounding and that of float32."""
        records = sum(plan.records for plan in self.plans.values())
        rounding = len(self.plans) * self.step / 2 / records
        for name, value in self.weights.items():
            np.testing.assert_allclose(value, expected[name], rtol=1e-6, atol=2 * rounding + 1e-7)

    def moved(self, before: Mapping[str, np.ndarray]) -> float:
        """The largest change of a weight."""
        return max(float(np.abs(value - before[name]).max()) for name, value in self.weights.items())

    def reason(self, name: str) -> str:
        """What the last report says of this hospital."""
        return self.reports[-1].replies[name].reason

    def directory(self, name: str) -> Path:
        """The state directory of this hospital."""
        return directory_of(self.folder, name)

    def events(self, name: str) -> tuple[Event, ...]:
        """What this hospital has paid."""
        path = self.directory(name) / "ledger.jsonl"
        return read_ledger(path).events if path.exists() else ()


def lost(*lose: tuple[str, str]) -> Tamper:
    """Loses the messages of these kinds to these hospitals."""
    return lambda kind, name, question, deliver: None if (kind, name) in lose else deliver(question)


def replaced(kind: str, name: str, forge: Callable[[Message, Message], Message]) -> Tamper:
    """Replaces one hospital's replies of one kind by what `forge` makes of (question, honest reply)."""

    def tamper(each: str, other: str, question: Message, deliver: Deliver) -> Message:
        reply = deliver(question)
        return forge(question, reply) if (each, other) == (kind, name) else reply

    return tamper


def error(question: Message, _reply: Message) -> Message:
    return Message(Error(0, "it crashed"), reply_to=question)


def with_record(message: Message, name: str, record: ConfigRecord | ArrayRecord) -> Message:
    """A copy of a message with one record replaced."""
    changed = copy.deepcopy(message)
    changed.content[name] = record
    return changed


def plain_round(folder: Path, *without: str, **keys: Any) -> dict[str, np.ndarray]:
    """What one round of unmasked updates gives without these hospitals."""
    federation = Federation(
        folder, tamper=lost(*((TRAIN, name) for name in without)), protection="none", **keys
    )
    assert federation.round()
    return federation.weights


def lying_to(name: str, kind: str, lie: Callable[[Message], Message]) -> Tamper:
    return lambda each, other, question, deliver: deliver(
        lie(question) if (each, other) == (kind, name) else question
    )
