"""The hospital: it identifies itself, trains its private encoder, releases encodings and evaluates.

A request is checked before anything is paid for it (`hospital.requests`), and every reply before it leaves
(`outgoing`). A request that asks for what the hospital does not do gets a reply that declines, with a reason
made from configuration, ceilings, ledger and the request itself. An exception never leaves the hospital
(`hospital.failures`).
"""

from __future__ import annotations

from dataclasses import astuple
from functools import partial

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, MetricRecord
from flwr.clientapp import ClientApp
from flwr.clientapp.typing import ClientAppCallable

from fl_ppae import message_arrays, messages, protection
from fl_ppae.config import RunConfig
from fl_ppae.data.registry import spec_of
from fl_ppae.hardware import limited_threads
from fl_ppae.hospital.answers import Answer, Answers
from fl_ppae.hospital.ceilings import refusal
from fl_ppae.hospital.claims import masking_claim, train_claim, upload_claim
from fl_ppae.hospital.failures import failure
from fl_ppae.hospital.identity import Identity, identify
from fl_ppae.hospital.local_model import mean_loss, resumed_model
from fl_ppae.hospital.masking import Masking
from fl_ppae.hospital.node_keys import read_node
from fl_ppae.hospital.own_repeats import log_repeats
from fl_ppae.hospital.requests import asked, run_in, text_in, train_request, upload_request
from fl_ppae.hospital.run_config import run_config
from fl_ppae.hospital.site import Hospital, open_hospital
from fl_ppae.hospital.terms import over_budget, over_limit, terms_of
from fl_ppae.hospital.updates import LocalRound, Update, make_update
from fl_ppae.hospital.upload import Releasing, release
from fl_ppae.messages import (
    ABSENT,
    ARRAYS,
    CLAIM,
    CONSISTENT,
    DECLINED,
    KEYS,
    MASKED,
    METRICS,
    READY,
    SECAGG,
    SHARES,
    TRAINED,
    UNMASK,
    Claims,
    Content,
)
from fl_ppae.models.build import released_format_of, update_shapes_of
from fl_ppae.models.objectives import OBJECTIVES
from fl_ppae.outgoing import Outgoing, check_outgoing
from fl_ppae.privacy.events import TRAIN_PART, Event, priced, unprotected
from fl_ppae.privacy.plan import plan_hospital
from fl_ppae.privacy.randomness import FROM_ENTROPY, Streams, streams
from fl_ppae.privacy.terms import Terms
from fl_ppae.secure_messages import data_record


def guard(message: Message, context: Context, call_next: ClientAppCallable) -> Message:
    """Flower mod: only what `outgoing` allows leaves, or the word that this hospital failed."""
    try:
        answer = call_next(message, context)
        check_outgoing(message.metadata.message_type, answer.content, _outgoing(run_config(context)))
        return answer
    except Exception as problem:  # of any kind: Flower would send its text to the server
        return failure(message, context.node_config, problem)


app = ClientApp(mods=[guard])


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
    run, reason = _run(message, context), refusal(hospital.limits, config)
    with hospital.state.lock():
        ledger = None if reason else hospital.state.open_ledger(terms_of(hospital, config, run))
        saved = hospital.state.load_training()
    if ledger is not None:
        earlier = ledger.events[: ledger.history]
        reason = over_limit(ledger, earlier, _whole_run(hospital, config, ledger.terms), hospital)
        if hospital.identity.deployed:
            log_repeats(hospital, config, earlier)
    claim: Claims = {
        "hospital": hospital.identity.name,
        "status": DECLINED if reason else READY,
        "reason": messages.reason_text(reason),
        "records": len(hospital.train),
        "test-records": len(hospital.test) if _shares_test_part(config, hospital) else 0,
        "round": saved.round if saved is not None and saved.run == run else 0,
        "events": messages.events_text(ledger.events if ledger else ()),
        "chain": messages.chain_text(ledger.chain.heads if ledger else ()),
    }
    return messages.reply(message, {CLAIM: ConfigRecord(claim)})


