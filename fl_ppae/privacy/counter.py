"""A ledger's monotone counter: how many lines it had and the last one's checksum, kept apart from the ledger.

The counter is written after the ledger's line is on disk and before its noise is drawn. A crash in between
leaves the ledger ahead, which is accepted; a ledger that is behind, or that parted from the counted lines,
was deleted, restored or written by two processes at once, and is refused.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from fl_ppae.errors import UserError
from fl_ppae.files import read_json, write_json
from fl_ppae.privacy.chain import NONCE, Chain

PAYMENT = "event"  # the kind of a ledger's lines that pay for something
ACCEPT = "`fl-ppae ledger accept-loss` charges all that may have been spent"


@dataclass(frozen=True)
class Counter:
    """The counter in the file `path`.

    Attributes:
        durable: True if it must survive a crash of the machine, not only of the process.
    """

    path: Path
    durable: bool = True

    def verify(self, ledger: Path, chain: Chain | None) -> int:
        """Check a ledger against its count, and return how many lines are counted.

        `chain` is None if there is no ledger. Payments from before there were counters have no random bits
        in their lines; a ledger without any other payment may lack a counter.

        Raises:
            UserError: the ledger was deleted, restored, replaced or forked, or its counter was deleted.
        """
        if not self.path.exists():
            if chain is not None and any(NONCE in body and body["kind"] == PAYMENT for body in chain.bodies):
                raise UserError(
                    f"the counter {self.path} of the ledger {ledger} is missing although the ledger has "
                    f"payments; restore it, or {ACCEPT}"
                )
            return 0
        lines, head = self._read()
        if chain is None:
            raise UserError(f"the ledger {ledger} is missing although it had {lines} lines; {_RESTORE}")
        if len(chain.heads) < lines:
            raise UserError(
                f"the ledger {ledger} has lost events that its hospital has paid: it has {len(chain.heads)} "
                f"lines and had {lines}; {_RESTORE}"
            )
        if chain.heads[lines - 1] != head:
            raise UserError(f"the ledger {ledger} is not the one that had {lines} lines; {_RESTORE}")
        return lines

    def advance(self, before: Chain, after: Chain) -> None:
        """Count the lines from `before` to `after`.

        Raises:
            UserError: another process has counted lines that `before` lacks.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{self.path}.lock", fallback_to_soft=False):
            if self.path.exists():
                lines, head = self._read()
                if lines > len(before.heads) or before.heads[lines - 1] != head:
                    raise UserError(
                        f"two processes paid at once, as {self.path} shows: nothing is released. Use a "
                        "state-dir on a file system that supports locks, such as a local disk"
                    )
            self.reset(after)

    def reset(self, chain: Chain) -> None:
        """Count `chain`, whatever was counted before."""
        value = {"lines": len(chain.heads), "head": chain.head}
        write_json(self.path, value, durable=self.durable)

    def _read(self) -> tuple[int, str]:
        try:
            value = read_json(self.path)
            lines, head = int(value["lines"]), str(value["head"])
        except (ValueError, KeyError, TypeError):
            raise UserError(f"the counter {self.path} is damaged; restore it, or {ACCEPT}") from None
        if lines < 1:
            raise UserError(f"the counter {self.path} is damaged; restore it, or {ACCEPT}")
        return lines, head


_RESTORE = f"restore it from a backup, or {ACCEPT}"
