"""Whatever lie the server tells, a hospital refuses with a reason, or the answer shows no single vector."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from secagg_parties import (
    TRAINED_ON,
    Parties,
    make_block,
    make_parties,
    make_roster,
    make_terms,
    names_of,
    plain_sum,
    random_vectors,
    signed_round,
)

from fl_ppae.secagg import hospital, masks
from fl_ppae.secagg.dealing import Kind, secret_at
from fl_ppae.secagg.identity import Pins, load_or_make
from fl_ppae.secagg.masks import mask, pair_mask, private_key, public_key
from fl_ppae.secagg.revealed import read_revealed
from fl_ppae.secagg.roster import Roster, make_bundle, read_roster
from fl_ppae.secagg.server import Block, read_dealings
from fl_ppae.secagg.shamir import join
from fl_ppae.secagg.terms import Terms
from fl_ppae.secagg.unmasking import unmasked_sum
from fl_ppae.secagg.wire import Refused

FIVE = names_of(5)
VICTIM, OTHERS = FIVE[0], FIVE[1:]


# ---- keys


def test_terms_that_leave_the_hospital_out_are_refused(five: Parties) -> None:
    with pytest.raises(Refused, match="the terms leave out hospital-0"):
        five[VICTIM].advertise(make_terms(4, 3, names=OTHERS, run="without it"))


def test_terms_that_change_within_a_run_are_refused(five: Parties) -> None:
    first = partial(make_terms, 5, run="changing")
    five[VICTIM].advertise(first(4))
    for changed in (first(3, first_round=3), first(4, first_round=3, config=bytes([1] * 32))):
        with pytest.raises(Refused, match="the terms changed within the run"):
            five[VICTIM].advertise(changed)
    five[VICTIM].advertise(first(4, first_round=3))  # the control: only the block is another


def test_a_block_over_a_round_that_was_answered_is_refused(five: Parties, terms: Terms, block: Block) -> None:
    five[VICTIM].masked(2, np.zeros(3, np.uint32))
    with pytest.raises(Refused, match="a block from round 1 on: round 2 is already answered"):
        five[VICTIM].advertise(terms)
    with pytest.raises(Refused, match="round 2 is already answered"):
        five[VICTIM].advertise(make_terms(5, 3, run=terms.run, first_round=2))


def test_other_terms_for_other_hospitals_are_refused(five: Parties, terms: Terms) -> None:
    """One hospital is told that 3 are enough, the others that it takes 5."""
    _, sent = make_roster(five, terms)
    sent |= {name: five[name].advertise(make_terms(5, 5, run=terms.run + "'")) for name in OTHERS}
    with pytest.raises(Refused, match="the key bundle of hospital-1 is not signed by it for this block"):
        five[VICTIM].share(sent)


def test_a_bundle_of_an_earlier_block_is_refused(five: Parties, terms: Terms) -> None:
    _, earlier = make_roster(five, terms)
    _, sent = make_roster(five, make_terms(5, 3, run=terms.run, first_round=3))
    with pytest.raises(Refused, match="hospital-1 is not signed by it for this block"):
        five[VICTIM].share(sent | {FIVE[1]: earlier[FIVE[1]]})


@pytest.mark.parametrize("position", [0, 40, 70, 100, 130, 190])
def test_a_bundle_with_a_changed_bit_is_refused(five: Parties, terms: Terms, position: int) -> None:
    _, sent = make_roster(five, terms)
    changed = bytearray(sent[FIVE[1]])
    changed[position] ^= 1
    with pytest.raises(Refused, match="hospital-1 is not signed"):
        five[VICTIM].share(sent | {FIVE[1]: bytes(changed)})


@pytest.mark.parametrize("size", [0, 1, 31, 191, 193, 10_000])
def test_a_bundle_of_a_wrong_length_is_refused(five: Parties, terms: Terms, size: int) -> None:
    _, sent = make_roster(five, terms)
    with pytest.raises(Refused, match=f"hospital-1 has {size} bytes instead of 192"):
        five[VICTIM].share(sent | {FIVE[1]: bytes(size)})


def own_bundle(folder: Path, terms: Terms, name: str) -> bytes:
    """A bundle that the server makes itself, in the name of a hospital."""
    keys = [public_key(bytes([number] * 32)) for number in range(1, terms.rounds + 2)]
    key = load_or_make(folder / "server.pem", durable=False)
    return make_bundle(terms, name, key, keys[0], tuple(keys[1:])).pack()


def test_a_server_in_the_middle_is_refused_by_hospitals_that_know_each_other(
    five: Parties, terms: Terms, tmp_path: Path
) -> None:
    make_block(five, terms)
    again = make_terms(5, 3, run=terms.run, first_round=3)
    _, sent = make_roster(five, again)
    with pytest.raises(Refused, match="hospital-1 has another signing key") as refusal:
        five[VICTIM].share(sent | {FIVE[1]: own_bundle(tmp_path, again, FIVE[1])})
    assert "remove the old one from this hospital's pins" in str(refusal.value)


def test_a_server_in_the_middle_at_the_first_meeting_needs_pins_from_the_operator(
    tmp_path: Path, terms: Terms
) -> None:
    """The limit of trust on first use, and what removes it."""
    parties = make_parties(tmp_path, 5)
    _, sent = make_roster(parties, terms)
    lie = sent | {FIVE[1]: own_bundle(tmp_path, terms, FIVE[1])}
    closed = Pins(tmp_path / "closed.json", first_use=False)
    with pytest.raises(Refused, match="hospital-0 is not among the hospitals whose keys this one knows"):
        hospital.share(parties[VICTIM].state, lie, closed)
    parties[VICTIM].share(lie)


def test_an_unknown_hospital_is_refused(five: Parties, terms: Terms, tmp_path: Path) -> None:
    _, sent = make_roster(five, terms)
    with pytest.raises(Refused, match="'stranger' is no hospital of this run"):
        five[VICTIM].share(sent | {"stranger": own_bundle(tmp_path, terms, "stranger")})


def test_one_bundle_in_two_names_is_refused(five: Parties, terms: Terms) -> None:
    _, sent = make_roster(five, terms)
    with pytest.raises(Refused, match="hospital-2 is not signed by it"):
        five[VICTIM].share(sent | {FIVE[2]: sent[FIVE[1]]})


def test_one_key_in_two_names_is_refused(tmp_path: Path, terms: Terms) -> None:
    """Two hospitals that collude; what they sign is valid."""
    parties = make_parties(tmp_path, 5)
    _, sent = make_roster(parties, terms)
    sent |= {name: own_bundle(tmp_path, terms, name) for name in FIVE[1:3]}
    with pytest.raises(Refused, match="hospital-1 has a key twice, or one of another hospital's"):
        parties[VICTIM].share(sent)


def test_the_own_bundle_changed_or_left_out_is_refused(five: Parties, terms: Terms) -> None:
    _, first = make_roster(five, terms)
    _, sent = make_roster(five, terms)
    for shown in (sent | {VICTIM: first[VICTIM]}, {name: sent[name] for name in OTHERS}):
        with pytest.raises(Refused, match="the bundle of hospital-0 is not among the others as it was sent"):
            five[VICTIM].share(shown)


def test_shares_are_dealt_once(five: Parties, terms: Terms) -> None:
    _, sent = make_roster(five, terms)
    five[VICTIM].share(sent)
    with pytest.raises(Refused, match="already dealt"):
        five[VICTIM].share(sent)


# ---- parcels


def test_parcels_before_the_shares_are_refused(five: Parties, terms: Terms) -> None:
    make_roster(five, terms)
    with pytest.raises(Refused, match="have not been dealt yet"):
        five[VICTIM].receive({name: b"" for name in OTHERS})


def dealt(five: Parties, terms: Terms) -> Block:
    """A block whose parcels have not been given out."""
    roster, sent = make_roster(five, terms)
    dealings, _ = read_dealings(roster, {name: five[name].share(sent) for name in FIVE}.items())
    return Block(roster, dealings)


def test_swapped_parcels_are_refused(five: Parties, terms: Terms) -> None:
    """Each in another's place; those for another; those of the block before; its own, sent back."""
    earlier = dealt(five, terms).parcels_for(VICTIM)
    block = dealt(five, make_terms(5, 3, run=terms.run, first_round=3))
    mine = block.parcels_for(VICTIM)
    swapped = dict(zip(OTHERS, [mine[name] for name in (*OTHERS[1:], OTHERS[0])], strict=True))
    for_another = {
        name: block.dealings[name].parcels[FIVE[1] if name != FIVE[1] else FIVE[2]] for name in OTHERS
    }
    sent_back = dict(block.dealings[VICTIM].parcels)
    for wrong in (swapped, for_another, earlier, sent_back):
        with pytest.raises(Refused, match="only 0 of 4 parcels could be opened"):
            five[VICTIM].receive(wrong)
    five[VICTIM].receive(mine)


