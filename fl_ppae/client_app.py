"""The hospital: it identifies itself, trains its private encoder, releases encodings and evaluates.

`messages.check_outgoing` checks every reply before it leaves.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, MetricRecord
from flwr.clientapp import ClientApp
from flwr.clientapp.typing import ClientAppCallable

from fl_ppae import message_arrays, messages
from fl_ppae.adversary import FREE_RIDER, behaviour_of, update_to_send
from fl_ppae.config import RunConfig
from fl_ppae.hardware import limited_threads
from fl_ppae.hospital.ceilings import refusal
from fl_ppae.hospital.identity import Identity, identify
from fl_ppae.hospital.local_model import mean_loss, resumed_model
from fl_ppae.hospital.node_keys import read_node
from fl_ppae.hospital.release import encodings_to_release, labels_to_release
from fl_ppae.hospital.simulated import leave_for_audit
from fl_ppae.hospital.site import Hospital, open_hospital
from fl_ppae.hospital.state import TrainingState
from fl_ppae.hospital.terms import terms_of
from fl_ppae.hospital.training import round_terms, train_round
from fl_ppae.messages import (
    ARRAYS,
    CLAIM,
    CONFIG,
    DECLINED,
    METRICS,
    READY,
    TRAINED,
    Claim,
    Claims,
    Content,
    Outgoing,
)
from fl_ppae.models.build import encoding_shape_of, released_shape_of, update_shapes_of
from fl_ppae.models.objectives import OBJECTIVES
from fl_ppae.privacy.accounting import epsilon
from fl_ppae.privacy.budget import over_ceiling, over_target
from fl_ppae.privacy.encodings import Projection
from fl_ppae.privacy.events import PARTS, TRAIN_PART, Event, priced, unprotected, updates
from fl_ppae.privacy.ledger import Ledger, Terms
from fl_ppae.privacy.plan import plan_hospital
from fl_ppae.privacy.randomness import FROM_ENTROPY, Streams, streams

CHUNK_BYTES = 4 * 2**20  # of encodings in one message: ordinary networks and proxies let it through


def check_reply(message: Message, context: Context, call_next: ClientAppCallable) -> Message:
    """Flower mod: stop a reply that holds more than `messages` allows."""
    answer = call_next(message, context)
    if answer.has_content():
        config = RunConfig.from_flat(context.run_config)
        messages.check_outgoing(message.metadata.message_type, answer.content, _outgoing(config))
    return answer


app = ClientApp(mods=[check_reply])


@app.query("hello")
def hello(message: Message, context: Context) -> Message:
    """Who this hospital is; reads no record."""
    identity = identify(read_node(context.node_config))
    claim: Claims = {
        "hospital": identity.name,
        "index": identity.index,
        "hospitals": identity.hospitals,
        "deployed": identity.deployed,
    }
    return messages.reply(message, {CLAIM: ConfigRecord(claim)})


@app.query("enrol")
def enrol(message: Message, context: Context) -> Message:
    """How many records this hospital would train on and what they have spent, or why it declines."""
    config, hospital = _open(message, context)
    reason = refusal(hospital.limits, config)
    ledger = None if reason else hospital.state.open_ledger(terms_of(hospital, config, _run(context)))
    if ledger is not None:
        earlier = ledger.events[: ledger.history]
        reason = _over_ceiling(ledger, earlier, _whole_run(hospital, config, ledger.terms), hospital)
    claim: Claims = {
        "hospital": hospital.identity.name,
        "status": DECLINED if reason else READY,
        "reason": reason,
        "records": len(hospital.train),
        "test-records": len(hospital.test),
        "events": messages.events_text(ledger.events if ledger else ()),
    }
    return messages.reply(message, {CLAIM: ConfigRecord(claim)})


@app.train()
def train(message: Message, context: Context) -> Message:
    """One round of local training, paid for in the ledger before any noise is drawn."""
    config, hospital = _open(message, context)
    server_round = _integer(message, "server-round")
    run = _run(context)
    with hospital.state.lock():  # two runs on one ledger: each sees what the other has spent
        saved = hospital.state.load_training()
        ledger = hospital.state.open_ledger(terms_of(hospital, config, run))
        costs = ledger.terms.round_events(server_round)
        reason = refusal(hospital.limits, config) or _over_budget(ledger, costs, hospital)
        if reason:
            claim = _train_claim(hospital.identity, ledger, DECLINED, reason)
            return messages.reply(message, {CLAIM: claim})
        ledger = ledger.announce(*costs)
    with limited_threads(config.threads_per_hospital):
        model, moments = resumed_model(config, run, saved, _encoder(message))
        shared = OBJECTIVES[config.objective].shared(model)
        received = copy.deepcopy(shared.state_dict())
        # Numbered by events paid, not by the requested round: a round requested twice draws fresh noise.
        draw = len(priced(ledger.events)) if priced(costs) else server_round
        drawn = _streams(hospital.identity, config, draw)
        behaviour = behaviour_of(config, hospital.identity.index)
        if behaviour != FREE_RIDER:
            terms = round_terms(ledger.terms, config)
            moments, diagnostics = train_round(model, hospital.train, terms, drawn, moments)
    state = TrainingState(
        run,
        server_round,
        model.encoder.state_dict(),
        model.partner.state_dict(),
        moments,
        len(ledger.events),
    )
    hospital.state.save_training(state)
    metrics = MetricRecord({messages.RECORDS: len(hospital.train)})
    if config.diagnostics:
        values = (diagnostics.loss, diagnostics.clipped_fraction, diagnostics.signal_to_noise)
        for key, value in zip(messages.DIAGNOSTICS, values, strict=True):
            metrics[key] = value
    claim = _train_claim(hospital.identity, ledger, TRAINED, "")
    content: Content = {CLAIM: claim, METRICS: metrics}
    if config.shares_updates:
        sent = update_to_send(behaviour, received, shared.state_dict(), drawn.noise)
        content[ARRAYS] = message_arrays.to_arrays(sent)
    return messages.reply(message, content)


@app.query("encodings")
def encodings(message: Message, context: Context) -> Message:
    """One chunk of the encodings of this hospital's train or test part; train encodings come with labels.

    The release is paid for and made when its first chunk is requested; after that it is only re-sent.
    """
    config, hospital = _open(message, context)
    run, part, chunk = _run(context), _text(message, "part"), _integer(message, "chunk")
    reason = refusal(hospital.limits, config)
    if not config.shares_encodings or part not in PARTS or chunk < 0:
        reason = f"this run shares no chunk {chunk} of part {part!r}"
    if reason:
        return messages.reply(message, {CLAIM: _upload_claim(hospital.identity, 0, reason=reason)})
    with hospital.state.lock():
        ledger = hospital.state.open_ledger(terms_of(hospital, config, run))
        if not hospital.state.release_path(run, part).exists():
            costs = ledger.terms.upload_events(part, config.num_server_rounds)
            if reason := _over_budget(ledger, costs, hospital):
                claim = _upload_claim(hospital.identity, 0, ledger, reason)
                return messages.reply(message, {CLAIM: claim})
            ledger = ledger.announce(*costs)
            hospital.state.remember_paid(len(ledger.events))
            _make_release(message, hospital, config, ledger, part)
    released: np.ndarray = np.load(hospital.state.release_path(run, part), mmap_mode="r")
    rows = max(1, CHUNK_BYTES // (released[:1].nbytes or 1))
    window = slice(chunk * rows, (chunk + 1) * rows)
    arrays = {"encodings": Array(np.ascontiguousarray(released[window]))}
    if part == TRAIN_PART:
        arrays["labels"] = Array(np.load(hospital.state.label_path(run, part))[window])
    chunks = max(1, -(-len(released) // rows))
    claim = _upload_claim(hospital.identity, chunks, ledger)
    return messages.reply(message, {CLAIM: claim, ARRAYS: ArrayRecord(arrays)})


@app.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    """Loss of the aggregated encoder with this hospital's own partner, for runs with diagnostics only."""
    config, hospital = _open(message, context)
    claim = ConfigRecord({"hospital": hospital.identity.name})
    if refusal(hospital.limits, config) or not config.diagnostics:
        return messages.reply(message, {CLAIM: claim})
    run = _run(context)
    with hospital.state.lock():
        ledger = hospital.state.open_ledger(terms_of(hospital, config, run))
        costs = ledger.terms.diagnostic_events(_integer(message, "server-round"))
        # Those that the round's training has not paid for.
        unpaid = tuple(cost for cost in costs if cost not in ledger.events)
        if _over_budget(ledger, unpaid, hospital):
            return messages.reply(message, {CLAIM: claim})
        ledger.announce(*unpaid)
    with limited_threads(config.threads_per_hospital):
        model, _ = resumed_model(config, run, hospital.state.load_training(), _encoder(message))
        loss = mean_loss(model, hospital.train, OBJECTIVES[config.objective])
    metrics = MetricRecord({messages.RECORDS: len(hospital.train), "loss": loss})
    return messages.reply(message, {CLAIM: claim, METRICS: metrics})


