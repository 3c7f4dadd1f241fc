"""The masks: ChaCha20 keystreams, one that a hospital has alone and one with each other hospital.

Guarantee: to whoever lacks its seed, a mask can't be told from uniform elements of the ring, if ChaCha20 is
a pseudorandom function; whatever is added to it is then hidden. Each seed is used for one round only.
"""

from __future__ import annotations

import numpy as np
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from fl_ppae.privacy.randomness import Stream
from fl_ppae.secagg.roster import Roster
from fl_ppae.secagg.wire import Refused, number, pack

KEY = 32  # bytes of a private key, a public key, a seed


def private_key(private: bytes) -> X25519PrivateKey:
    """The X25519 private key of 32 bytes; slow enough to be made once for many agreements."""
    return X25519PrivateKey.from_private_bytes(private)


def public_key(private: bytes) -> bytes:
    """The X25519 public key, 32 bytes."""
    return private_key(private).public_key().public_bytes_raw()


def agree(private: X25519PrivateKey, public: bytes, context: bytes) -> bytes:
    """The 32-byte secret that two hospitals share: X25519 (RFC 7748), then HKDF over `context` (RFC 5869).

    Raises:
        Refused: the public key gives the same secret with every private key.
    """
    try:
        shared = private.exchange(X25519PublicKey.from_public_bytes(public))
    except ValueError:
        raise Refused("a public key gives the same secret to everyone") from None
    return HKDF(SHA256(), KEY, salt=None, info=context).derive(shared)


def mask(seed: bytes, count: int) -> np.ndarray:
    """(count,) uint32, the start of the seed's keystream."""
    return Stream(seed).words((count + 1) // 2).view(np.uint32)[:count]


def pair_mask(
    roster: Roster,
    server_round: int,
    trained_on: bytes,
    pair: tuple[str, str],
    private: X25519PrivateKey,
    count: int,
) -> np.ndarray:
    """(count,) uint32: what the first hospital of `pair` adds for the second.

    The second adds the negative, so the two cancel; but only if both trained on the same (Pasquini et al.
    2022, arXiv 2111.07380): if one of them got other weights than the rest, the server can't remove its mask.

    Args:
        trained_on: 32 bytes, the digest of weights and configuration that the first one trained on.
        private: the first one's private key of the round.
    """
    own, other = map(roster.terms.position, pair)
    places = map(number, (server_round, min(own, other), max(own, other)))
    context = pack((b"mask", roster.digest, trained_on, *places))
    public = roster.bundles[pair[1]].masks[roster.terms.offset(server_round)]
    found = mask(agree(private, public, context), count)
    return found if own < other else np.negative(found)
