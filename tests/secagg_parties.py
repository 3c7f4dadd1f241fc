"""Hospitals and a server of secure aggregation, without Flower; tests make each leave or lie at any step."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fl_ppae.secagg import hospital
from fl_ppae.secagg.identity import Pins, SigningKey, load_or_make
from fl_ppae.secagg.roster import Roster
from fl_ppae.secagg.server import Block, read_bundles, read_dealings, read_signatures, read_vectors
from fl_ppae.secagg.state import State
from fl_ppae.secagg.terms import Terms
from fl_ppae.secagg.unmasking import Unmasked, unmasked_sum

TRAINED_ON = bytes(range(32))


def names_of(count: int) -> tuple[str, ...]:
    return tuple(f"hospital-{index}" for index in range(count))


def make_terms(count: int, minimum: int | None = None, **changes: object) -> Terms:
    fields: dict[str, object] = {
        "run": "run-1",
        "names": names_of(count),
        "min_hospitals": count if minimum is None else minimum,
        "colluders": 0,
        "first_round": 1,
        "rounds": 2,
        "config": bytes(32),
    }
    return Terms(**(fields | changes))  # type: ignore[arg-type]


@dataclass
class Party:
    """One hospital; its state passes through bytes at every step, as it does on a disk."""

    name: str
    key: SigningKey
    pins: Pins
    kept: bytes = b""

    @property
    def state(self) -> State:
        return State.unpack(self.kept)

    def advertise(self, terms: Terms) -> bytes:
        before = self.state if self.kept else None
        state, answer = hospital.advertise(before, terms, self.name, self.key)
        self.kept = state.pack()
        return answer

    def share(self, bundles: Mapping[str, bytes]) -> bytes:
        state, answer = hospital.share(self.state, bundles, self.pins)
        self.kept = state.pack()
        return answer

    def receive(self, parcels: Mapping[str, bytes]) -> None:
        self.kept = hospital.receive(self.state, parcels).pack()

    def masked(self, server_round: int, vector: np.ndarray, trained_on: bytes = TRAINED_ON) -> np.ndarray:
        state, answer = hospital.masked(self.state, server_round, vector, trained_on)
        self.kept = state.pack()
        return answer

    def sign(self, server_round: int, survivors: Sequence[str]) -> bytes:
        state, answer = hospital.sign(self.state, self.key, server_round, tuple(survivors))
        self.kept = state.pack()
        return answer

    def unmask(self, server_round: int, survivors: Sequence[str], signatures: Mapping[str, bytes]) -> bytes:
        state, answer = hospital.unmask(self.state, server_round, tuple(survivors), signatures)
        self.kept = state.pack()
        return answer


Parties = dict[str, Party]


def make_parties(folder: Path, count: int) -> Parties:
    return {
        name: Party(
            name,
            load_or_make(folder / name / "key.pem", durable=False),
            Pins(folder / name / "pins.json", durable=False),
        )
        for name in names_of(count)
    }


def make_roster(
    parties: Parties, terms: Terms, present: Iterable[str] | None = None
) -> tuple[Roster, dict[str, bytes]]:
    sent = {name: parties[name].advertise(terms) for name in present or parties}
    bundles, faults = read_bundles(terms, sent.items())
    assert not faults
    return Roster(terms, bundles), sent


def make_block(
    parties: Parties,
    terms: Terms,
    advertising: Iterable[str] | None = None,
    dealing: Iterable[str] | None = None,
) -> Block:
    """An honest block in which all that dealt have their parcels."""
    roster, sent = make_roster(parties, terms, advertising)
    dealt = {name: parties[name].share(sent) for name in dealing or sent}
    dealings, faults = read_dealings(roster, dealt.items())
    assert not faults
    block = Block(roster, dealings)
    for name in block.sharers:
        parties[name].receive(block.parcels_for(name))
    return block


def random_vectors(names: Iterable[str], length: int, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {name: rng.integers(0, 2**32, length, np.uint32) for name in names}


def plain_sum(vectors: Mapping[str, np.ndarray], names: Iterable[str]) -> np.ndarray:
    """The oracle: Python's integers, reduced at the end."""
    columns = zip(*(vectors[name].tolist() for name in names), strict=True)
    return np.array([sum(column) % 2**32 for column in columns], np.uint32)


def signed_round(
    parties: Parties,
    block: Block,
    vectors: Mapping[str, np.ndarray],
    server_round: int = 1,
    signing: Iterable[str] | None = None,
) -> tuple[dict[str, np.ndarray], dict[str, bytes]]:
    """An honest round up to the signatures: masked vectors and signatures, by name."""
    sent = {name: parties[name].masked(server_round, vectors[name]) for name in vectors}
    length = len(next(iter(vectors.values())))
    masked, faults = read_vectors(block, sent.items(), length)
    survivors = tuple(masked)
    signed = {name: parties[name].sign(server_round, survivors) for name in signing or survivors}
    signatures, more = read_signatures(block, server_round, survivors, TRAINED_ON, signed.items())
    assert not faults + more
    return masked, signatures


def whole_round(
    parties: Parties,
    block: Block,
    vectors: Mapping[str, np.ndarray],
    server_round: int = 1,
    signing: Iterable[str] | None = None,
    unmasking: Iterable[str] | None = None,
) -> Unmasked:
    """An honest round of the hospitals that have vectors."""
    masked, signatures = signed_round(parties, block, vectors, server_round, signing)
    revealed = {
        name: parties[name].unmask(server_round, tuple(masked), signatures)
        for name in unmasking or signatures
    }
    return unmasked_sum(block, server_round, TRAINED_ON, masked, revealed.items())


def is_sum(found: Unmasked, vectors: Mapping[str, np.ndarray], names: Iterable[str]) -> bool:
    """Whether there is a sum, and it is exactly that of the vectors of `names`."""
    return found.total is not None and np.array_equal(found.total, plain_sum(vectors, names))
