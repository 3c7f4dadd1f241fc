"""A block's public keys: each hospital's bundle, and the roster of all, which later signatures cover."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from fl_ppae.secagg.identity import KEY, SIGNATURE, SigningKey, signed_by
from fl_ppae.secagg.terms import Terms
from fl_ppae.secagg.wire import Refused, check_length, digest, number, pack, pieces


@dataclass(frozen=True)
class Bundle:
    """One hospital's public keys for a block, signed together with the terms.

    Attributes:
        signer: 32 bytes, its long-term Ed25519 key.
        channel: 32 bytes, an X25519 key, for what hospitals send each other.
        masks: for each round 32 bytes, an X25519 key, for the masks of pairs.
        signature: 64 bytes.
    """

    signer: bytes
    channel: bytes
    masks: tuple[bytes, ...]
    signature: bytes

    @property
    def keys(self) -> tuple[bytes, ...]:
        """All keys, the signing key first."""
        return (self.signer, self.channel, *self.masks)

    def pack(self) -> bytes:
        """As bytes; the length follows from the number of rounds."""
        return b"".join((*self.keys, self.signature))

    @classmethod
    def unpack(cls, data: bytes) -> Bundle:
        """The inverse of `pack`. The signature is not verified."""
        signer, channel, *masks = pieces(data[:-SIGNATURE], KEY)
        return cls(signer, channel, tuple(masks), data[-SIGNATURE:])


def bundle_size(rounds: int) -> int:
    """Bytes of a packed bundle for a block of so many rounds."""
    return (2 + rounds) * KEY + SIGNATURE


def make_bundle(terms: Terms, name: str, key: SigningKey, channel: bytes, masks: tuple[bytes, ...]) -> Bundle:
    """The hospital's bundle from its public keys."""
    signature = key.sign(_signed(terms, name, (key.public, channel, *masks)))
    return Bundle(key.public, channel, masks, signature)


def read_bundle(terms: Terms, name: str, data: bytes) -> Bundle:
    """The bundle of the hospital `name`, with a valid signature over these terms.

    Raises:
        Refused: wrong length, or the signature is not of these keys, this name and these terms.
    """
    check_length(data, bundle_size(terms.rounds), f"the key bundle of {name}")
    bundle = Bundle.unpack(data)
    if not signed_by(bundle.signer, _signed(terms, name, bundle.keys), bundle.signature):
        raise Refused(f"the key bundle of {name} is not signed by it for this block")
    return bundle


def _signed(terms: Terms, name: str, keys: tuple[bytes, ...]) -> bytes:
    return digest("bundle", terms.digest, name.encode(), *keys)


def sharing_keys(bundles: Mapping[str, Bundle]) -> set[str]:
    """The hospitals that have a key in common with another, or one key twice."""
    count = Counter(key for bundle in bundles.values() for key in bundle.keys)
    return {name for name, bundle in bundles.items() if any(count[key] > 1 for key in bundle.keys)}


@dataclass(frozen=True)
class Roster:
    """The bundles of all hospitals that take part in a block, by name, in the order of their index."""

    terms: Terms
    bundles: Mapping[str, Bundle]

    def __post_init__(self) -> None:
        """Check it as a whole.

        Raises:
            Refused: an unknown hospital, too few, or two with a common key.
        """
        order = self.terms.in_order(set(self.bundles))
        check_enough(self.terms, order, "have sent their keys")
        if common := sharing_keys(self.bundles):
            raise Refused(f"{min(common)} has a key twice, or one of another hospital's")
        object.__setattr__(self, "bundles", {name: self.bundles[name] for name in order})

    @cached_property
    def digest(self) -> bytes:
        """32 bytes that stand for the terms and every key.

        Hospitals make new keys for each block, so whatever covers this digest is of use in this block only.
        """
        packed = (field for name, bundle in self.bundles.items() for field in (name.encode(), bundle.pack()))
        return digest("roster", self.terms.digest, *packed)

    def statement(
        self, server_round: int, sharers: tuple[str, ...], survivors: tuple[str, ...], trained_on: bytes
    ) -> bytes:
        """What every hospital signs before a round is unmasked, 32 bytes.

        Args:
            sharers: the hospitals between which masks are used in this block.
            survivors: those whose masked vectors arrived.
            trained_on: 32 bytes, the digest of weights and configuration that the round began with.
        """
        lists = (pack(name.encode() for name in names) for names in (sharers, survivors))
        return digest("survivors", self.digest, number(server_round), *lists, trained_on)


def read_roster(terms: Terms, packed: Mapping[str, bytes]) -> Roster:
    """The roster from bundles as bytes, by name.

    Raises:
        Refused: as `read_bundle` and `Roster`.
    """
    terms.in_order(set(packed))
    return Roster(terms, {name: read_bundle(terms, name, data) for name, data in packed.items()})


def check_enough(terms: Terms, names: tuple[str, ...], have: str) -> None:
    """Check that `names` are at least `min-hospitals`. `have` says in words what they did.

    Raises:
        Refused: they are fewer.
    """
    if len(names) < terms.min_hospitals:
        raise Refused(f"only {len(names)} hospitals {have}; this run needs {terms.min_hospitals}")
