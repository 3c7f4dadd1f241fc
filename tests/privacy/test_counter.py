"""A ledger that was deleted, restored, replaced or forked is refused; one that a crash left ahead is not."""

from collections.abc import Callable
from pathlib import Path

import pytest

from fl_ppae.errors import UserError
from fl_ppae.privacy import ledger as ledger_module
from fl_ppae.privacy.chain import read_chain
from fl_ppae.privacy.counter import Counter
from fl_ppae.privacy.events import PoissonGaussian
from fl_ppae.privacy.ledger import Ledger, open_run
from fl_ppae.privacy.terms import Terms

TERMS = Terms("run-a", "autoencoder", 100, 1.5, 0.25, 4, 1.0, 8.0, 1e-3)
EVENT = PoissonGaussian(1.5, 0.25, 4, 1)


class Site:
    """A ledger and its counter."""

    def __init__(self, folder: Path) -> None:
        self.ledger, self.counter = folder / "state" / "ledger.jsonl", folder / "site" / "counter.json"

    def open(self) -> Ledger:
        return open_run(self.ledger, TERMS, Counter(self.counter))


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def deleted(site: Site) -> None:
    site.ledger.unlink()


def counter_deleted(site: Site) -> None:
    site.counter.unlink()


def counter_damaged(site: Site) -> None:
    site.counter.write_text('{"lines": 0, "head": ""}')


def restored(site: Site) -> None:
    lines = site.ledger.read_bytes().splitlines(keepends=True)
    site.ledger.write_bytes(b"".join(lines[:-1]))


def forked(site: Site) -> None:
    """Restored without its counter, and the same event paid again: the same content, another chain."""
    restored(site)
    other = Counter(site.counter.with_name("other"))
    other.reset(read_chain(site.ledger))
    open_run(site.ledger, TERMS, other).announce(EVENT)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (deleted, "is missing although it had 3 lines"),
        (restored, "has lost events"),
        (forked, "is not the one that had 3 lines"),
        (counter_deleted, "is missing although the ledger has payments"),
        (counter_damaged, "is damaged"),
    ],
)
def test_a_ledger_that_is_behind_or_beside_its_counter_is_refused(
    site: Site, damage: Callable[[Site], None], words: str
) -> None:
    site.open().announce(EVENT, EVENT)
    assert len(site.open().events) == 2
    damage(site)
    for _ in range(2):
        with pytest.raises(UserError, match=words):
            site.open()


def test_a_crash_between_line_and_counter_leaves_the_ledger_ahead_which_is_accepted(site: Site) -> None:
    site.open()
    before = site.counter.read_bytes()
    site.open().announce(EVENT)
    site.counter.write_bytes(before)
    assert site.open().events == (EVENT,)
    restored(site)
    with pytest.raises(UserError, match="has lost events"):
        site.open()


def test_a_crash_before_anything_was_counted_is_no_loss(site: Site) -> None:
    site.open()
    site.counter.unlink()
    assert site.open().events == ()
    site.open().announce(EVENT)
    restored(site)
    with pytest.raises(UserError, match="has lost events"):
        site.open()


def test_the_counter_is_written_after_the_line_and_before_announce_returns(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = site.open()
    monkeypatch.setattr(ledger_module, "append", None)  # the line can't be written
    before = site.counter.read_bytes()
    with pytest.raises(TypeError):
        ledger.announce(EVENT)
    assert site.counter.read_bytes() == before
    monkeypatch.undo()
    ledger.announce(EVENT)
    assert site.counter.read_bytes() != before


def test_of_two_payments_at_once_without_a_lock_one_is_refused_and_none_is_lost(site: Site) -> None:
    first, second = site.open(), site.open()
    first.announce(EVENT)
    with pytest.raises(UserError, match="was written by another process"):
        second.announce(EVENT)
    assert site.open().events == (EVENT,)


def test_of_two_payments_that_overwrite_each_other_one_is_refused(site: Site) -> None:
    """As on a network file system whose clients don't see each other's writes."""
    first, second = site.open(), site.open()
    content = site.ledger.read_bytes()
    first.announce(EVENT)
    site.ledger.write_bytes(content)
    with pytest.raises(UserError, match="two processes paid at once"):
        second.announce(EVENT)
    with pytest.raises(UserError, match="is not the one"):
        site.open()
