"""A hospital's part in secure aggregation: it checks what it is asked, takes one step, and keeps its state.

The mathematics and the once-only rules are in `secagg.hospital`. Here the state is on disk before an answer
leaves, and the terms are held against the hospital's own configuration, so that they hold in every step of a
run, whoever sends it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from logging import INFO

import numpy as np
from filelock import FileLock
from flwr.app import RecordDict
from flwr.common.logger import log

from fl_ppae.config import RunConfig
from fl_ppae.hospital.requests import TrainRequest, integer_in
from fl_ppae.hospital.site import Hospital
from fl_ppae.hospital.updates import Update
from fl_ppae.masked_updates import flat, noise_grid, vector_of
from fl_ppae.messages import CONSISTENT, KEYS, SHARES, UNMASK, Malformed
from fl_ppae.models.build import shared_shapes_of, update_shapes_of
from fl_ppae.privacy.terms import Terms
from fl_ppae.protection import quorum_of
from fl_ppae.secagg import hospital as steps
from fl_ppae.secagg.identity import Pins, SigningKey, fingerprint, load_or_make
from fl_ppae.secagg.state import State
from fl_ppae.secagg.terms import Terms as BlockTerms
from fl_ppae.secagg.wire import Refused
from fl_ppae.secure_messages import (
    config_digest,
    read_data,
    read_named,
    read_step,
    read_survivors,
    training_digest,
)

_SILENT_SECONDS = 24 * 3600.0  # twice as long as Flower keeps a message


@dataclass(frozen=True)
class Masking:
    """One hospital in a run with `protection = "secagg"`. Hold the hospital's lock from call to return."""

    hospital: Hospital
    config: RunConfig
    run: str

    def answer(self, kind: str, content: RecordDict) -> tuple[bytes, str]:
        """What the hospital answers to a message of this kind, or why it declines and nothing changes."""
        step = {
            KEYS: self._keys,
            SHARES: self._shares,
            CONSISTENT: self._consistent,
            UNMASK: self._unmask,
        }[kind]
        try:
            state, data = step(content)
        except (Refused, Malformed) as problem:
            return b"", str(problem)
        self._save(state)
        return data, ""

    def declines(self, content: RecordDict, server_round: int, plan: Terms) -> str:
        """Take the parcels in a train message; returns why the round can't be answered, empty if it can."""
        try:
            step, grid = read_step(content), noise_grid(plan)
            if grid is not None and step != grid:
                return f"the step of the ring is {step:g}, but that of the noise is {grid:g}"
            state = self._agreed()
            if not state.sharers:
                state = steps.receive(state, read_named(content))
                self._save(state)
            steps.check_round(state, server_round)
        except (Refused, Malformed) as problem:
            return str(problem)
        return ""

    def masked(self, update: Update, request: TrainRequest, plan: Terms, content: RecordDict) -> np.ndarray:
        """The update in the ring with the round's masks, (d,) uint32.

        Raises:
            Refused: another message was answered in the meantime.
        """
        step, shapes = read_step(content), update_shapes_of(self.config)
        summand = flat(update.summand, shapes)
        vector = vector_of(summand, plan, step, self.hospital.identity.hospitals)
        sent = [(name, request.encoder[name].numpy()) for name in shared_shapes_of(self.config)]
        trained_on = training_digest(step, sent)
        state, masked = steps.masked(self._agreed(), request.server_round, vector, trained_on)
        self._save(state)
        return masked

    def _keys(self, content: RecordDict) -> tuple[State, bytes]:
        terms = BlockTerms.unpack(read_data(content))
        self._check(terms)
        self._forget_silent_runs()
        with self._signing() as (key, _):
            log(INFO, "the fingerprint of this hospital's signing key: %s", fingerprint(key.public))
            return steps.advertise(self._load(), terms, self.hospital.identity.name, key)

    def _shares(self, content: RecordDict) -> tuple[State, bytes]:
        with self._signing() as (_, pins):
            return steps.share(self._agreed(), read_named(content), pins)

    def _consistent(self, content: RecordDict) -> tuple[State, bytes]:
        server_round, survivors = integer_in(content, "server-round"), read_survivors(content)
        with self._signing() as (key, _):
            return steps.sign(self._agreed(), key, server_round, survivors)

    def _unmask(self, content: RecordDict) -> tuple[State, bytes]:
        server_round, survivors = integer_in(content, "server-round"), read_survivors(content)
        return steps.unmask(self._agreed(), server_round, survivors, read_named(content))

    def _forget_silent_runs(self) -> None:
        """Erase the secrets of runs that ended within a round: no server has asked for a day."""
        for run, kept in self.hospital.state.silent_masking(_SILENT_SECONDS).items():
            with suppress(Refused):  # a damaged file has nothing that can be used
                self.hospital.state.save_masking(run, steps.forgotten(State.unpack(kept)).pack())

    def _check(self, terms: BlockTerms) -> None:
        """Check that the terms are those that this hospital's own configuration makes."""
        identity = self.hospital.identity
        quorum = quorum_of(self.config, identity.hospitals)
        own = replace(
            terms,
            run=self.run,
            min_hospitals=quorum.minimum,
            colluders=quorum.colluders,
            config=config_digest(self.config),
        )
        named = terms.names[identity.index : identity.index + 1] == (identity.name,)
        if terms != own or len(terms.names) != identity.hospitals or not named:
            raise Refused("the terms of secure aggregation are not those of this run at this hospital")
        if terms.first_round + terms.rounds - 1 > self.config.num_server_rounds:
            raise Refused(f"a block goes beyond the last round, {self.config.num_server_rounds}")

    def _agreed(self) -> State:
        """The state of the block that has begun, under terms that are still this run's."""
        state = self._load()
        if state is None:
            raise Refused("this hospital has no keys in this run yet")
        self._check(state.terms)
        return state

    def _load(self) -> State | None:
        kept = self.hospital.state.load_masking(self.run)
        return None if kept is None else State.unpack(kept)

    def _save(self, state: State) -> None:
        self.hospital.state.save_masking(self.run, state.pack())

    @contextmanager
    def _signing(self) -> Iterator[tuple[SigningKey, Pins]]:
        """The site's signing key and pinned keys, which all its ledgers have in common."""
        folder, durable = self.hospital.keys, self.hospital.state.durable
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / ".lock", is_singleton=True, fallback_to_soft=False):
            key = load_or_make(folder / "signing_key.pem", durable=durable)
            first_use = self.hospital.limits.allow_new_keys
            yield key, Pins(folder / "pins.json", first_use=first_use, durable=durable)
