"""An append-only file of JSON lines, each with a SHA-256 over itself and the line before.

Changed, dropped or reordered lines are noticed. Each line holds random bits, so that two files which part
and then go on with the same content differ in their checksums. A last line without its newline was torn by
a crash. The checksum has no key: it finds accidents, not a forger.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fl_ppae.errors import UserError

NONCE = "nonce"


@dataclass(frozen=True)
class Chain:
    """A chained file as it was read.

    Attributes:
        bodies: one dict a line, with its nonce if it has one.
        heads: the checksum of each line, 64 hex digits.
        size: bytes of the complete lines.
        torn: True if an incomplete line follows them.
    """

    bodies: tuple[dict[str, Any], ...] = ()
    heads: tuple[str, ...] = ()
    size: int = 0
    torn: bool = False

    @property
    def head(self) -> str:
        """The checksum of the last line; empty for no lines."""
        return self.heads[-1] if self.heads else ""

    def extended(self, bodies: Sequence[Mapping[str, Any]]) -> tuple[Chain, bytes]:
        """This chain with `bodies` as further lines, and the bytes of those lines."""
        content, heads = b"", [*self.heads]
        added = tuple({**body, NONCE: secrets.token_hex(8)} for body in bodies)
        for body in added:
            heads.append(_checksum(body, heads[-1] if heads else ""))
            content += (json.dumps({**body, "sha256": heads[-1]}) + "\n").encode()
        return Chain((*self.bodies, *added), tuple(heads), self.size + len(content)), content


def read_chain(path: Path) -> Chain:
    """Read and verify a file; reads only.

    Raises:
        FileNotFoundError: there is none.
        UserError: a line is damaged or altered.
    """
    complete, newline, torn = path.read_bytes().rpartition(b"\n")
    bodies: list[dict[str, Any]] = []
    heads: list[str] = []
    for number, line in enumerate(complete.splitlines(), start=1):
        where = f"line {number} of the ledger {path}"
        body, checksum = _verified(line, heads[-1] if heads else "", where)
        bodies.append(body)
        heads.append(checksum)
    return Chain(tuple(bodies), tuple(heads), len(complete + newline), bool(torn))


def append(path: Path, chain: Chain, bodies: Sequence[Mapping[str, Any]]) -> Chain:
    """Append `bodies` to the file that holds `chain`; on return they are on disk.

    Reads nothing, so that its time does not grow with the file. Hold the file's lock.

    Raises:
        UserError: another process wrote to the file although this one holds its lock.
    """
    after, content = chain.extended(bodies)
    with path.open("ab") as file:
        if file.tell() != chain.size:
            raise UserError(_RACED.format(path=path))
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
        if file.tell() != after.size:
            raise UserError(_RACED.format(path=path))
    return after


_RACED = (
    "{path} was written by another process while this one held its lock: nothing is released. Does its file "
    "system support locks? Use a state-dir on a local disk"
)


def _checksum(body: Mapping[str, Any], previous: str) -> str:
    canonical = json.dumps(body, sort_keys=True)
    return hashlib.sha256((previous + canonical).encode()).hexdigest()


def _verified(line: bytes, previous: str, where: str) -> tuple[dict[str, Any], str]:
    try:
        body = json.loads(line)
        found = body.pop("sha256")
    except (ValueError, KeyError, AttributeError, TypeError):
        raise UserError(f"{where} is damaged; restore the ledger from a backup") from None
    if found != _checksum(body, previous):
        raise UserError(f"{where} was altered: its checksum differs; restore the ledger from a backup")
    return body, found
