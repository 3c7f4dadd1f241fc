"""A signing key stays on its machine and stays the same; a change of another hospital's key is noticed."""

import json
from pathlib import Path

import pytest

from fl_ppae.errors import UserError
from fl_ppae.secagg.identity import Pins, fingerprint, load_or_make, signed_by
from fl_ppae.secagg.wire import Refused

KEY_A, KEY_B, KEY_C = (bytes([number] * 32) for number in (1, 2, 3))


def test_a_signing_key_is_made_once_and_only_its_owner_can_read_it(tmp_path: Path) -> None:
    path = tmp_path / "state" / "key.pem"
    made = load_or_make(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert load_or_make(path).public == made.public
    assert load_or_make(tmp_path / "other.pem").public != made.public


def test_a_signature_is_of_one_statement_and_one_key(tmp_path: Path) -> None:
    key, other = load_or_make(tmp_path / "a.pem"), load_or_make(tmp_path / "b.pem")
    signature = key.sign(b"statement")
    assert signed_by(key.public, b"statement", signature)
    for wrong in (
        (key.public, b"Statement", signature),
        (other.public, b"statement", signature),
        (key.public, b"statement", bytes(64)),
        (key.public, b"statement", b""),
        (b"short", b"statement", signature),
    ):
        assert not signed_by(*wrong)


def test_a_key_that_others_can_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "key.pem"
    load_or_make(path)
    path.chmod(0o640)
    with pytest.raises(UserError, match="can be read by others; `chmod 600"):
        load_or_make(path)


@pytest.mark.parametrize(
    "content", [b"", b"no key", b"-----BEGIN PRIVATE KEY-----\n-----END PRIVATE KEY-----"]
)
def test_a_damaged_key_is_refused_and_left_as_it_is(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "key.pem"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(UserError, match="is no Ed25519 signing key in PEM"):
        load_or_make(path)
    assert path.read_bytes() == content


def test_fingerprints_are_short_and_tell_keys_apart() -> None:
    assert fingerprint(KEY_A) == "72cd 6e84 22c4 07fb 6d09 8690 f113 0b7d"
    assert fingerprint(KEY_A) != fingerprint(KEY_B)


def test_a_known_hospital_keeps_its_key(tmp_path: Path) -> None:
    pins = Pins(tmp_path / "pins.json")
    pins.accept({"a": KEY_A, "b": KEY_B})
    pins.accept({"a": KEY_A, "c": KEY_C})
    assert pins.read() == {"a": KEY_A, "b": KEY_B, "c": KEY_C}
    with pytest.raises(Refused) as refusal:
        pins.accept({"d": bytes(32), "a": KEY_B[:-1] + b"x"})
    assert fingerprint(KEY_A) in str(refusal.value)
    assert "d" not in pins.read()  # nothing is pinned with a refusal


@pytest.mark.parametrize("keys", [{"a": KEY_A, "b": KEY_A}, {"d": KEY_B}])
def test_one_key_is_of_one_hospital(tmp_path: Path, keys: dict[str, bytes]) -> None:
    pins = Pins(tmp_path / "pins.json")
    pins.accept({"b": KEY_B} if "d" in keys else {})
    with pytest.raises(Refused, match="each hospital needs its own"):
        pins.accept(keys)


def test_an_operator_can_allow_known_hospitals_only(tmp_path: Path) -> None:
    path = tmp_path / "pins.json"
    path.write_text(json.dumps({"a": KEY_A.hex()}))
    closed = Pins(path, first_use=False)
    closed.accept({"a": KEY_A})
    with pytest.raises(Refused, match="b is not among the hospitals whose keys this one knows"):
        closed.accept({"a": KEY_A, "b": KEY_B})
    Pins(path).accept({"a": KEY_A, "b": KEY_B})


@pytest.mark.parametrize("content", ["", "[]", "3", '{"a": 3}', '{"a": "zz"}', '{"a": "aa"}'])
def test_damaged_pins_are_refused_and_left_as_they_are(tmp_path: Path, content: str) -> None:
    path = tmp_path / "pins.json"
    path.write_text(content)
    with pytest.raises(UserError, match="is damaged; it must hold"):
        Pins(path).accept({"b": KEY_B})
    assert path.read_text() == content
