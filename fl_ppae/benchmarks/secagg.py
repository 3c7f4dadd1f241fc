"""Secure aggregation: what a block and a round of it take, beside a plain sum of the same vectors."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from fl_ppae.benchmarks.results import Line, Measurement, Size
from fl_ppae.secagg.hospital import advertise, masked, receive, share, sign, unmask
from fl_ppae.secagg.identity import Pins, SigningKey, load_or_make
from fl_ppae.secagg.roster import Roster
from fl_ppae.secagg.server import Block, read_bundles, read_dealings, read_signatures, read_vectors
from fl_ppae.secagg.state import State
from fl_ppae.secagg.terms import MAX_ROUNDS, Terms
from fl_ppae.secagg.unmasking import unmasked_sum

_NUMBERS = 30_000  # about an encoder
_REPEATS = 9  # of the plain sum, which takes less than a millisecond
_TRAINED_ON = bytes(32)
_HOSPITALS, _SERVER = "hospitals", "server"
_Keys = Mapping[str, SigningKey]
_States = Mapping[str, State]


class _Watch:
    """Seconds spent by all hospitals, which take turns here, and by the server."""

    def __init__(self) -> None:
        self.seconds = {_HOSPITALS: 0.0, _SERVER: 0.0}

    @contextmanager
    def of(self, who: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.seconds[who] += time.perf_counter() - start


def measure(size: Size, folder: Path) -> Measurement:
    """Time and bytes for each of the numbers of hospitals in `size.secure`; all hospitals stay to the end."""
    numbers, lines = {}, []
    for count in size.secure:
        found = _measured(count, folder / "secagg" / str(count))
        numbers[f"{count} hospitals"] = found
        what = f"secure sum of {count} hospitals, {_NUMBERS:,} numbers"
        lines += [
            Line(f"{what}: round, a hospital", 1000 * found["round_seconds_hospital"], "ms"),
            Line(f"{what}: round, the server", 1000 * found["round_seconds_server"], "ms"),
            Line(f"{what}: round, all of them, against a plain sum", found["ratio"]),
            Line(
                f"{what}: block of {MAX_ROUNDS} rounds, a hospital",
                1000 * found["block_seconds_hospital"],
                "ms",
            ),
            Line(f"{what}: sent in a round by a hospital", found["sent_kilobytes"], "kB"),
            Line(f"{what}: received in a round beside weights", found["received_kilobytes"], "kB"),
        ]
    return Measurement(numbers, tuple(lines))


def _measured(count: int, folder: Path) -> dict[str, float]:
    """Bytes are those of the first hospital, with its part of the block's."""
    names = tuple(f"hospital-{index}" for index in range(count))
    terms = Terms("bench", names, count, 0, 1, MAX_ROUNDS, bytes(32))
    keys = {name: load_or_make(folder / f"{name}.pem", durable=False) for name in names}
    rng = np.random.default_rng(0)
    vectors = {name: rng.integers(0, 2**32, _NUMBERS, np.uint32) for name in names}
    plain_seconds = statistics.median(_plain_seconds(vectors) for _ in range(_REPEATS))
    whole, one = _Watch(), _Watch()
    block, states, block_sent, block_received = _block(whole, terms, keys, folder)
    sent, received = _round(one, block, states, keys, vectors)
    return {
        "block_seconds_hospital": whole.seconds[_HOSPITALS] / count,
        "block_seconds_server": whole.seconds[_SERVER],
        "round_seconds_hospital": one.seconds[_HOSPITALS] / count,
        "round_seconds_server": one.seconds[_SERVER],
        "plain_seconds": plain_seconds,
        "ratio": sum(one.seconds.values()) / plain_seconds,
        "sent_kilobytes": (sent + block_sent / MAX_ROUNDS) / 1000,
        "received_kilobytes": (received + block_received / MAX_ROUNDS) / 1000,
    }


def _plain_seconds(vectors: Mapping[str, np.ndarray]) -> float:
    start = time.perf_counter()
    total = np.zeros(_NUMBERS, np.uint32)
    for vector in vectors.values():
        total += vector
    return time.perf_counter() - start


def _block(watch: _Watch, terms: Terms, keys: _Keys, folder: Path) -> tuple[Block, _States, int, int]:
    """A block, the hospitals' states in it, and the bytes that one hospital sent and received."""
    with watch.of(_HOSPITALS):
        begun = {name: advertise(None, terms, name, key) for name, key in keys.items()}
    sent = {name: bundle for name, (_, bundle) in begun.items()}
    with watch.of(_SERVER):
        bundles, _ = read_bundles(terms, sent.items())
        roster = Roster(terms, bundles)
    pins = {name: Pins(folder / f"{name}.json", durable=False) for name in keys}
    with watch.of(_HOSPITALS):
        shared = {name: share(state, sent, pins[name]) for name, (state, _) in begun.items()}
    with watch.of(_SERVER):
        dealings, _ = read_dealings(roster, ((name, dealing) for name, (_, dealing) in shared.items()))
        block = Block(roster, dealings)
        parcels = {name: block.parcels_for(name) for name in keys}
    with watch.of(_HOSPITALS):
        states = {name: receive(state, parcels[name]) for name, (state, _) in shared.items()}
    first = terms.names[0]
    to_first = _bytes(sent.values()) + _bytes(parcels[first].values())
    return block, states, len(sent[first]) + len(shared[first][1]), to_first


def _round(
    watch: _Watch, block: Block, states: _States, keys: _Keys, vectors: Mapping[str, np.ndarray]
) -> tuple[int, int]:
    """The block's first round; returns the bytes that one hospital sent and received."""
    with watch.of(_HOSPITALS):
        hidden = {name: masked(state, 1, vectors[name], _TRAINED_ON) for name, state in states.items()}
    with watch.of(_SERVER):
        arrived, _ = read_vectors(block, ((name, vector) for name, (_, vector) in hidden.items()), _NUMBERS)
    survivors = tuple(arrived)
    with watch.of(_HOSPITALS):
        signed = {name: sign(state, keys[name], 1, survivors) for name, (state, _) in hidden.items()}
    answers = ((name, signature) for name, (_, signature) in signed.items())
    with watch.of(_SERVER):
        signatures, _ = read_signatures(block, 1, survivors, _TRAINED_ON, answers)
    with watch.of(_HOSPITALS):
        shown = {name: unmask(state, 1, survivors, signatures)[1] for name, (state, _) in signed.items()}
    with watch.of(_SERVER):
        unmasked_sum(block, 1, _TRAINED_ON, arrived, shown.items())
    first = survivors[0]
    sent = arrived[first].nbytes + len(signatures[first]) + len(shown[first])
    return sent, _bytes(signatures.values())


def _bytes(parts: Iterable[bytes]) -> int:
    return sum(map(len, parts))
