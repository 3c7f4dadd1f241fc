"""The server's last step of a round: from masked vectors and revealed shares to the sum.

It learns one secret of each hospital, for this round only: the seed of a survivor's own mask, or the private
key of the masks between the survivors and a hospital whose vector is missing. Never both.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from fl_ppae.secagg.dealing import Kind, seed_digest, share_digest
from fl_ppae.secagg.masks import mask, pair_mask, private_key, public_key
from fl_ppae.secagg.revealed import read_revealed
from fl_ppae.secagg.server import Block, Fault, read_each
from fl_ppae.secagg.shamir import join
from fl_ppae.secagg.wire import Refused


@dataclass(frozen=True)
class Unmasked:
    """What came of a round.

    Attributes:
        total: (d,) uint32, the sum; None if fewer than `threshold` hospitals revealed shares, or there are
            wrong dealers.
        faults: what was wrong, also where the sum is right.
        wrong_dealers: the hospitals whose secrets are missing although enough others answered; a block
            without them works.
    """

    total: np.ndarray | None
    faults: tuple[Fault, ...]
    wrong_dealers: tuple[str, ...]


def unmasked_sum(
    block: Block,
    server_round: int,
    trained_on: bytes,
    vectors: Mapping[str, np.ndarray],
    replies: Iterable[tuple[str, bytes]],
) -> Unmasked:
    """The sum of the survivors' vectors, from their masked vectors (d,) uint32 and the revealed shares.

    Wrong shares are left out as long as `threshold` right ones remain of each secret.
    """
    offset, threshold = block.terms.offset(server_round), block.terms.threshold
    kinds = {owner: Kind.SEED if owner in vectors else Kind.PRIVATE for owner in block.sharers}
    revealed, faults = read_each(tuple(vectors), replies, lambda _, data: read_revealed(data, block.sharers))
    if len(revealed) < threshold:
        return Unmasked(None, tuple(faults), ())
    shares: dict[str, dict[int, bytes]] = {owner: {} for owner in block.sharers}
    for holder, by_owner in revealed.items():
        right = _right_shares(block, offset, kinds, holder, by_owner)
        for owner, share in right.items():
            shares[owner][block.terms.position(holder)] = share
        if wrong := [owner for owner in block.sharers if owner not in right]:
            # It may be at fault, or those that it names: the server can't see what is in a parcel.
            faults.append(Fault(holder, f"it has no right share of the secrets of {', '.join(wrong)}"))
    secrets, wrong_dealers = {}, []
    for owner, kind in kinds.items():
        try:
            secrets[owner] = _rebuilt(block, offset, kind, owner, shares[owner])
        except Refused as refusal:
            faults.append(Fault(owner, str(refusal)))
            wrong_dealers.append(owner)
    total = None if wrong_dealers else _without_masks(block, server_round, trained_on, vectors, secrets)
    return Unmasked(total, tuple(faults), tuple(wrong_dealers))


def _right_shares(
    block: Block,
    offset: int,
    kinds: Mapping[str, Kind],
    holder: str,
    revealed: Mapping[str, bytes | None],
) -> dict[str, bytes]:
    """The shares that `holder` revealed as they were dealt, by owner."""
    return {
        owner: share
        for owner, share in revealed.items()
        if share is not None
        and share_digest(block.roster, owner, holder, offset, kinds[owner], share)
        == block.dealings[owner].share_digest(holder, offset, kinds[owner])
    }


def _rebuilt(block: Block, offset: int, kind: Kind, owner: str, shares: Mapping[int, bytes]) -> bytes:
    """One secret from its shares, by position, checked against what its owner announced.

    Raises:
        Refused: too few shares, or they don't give what was announced.
    """
    threshold = block.terms.threshold
    if len(shares) < threshold:
        raise Refused(f"{len(shares)} right shares of its secret came back; it takes {threshold}")
    secret = join(dict(sorted(shares.items())[:threshold]))
    if kind is Kind.SEED:
        right = seed_digest(block.roster, owner, offset, secret) == block.dealings[owner].seeds[offset]
    else:
        right = public_key(secret) == block.roster.bundles[owner].masks[offset]
    if not right:
        raise Refused("it dealt shares of another secret than it announced")
    return secret


def _without_masks(
    block: Block,
    server_round: int,
    trained_on: bytes,
    vectors: Mapping[str, np.ndarray],
    secrets: Mapping[str, bytes],
) -> np.ndarray:
    total = np.zeros_like(next(iter(vectors.values())))
    for vector in vectors.values():
        total += vector
    for owner, secret in secrets.items():
        if owner in vectors:
            total -= mask(secret, len(total))
            continue
        private = private_key(secret)
        for survivor in vectors:  # whatever one adds for the other, the other adds the negative of
            total += pair_mask(block.roster, server_round, trained_on, (owner, survivor), private, len(total))
    return total
