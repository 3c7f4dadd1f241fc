"""The hospital: says who it is, trains its private encoder, hands out encodings, evaluates.

Every reply passes `messages.check_outgoing` before it leaves.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, MetricRecord
from flwr.clientapp import ClientApp
from flwr.clientapp.typing import ClientAppCallable
from safetensors.torch import save_file
from torch import nn

from fl_ppae import messages
from fl_ppae.config import RunConfig
from fl_ppae.data.hospital import HospitalRecords
from fl_ppae.evaluation import limited_threads
from fl_ppae.hospital import Hospital, Identity, identify, open_hospital, refusal, terms_of
from fl_ppae.hospital_state import TrainingState
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
    Outgoing,
    Records,
)
from fl_ppae.models.build import autoencoder_of, encoding_shape_of, partner_of
from fl_ppae.privacy.accounting import epsilon
from fl_ppae.privacy.ledger import Ledger
from fl_ppae.privacy.randomness import FROM_ENTROPY, streams
from fl_ppae.training import LocalModel, per_sample_loss, round_terms, train_round

CHUNK_BYTES = 4 * 2**20  # of encodings in one message: what an ordinary network and proxy let through


def guard(message: Message, context: Context, call_next: ClientAppCallable) -> Message:
    """Flower mod: let no reply out that holds more than `messages` lists."""
    answer = call_next(message, context)
    if answer.has_content():
        config = RunConfig.from_flat(context.run_config)
        messages.check_outgoing(message.metadata.message_type, answer.content, _outgoing(config))
    return answer


app = ClientApp(mods=[guard])


@app.query("hello")
def hello(message: Message, context: Context) -> Message:
    """Who this hospital is; looks at no record."""
    identity = identify(context.node_config)
    claim: Claims = {
        "hospital": identity.name,
        "index": identity.index,
        "hospitals": identity.hospitals,
        "deployed": identity.deployed,
    }
    return messages.reply(message, {CLAIM: ConfigRecord(claim)})


@app.query("enrol")
def enrol(message: Message, context: Context) -> Message:
    """How many records this hospital would train on, what they have spent, or why it won't take part."""
    config, hospital = _open(message, context)
    reason = refusal(context.node_config, config) or ""
    ledger = None if reason else hospital.state.open_ledger(terms_of(hospital, config, _run(context)))
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
    with hospital.state.lock():  # two runs on one ledger: each sees what the other has paid
        ledger = hospital.state.open_ledger(terms_of(hospital, config, run))
        cost = ledger.terms.event(server_round)
        reason = refusal(context.node_config, config) or _over_budget(ledger, server_round)
        if reason:
            claim = _train_claim(hospital.identity, ledger, DECLINED, reason)
            return messages.reply(message, {CLAIM: claim})
        if cost is not None:
            ledger = ledger.announce(cost)
    with limited_threads(config.threads_per_hospital):
        model, optimisers = _local_model(message, hospital, config, run)
        # By what was paid, not by the round asked for: a round asked for twice draws fresh noise.
        draw = len(ledger.events) if cost is not None else server_round
        seed = FROM_ENTROPY if hospital.identity.deployed else config.seed
        optimisers, diagnostics = train_round(
            model,
            hospital.train,
            round_terms(ledger.terms, config, server_round),
            streams(seed, hospital.identity.index, draw),
            optimisers,
        )
    state = TrainingState(
        run,
        server_round,
        model.encoder.state_dict(),
        model.partner.state_dict(),
        optimisers,
        len(ledger.events),
    )
    hospital.state.save_training(state)
    metrics = MetricRecord({messages.RECORDS: len(hospital.train)})
    if config.diagnostics:
        values = (diagnostics.loss, diagnostics.clipped_fraction, diagnostics.signal_to_noise)
        for key, value in zip(messages.DIAGNOSTICS, values, strict=True):
            metrics[key] = value
    claim = _train_claim(hospital.identity, ledger, TRAINED, "")
    records: Records = {CLAIM: claim, METRICS: metrics}
    if config.share != "encodings":
        records[ARRAYS] = messages.to_arrays(state.encoder)
    return messages.reply(message, records)


