"""Lets two processes pay at once on one ledger and kills them at random; run by test_races.py.

`python race_driver.py FOLDER KILLS SEED LOCK` prints one JSON document: after each kill, how many payments
had drawn their noise and how many events the ledger held. A payer does nothing but pay and then note on disk
that it draws, so that a random moment is almost always one between reading the ledger and drawing. LOCK is
"locked", or "unlocked" for payers that ignore the lock: they run until one of them is refused.
"""

import json
import os
import random
import signal
import sys
import time
from contextlib import nullcontext
from itertools import count
from pathlib import Path
from typing import Any

from fl_ppae.errors import UserError
from fl_ppae.hospital.ledgers import MAIN, site_of
from fl_ppae.privacy.events import PoissonGaussian
from fl_ppae.privacy.ledger import read_ledger
from fl_ppae.privacy.terms import Terms

TERMS = Terms("run-0", "autoencoder", 100, 1.5, 0.25, 4, 1.0, 8.0, 1e-3)
REFUSED = 3


class Race:
    """A ledger and its payers, 0 and 1, each a run of its own."""

    def __init__(self, folder: Path, *, locked: bool) -> None:
        self.state = site_of(str(folder / "state"), str(folder / "site")).state_of(MAIN)
        self.marks = [folder / f"drawn-{number}" for number in (0, 1)]
        self.locked = locked
        for path in self.marks:
            path.touch()

    def drawn(self) -> list[int]:
        """Number of payments whose noise was drawn, by payer."""
        return [path.stat().st_size for path in self.marks]

    def start(self, number: int) -> int:
        """Fork a payer and return its process id."""
        child = os.fork()
        if child:
            return child
        try:
            self.pay_forever(number)
        except UserError:
            os._exit(REFUSED)
        finally:
            os._exit(1)

    def pay_forever(self, number: int) -> None:
        terms = Terms(f"run-{number}", *list(vars(TERMS).values())[1:])
        with self.marks[number].open("ab", buffering=0) as marks:
            for server_round in count(1):
                with self.state.lock() if self.locked else nullcontext():
                    ledger = self.state.open_ledger(terms)
                    ledger.announce(PoissonGaussian(1.5, 0.25, 4, server_round))
                marks.write(b".")
                os.fsync(marks.fileno())

    def paid(self) -> int:
        """Number of events in the ledger, which is made whole if its last line was torn."""
        with self.state.lock():
            return len(self.state.open_ledger(TERMS).events)


def killed(race: Race, kills: int, seed: int) -> list[dict[str, Any]]:
    rng = random.Random(seed)
    payers = [race.start(number) for number in (0, 1)]
    found = []
    for _ in range(kills):
        number = rng.randrange(2)
        before = race.drawn()[number]
        while race.drawn()[number] == before and os.waitpid(payers[number], os.WNOHANG) == (0, 0):
            time.sleep(0.001)
        time.sleep(rng.uniform(0, 0.03))
        os.kill(payers[number], signal.SIGKILL)
        _, status = os.waitpid(payers[number], 0)
        drawn = sum(race.drawn())  # before the ledger is read: the other payer goes on
        found.append({"signal": os.WTERMSIG(status), "drawn": drawn, "paid": race.paid()})
        payers[number] = race.start(number)
    for payer in payers:
        os.kill(payer, signal.SIGKILL)
        os.waitpid(payer, 0)
    return [*found, {"signal": signal.SIGKILL, "drawn": sum(race.drawn()), "paid": race.paid()}]


def unlocked(race: Race) -> dict[str, Any]:
    """Payers without a lock, until one is refused; the other one is killed."""
    payers = [race.start(number) for number in (0, 1)]
    payer, status = os.wait()
    (other,) = set(payers) - {payer}
    os.kill(other, signal.SIGKILL)
    os.waitpid(other, 0)
    drawn = sum(race.drawn())
    try:
        paid = len(read_ledger(race.state.ledger_path).events)
    except UserError:
        paid = None
    return {"exit": os.waitstatus_to_exitcode(status), "drawn": drawn, "paid": paid}


if __name__ == "__main__":
    race = Race(Path(sys.argv[1]), locked=sys.argv[4] == "locked")
    if race.locked:
        print(json.dumps(killed(race, int(sys.argv[2]), int(sys.argv[3]))))
    else:
        type(race.state)._check_locked = lambda _: None  # type: ignore[method-assign]
        print(json.dumps(unlocked(race)))
