"""Masks: the keystream and key agreement as specified, cancelling in pairs, new for every round."""

from pathlib import Path

import numpy as np
import pytest
from secagg_parties import TRAINED_ON, make_parties, make_roster, make_terms, names_of

from fl_ppae.secagg.dealing import Kind, secret_at
from fl_ppae.secagg.masks import agree, mask, pair_mask, private_key, public_key
from fl_ppae.secagg.wire import Refused


def test_public_keys_are_those_of_x25519() -> None:
    """RFC 7748, section 6.1."""
    private = bytes.fromhex("77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a")
    public = "8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a"
    assert public_key(private).hex() == public


def test_a_mask_is_the_chacha20_keystream() -> None:
    """RFC 8439, appendix A.1: key and nonce zero."""
    assert mask(bytes(32), 5).tobytes().hex() == "76b8e0ada0f13d90405d6ae55386bd28bdd219b8"
    assert mask(bytes(32), 0).shape == (0,)


def test_masks_of_a_pair_cancel_and_are_new_for_every_pair_round_block_and_training(tmp_path: Path) -> None:
    parties = make_parties(tmp_path, 3)
    names = names_of(3)
    seen = []
    for run in ("one", "two"):
        roster, _ = make_roster(parties, make_terms(3, run=run))

        def added(pair: tuple[str, str], server_round: int, trained_on: bytes, roster=roster) -> np.ndarray:
            private = private_key(secret_at(parties[pair[0]].state.secrets, server_round - 1, Kind.PRIVATE))
            return pair_mask(roster, server_round, trained_on, pair, private, 3)

        for pair in ((names[0], names[1]), (names[0], names[2]), (names[1], names[2])):
            for server_round in (1, 2):
                for trained_on in (TRAINED_ON, bytes(32)):
                    own = added(pair, server_round, trained_on)
                    assert not (own + added(pair[::-1], server_round, trained_on)).any()
                    seen.append(own.tobytes())
    assert len(set(seen)) == len(seen) == 24


@pytest.mark.parametrize("public", [bytes(32), bytes([1, *bytes(31)]), b"short"])
def test_a_key_that_hides_nothing_is_refused(public: bytes) -> None:
    with pytest.raises(Refused, match="the same secret to everyone"):
        agree(private_key(bytes([9] * 32)), public, b"")
    assert len(agree(private_key(bytes([9] * 32)), public_key(bytes([8] * 32)), b"")) == 32
