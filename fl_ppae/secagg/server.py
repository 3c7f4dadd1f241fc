"""The server's side of secure aggregation: it reads what hospitals send, and passes it on to the others.

Whatever a hospital sends that is wrong is a `Fault` by name, and the rest goes on without it as long as
enough are left. `unmasking.py` then removes the masks.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import numpy as np

from fl_ppae.secagg.dealing import Dealing, read_dealing
from fl_ppae.secagg.identity import signed_by
from fl_ppae.secagg.masks import KEY, agree, private_key
from fl_ppae.secagg.roster import Bundle, Roster, check_enough, read_bundle, sharing_keys
from fl_ppae.secagg.terms import Terms
from fl_ppae.secagg.wire import Refused

_Reply = TypeVar("_Reply")
_Read = TypeVar("_Read")


@dataclass(frozen=True)
class Fault:
    """What a hospital did wrong, in one line without its name."""

    hospital: str
    reason: str


@dataclass(frozen=True)
class Block:
    """A block after all have dealt: its roster, and the dealings by name."""

    roster: Roster
    dealings: Mapping[str, Dealing]

    def __post_init__(self) -> None:
        """Check that enough have dealt.

        Raises:
            Refused: fewer than `min-hospitals`.
        """
        check_enough(self.terms, self.sharers, "have dealt shares")

    @property
    def terms(self) -> Terms:
        """The terms of the block."""
        return self.roster.terms

    @property
    def sharers(self) -> tuple[str, ...]:
        """The hospitals between which masks are used, in the order of their index."""
        return self.terms.in_order(set(self.dealings))

    def parcels_for(self, name: str) -> dict[str, bytes]:
        """What the others dealt to the hospital `name`, by sender."""
        return {sender: self.dealings[sender].parcels[name] for sender in self.sharers if sender != name}


def read_bundles(terms: Terms, replies: Iterable[tuple[str, bytes]]) -> tuple[dict[str, Bundle], list[Fault]]:
    """The usable key bundles, by name. No two have a key in common."""

    def read(name: str, data: bytes) -> Bundle:
        bundle = read_bundle(terms, name, data)
        private = private_key(secrets.token_bytes(KEY))
        for public in (bundle.channel, *bundle.masks):
            agree(private, public, b"check")  # a hospital would refuse the whole roster for such a key
        return bundle

    bundles, faults = read_each(terms.names, replies, read)
    common = sharing_keys(bundles)
    faults += [Fault(name, "it has a key twice, or one of another hospital's") for name in sorted(common)]
    return {name: bundle for name, bundle in bundles.items() if name not in common}, faults


def read_dealings(
    roster: Roster, replies: Iterable[tuple[str, bytes]]
) -> tuple[dict[str, Dealing], list[Fault]]:
    """The usable dealings, by name."""
    return read_each(tuple(roster.bundles), replies, partial(read_dealing, roster))


def read_vectors(
    block: Block, replies: Iterable[tuple[str, np.ndarray]], length: int
) -> tuple[dict[str, np.ndarray], list[Fault]]:
    """The masked vectors (length,) uint32, by name in the order of their index; these are the survivors.

    A vector that is not of the ring is left out. One that is, but was made up, can't be told from others.
    """

    def read(_: str, vector: np.ndarray) -> np.ndarray:
        if vector.dtype != np.uint32 or vector.shape != (length,):
            raise Refused(f"its masked vector is {vector.shape} {vector.dtype} instead of ({length},) uint32")
        return vector

    return read_each(block.sharers, replies, read)


def read_signatures(
    block: Block,
    server_round: int,
    survivors: tuple[str, ...],
    trained_on: bytes,
    replies: Iterable[tuple[str, bytes]],
) -> tuple[dict[str, bytes], list[Fault]]:
    """The valid signatures of the survivors' list, by name."""
    statement = block.roster.statement(server_round, block.sharers, survivors, trained_on)

    def read(name: str, signature: bytes) -> bytes:
        if not signed_by(block.roster.bundles[name].signer, statement, signature):
            raise Refused("its signature is not of these survivors and this training")
        return signature

    return read_each(survivors, replies, read)


def read_each(
    expected: tuple[str, ...], replies: Iterable[tuple[str, _Reply]], read: Callable[[str, _Reply], _Read]
) -> tuple[dict[str, _Read], list[Fault]]:
    """What `read` makes of the first reply of each expected hospital, by name in the order of `expected`.

    Other replies, and those at which it raises `Refused`, are faults.
    """
    found: dict[str, _Read] = {}
    answered, faults = set(), []
    for name, reply in replies:
        if name not in expected:
            faults.append(Fault(name, "it answered without having been asked"))
        elif name in answered:
            faults.append(Fault(name, "it answered twice; the first answer counts"))
        else:
            answered.add(name)
            try:
                found[name] = read(name, reply)
            except Refused as refusal:
                faults.append(Fault(name, str(refusal)))
    return {name: found[name] for name in expected if name in found}, faults
