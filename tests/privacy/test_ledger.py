"""The ledger file: on the disk before noise, never under-stated, never silently altered."""

import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from support import Run

from fl_ppae.errors import UserError
from fl_ppae.hospital import training
from fl_ppae.privacy.events import PoissonGaussian, Unprotected, as_dict, unprotected, updates
from fl_ppae.privacy.ledger import Ledger, Terms, UploadTerms, open_run, read_ledger

TERMS = Terms("run-a", "autoencoder", 100, 1.5, 0.25, 4, 1.0, 8.0, 1e-3)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.jsonl"


def paid(path: Path, rounds: int, terms: Terms = TERMS) -> Ledger:
    """A ledger under `terms` with `rounds` events."""
    ledger = open_run(path, terms)
    for number in range(1, rounds + 1):
        event = terms.event(number)
        assert event is not None
        ledger = ledger.announce(event)
    return ledger


def test_what_was_announced_is_read_back(path: Path) -> None:
    ledger = paid(path, 3)
    assert read_ledger(path) == ledger == open_run(path, TERMS)
    assert ledger.events == tuple(PoissonGaussian(1.5, 0.25, 4, number) for number in (1, 2, 3))


def test_announce_returns_only_after_the_line_was_synced(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = open_run(path, TERMS)
    seen = []

    def fsync(handle: int) -> None:
        seen.append((os.fstat(handle).st_ino == path.stat().st_ino, len(path.read_bytes().splitlines())))

    monkeypatch.setattr(os, "fsync", fsync)
    ledger.announce(PoissonGaussian(1.5, 0.25, 4, 1))
    assert seen == [(True, 2)], "one fsync, of the ledger, with the event's line in it"


def test_the_event_is_on_the_disk_before_noise_is_drawn(
    federate: Callable[..., Run], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    draw = training.add_noise
    events_at_draw = []

    def spy(*arguments: object) -> object:
        ledgers = sorted((tmp_path / "run" / "hospitals").glob("*/ledger.jsonl"))
        events_at_draw.append([len(read_ledger(ledger).events) for ledger in ledgers])
        return draw(*arguments)

    monkeypatch.setattr(training, "add_noise", spy)
    federate("run", nodes=[{"partition-id": 0, "num-partitions": 1}], batch_size=100)
    steps = len(events_at_draw) // 2
    assert events_at_draw == [[1]] * steps + [[2]] * steps


def test_a_changed_byte_is_refused_or_changes_nothing_that_is_counted(path: Path) -> None:
    ledger = paid(path, 2)
    content = path.read_bytes()
    refused = 0
    for position in range(len(content) - 1):
        changed = bytearray(content)
        changed[position] ^= 0x01
        path.write_bytes(bytes(changed))
        try:
            found = read_ledger(path)
        except UserError:
            refused += 1
        else:  # white space, or the case of an exponent
            assert (found.terms, found.events) == (ledger.terms, ledger.events), position
    assert refused > 0.9 * len(content)


@pytest.mark.parametrize("order", [(0, 2, 3), (1, 2, 3), (0, 2, 1, 3), (0, 1, 1, 2, 3), (1, 0, 2, 3)])
def test_dropped_doubled_or_reordered_lines_are_refused(path: Path, order: tuple[int, ...]) -> None:
    paid(path, 3)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[index] for index in order))
    with pytest.raises(UserError, match="altered"):
        read_ledger(path)


def test_a_last_line_torn_anywhere_counts_as_spent_and_is_made_whole(path: Path) -> None:
    paid(path, 3)
    content = path.read_bytes()
    start = content.rstrip(b"\n").rindex(b"\n") + 1
    for end in range(start + 1, len(content)):
        path.write_bytes(content[:end])
        assert len(read_ledger(path).events) == 3, end
        whole = path.read_bytes()
        assert whole.endswith(b"\n")
        assert len(read_ledger(path).events) == 3, "reading it again adds nothing"
        assert len(paid_more(path).events) == 4
        assert path.read_bytes().startswith(whole)


def paid_more(path: Path) -> Ledger:
    ledger = open_run(path, TERMS)
    return ledger.announce(PoissonGaussian(1.5, 0.25, 4, len(ledger.events) + 1))