def test_a_parcel_that_was_changed_costs_its_share_and_no_more(five: Parties, terms: Terms) -> None:
    block = dealt(five, terms)
    parcels = block.parcels_for(VICTIM)
    changed = bytearray(parcels[FIVE[1]])
    changed[-1] ^= 1
    five[VICTIM].receive(parcels | {FIVE[1]: bytes(changed)})
    assert set(five[VICTIM].state.shares) == {VICTIM, *FIVE[2:]}
    assert five[VICTIM].state.sharers == FIVE


def test_other_senders_than_the_first_time_are_refused(five: Parties, block: Block) -> None:
    parcels = block.parcels_for(VICTIM)
    five[VICTIM].receive(parcels)
    parcels.pop(FIVE[1])
    with pytest.raises(Refused, match="other hospitals than the first time"):
        five[VICTIM].receive(parcels)


def test_a_sender_without_keys_is_refused(five: Parties, terms: Terms) -> None:
    _, sent = make_roster(five, terms, FIVE[:4])
    five[VICTIM].share(sent)
    with pytest.raises(Refused, match="hospital-4 has no keys in this block"):
        five[VICTIM].receive({name: b"" for name in OTHERS})


# ---- the round itself


def test_a_round_is_masked_once(five: Parties, block: Block) -> None:
    five[VICTIM].masked(1, np.zeros(3, np.uint32))
    with pytest.raises(Refused, match="round 1: round 1 is already answered"):
        five[VICTIM].masked(1, np.ones(3, np.uint32))


