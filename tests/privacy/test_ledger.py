"""The ledger file: on the disk before noise, never under-stated, never silently altered."""

import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from support import Run

from fl_ppae.errors import UserError
from fl_ppae.hospital import training
from fl_ppae.privacy import ledger as ledger_module
from fl_ppae.privacy.counter import Counter
from fl_ppae.privacy.events import JointGaussian, PoissonGaussian, Unprotected, as_dict, unprotected, updates
from fl_ppae.privacy.ledger import Ledger, agreed_terms, read_ledger
from fl_ppae.privacy.terms import Terms, UploadTerms

TERMS = Terms("run-a", "autoencoder", 100, 1.5, 0.25, 4, 1.0, 8.0, 1e-3)
OWN = PoissonGaussian(1.5, 0.25, 4, 1)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.jsonl"


def counter_of(path: Path) -> Counter:
    return Counter(path.with_name("counter.json"))


def open_run(path: Path, terms: Terms) -> Ledger:
    return ledger_module.open_run(path, terms, counter_of(path))


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
    assert seen[0] == (True, 2), "first of all the ledger, with the event's line in it"
    assert not any(ledger for ledger, _ in seen[1:]), "then the counter"


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
    assert len(lines) == 4, "a line for the terms, and one for each event"
    path.write_bytes(b"".join(lines[index] for index in order))
    with pytest.raises(UserError, match="altered"):
        read_ledger(path)


def test_a_last_line_torn_anywhere_counts_as_spent_and_is_made_whole(path: Path) -> None:
    """Torn before it was counted: the counter is written when the line is on the disk."""
    ledger = paid(path, 2)
    counted = counter_of(path).path.read_bytes()
    ledger.announce(PoissonGaussian(1.5, 0.25, 4, 3))
    content = path.read_bytes()
    start = content.rstrip(b"\n").rindex(b"\n") + 1
    for end in range(start + 1, len(content), 7):
        path.write_bytes(content[:end])
        counter_of(path).path.write_bytes(counted)
        assert len(read_ledger(path).events) == 3, end
        assert path.read_bytes() == content[:end], "who only reads does not hold the lock, and writes nothing"
        assert len(open_run(path, TERMS).events) == 3
        whole = path.read_bytes()
        assert whole.endswith(b"\n")
        assert len(open_run(path, TERMS).events) == 3, "opening it again adds nothing"
        assert len(paid_more(path).events) == 4
        assert path.read_bytes().startswith(whole)


def paid_more(path: Path) -> Ledger:
    ledger = open_run(path, TERMS)
    return ledger.announce(PoissonGaussian(1.5, 0.25, 4, len(ledger.events) + 1))


