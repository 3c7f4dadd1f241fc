"""The hospital's side of secure aggregation (Bonawitz et al. 2017, the variant for a malicious server).

Guarantee: in each round the server, together with at most `colluders` hospitals, learns nothing about the
vectors of the others but one sum. It is over all hospitals on a list of survivors with at least
`min-hospitals` names, and is itself hidden unless all of them trained on the same weights and configuration.
The guarantee assumes that the pinned signing keys are the other hospitals' own, that no hospital's state is
read by others or replaced by an older one, and that X25519, Ed25519, HKDF-SHA256, ChaCha20-Poly1305 and
SHA-256 are secure. Sums of several rounds can be subtracted from each other; only noise protects against
that.

Each function takes the state, refuses what it must not answer, and returns the new state with the answer. The
caller writes the state to disk before the answer leaves. Secrets that no later step needs are not in the new
state: the channel key once the parcels are open, a round's own secrets once its vector is masked, the shares
of others once they are revealed or the next round is masked.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np

from fl_ppae.secagg.dealing import Kind, deal, open_parcel, secret_at, without_first
from fl_ppae.secagg.identity import Pins, SigningKey, signed_by
from fl_ppae.secagg.masks import KEY, mask, pair_mask, private_key, public_key
from fl_ppae.secagg.revealed import pack_revealed
from fl_ppae.secagg.roster import Roster, check_enough, make_bundle, read_roster
from fl_ppae.secagg.state import Answered, State, Step
from fl_ppae.secagg.terms import Terms
from fl_ppae.secagg.wire import Refused

Random = Callable[[int], bytes]


def advertise(
    state: State | None, terms: Terms, name: str, key: SigningKey, random: Random = secrets.token_bytes
) -> tuple[State, bytes]:
    """Begin a block: new keys and seeds for each of its rounds, and the signed bundle of the public ones.

    Whatever an earlier block kept is gone. A block may be begun again until one of its rounds is answered:
    with new keys, it shares nothing with the first attempt.

    Raises:
        Refused: the hospital is not among the terms' names, the terms changed within the run, or the block
            has a round that is already answered.
    """
    if name not in terms.names:
        raise Refused(f"the terms leave out {name}, which is asked to agree to them")
    answered = Answered()
    if state is not None and state.terms.run == terms.run:
        terms.check_follows(state.terms)
        answered = state.answered
    if terms.first_round <= answered.round:
        raise Refused(
            f"a block from round {terms.first_round} on: round {answered.round} is already answered"
        )
    channel, drawn = random(KEY), random(terms.rounds * len(Kind) * KEY)
    private = [secret_at(drawn, offset, Kind.PRIVATE) for offset in range(terms.rounds)]
    bundle = make_bundle(terms, name, key, public_key(channel), tuple(map(public_key, private)))
    return State(name, terms, channel, drawn, bundle, None, (), {}, answered), bundle.pack()


def share(
    state: State, bundles: Mapping[str, bytes], pins: Pins, random: Random = secrets.token_bytes
) -> tuple[State, bytes]:
    """Deal out shares of all secrets of the block to the hospitals whose bundles came, once.

    Raises:
        Refused: it was done before; the bundles are too few, not validly signed for this block, or have a
            key in common; the own bundle is not among them as it was sent; or a signing key is not the
            pinned one.
    """
    if state.roster is not None:
        raise Refused("the shares of this block were already dealt")
    roster = read_roster(state.terms, bundles)
    if roster.bundles.get(state.name) != state.bundle:
        raise Refused(f"the bundle of {state.name} is not among the others as it was sent")
    pins.accept({name: bundle.signer for name, bundle in roster.bundles.items()})
    dealing, own = deal(roster, state.name, private_key(state.channel), state.secrets, random)
    return replace(state, roster=roster, shares={state.name: own}), dealing.pack()


def receive(state: State, parcels: Mapping[str, bytes]) -> State:
    """Take the parcels of the others, by sender. From here on, masks are used between these hospitals.

    A parcel that can't be opened costs one share of its sender's secrets. Parcels that come again are not
    read.

    Raises:
        Refused: nothing was dealt yet, the senders are too few, not in the roster, or others than the first
            time, or fewer shares than the threshold could be opened.
    """
    roster = _roster(state)
    senders = state.terms.in_order({state.name, *parcels})
    if outside := set(senders) - set(roster.bundles):
        raise Refused(f"{min(outside)} has no keys in this block")
    if state.sharers:
        if senders != state.sharers:
            raise Refused("the parcels come from other hospitals than the first time")
        return state
    check_enough(state.terms, senders, "have dealt shares")
    shares, channel = dict(state.shares), private_key(state.channel)
    for sender, parcel in parcels.items():
        if sender != state.name:
            try:
                shares[sender] = open_parcel(roster, sender, state.name, channel, parcel)
            except Refused:
                continue  # its absence shows when shares are revealed
    if len(shares) < state.terms.threshold:
        raise Refused(f"only {len(shares) - 1} of {len(senders) - 1} parcels could be opened")
    return replace(state, channel=b"", sharers=senders, shares=shares)


def check_round(state: State, server_round: int) -> None:
    """Check that a round may be answered, before anything is spent on it.

    Raises:
        Refused: no parcels have come yet, or the round is outside the block or not after the last answered.
    """
    if not state.sharers:
        raise Refused("the shares of this block have not come yet")
    state.terms.offset(server_round)
    if server_round <= state.answered.round:
        raise Refused(f"round {server_round}: round {state.answered.round} is already answered")


def masked(
    state: State, server_round: int, vector: np.ndarray, trained_on: bytes
) -> tuple[State, np.ndarray]:
    """The hospital's vector (d,) uint32 with all masks of the round added, once.

    Args:
        trained_on: 32 bytes, the digest of the weights and the configuration that it trained on.

    Raises:
        Refused: as `check_round`, or another hospital's key is unusable.
    """
    check_round(state, server_round)
    if vector.dtype != np.uint32 or vector.ndim != 1:
        raise TypeError(f"a vector to be masked is (d,) uint32, not {vector.shape} {vector.dtype}")
    roster, offset, count = _roster(state), state.terms.offset(server_round), len(vector)
    private = private_key(secret_at(state.secrets, offset, Kind.PRIVATE))
    total = vector + mask(secret_at(state.secrets, offset, Kind.SEED), count)
    for other in state.sharers:
        if other != state.name:
            total += pair_mask(roster, server_round, trained_on, (state.name, other), private, count)
    answered = Answered(server_round, Step.MASKED, trained_on)
    return replace(_forget(state, secrets=offset + 1, shares=offset), answered=answered), total


def sign(state: State, key: SigningKey, server_round: int, survivors: tuple[str, ...]) -> tuple[State, bytes]:
    """Sign the list of survivors and what was trained on, once: 64 bytes.

    Raises:
        Refused: the round is not the last masked one, it was signed before, or the list is too short, lacks
            this hospital, or names one twice or one that dealt no shares.
    """
    _check_step(state, server_round, Step.MASKED)
    named = state.terms.in_order(set(survivors))
    if len(named) != len(survivors):
        raise Refused("the list of survivors names a hospital twice")
    if state.name not in named:
        raise Refused(f"the list of survivors leaves out {state.name}, which was asked to sign it")
    if strangers := set(named) - set(state.sharers):
        raise Refused(f"the list of survivors names {min(strangers)}, which dealt no shares in this block")
    check_enough(state.terms, named, "survived")
    answered = replace(state.answered, step=Step.SIGNED, survivors=named)
    signature = key.sign(_statement(state, server_round, answered))
    return replace(state, answered=answered), signature


def unmask(
    state: State, server_round: int, survivors: tuple[str, ...], signatures: Mapping[str, bytes]
) -> tuple[State, bytes]:
    """Reveal what removes the masks, once: of each survivor's seed a share, of the others' private keys.

    Returns:
        The new state, and the shares as `read_revealed` reads them, by sharer in the order of their index.

    Raises:
        Refused: the round is not the last signed one, it was unmasked before, the list is not the signed
            one, a signature is not a survivor's of the same list and the same training, or they are fewer
            than the threshold.
    """
    _check_step(state, server_round, Step.SIGNED)
    if set(survivors) != set(state.answered.survivors):
        raise Refused("the list of survivors is not the one that was signed")
    statement = _statement(state, server_round, state.answered)
    for name in state.terms.in_order(set(signatures)):
        if name not in state.answered.survivors:
            raise Refused(f"{name} signed, but is not among the survivors")
        if not signed_by(_roster(state).bundles[name].signer, statement, signatures[name]):
            raise Refused(f"{name} did not sign the same survivors and the same training")
    if len(signatures) < state.terms.threshold:
        raise Refused(f"only {len(signatures)} hospitals signed; it takes {state.terms.threshold} to unmask")
    offset = state.terms.offset(server_round)
    revealed = pack_revealed(_share_to_reveal(state, owner, offset) for owner in state.sharers)
    done = replace(state.answered, step=Step.UNMASKED)
    return replace(_forget(state, secrets=offset + 1, shares=offset + 1), answered=done), revealed


def forgotten(state: State) -> State:
    """The state without any secret: the block is over, and what was answered stays known."""
    return replace(_forget(state, state.terms.rounds, state.terms.rounds), channel=b"")


def _forget(state: State, secrets: int, shares: int) -> State:
    """The state without its own secrets of the first `secrets` rounds and shares of the first `shares`."""
    kept = {owner: without_first(share, shares) for owner, share in state.shares.items()}
    return replace(state, secrets=without_first(state.secrets, secrets), shares=kept)


def _share_to_reveal(state: State, owner: str, offset: int) -> bytes | None:
    if owner not in state.shares:
        return None
    kind = Kind.SEED if owner in state.answered.survivors else Kind.PRIVATE
    return secret_at(state.shares[owner], offset, kind)


def _roster(state: State) -> Roster:
    if state.roster is None:
        raise Refused("the shares of this block have not been dealt yet")
    return state.roster


def _check_step(state: State, server_round: int, expected: Step) -> None:
    last = state.answered
    if server_round != last.round or not state.sharers:
        raise Refused(f"round {server_round} is not the round that was last masked in this block")
    if last.step < expected:
        raise Refused(f"round {server_round} is not signed yet")
    if last.step > expected:
        raise Refused(f"round {server_round} is already {last.step.name.lower()}")


def _statement(state: State, server_round: int, answered: Answered) -> bytes:
    return _roster(state).statement(server_round, state.sharers, answered.survivors, answered.trained_on)
