"""What a hospital keeps on its disk after a step can't remove a mask of an earlier one."""

from pathlib import Path

from secagg_parties import (
    Party,
    make_block,
    make_parties,
    make_roster,
    make_terms,
    random_vectors,
    whole_round,
)

from fl_ppae.secagg.dealing import Kind, secret_at
from fl_ppae.secagg.hospital import forgotten
from fl_ppae.secagg.state import State

ONE, ROUNDS = "hospital-1", 3


def of_round(secrets: bytes, server_round: int) -> list[bytes]:
    return [secret_at(secrets, server_round - 1, kind) for kind in Kind]


def knows(party: Party, secrets: list[bytes]) -> set[bool]:
    return {secret in party.kept for secret in secrets}


def test_a_rounds_secrets_are_gone_once_it_is_masked_and_its_shares_once_they_are_revealed(
    tmp_path: Path,
) -> None:
    parties = make_parties(tmp_path, 3)
    block = make_block(parties, make_terms(3, rounds=ROUNDS))
    party = parties[ONE]
    own, held = party.state.secrets, dict(party.state.shares)
    vectors = random_vectors(parties, 5)
    party.masked(1, vectors[ONE])
    assert knows(party, of_round(own, 1)) == {False}
    assert knows(party, of_round(own, 2)) == {True}, "the control: they are still needed"
    assert all(knows(party, of_round(share, 1)) == {True} for share in held.values()), "to be revealed"
    party.masked(2, vectors[ONE])  # round 1 was given up
    assert all(knows(party, of_round(share, 1)) == {False} for share in held.values())
    assert not whole_round(parties, block, vectors, 3).faults
    assert knows(party, [secret for number in (1, 2, 3) for secret in of_round(own, number)]) == {False}
    assert all(
        knows(party, of_round(share, number)) == {False} for share in held.values() for number in (1, 2, 3)
    )


def test_the_channel_key_is_gone_once_the_parcels_are_open(tmp_path: Path) -> None:
    parties, terms = make_parties(tmp_path, 3), make_terms(3)
    make_roster(parties, terms)
    channels = {name: party.state.channel for name, party in parties.items()}
    assert all(knows(parties[name], [key]) == {True} for name, key in channels.items())
    block = make_block(parties, terms)
    assert block.sharers and not any(party.state.channel for party in parties.values())


def test_a_new_block_replaces_all_secrets_of_one_that_was_given_up(tmp_path: Path) -> None:
    parties = make_parties(tmp_path, 3)
    make_block(parties, make_terms(3))
    own, held = parties[ONE].state.secrets, parties[ONE].state.shares
    make_roster(parties, make_terms(3))
    assert knows(parties[ONE], [own, *held.values()]) == {False}


def test_a_forgotten_block_keeps_what_was_answered_and_no_secret(tmp_path: Path) -> None:
    parties = make_parties(tmp_path, 3)
    make_block(parties, make_terms(3))
    parties[ONE].masked(1, random_vectors(parties, 5)[ONE])
    state = parties[ONE].state
    kept = State.unpack(forgotten(state).pack())
    assert kept.answered == state.answered and kept.answered.round == 1
    assert not any(kept.secrets) and not kept.channel
    assert kept.shares and not any(any(share) for share in kept.shares.values())
