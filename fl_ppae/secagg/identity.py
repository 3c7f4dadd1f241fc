"""A hospital's long-term signing key, and the keys of the others as it has come to know them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from fl_ppae.errors import UserError
from fl_ppae.files import read_json, write_atomically, write_json
from fl_ppae.secagg.wire import Refused

KEY = 32
SIGNATURE = 64


@dataclass(frozen=True)
class SigningKey:
    """An Ed25519 key pair (RFC 8032); `private` is never sent and never shown."""

    private: Ed25519PrivateKey

    @property
    def public(self) -> bytes:
        """32 bytes."""
        return self.private.public_key().public_bytes_raw()

    def sign(self, statement: bytes) -> bytes:
        """The signature of `statement`, 64 bytes."""
        return self.private.sign(statement)


def load_or_make(path: Path, *, durable: bool = True) -> SigningKey:
    """The key in `path`, PKCS #8 in PEM; made there if there is none. Hold the hospital's lock.

    `durable` is as in `write_atomically`.

    Raises:
        UserError: the file is no such key, or others on the machine may read it.
    """
    if not path.exists():
        made = Ed25519PrivateKey.generate()
        pem = made.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        write_atomically(path, pem, durable=durable)  # a new file is readable by its owner only
        return SigningKey(made)
    if path.stat().st_mode & 0o077:
        raise UserError(f"the signing key {path} can be read by others; `chmod 600 {path}`")
    try:
        key = load_pem_private_key(path.read_bytes(), password=None)
    except (ValueError, TypeError):
        key = None
    if not isinstance(key, Ed25519PrivateKey):
        raise UserError(
            f"{path} is no Ed25519 signing key in PEM; restore it from a backup, or remove it, and the other "
            "hospitals must then remove this one from their pins"
        )
    return SigningKey(key)


def signed_by(public: bytes, statement: bytes, signature: bytes) -> bool:
    """Whether `signature` is of `statement`, by the owner of the key `public`."""
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, statement)
    except (InvalidSignature, ValueError):
        return False
    return True


def fingerprint(public: bytes) -> str:
    """A key's fingerprint, 32 hexadecimal digits in groups of 4, for people to compare by telephone."""
    digits = hashlib.sha256(public).hexdigest()[:32]
    return " ".join(digits[start : start + 4] for start in range(0, 32, 4))


@dataclass(frozen=True)
class Pins:
    """The public keys of the hospitals that this one has met, in a JSON file {name: hexadecimal digits}.

    Attributes:
        first_use: whether an unknown hospital's key is taken as it comes and kept. The server can then stand
            in for hospitals that meet for the first time, unless people compare fingerprints. If false, all
            keys were written there by the operator.
        durable: as in `write_atomically`.
    """

    path: Path
    first_use: bool = True
    durable: bool = True

    def read(self) -> dict[str, bytes]:
        """The pinned keys, 32 bytes each, by name.

        Raises:
            UserError: the file is damaged.
        """
        if not self.path.exists():
            return {}
        try:
            pinned = {name: bytes.fromhex(digits) for name, digits in read_json(self.path).items()}
            damaged = any(len(key) != KEY for key in pinned.values())
        except (AttributeError, TypeError, ValueError):
            damaged = True
        if damaged:
            raise UserError(f"{self.path} is damaged; it must hold {{name: 64 hexadecimal digits}}")
        return pinned

    def accept(self, keys: Mapping[str, bytes]) -> None:
        """Check all `keys`, by name, and then pin the new ones. Hold the hospital's lock.

        Raises:
            Refused: a key differs from the pinned one, belongs to another hospital, or is new although
                `first_use` is false. Nothing is pinned then.
            UserError: as `read`.
        """
        pinned = self.read()
        for name, key in keys.items():
            known = pinned.get(name)
            if known is None and not self.first_use:
                raise Refused(f"{name} is not among the hospitals whose keys this one knows")
            if known is not None and known != key:
                raise Refused(
                    f"{name} has another signing key ({fingerprint(key)}) than before "
                    f"({fingerprint(known)}); if it was replaced on purpose, remove the old one from this "
                    "hospital's pins"
                )
        both = {**pinned, **keys}
        owner: dict[bytes, str] = {}
        for name, key in both.items():
            if owner.setdefault(key, name) != name:
                raise Refused(f"{name} has the signing key of {owner[key]}; each hospital needs its own")
        if both != pinned:
            write_json(self.path, {name: key.hex() for name, key in both.items()}, durable=self.durable)
