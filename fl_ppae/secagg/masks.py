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
from fl_ppae.secagg.wire import Refused, number, pack

KEY = 32  # bytes of a private key, a public key, a seed


def public_key(private: bytes) -> bytes:
    """The X25519 public key, 32 bytes."""
    return X25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw()


def agree(private: bytes, public: bytes, context: bytes) -> bytes:
    """The 32-byte secret that two hospitals share: X25519 (RFC 7748), then HKDF over `context` (RFC 5869).

    Raises:
        Refused: the public key gives the same secret with every private key.
    """
    try:
        shared = X25519PrivateKey.from_private_bytes(private).exchange(
            X25519PublicKey.from_public_bytes(public)
        )
    except ValueError:
        raise Refused("a public key gives the same secret to everyone") from None
    return HKDF(SHA256(), KEY, salt=None, info=context).derive(shared)


def mask(seed: bytes, count: int) -> np.ndarray:
    """(count,) uint32, the start of the seed's keystream."""
    return Stream(seed).words((count + 1) // 2).view(np.uint32)[:count]


def pair_mask(
    private: bytes, public: bytes, roster: bytes, server_round: int, own: int, other: int, count: int
) -> np.ndarray:
    """(count,) uint32: what the hospital at position `own` adds for the one at position `other`.

    The other adds the negative, so the two cancel.

    Args:
        private, public: the mask keys of this round: of the one, of the other.
        roster: digest of the block's roster.
    """
    context = pack((b"mask", roster, number(server_round), number(min(own, other)), number(max(own, other))))
    found = mask(agree(private, public, context), count)
    return found if own < other else np.negative(found)