@app.train()
def train(message: Message, context: Context) -> Message:
    """One round of local training, paid for in the ledger before any noise is drawn."""
    config, hospital = _open(message, context)
    run = _run(message, context)
    request, malformed = asked(train_request, message.content, config)
    masking = Masking(hospital, config, run) if config.protection == protection.SECAGG else None
    answers = Answers(hospital.state, run, has_state=not config.local_steps)
    keeps = bool(config.checkpoint_every) and masking is None  # a masked vector is never sent again
    with hospital.state.lock():  # two runs on one ledger: each sees what the other has spent
        saved = hospital.state.load_training()
        ledger = hospital.state.open_ledger(terms_of(hospital, config, run))
        answer = answers.find(request, saved) if request is not None and keeps else None
        new = request is not None and answer is None
        costs = ledger.terms.round_events(request.server_round) if request is not None and new else ()
        reason = malformed or refusal(hospital.limits, config) or over_budget(ledger, costs, hospital)
        status = DECLINED
        if request is not None and not reason and masking is not None:
            status = ABSENT  # with new keys, it may take part in a later round
            reason = masking.declines(message.content, request.server_round, ledger.terms)
        if request is None or reason:
            claim = train_claim(hospital.identity, ledger, status, reason)
            return messages.reply(message, {CLAIM: claim})
        ledger = ledger.announce(*costs)
    if answer is None:
        # Numbered by events paid, not by the requested round: a round requested twice draws fresh noise.
        draw = len(priced(ledger.events)) if priced(costs) else request.server_round
        drawn = _streams(hospital.identity, config, draw)
        update = make_update(LocalRound(hospital, config, ledger.terms, request, drawn), saved)
        with hospital.state.lock():
            masked = masking.masked(update, request, ledger.terms, message.content) if masking else None
            answer = _answer(hospital, config, update, masked)
            if keeps:
                answers.keep(request, answer)
            if update.kept is not None:
                hospital.state.save_training(update.kept)
    claim = train_claim(hospital.identity, ledger, TRAINED, "")
    content: Content = {CLAIM: claim, METRICS: MetricRecord(dict(answer.metrics))}
    if config.shares_updates:
        arrays = {name: Array(array) for name, array in sorted(answer.arrays.items())}
        content[ARRAYS] = ArrayRecord(arrays)
    return messages.reply(message, content)


def _answer(hospital: Hospital, config: RunConfig, update: Update, masked: np.ndarray | None) -> Answer:
    """What leaves the hospital of a round."""
    metrics: dict[str, float] = {messages.RECORDS: len(hospital.train)}
    if config.diagnostics and update.diagnostics is not None:
        metrics |= dict(zip(messages.DIAGNOSTICS, astuple(update.diagnostics), strict=True))
    if masked is not None:
        return Answer({MASKED: masked}, metrics)
    shared = update.sent if config.shares_updates else {}
    return Answer({name: tensor.detach().cpu().numpy() for name, tensor in shared.items()}, metrics)


def masking_step(message: Message, context: Context) -> Message:
    """One step of secure aggregation, see `secure_messages`; reads no record."""
    config, hospital = _open(message, context)
    data, reason = b"", refusal(hospital.limits, config)
    if config.protection != protection.SECAGG:
        reason = f'updates are not masked with protection = "{config.protection}"'
    if not reason:
        with hospital.state.lock():
            masking = Masking(hospital, config, _run(message, context))
            data, reason = masking.answer(message.metadata.message_type, message.content)
    content: Content = {CLAIM: masking_claim(hospital.identity, reason)}
    if not reason:
        content[SECAGG] = data_record(data)
    return messages.reply(message, content)


for _kind in (KEYS, SHARES, CONSISTENT, UNMASK):
    app.query(_kind.removeprefix("query."))(masking_step)