def test_an_earlier_round_is_refused(five: Parties, block: Block) -> None:
    five[VICTIM].masked(2, np.zeros(3, np.uint32))
    with pytest.raises(Refused, match="round 1: round 2 is already answered"):
        five[VICTIM].masked(1, np.zeros(3, np.uint32))


@pytest.mark.parametrize("server_round", [0, 3, 2**31])
def test_a_round_outside_the_block_is_refused(five: Parties, block: Block, server_round: int) -> None:
    with pytest.raises(Refused, match="outside the block of rounds 1 to 2"):
        five[VICTIM].masked(server_round, np.zeros(3, np.uint32))


def test_nothing_is_masked_before_the_parcels(five: Parties, terms: Terms) -> None:
    dealt(five, terms)
    with pytest.raises(Refused, match="the shares of this block have not come yet"):
        five[VICTIM].masked(1, np.zeros(3, np.uint32))


@pytest.mark.parametrize("vector", [np.zeros(3), np.zeros(3, np.int64), np.zeros((3, 1), np.uint32)])
def test_nothing_but_a_vector_of_the_ring_is_masked(five: Parties, block: Block, vector: np.ndarray) -> None:
    """In floating point, a mask would hide little."""
    with pytest.raises(TypeError, match="uint32, not"):
        five[VICTIM].masked(1, vector)


# ---- the survivors


@pytest.fixture
def masked(five: Parties, block: Block) -> Block:
    for name, vector in random_vectors(FIVE, 9).items():
        five[name].masked(1, vector)
    return block


@pytest.mark.parametrize(
    ("survivors", "reason"),
    [
        (OTHERS, "leaves out hospital-0, which was asked to sign it"),
        (FIVE[:2], "only 2 hospitals survived; this run needs 3"),
        ((VICTIM, VICTIM, FIVE[1]), "names a hospital twice"),
        ((*FIVE, "stranger"), "'stranger' is no hospital of this run"),
        ((), "leaves out hospital-0"),
    ],
)
def test_a_wrong_list_of_survivors_is_not_signed(
    five: Parties, masked: Block, survivors: Sequence[str], reason: str
) -> None:
    with pytest.raises(Refused, match=reason):
        five[VICTIM].sign(1, survivors)
    five[VICTIM].sign(1, FIVE)  # the control


def test_a_survivor_that_dealt_no_shares_is_refused(five: Parties, terms: Terms) -> None:
    make_block(five, terms, FIVE, FIVE[:4])
    five[VICTIM].masked(1, np.zeros(3, np.uint32))
    with pytest.raises(Refused, match="names hospital-4, which dealt no shares"):
        five[VICTIM].sign(1, FIVE)


def test_a_second_list_is_not_signed(five: Parties, masked: Block) -> None:
    five[VICTIM].sign(1, FIVE)
    for again in (FIVE, FIVE[:4]):
        with pytest.raises(Refused, match="round 1 is already signed"):
            five[VICTIM].sign(1, again)


def test_another_round_is_neither_signed_nor_unmasked(five: Parties, masked: Block) -> None:
    with pytest.raises(Refused, match="round 2 is not the round that was last masked"):
        five[VICTIM].sign(2, FIVE)
    with pytest.raises(Refused, match="round 1 is not signed yet"):
        five[VICTIM].unmask(1, FIVE, {})
    five[VICTIM].sign(1, FIVE)
    with pytest.raises(Refused, match="round 2 is not the round that was last masked"):
        five[VICTIM].unmask(2, FIVE, {})


