"""A hospital that sends something wrong is named, and the sum stays exact as long as enough are right."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from secagg_parties import (
    TRAINED_ON,
    Parties,
    is_sum,
    make_block,
    make_roster,
    make_terms,
    names_of,
    plain_sum,
    random_vectors,
    signed_round,
    whole_round,
)

from fl_ppae.secagg.dealing import deal, seal
from fl_ppae.secagg.hospital import receive
from fl_ppae.secagg.identity import load_or_make
from fl_ppae.secagg.masks import private_key, public_key
from fl_ppae.secagg.revealed import pack_revealed, read_revealed
from fl_ppae.secagg.roster import make_bundle
from fl_ppae.secagg.server import (
    Block,
    Fault,
    read_bundles,
    read_dealings,
    read_signatures,
    read_vectors,
)
from fl_ppae.secagg.terms import Terms
from fl_ppae.secagg.unmasking import unmasked_sum

FIVE = names_of(5)
WRONG, OTHERS = FIVE[2], (*FIVE[:2], *FIVE[3:])


def bundle_with(folder: Path, terms: Terms, keys: list[bytes]) -> bytes:
    key = load_or_make(folder / "key.pem", durable=False)
    return make_bundle(terms, WRONG, key, keys[0], tuple(keys[1:])).pack()


@pytest.mark.parametrize("kind", ["noise", "short", "no key", "zero", "one key twice"])
def test_a_wrong_bundle_is_left_out_by_name(five: Parties, terms: Terms, tmp_path: Path, kind: str) -> None:
    good = [public_key(bytes([number] * 32)) for number in range(1, terms.rounds + 2)]
    wrong, reason = {
        "noise": (bytes(192), "not signed by it"),
        "short": (b"x", "has 1 bytes instead of 192"),
        "no key": (bundle_with(tmp_path, terms, [bytes(32), *good[1:]]), "the same secret to everyone"),
        "zero": (bundle_with(tmp_path, terms, [*good[:2], bytes([1, *bytes(31)])]), "the same secret"),
        "one key twice": (bundle_with(tmp_path, terms, [good[0], good[0], good[1]]), "has a key twice"),
    }[kind]
    sent = {name: five[name].advertise(terms) for name in FIVE} | {WRONG: wrong}
    bundles, faults = read_bundles(terms, sent.items())
    assert tuple(bundles) == OTHERS
    assert [fault.hospital for fault in faults] == [WRONG]
    assert reason in faults[0].reason
    right = bundle_with(tmp_path, terms, good)
    assert read_bundles(terms, (sent | {WRONG: right}).items())[1] == []  # the control


def test_strangers_and_second_answers_are_named_and_not_used(five: Parties, terms: Terms) -> None:
    sent = [(name, five[name].advertise(terms)) for name in FIVE]
    bundles, faults = read_bundles(terms, [*sent, (WRONG, bytes(192)), ("stranger", sent[0][1])])
    assert tuple(bundles) == FIVE
    assert faults == [
        Fault(WRONG, "it answered twice; the first answer counts"),
        Fault("stranger", "it answered without having been asked"),
    ]


@pytest.mark.parametrize("size", [0, 1, 10_000])
def test_a_dealing_of_a_wrong_length_is_left_out_by_name(five: Parties, terms: Terms, size: int) -> None:
    roster, sent = make_roster(five, terms)
    dealt = {name: five[name].share(sent) for name in FIVE} | {WRONG: bytes(size)}
    dealings, faults = read_dealings(roster, dealt.items())
    assert tuple(dealings) == OTHERS
    assert [fault.hospital for fault in faults] == [WRONG]


@pytest.mark.parametrize(
    "vector",
    [
        np.zeros(8, np.uint32),
        np.zeros(10, np.uint32),
        np.zeros((9, 1), np.uint32),
        np.zeros(9, np.int64),
        np.full(9, 2.0**32),
    ],
)
def test_a_vector_outside_the_ring_is_left_out_by_name(
    five: Parties, block: Block, vector: np.ndarray
) -> None:
    vectors = random_vectors(FIVE, 9)
    sent = {name: five[name].masked(1, vectors[name]) for name in FIVE} | {WRONG: vector}
    masked, faults = read_vectors(block, sent.items(), 9)
    assert tuple(masked) == OTHERS
    assert [fault.hospital for fault in faults] == [WRONG]
    assert "instead of (9,) uint32" in faults[0].reason
    signatures = {name: five[name].sign(1, OTHERS) for name in OTHERS}
    revealed = {name: five[name].unmask(1, OTHERS, signatures) for name in OTHERS}
    found = unmasked_sum(block, 1, TRAINED_ON, masked, revealed.items())
    assert not found.faults
    assert is_sum(found, vectors, OTHERS)


def test_vectors_that_come_twice_or_late_are_not_used(five: Parties, block: Block) -> None:
    vectors = random_vectors(FIVE, 9)
    sent = [(name, five[name].masked(1, vectors[name])) for name in OTHERS]
    masked, faults = read_vectors(block, [*sent, (OTHERS[0], np.zeros(9, np.uint32))], 9)
    assert faults == [Fault(OTHERS[0], "it answered twice; the first answer counts")]
    late = five[WRONG].masked(1, vectors[WRONG])  # the list of survivors is made by now
    signatures = {name: five[name].sign(1, tuple(masked)) for name in OTHERS}
    revealed = {name: five[name].unmask(1, OTHERS, signatures) for name in OTHERS}
    found = unmasked_sum(block, 1, TRAINED_ON, masked, revealed.items())
    assert is_sum(found, vectors, OTHERS)
    assert not (late == vectors[WRONG]).any()  # and it is still masked


@pytest.mark.parametrize("kind", ["empty", "zeros", "of other survivors", "of other training"])
def test_a_wrong_signature_is_left_out_by_name_and_the_sum_goes_on(
    five: Parties, block: Block, kind: str
) -> None:
    vectors = random_vectors(FIVE, 9)
    other = bytes(32) if kind == "of other training" else TRAINED_ON
    masked = {
        name: five[name].masked(1, vectors[name], other if name == WRONG else TRAINED_ON) for name in FIVE
    }
    signed = {name: five[name].sign(1, FIVE) for name in OTHERS}
    story = FIVE[:4] if kind == "of other survivors" else FIVE
    signed[WRONG] = {"empty": b"", "zeros": bytes(64)}.get(kind, five[WRONG].sign(1, story))
    signatures, faults = read_signatures(block, 1, FIVE, TRAINED_ON, signed.items())
    assert faults == [Fault(WRONG, "its signature is not of these survivors and this training")]
    revealed = {name: five[name].unmask(1, FIVE, signatures) for name in OTHERS}
    found = unmasked_sum(block, 1, TRAINED_ON, masked, revealed.items())
    assert not found.faults
    assert is_sum(found, vectors, FIVE) == (kind != "of other training")  # then its masks don't cancel


def revealed_by_all(
    five: Parties, block: Block, vectors: dict[str, np.ndarray]
) -> tuple[dict[str, np.ndarray], dict[str, bytes]]:
    masked, signatures = signed_round(five, block, vectors)
    return masked, {name: five[name].unmask(1, tuple(masked), signatures) for name in signatures}


@pytest.mark.parametrize("present", [FIVE, FIVE[:4]])
@pytest.mark.parametrize("kind", ["every share", "one share", "one bit", "the other kind", "length", "none"])
def test_wrong_shares_are_left_out_by_name_and_the_sum_is_exact(
    five: Parties, block: Block, kind: str, present: tuple[str, ...]
) -> None:
    vectors = random_vectors(present, 9)
    masked, revealed = revealed_by_all(five, block, vectors)
    shares = list(read_revealed(revealed[WRONG], FIVE).values())
    flipped = bytes([shares[0][0] ^ 1]) + shares[0][1:]
    state = five[WRONG].state
    revealed[WRONG] = {
        "every share": pack_revealed([bytes(32)] * 5),
        "one share": pack_revealed([bytes(32), *shares[1:]]),
        "one bit": pack_revealed([flipped, *shares[1:]]),
        "the other kind": pack_revealed([state.shares[name][32:64] for name in FIVE[:4]] + [shares[4]]),
        "length": revealed[WRONG] + b"x",
        "none": pack_revealed([None] * 5),
    }[kind]
    found = unmasked_sum(block, 1, TRAINED_ON, masked, revealed.items())
    assert is_sum(found, vectors, present)
    assert [fault.hospital for fault in found.faults] == [WRONG]
    only_one = f"no right share of the secrets of {FIVE[0]}"
    assert found.faults[0].reason.endswith(only_one) == (kind in ("one share", "one bit"))


def test_too_many_wrong_shares_leave_no_sum_rather_than_a_wrong_one(five: Parties, block: Block) -> None:
    masked, revealed = revealed_by_all(five, block, random_vectors(FIVE, 9))
    revealed |= {name: pack_revealed([bytes(32)] * 5) for name in FIVE[:3]}
    found = unmasked_sum(block, 1, TRAINED_ON, masked, revealed.items())
    assert found.total is None
    assert Fault(FIVE[4], "2 right shares of its secret came back; it takes 3") in found.faults


def test_answers_to_the_last_question_come_once_and_from_those_asked(five: Parties, block: Block) -> None:
    vectors = random_vectors(FIVE[:4], 9)
    masked, revealed = revealed_by_all(five, block, vectors)
    extra = [(WRONG, bytes(5 * 33)), (FIVE[4], bytes(5 * 33))]
    found = unmasked_sum(block, 1, TRAINED_ON, masked, [*revealed.items(), *extra])
    assert is_sum(found, vectors, FIVE[:4])
    assert [fault.hospital for fault in found.faults] == [WRONG, FIVE[4]]


@pytest.mark.parametrize("drops", [False, True])
def test_a_hospital_that_dealt_another_secret_is_named_and_there_is_no_sum(
    five: Parties, terms: Terms, drops: bool
) -> None:
    """Its shares are as dealt, but not of the seed and the private key that it announced and masks with."""
    roster, sent = make_roster(five, terms)
    dealt = {name: five[name].share(sent) for name in FIVE}
    dealings, _ = read_dealings(roster, dealt.items())
    state = five[WRONG].state
    of_zeros, _ = deal(roster, WRONG, private_key(state.channel), bytes(len(state.secrets)), bytes)
    block = Block(roster, dealings | {WRONG: replace(of_zeros, seeds=dealings[WRONG].seeds)})
    for name in FIVE:
        five[name].receive(block.parcels_for(name))
    vectors = random_vectors(OTHERS if drops else FIVE, 9)
    found = whole_round(five, block, vectors, unmasking=OTHERS)
    assert found.total is None
    assert found.faults == (Fault(WRONG, "it dealt shares of another secret than it announced"),)
    assert found.wrong_dealers == (WRONG,)
    after = make_block(five, make_terms(5, 3, run=terms.run, first_round=2), OTHERS)
    vectors = random_vectors(OTHERS, 9)
    found = whole_round(five, after, vectors, 2)
    assert not found.faults
    assert is_sum(found, vectors, OTHERS)


def test_a_hospital_that_gave_most_others_no_shares_is_named_as_the_dealer(
    five: Parties, terms: Terms
) -> None:
    roster, sent = make_roster(five, terms)
    dealings, _ = read_dealings(roster, {name: five[name].share(sent) for name in FIVE}.items())
    parcels = {name: bytes(len(parcel)) for name, parcel in dealings[WRONG].parcels.items()}
    block = Block(roster, dealings | {WRONG: replace(dealings[WRONG], parcels=parcels)})
    for name in FIVE:
        five[name].receive(block.parcels_for(name))
    found = whole_round(five, block, random_vectors(FIVE, 9))
    assert found.total is None
    assert found.wrong_dealers == (WRONG,)
    assert Fault(WRONG, "1 right shares of its secret came back; it takes 3") in found.faults


def test_a_share_of_a_wrong_length_cannot_be_opened(five: Parties, terms: Terms) -> None:
    """Sealed as it should be, so its receiver would answer for its length."""
    roster, sent = make_roster(five, terms)
    dealings, _ = read_dealings(roster, {name: five[name].share(sent) for name in FIVE}.items())
    channel, name = private_key(five[WRONG].state.channel), FIVE[0]
    for size, opens in ((2 * terms.rounds * 32, True), (5, False), (0, False)):
        parcel = seal(roster, WRONG, name, channel, bytes(size))
        got = receive(five[name].state, Block(roster, dealings).parcels_for(name) | {WRONG: parcel})
        assert (WRONG in got.shares) == opens


def test_a_parcel_that_its_receiver_cannot_open_is_named_and_the_sum_is_exact(
    five: Parties, terms: Terms
) -> None:
    roster, sent = make_roster(five, terms)
    dealings, _ = read_dealings(roster, {name: five[name].share(sent) for name in FIVE}.items())
    block = Block(roster, dealings)
    for name in FIVE:
        parcels = block.parcels_for(name)
        if name == FIVE[0]:
            parcels[WRONG] = bytes(len(parcels[WRONG]))
        five[name].receive(parcels)
    vectors = random_vectors(FIVE, 9)
    found = whole_round(five, block, vectors)
    assert is_sum(found, vectors, FIVE)
    assert found.faults == (Fault(FIVE[0], f"it has no right share of the secrets of {WRONG}"),)
    assert found.wrong_dealers == ()


def test_a_made_up_vector_of_the_ring_is_taken(five: Parties, block: Block) -> None:
    """The limit: what is hidden can't be checked. The sum is wrong by what was made up."""
    vectors = random_vectors(FIVE, 9)
    masked, revealed = revealed_by_all(five, block, vectors)
    masked[WRONG] = masked[WRONG] + np.uint32(7)
    found = unmasked_sum(block, 1, TRAINED_ON, masked, revealed.items())
    assert not found.faults
    assert found.total is not None
    assert np.array_equal(found.total, plain_sum(vectors, FIVE) + np.uint32(7))
