"""What the server remembers of a hospital's ledger, so that a deleted or restored one is noticed.

Each claim carries the checksums of the ledger's lines. They may only ever grow: a hospital whose ledger is
shorter than it was, or parts from what it was, paid for something that it no longer counts.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from filelock import FileLock

from fl_ppae.files import home, read_json, write_json
from fl_ppae.messages import CHAIN_DIGITS


def remembered(hospital: str) -> Path:
    """The file in which a server keeps the chain of a deployed hospital from run to run."""
    # A name comes from outside, so it is not used as a file's name.
    name = hashlib.sha256(hospital.encode()).hexdigest()[:16]
    return home() / "server" / "hospitals" / f"{name}.json"


@dataclass
class SeenChain:
    """A hospital's chain as this run last saw it.

    Attributes:
        path: where it is kept from run to run; None for a simulated hospital.
    """

    hospital: str
    path: Path | None = None
    chain: str = field(init=False, default="")

    def __post_init__(self) -> None:
        self.chain = self._kept()

    def problem(self, chain: str) -> str:
        """Why `chain` can't be what became of the one last seen. Empty if it can: it is then remembered."""
        if not chain.startswith(self.chain):
            return self._differs(self.chain, chain)
        with self._locked():
            kept = self._kept()  # another run of this server may have seen more
            if not chain.startswith(kept) and not kept.startswith(chain):
                return self._differs(kept, chain)
            if self.path is not None and len(chain) > len(kept):
                write_json(self.path, {"hospital": self.hospital, "chain": chain})
        self.chain = chain
        return ""

    def _differs(self, seen: str, chain: str) -> str:
        before, now = (len(text) // CHAIN_DIGITS for text in (seen, chain))
        what = (
            f"its ledger has {now} lines and had {before}"
            if seen.startswith(chain)
            else f"its ledger is not the one of {before} lines that it was"
        )
        if self.path is None:
            return what
        return f"{what}; if its operator has accepted a loss, remove {self.path}"

    def _kept(self) -> str:
        if self.path is None or not self.path.exists():
            return ""
        return str(read_json(self.path)["chain"])

    @contextmanager
    def _locked(self) -> Iterator[None]:
        if self.path is None:
            yield
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{self.path}.lock", fallback_to_soft=False):
            yield