def test_a_new_runs_torn_terms_never_lower_what_was_paid(path: Path) -> None:
    paid(path, 2)
    before = len(path.read_bytes())
    later = replace(TERMS, run="run-b", noise_multiplier=3.0)
    open_run(path, later)
    content = path.read_bytes()
    for end in range(before + 1, len(content)):
        path.write_bytes(content[:end])
        ledger = open_run(path, later)
        assert ledger.terms == later
        assert len(ledger.events) >= 2


def test_a_first_line_cut_short_is_refused_and_not_restarted(path: Path) -> None:
    open_run(path, TERMS)
    content = path.read_bytes()
    for end in range(len(content)):
        path.write_bytes(content[:end])
        with pytest.raises(UserError, match="no first line"):
            open_run(path, TERMS)


@pytest.mark.parametrize(
    "changes", [{"noise_multiplier": 1.0}, {"sample_rate": 0.1}, {"steps": 1}, {"target_epsilon": 20.0}]
)
def test_other_terms_for_the_same_run_are_refused(path: Path, changes: dict[str, float]) -> None:
    paid(path, 1)
    with pytest.raises(UserError, match="fixed for a run"):
        open_run(path, replace(TERMS, **changes))
    assert read_ledger(path).terms == TERMS


def test_a_new_run_continues_what_was_spent(path: Path) -> None:
    first = paid(path, 2)
    later = open_run(path, replace(TERMS, run="run-b", noise_multiplier=3.0))
    assert later.events == first.events
    assert later.history == 2
    continued = later.announce(PoissonGaussian(3.0, 0.25, 4, 1))
    assert read_ledger(path) == continued
    assert [event.noise_multiplier for event in continued.events] == [1.5, 1.5, 3.0]


def test_a_torn_line_of_a_run_without_dp_counts_as_unprotected(path: Path) -> None:
    terms = replace(TERMS, scope="none", noise_multiplier=None)
    assert terms.event(1) is None
    ledger = open_run(path, terms)
    assert ledger == read_ledger(path) == Ledger(path, terms)
    before = len(path.read_bytes())
    ledger = ledger.announce(*terms.round_events(1))
    assert ledger.events == (Unprotected("updates", "none", "train", "run-a", 1),)
    content = path.read_bytes()
    for end in range(before + 1, len(content)):
        path.write_bytes(content[:end])
        assert read_ledger(path).events == ledger.events, end


@pytest.mark.parametrize(
    ("scope", "noise", "upload", "found"),
    [
        ("autoencoder", 1.5, None, set()),
        ("autoencoder", 1.5, UploadTerms(4.0, 2.0, 1.5, 10), set()),
        ("none", None, None, {("updates", "train")}),
        ("encoder", 1.5, None, {("updates", "train")}),
        (
            "autoencoder",
            1.5,
            UploadTerms(0.0, None, 0.0, 10),
            {("encodings", "train"), ("encodings", "test"), ("labels", "train")},
        ),
    ],
)
def test_an_old_ledger_counts_whatever_its_terms_let_leave_without_a_guarantee(
    path: Path, scope: str, noise: float | None, upload: UploadTerms | None, found: set[tuple[str, str]]
) -> None:
    """Lines as they were written before such releases were events."""
    terms = {
        key: value
        for key, value in asdict(replace(TERMS, scope=scope, noise_multiplier=noise, upload=upload)).items()
        if key not in ("shares_updates", "diagnostics")
    }
    lines = [{"kind": "terms", **terms}]
    if noise is not None:
        lines.append({"kind": "event", **as_dict(PoissonGaussian(noise, 0.25, 4, 1))})
    previous = ""
    with path.open("w") as file:
        for line in lines:
            canonical = json.dumps(line, sort_keys=True)
            previous = hashlib.sha256((previous + canonical).encode()).hexdigest()
            file.write(json.dumps({**line, "sha256": previous}) + "\n")
    ledger = read_ledger(path)
    assert {(event.artefact, event.part) for event in unprotected(ledger.events)} == found
    assert len(updates(ledger.events)) == len(lines) - 1
    continued = open_run(path, replace(TERMS, run="run-b")).announce(PoissonGaussian(1.5, 0.25, 4, 1))
    assert read_ledger(path) == continued
    assert continued.events[:-1] == ledger.events
