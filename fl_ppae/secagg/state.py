"""What a hospital remembers of secure aggregation between two messages: the block's secrets, and its answers.

The caller writes it to the hospital's disk before an answer leaves; so nothing is answered twice.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum

from fl_ppae.secagg.roster import Bundle, Roster
from fl_ppae.secagg.terms import Terms
from fl_ppae.secagg.wire import Refused, number, pack, read_number, read_text, unpack


class Step(IntEnum):
    """How far a round has come. Each step is taken once."""

    MASKED = 1
    SIGNED = 2
    UNMASKED = 3


@dataclass(frozen=True)
class Answered:
    """The last round that the hospital took part in.

    Attributes:
        round: 0 before the first one.
        trained_on: the digest of what it trained on.
        survivors: the list that it signed; empty before.
    """

    round: int = 0
    step: Step = Step.UNMASKED
    trained_on: bytes = b""
    survivors: tuple[str, ...] = ()


@dataclass(frozen=True)
class State:
    """One hospital's state in a block. It holds secrets: it is never sent.

    Attributes:
        channel: private key of the channel key.
        secrets: for each round the seed of the own mask and the private key of the masks of pairs.
        bundle: its own public keys.
        roster: None until it has dealt.
        sharers: the hospitals between which masks are used; empty until their parcels have come.
        shares: the shares that it holds, by their owner.
        answered: the last round that it took part in, in this block or an earlier one of the run.
    """

    name: str
    terms: Terms
    channel: bytes
    secrets: bytes
    bundle: Bundle
    roster: Roster | None
    sharers: tuple[str, ...]
    shares: Mapping[str, bytes]
    answered: Answered

    def pack(self) -> bytes:
        """As bytes, for the hospital's own disk."""
        bundles = {} if self.roster is None else {n: b.pack() for n, b in self.roster.bundles.items()}
        last = self.answered
        return pack(
            (
                self.name.encode(),
                self.terms.pack(),
                self.channel,
                self.secrets,
                self.bundle.pack(),
                _pack_table(bundles),
                _pack_names(self.sharers),
                _pack_table(self.shares),
                number(last.round),
                number(last.step),
                last.trained_on,
                _pack_names(last.survivors),
            )
        )

    @classmethod
    def unpack(cls, data: bytes) -> State:
        """The inverse of `pack`.

        Raises:
            Refused: the bytes are damaged.
        """
        try:
            name, packed_terms, channel, secrets, bundle, bundles, sharers, shares, *last = unpack(data)
            server_round, step, trained_on, survivors = last
            terms = Terms.unpack(packed_terms)
            known = {owner: Bundle.unpack(one) for owner, one in _unpack_table(bundles).items()}
            return cls(
                read_text(name),
                terms,
                channel,
                secrets,
                Bundle.unpack(bundle),
                Roster(terms, known) if known else None,
                _unpack_names(sharers),
                _unpack_table(shares),
                Answered(
                    read_number(server_round), Step(read_number(step)), trained_on, _unpack_names(survivors)
                ),
            )
        except ValueError:
            raise Refused("what the hospital kept of secure aggregation is damaged") from None


def _pack_names(names: tuple[str, ...]) -> bytes:
    return pack(name.encode() for name in names)


def _unpack_names(data: bytes) -> tuple[str, ...]:
    return tuple(map(read_text, unpack(data)))


def _pack_table(table: Mapping[str, bytes]) -> bytes:
    return pack(field for name, value in table.items() for field in (name.encode(), value))


def _unpack_table(data: bytes) -> dict[str, bytes]:
    fields = unpack(data)
    return dict(zip(map(read_text, fields[::2]), fields[1::2], strict=True))
