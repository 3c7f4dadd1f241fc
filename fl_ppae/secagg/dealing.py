"""What a hospital deals out for a block: sealed shares of its secrets, and what lets the server check them.

For each round a hospital has two secrets: the seed of its own mask, and the private key of its masks with
others. They are shared among all hospitals, itself included. Of each hospital and round only one of the two
is ever revealed.

Guarantee: fewer hospitals than the threshold learn nothing about the secrets, and the server learns nothing
from the parcels; the latter if X25519, HKDF and ChaCha20-Poly1305 are as strong as they are taken to be. The
digests that the server gets are of values with 256 bits of entropy, so they help nobody to guess them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import IntEnum

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from fl_ppae.secagg.masks import KEY, agree
from fl_ppae.secagg.roster import Roster
from fl_ppae.secagg.shamir import split
from fl_ppae.secagg.wire import DIGEST, Refused, check_length, digest, number, pack, pieces

_TAG = 16
_SHARE_DIGEST = 16
_NONCE = bytes(12)  # a key seals one parcel only


class Kind(IntEnum):
    """The two secrets of a hospital in a round, in the order in which they are shared."""

    SEED = 0
    PRIVATE = 1


def secret_at(secrets: bytes, offset: int, kind: Kind) -> bytes:
    """One secret, or one share, 32 bytes, from those of a whole block, `rounds` * 2 * 32 bytes."""
    start = (2 * offset + kind) * KEY
    return secrets[start : start + KEY]


def without_first(secrets: bytes, rounds: int) -> bytes:
    """The secrets, or shares, of a block with those of its first `rounds` rounds replaced by zeros."""
    gone = len(Kind) * rounds * KEY
    return bytes(gone) + secrets[gone:]


def share_digest(roster: Roster, owner: str, holder: str, offset: int, kind: Kind, share: bytes) -> bytes:
    """16 bytes that stand for the share of `owner`'s secret that `holder` was dealt."""
    places = (roster.terms.position(owner), roster.terms.position(holder), offset, kind)
    return digest("share", roster.digest, *map(number, places), share)[:_SHARE_DIGEST]


def seed_digest(roster: Roster, owner: str, offset: int, seed: bytes) -> bytes:
    """32 bytes that stand for the seed of `owner`'s own mask in a round."""
    return digest("seed", roster.digest, number(roster.terms.position(owner)), number(offset), seed)


@dataclass(frozen=True)
class Dealing:
    """What a hospital sends the server after it has seen the roster.

    Attributes:
        parcels: for each other hospital the sealed shares of all rounds.
        seeds: for each round 32 bytes, the digest of the seed.
        shares: for each hospital, itself included, its shares' digests: 16 bytes for each round and kind.
    """

    parcels: Mapping[str, bytes]
    seeds: tuple[bytes, ...]
    shares: Mapping[str, bytes]

    def pack(self) -> bytes:
        """As bytes; the length follows from the roster."""
        return b"".join((*self.parcels.values(), *self.seeds, *self.shares.values()))

    def share_digest(self, holder: str, offset: int, kind: Kind) -> bytes:
        """What `share_digest` must give for the share of `holder`."""
        start = (2 * offset + kind) * _SHARE_DIGEST
        return self.shares[holder][start : start + _SHARE_DIGEST]


def dealing_size(rounds: int, hospitals: int) -> int:
    """Bytes of a packed dealing for a block of so many rounds, among so many hospitals."""
    digests = len(Kind) * rounds * _SHARE_DIGEST
    return (hospitals - 1) * _parcel_size(rounds) + rounds * DIGEST + hospitals * digests


def read_dealing(roster: Roster, name: str, data: bytes) -> Dealing:
    """The dealing of the hospital `name`, from bytes.

    Raises:
        Refused: wrong length.
    """
    rounds, holders = roster.terms.rounds, tuple(roster.bundles)
    others = tuple(holder for holder in holders if holder != name)
    parcel, digests = _parcel_size(rounds), len(Kind) * rounds * _SHARE_DIGEST
    sealed, seeds = len(others) * parcel, rounds * DIGEST
    check_length(data, dealing_size(rounds, len(holders)), f"what {name} dealt")
    return Dealing(
        dict(zip(others, pieces(data[:sealed], parcel), strict=True)),
        tuple(pieces(data[sealed : sealed + seeds], DIGEST)),
        dict(zip(holders, pieces(data[sealed + seeds :], digests), strict=True)),
    )


def deal(
    roster: Roster, name: str, channel: X25519PrivateKey, secrets: bytes, random: Callable[[int], bytes]
) -> tuple[Dealing, bytes]:
    """Share `secrets` among the roster; returns the dealing, and the hospital's share of its own secrets.

    Args:
        channel: the private key of the hospital's channel key.
        secrets: `rounds` * 2 * 32 bytes, the secrets of all rounds.
        random: gives as many uniform, secret bytes as it is asked for.
    """
    terms = roster.terms
    dealt = split(secrets, len(terms.names), terms.threshold, random)
    held = {holder: dealt[terms.position(holder) - 1] for holder in roster.bundles}
    rounds = range(terms.rounds)
    parcels = {
        holder: seal(roster, name, holder, channel, share) for holder, share in held.items() if holder != name
    }
    seeds = tuple(seed_digest(roster, name, at, secret_at(secrets, at, Kind.SEED)) for at in rounds)
    digests = {
        holder: b"".join(
            share_digest(roster, name, holder, at, kind, secret_at(share, at, kind))
            for at in rounds
            for kind in Kind
        )
        for holder, share in held.items()
    }
    return Dealing(parcels, seeds, digests), held[name]


def seal(roster: Roster, sender: str, receiver: str, channel: X25519PrivateKey, share: bytes) -> bytes:
    """The parcel with a share for `receiver`, from `sender`, who has the private key `channel`."""
    context = _context(roster, sender, receiver)
    key = agree(channel, roster.bundles[receiver].channel, context)
    return ChaCha20Poly1305(key).encrypt(_NONCE, share, context)


def open_parcel(
    roster: Roster, sender: str, receiver: str, channel: X25519PrivateKey, parcel: bytes
) -> bytes:
    """The shares of `sender`'s secrets that `receiver`, who has the private key `channel`, was dealt.

    Raises:
        Refused: it was not sealed by this sender for this receiver in this block, or was changed since.
    """
    check_length(parcel, _parcel_size(roster.terms.rounds), f"the parcel of {sender}")
    context = _context(roster, sender, receiver)
    key = agree(channel, roster.bundles[sender].channel, context)
    try:
        return ChaCha20Poly1305(key).decrypt(_NONCE, parcel, context)
    except InvalidTag:
        raise Refused(f"the parcel of {sender} was not sealed by it for {receiver} in this block") from None


def _context(roster: Roster, sender: str, receiver: str) -> bytes:
    """Binds a parcel's key and content to block, sender and receiver."""
    return pack((b"parcel", roster.digest, sender.encode(), receiver.encode()))


def _parcel_size(rounds: int) -> int:
    return rounds * len(Kind) * KEY + _TAG