@app.query("encodings")
def encodings(message: Message, context: Context) -> Message:
    """One chunk of the encodings of this hospital's train or test part, with the labels of the former."""
    config, hospital = _open(message, context)
    run, part, chunk = _run(context), _text(message, "part"), _integer(message, "chunk")
    name = hospital.identity.name
    claim: Claims = {"hospital": name, "status": READY, "reason": "", "chunks": 0}
    reason = refusal(context.node_config, config)
    if config.share == "updates" or part not in messages.PARTS or chunk < 0:
        reason = f"this run shares no chunk {chunk} of part {part!r}"
    if reason:
        claim |= {"status": DECLINED, "reason": reason}
        return messages.reply(message, {CLAIM: ConfigRecord(claim)})
    released = _release(message, hospital, config, run, part)
    rows = max(1, CHUNK_BYTES // (released[:1].nbytes or 1))
    claim["chunks"] = max(1, math.ceil(len(released) / rows))
    window = slice(chunk * rows, (chunk + 1) * rows)
    arrays = {"encodings": Array(np.ascontiguousarray(released[window]))}
    if part == "train":
        positions = np.arange(len(released))[window]
        arrays["labels"] = Array(hospital.train.labels(positions).numpy())
    return messages.reply(message, {CLAIM: ConfigRecord(claim), ARRAYS: ArrayRecord(arrays)})


@app.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    """Loss of the aggregated encoder with this hospital's own partner; only a run with diagnostics asks."""
    config, hospital = _open(message, context)
    claim = ConfigRecord({"hospital": hospital.identity.name})
    if refusal(context.node_config, config) or not config.diagnostics:
        return messages.reply(message, {CLAIM: claim})
    with limited_threads(config.threads_per_hospital):
        model, _ = _local_model(message, hospital, config, _run(context))
        loss = _mean_loss(model, hospital, config)
    metrics = MetricRecord({messages.RECORDS: len(hospital.train), "loss": loss})
    return messages.reply(message, {CLAIM: claim, METRICS: metrics})


def _open(message: Message, context: Context) -> tuple[RunConfig, Hospital]:
    config = RunConfig.from_flat(context.run_config)
    identity = identify(context.node_config)
    directory = "" if identity.deployed else _text(message, "run-directory")
    return config, open_hospital(identity, context.node_config, config, directory)


def _run(context: Context) -> str:
    return str(context.run_id)


def _text(message: Message, key: str) -> str:
    return str(message.content.config_records[CONFIG][key])


def _integer(message: Message, key: str) -> int:
    return int(message.content.config_records[CONFIG][key])  # type: ignore[arg-type]


def _over_budget(ledger: Ledger, server_round: int) -> str:
    """Why one more round would pass the target; empty if it wouldn't."""
    cost = ledger.terms.event(server_round)
    if cost is None:
        return ""
    after = epsilon((*ledger.events, cost), ledger.terms.delta).spent
    if after <= ledger.terms.target_epsilon:
        return ""
    return f"round {server_round} would raise epsilon to {after:.3f}, above {ledger.terms.target_epsilon:g}"


def _train_claim(identity: Identity, ledger: Ledger, status: str, reason: str) -> ConfigRecord:
    private = ledger.terms.noise_multiplier is not None
    spent = epsilon(ledger.events, ledger.terms.delta).spent if private else math.inf
    return messages.claim_record(Claim(identity.name, status, reason, ledger.events, spent))


def _local_model(
    message: Message, hospital: Hospital, config: RunConfig, run: str
) -> tuple[LocalModel, list[dict[str, Any]] | None]:
    """The encoder that the message brings (or, training alone, the hospital's own) with its own partner."""
    autoencoder = autoencoder_of(config)
    model = LocalModel(autoencoder.encoder, partner_of(config, autoencoder))
    saved = hospital.state.load_training()
    saved = saved if saved is not None and saved.run == run else None
    if saved is not None:
        model.partner.load_state_dict(saved.partner)
    arrays = message.content.array_records.get(ARRAYS)
    if saved is not None and config.share == "encodings":
        model.encoder.load_state_dict(saved.encoder)
    elif arrays is not None:
        shapes = messages.shapes_of(model.encoder.state_dict())
        model.encoder.load_state_dict(messages.from_arrays(arrays, shapes))
    return model, saved.optimisers if saved is not None else None


@torch.inference_mode()
def _mean_loss(model: LocalModel, hospital: Hospital, config: RunConfig) -> float:
    total = 0.0
    for positions in _batches(len(hospital.train)):
        images, labels = hospital.train.images(positions), hospital.train.labels(positions)
        total += float(per_sample_loss(model(images), images, labels, config.objective).sum())
    return total / len(hospital.train)


def _release(message: Message, hospital: Hospital, config: RunConfig, run: str, part: str) -> np.ndarray:
    """The encodings of `part`, (N, *encoding) float32: made at the first chunk, mapped from then on."""
    path = hospital.state.release_path(run, part)
    if not path.exists():
        with limited_threads(config.threads_per_hospital):
            model, _ = _local_model(message, hospital, config, run)
            records = hospital.train if part == "train" else hospital.test
            hospital.state.save_release(run, part, _encode(model.encoder, records))
        if config.share == "encodings" and not hospital.identity.deployed:
            _leave_for_audit(model.encoder, hospital, _text(message, "run-directory"))
    released: np.ndarray = np.load(path, mmap_mode="r")
    return released


@torch.inference_mode()
def _encode(encoder: nn.Module, records: HospitalRecords) -> np.ndarray:
    """(N, *encoding) float32 of all `records`."""
    parts = [encoder(records.images(positions)).numpy() for positions in _batches(len(records))]
    return np.concatenate(parts)


def _batches(records: int, size: int = 1024) -> list[np.ndarray]:
    return np.split(np.arange(records), range(size, records, size))


def _leave_for_audit(encoder: nn.Module, hospital: Hospital, run_directory: str) -> None:
    """Simulator only: the encoder that never left, for measuring leakage afterwards."""
    folder = Path(run_directory) / "audit-only"
    folder.mkdir(exist_ok=True)
    save_file(encoder.state_dict(), folder / f"{hospital.identity.name}.safetensors")


def _outgoing(config: RunConfig) -> Outgoing:
    """What this run lets a hospital send."""
    return Outgoing(
        encoder=messages.shapes_of(autoencoder_of(config).encoder.state_dict()),
        encoding=encoding_shape_of(config),
        shares_updates=config.share != "encodings",
        shares_encodings=config.share != "updates",
        diagnostics=config.diagnostics,
    )