def _open(message: Message, context: Context) -> tuple[RunConfig, Hospital]:
    config = RunConfig.from_flat(context.run_config)
    node = read_node(context.node_config)
    identity = identify(node)
    directory = "" if identity.deployed else _text(message, "run-directory")
    return config, open_hospital(identity, node, config, directory)


def _run(context: Context) -> str:
    return str(context.run_id)


def _text(message: Message, key: str) -> str:
    return str(message.content.config_records[CONFIG][key])


def _encoder(message: Message) -> ArrayRecord | None:
    """The encoder that the server sent, unchecked."""
    return message.content.array_records.get(ARRAYS)


def _integer(message: Message, key: str) -> int:
    return int(message.content.config_records[CONFIG][key])  # type: ignore[arg-type]


def _over_budget(ledger: Ledger, costs: Sequence[Event], hospital: Hospital) -> str:
    """Why `costs` would exceed a budget of the run or of this hospital; empty if they wouldn't."""
    return over_target(ledger.events, costs, ledger.terms) or _over_ceiling(
        ledger, ledger.events, costs, hospital
    )


def _over_ceiling(ledger: Ledger, spent: Sequence[Event], costs: Sequence[Event], hospital: Hospital) -> str:
    """Why `costs` on top of `spent` would exceed this hospital's own ceiling; empty if they wouldn't."""
    return over_ceiling(
        spent,
        costs,
        ledger.terms,
        hospital.limits.max_epsilon,
        after_unprotected=hospital.limits.allow_after_unprotected,
    )