def test_an_earlier_round_is_not_unmasked_after_a_later_one_began(five: Parties, block: Block) -> None:
    masked, signatures = signed_round(five, block, random_vectors(FIVE, 9))
    five[VICTIM].masked(2, np.zeros(9, np.uint32))
    with pytest.raises(Refused, match="round 1 is not the round that was last masked"):
        five[VICTIM].unmask(1, tuple(masked), signatures)


def test_a_new_block_ends_the_old_ones_rounds(five: Parties, terms: Terms, block: Block) -> None:
    masked, signatures = signed_round(five, block, random_vectors(FIVE, 9))
    five[VICTIM].advertise(make_terms(5, 3, run=terms.run, first_round=2))
    with pytest.raises(Refused, match="round 1 is not the round that was last masked in this block"):
        five[VICTIM].unmask(1, tuple(masked), signatures)


def test_a_list_without_one_of_the_signed_survivors_is_not_unmasked(five: Parties, block: Block) -> None:
    """Both of its shares would then be asked for: of one kind here, of the other elsewhere."""
    _, signatures = signed_round(five, block, random_vectors(FIVE, 9))
    with pytest.raises(Refused, match="not the one that was signed"):
        five[FIVE[1]].unmask(1, (FIVE[1], *FIVE[2:]), signatures)
    five[FIVE[1]].unmask(1, FIVE, signatures)
    with pytest.raises(Refused, match="round 1 is already unmasked"):
        five[FIVE[1]].unmask(1, FIVE, signatures)


def test_signatures_that_are_made_up_moved_or_old_are_refused(five: Parties, terms: Terms) -> None:
    """Those of an earlier attempt at the same block, too: every attempt has new keys."""
    first = make_block(five, terms)
    sent = {name: five[name].state for name in FIVE}
    _, old = signed_round(five, first, random_vectors(FIVE, 9))
    for name, state in sent.items():
        five[name].kept = state.pack()  # as if these rounds had not been
    second = make_block(five, terms)
    _, signatures = signed_round(five, second, random_vectors(FIVE, 9))
    moved = signatures | {FIVE[2]: signatures[FIVE[1]]}
    made_up = signatures | {FIVE[2]: bytes(64)}
    for wrong in (old, moved, made_up, signatures | {FIVE[2]: b""}):
        with pytest.raises(Refused, match="did not sign the same survivors and the same training"):
            five[VICTIM].unmask(1, FIVE, wrong)
    with pytest.raises(Refused, match="'stranger' is no hospital"):
        five[VICTIM].unmask(1, FIVE, signatures | {"stranger": bytes(64)})
    five[VICTIM].unmask(1, FIVE, signatures)


def test_a_signature_of_one_that_did_not_survive_is_refused(five: Parties, block: Block) -> None:
    masked, signatures = signed_round(five, block, random_vectors(FIVE[:4], 9))
    with pytest.raises(Refused, match="hospital-4 signed, but is not among the survivors"):
        five[VICTIM].unmask(1, tuple(masked), signatures | {FIVE[4]: bytes(64)})


# ---- whole attacks, and what they find where the defence is missing


def two_lists(five: Parties, block: Block, vector: np.ndarray) -> np.ndarray | None:
    """Tell some hospitals that the victim survived and others that it dropped out, to have both its secrets.

    Returns:
        The victim's vector, if the hospitals reveal enough.
    """
    secrets = five[VICTIM].state.secrets
    own = five[VICTIM].masked(1, vector)
    for name in OTHERS:
        five[name].masked(1, np.zeros(len(vector), np.uint32))
    stories = {FIVE: FIVE[1:3], OTHERS: FIVE[3:5]}
    shares: dict[int, bytes] = {}
    found = {}
    for kind, (survivors, told) in zip(Kind, stories.items(), strict=True):
        signatures = {name: five[name].sign(1, survivors) for name in told}
        for name in told:
            try:
                revealed = read_revealed(five[name].unmask(1, survivors, signatures), FIVE)
            except Refused as refusal:
                assert "only 2 hospitals signed; it takes 3" in str(refusal)
                return None
            shares[block.terms.position(name)] = revealed[VICTIM] or b""
        found[kind] = join(shares)
        shares = {}
    assert found[Kind.SEED] == secret_at(secrets, 0, Kind.SEED)
    own = own - mask(found[Kind.SEED], len(own))
    private = private_key(found[Kind.PRIVATE])
    for other in OTHERS:
        own -= pair_mask(block.roster, 1, TRAINED_ON, (VICTIM, other), private, len(own))
    return own