@app.query("encodings")
def encodings(message: Message, context: Context) -> Message:
    """One chunk of the encodings of this hospital's train or test part; train encodings come with labels.

    The release is paid for and made when its first chunk is requested, which may only be after training;
    after that it is only re-sent.
    """
    config, hospital = _open(message, context)
    run, identity = _run(message, context), hospital.identity
    if reason := refusal(hospital.limits, config):
        return messages.reply(message, {CLAIM: upload_claim(identity, 0, reason=reason)})
    request, reason = asked(upload_request, message.content, config)
    with hospital.state.lock():
        ledger = hospital.state.open_ledger(terms_of(hospital, config, run))
        if request is not None and request.part != TRAIN_PART and not _shares_test_part(config, hospital):
            reason = "this hospital releases no encodings of its test part (allow-test-encodings)"
        if request is not None and not reason and not hospital.state.release_path(run, request.part).exists():
            site = Releasing(hospital, config, partial(_streams, identity, config))
            ledger, reason = release(site, ledger, request, message.content)
    if request is None or reason:
        return messages.reply(message, {CLAIM: upload_claim(identity, 0, ledger, reason)})
    released: np.ndarray = np.load(hospital.state.release_path(run, request.part), mmap_mode="r")
    rows = message_arrays.rows_of_a_chunk(released_format_of(config))
    chunks = message_arrays.chunks_of(len(released), released_format_of(config))
    if request.chunk >= chunks:
        reason = f"there is no chunk {request.chunk}, only {chunks} from 0"
        return messages.reply(message, {CLAIM: upload_claim(identity, 0, ledger, reason)})
    window = slice(request.chunk * rows, (request.chunk + 1) * rows)
    arrays = {"encodings": Array(np.ascontiguousarray(released[window]))}
    if request.part == TRAIN_PART:
        arrays["labels"] = Array(np.load(hospital.state.label_path(run, request.part))[window])
    claim = upload_claim(identity, chunks, ledger)
    return messages.reply(message, {CLAIM: claim, ARRAYS: ArrayRecord(arrays)})


@app.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    """Loss of the aggregated encoder with this hospital's own partner, for runs with diagnostics only."""
    config, hospital = _open(message, context)
    claim = ConfigRecord({"hospital": hospital.identity.name})
    request, _ = asked(train_request, message.content, config)
    if request is None or refusal(hospital.limits, config) or not config.diagnostics:
        return messages.reply(message, {CLAIM: claim})
    run = _run(message, context)
    with hospital.state.lock():
        ledger = hospital.state.open_ledger(terms_of(hospital, config, run))
        costs = ledger.terms.diagnostic_events(request.server_round)
        # Those that the round's training has not paid for.
        unpaid = tuple(cost for cost in costs if cost not in ledger.events)
        if over_budget(ledger, unpaid, hospital):
            return messages.reply(message, {CLAIM: claim})
        ledger.announce(*unpaid)
    with limited_threads(config.threads_per_hospital):
        model, _ = resumed_model(config, run, hospital.state.load_training(), request.encoder)
        loss = mean_loss(model, hospital.train, OBJECTIVES[config.objective])
    metrics = MetricRecord({messages.RECORDS: len(hospital.train), "loss": loss})
    return messages.reply(message, {CLAIM: claim, METRICS: metrics})


def _open(message: Message, context: Context) -> tuple[RunConfig, Hospital]:
    config = run_config(context)
    node = read_node(context.node_config)
    identity = identify(node)
    directory = "" if identity.deployed else text_in(message.content, "run-directory")
    return config, open_hospital(identity, node, config, directory)


def _run(message: Message, context: Context) -> str:
    """What this hospital's ledger calls the run."""
    return run_in(message.content, str(context.run_id))


def _shares_test_part(config: RunConfig, hospital: Hospital) -> bool:
    return config.shares_encodings and hospital.limits.allow_test_encodings


def _whole_run(hospital: Hospital, config: RunConfig, terms: Terms) -> tuple[Event, ...]:
    """Everything that a train record pays for in this run."""
    plan = plan_hospital(hospital.identity.name, len(hospital.train), config)
    return (*plan.everything(), *unprotected(terms.any_events(1)))


def _streams(identity: Identity, config: RunConfig, draw: int) -> Streams:
    """The random streams of this draw, seeded only in a simulation."""
    return streams(FROM_ENTROPY if identity.deployed else config.seed, identity.index, draw)


def _outgoing(config: RunConfig) -> Outgoing:
    """What this run lets a hospital send."""
    return Outgoing(
        update=update_shapes_of(config),
        encoding=released_format_of(config),
        label=spec_of(config).label,
        masked=config.protection == protection.SECAGG,
        shares_updates=config.shares_updates,
        shares_encodings=config.shares_encodings,
        diagnostics=config.diagnostics,
    )