def _whole_run(hospital: Hospital, config: RunConfig, terms: Terms) -> tuple[Event, ...]:
    """Everything that a train record pays for in this run."""
    plan = plan_hospital(hospital.identity.name, len(hospital.train), config)
    return (*plan.everything(), *unprotected(terms.any_events(1)))


def _streams(identity: Identity, config: RunConfig, draw: int) -> Streams:
    """The random streams of this draw, seeded only in a simulation."""
    return streams(FROM_ENTROPY if identity.deployed else config.seed, identity.index, draw)


def _train_claim(identity: Identity, ledger: Ledger, status: str, reason: str) -> ConfigRecord:
    private = ledger.terms.noise_multiplier is not None
    spent = epsilon(updates(ledger.events), ledger.terms.delta).spent if private else math.inf
    return messages.claim_record(Claim(identity.name, status, reason, ledger.events, spent))


def _upload_claim(
    identity: Identity, chunks: int, ledger: Ledger | None = None, reason: str = ""
) -> ConfigRecord:
    claim: Claims = {
        "hospital": identity.name,
        "status": DECLINED if reason else READY,
        "reason": reason,
        "chunks": chunks,
        "events": messages.events_text(ledger.events if ledger else ()),
    }
    return ConfigRecord(claim)


def _make_release(message: Message, hospital: Hospital, config: RunConfig, ledger: Ledger, part: str) -> None:
    """Encode `part`, add noise as the terms require, and save it: chunks are sent from the saved release."""
    run, upload = ledger.terms.run, ledger.terms.upload
    assert upload is not None  # this run shares encodings
    stream = _streams(hospital.identity, config, len(priced(ledger.events))).noise
    records = hospital.train if part == TRAIN_PART else hospital.test

    def projection() -> Projection:
        return message_arrays.read_projection(
            message.content, config.projection_size, encoding_shape_of(config)
        )

    with limited_threads(config.threads_per_hospital):
        model, _ = resumed_model(config, run, hospital.state.load_training(), _encoder(message))
        encoded = encodings_to_release(model.encoder, records, upload, projection, stream)
    labels = labels_to_release(records, upload, stream) if part == TRAIN_PART else None
    hospital.state.save_release(run, part, encoded, labels)
    if not config.shares_updates and not hospital.identity.deployed:
        leave_for_audit(model.encoder, hospital.identity.name, Path(_text(message, "run-directory")))


def _outgoing(config: RunConfig) -> Outgoing:
    """What this run lets a hospital send."""
    return Outgoing(
        encoder=update_shapes_of(config),
        encoding=released_shape_of(config),
        shares_updates=config.shares_updates,
        shares_encodings=config.shares_encodings,
        diagnostics=config.diagnostics,
    )