def test_a_payment_reads_nothing_of_the_ledger(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise thousands of rounds cost the square of their number."""
    ledger = paid(path, 1)
    monkeypatch.setattr(Path, "read_bytes", None)
    assert len(ledger.announce(PoissonGaussian(1.5, 0.25, 4, 2)).events) == 2


def test_a_new_runs_torn_terms_never_lower_what_was_paid(path: Path) -> None:
    paid(path, 2)
    before = len(path.read_bytes())
    counted = counter_of(path).path.read_bytes()
    later = replace(TERMS, run="run-b", noise_multiplier=3.0)
    open_run(path, later)
    content = path.read_bytes()
    for end in range(before + 1, len(content), 7):
        path.write_bytes(content[:end])
        counter_of(path).path.write_bytes(counted)
        ledger = open_run(path, later)
        assert ledger.terms == later
        assert len(ledger.events) >= 2


def test_a_first_line_cut_short_is_refused_and_not_restarted(path: Path) -> None:
    open_run(path, TERMS)
    content = path.read_bytes()
    counter_of(path).path.unlink()
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
    assert ledger == read_ledger(path)
    assert (ledger.terms, ledger.events, ledger.history) == (terms, (), 0)
    before = len(path.read_bytes())
    ledger = ledger.announce(*terms.round_events(1))
    assert ledger.events == (Unprotected("updates", "none", "train", "run-a", 1),)
    content = path.read_bytes()
    for end in range(before + 1, len(content)):
        path.write_bytes(content[:end])
        assert read_ledger(path).events == ledger.events, end


def write_chained(path: Path, lines: Sequence[Mapping[str, Any]]) -> None:
    """Lines as they were written before they held random bits."""
    previous = ""
    with path.open("w") as file:
        for line in lines:
            canonical = json.dumps(line, sort_keys=True)
            previous = hashlib.sha256((previous + canonical).encode()).hexdigest()
            file.write(json.dumps({**line, "sha256": previous}) + "\n")


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
    write_chained(path, lines)
    ledger = read_ledger(path)
    assert {(event.artefact, event.part) for event in unprotected(ledger.events)} == found
    assert len(updates(ledger.events)) == len(lines) - 1
    continued = open_run(path, replace(TERMS, run="run-b")).announce(PoissonGaussian(1.5, 0.25, 4, 1))
    assert read_ledger(path) == continued
    assert continued.events[:-1] == ledger.events


def test_a_ledger_from_before_joint_noise_is_continued_with_it(path: Path) -> None:
    """Its terms don't say how many hospitals are honest: none was assumed to be."""
    old = {key: value for key, value in asdict(TERMS).items() if key != "honest"}
    write_chained(path, [{"kind": "terms", **old}, {"kind": "event", **as_dict(OWN)}])
    assert open_run(path, TERMS).terms == TERMS, "the same run goes on"
    joint = replace(TERMS, run="run-b", honest=3)
    event = joint.event(1)
    assert event == JointGaussian(1.5, 3, 0.25, 4, 1)
    continued = open_run(path, joint).announce(event)
    assert read_ledger(path) == continued
    assert (continued.terms, continued.events) == (joint, (OWN, event))


def test_two_runs_that_take_turns_keep_their_own_terms_and_history(path: Path) -> None:
    first = paid(path, 1)
    other = replace(TERMS, run="run-b", noise_multiplier=3.0)
    open_run(path, other).announce(PoissonGaussian(3.0, 0.25, 4, 1))
    again = open_run(path, TERMS)
    assert (again.terms, len(again.events), again.history) == (TERMS, 2, first.history)
    assert open_run(path, other).history == 1
    assert agreed_terms(path, "run-a") == TERMS
    assert agreed_terms(path, "run-c") is None
    with pytest.raises(UserError, match="fixed for a run"):
        open_run(path, replace(TERMS, noise_multiplier=1.0))


OLD = (
    b'{"kind": "terms", "run": "run-a", "scope": "autoencoder", "records": 100, "noise_multiplier": 1.5, '
    b'"sample_rate": 0.25, "steps": 4, "max_grad_norm": 1.0, "target_epsilon": 8.0, "delta": 0.001, '
    b'"upload": null, "sha256": "331797391cb9d82915828ffb9dc24c02d100c35d12e632f4d33073de139f34bf"}\n'
    b'{"kind": "event", "mechanism": "poisson-gaussian", "noise_multiplier": 1.5, "sample_rate": 0.25, '
    b'"steps": 4, "round": 1, "sha256": "5a9e110b884870d586c965498d9752f860bafc49f37b13e54fef682e5a8f0fbe"}\n'
)


def test_a_ledger_from_before_counters_is_read_and_counted_from_then_on(path: Path) -> None:
    path.write_bytes(OLD)
    later = replace(TERMS, run="run-b")
    assert open_run(path, later).events == (PoissonGaussian(1.5, 0.25, 4, 1),)
    path.write_bytes(OLD)
    with pytest.raises(UserError, match="has lost events"):
        open_run(path, later)


def test_older_ledgers_of_a_site_are_inherited_once_and_again_if_they_grow(
    path: Path, tmp_path: Path
) -> None:
    older = []
    for number in (1, 2):
        old = tmp_path / f"{number:032x}" / "ledger.jsonl"
        old.parent.mkdir()
        paid(old, number)
        older.append(old)

    def opened() -> Ledger:
        return ledger_module.open_run(path, replace(TERMS, run="run-b"), counter_of(path), older=older)

    assert len(opened().events) == 3
    assert (len(opened().events), opened().history) == (3, 3)
    assert read_ledger(path) == opened()
    paid_more(older[0])
    assert len(opened().events) == 4
    older[1].write_bytes(older[1].read_bytes().replace(b'"steps": 4', b'"steps": 1'))
    with pytest.raises(UserError, match="altered"):
        opened()