def test_two_lists_of_survivors_show_nothing(five: Parties, block: Block) -> None:
    assert two_lists(five, block, np.arange(5, dtype=np.uint32)) is None


def test_two_lists_of_survivors_show_a_vector_where_half_of_the_hospitals_are_enough(
    five: Parties, terms: Terms, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control: with a threshold at which two groups need not overlap, the attack works."""
    monkeypatch.setattr(Terms, "threshold", property(lambda _: 2))
    vector = np.arange(5, dtype=np.uint32)
    found = two_lists(five, make_block(five, terms), vector)
    assert found is not None
    assert np.array_equal(found, vector)


def other_weights_for_the_victim(five: Parties, block: Block, vector: np.ndarray) -> np.ndarray:
    """Have all others train on weights at which their vectors are 0, and leave out the victim's signature."""
    length = len(vector)
    sent = {VICTIM: five[VICTIM].masked(1, vector, bytes(32))}
    sent |= {name: five[name].masked(1, np.zeros(length, np.uint32)) for name in OTHERS}
    signatures = {name: five[name].sign(1, FIVE) for name in OTHERS}
    revealed = {name: five[name].unmask(1, FIVE, signatures) for name in OTHERS}
    found = unmasked_sum(block, 1, TRAINED_ON, sent, revealed.items())
    assert found.total is not None
    return found.total


def test_other_weights_for_one_hospital_show_nothing(five: Parties, block: Block) -> None:
    vector = np.arange(50, dtype=np.uint32)
    assert not (other_weights_for_the_victim(five, block, vector) == vector).any()


def test_other_weights_for_one_hospital_show_its_vector_where_masks_ignore_them(
    five: Parties, block: Block, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control: signatures alone don't stop it."""

    def ignoring(roster: Roster, server_round: int, _: bytes, *rest: object) -> np.ndarray:
        return masks.pair_mask(roster, server_round, TRAINED_ON, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(hospital, "pair_mask", ignoring)
    vector = np.arange(50, dtype=np.uint32)
    assert np.array_equal(other_weights_for_the_victim(five, block, vector), vector)


def test_other_weights_are_no_reason_to_unmask(five: Parties, masked: Block, terms: Terms) -> None:
    """A hospital that sees a signature of other training reveals nothing."""
    make_block(five, make_terms(5, 3, run=terms.run, first_round=2))
    for name in FIVE:
        five[name].masked(2, np.zeros(3, np.uint32), bytes(32) if name == VICTIM else TRAINED_ON)
    signatures = {name: five[name].sign(2, FIVE) for name in FIVE}
    for name in FIVE:
        with pytest.raises(Refused, match="did not sign the same survivors and the same training"):
            five[name].unmask(2, FIVE, signatures)


def test_other_sharers_for_one_hospital_are_no_reason_to_unmask(five: Parties, terms: Terms) -> None:
    """One is told that hospital-4 dealt no shares, so it puts no mask between them."""
    block = dealt(five, terms)
    for name in FIVE:
        parcels = block.parcels_for(name)
        if name == VICTIM:
            parcels.pop(FIVE[4])
        five[name].receive(parcels)
    for name in FIVE:
        five[name].masked(1, np.zeros(3, np.uint32))
    four = FIVE[:4]
    signatures = {name: five[name].sign(1, four) for name in four}
    for name in four:
        with pytest.raises(Refused, match="did not sign the same survivors and the same training"):
            five[name].unmask(1, four, signatures)


def test_a_sum_of_some_survivors_stays_masked(five: Parties, block: Block) -> None:
    """With all that was revealed for 5, the sum of 4 of them is as good as random."""
    vectors = random_vectors(FIVE, 50)
    masked, signatures = signed_round(five, block, vectors)
    revealed = {name: five[name].unmask(1, FIVE, signatures) for name in FIVE}
    total = np.zeros(50, np.uint32)
    for owner in OTHERS:
        shares = {
            block.terms.position(name): read_revealed(revealed[name], FIVE)[owner] or b"" for name in FIVE[:3]
        }
        total += masked[owner] - mask(join(shares), 50)
    assert not (total == plain_sum(vectors, OTHERS)).any()


def test_a_roster_is_read_only_from_valid_bundles(five: Parties, terms: Terms) -> None:
    """The control of the tests of bundles: unchanged, they are accepted."""
    _, sent = make_roster(five, terms)
    assert tuple(read_roster(terms, sent).bundles) == FIVE
    five[VICTIM].share(sent)
