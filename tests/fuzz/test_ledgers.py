"""Events cost at least what they cost by dp-accounting; any damage to a ledger is refused or overstates."""

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest
from fuzz.cases import damaged, junk, refused_in_one_line, tiers, tried
from hypothesis import strategies as st
from privacy.oracles import DELTA, oracle, replace_one_oracle

from fl_ppae.privacy import ledger as ledgers
from fl_ppae.privacy.accounting import epsilon, epsilon_alone, replace_one_epsilon
from fl_ppae.privacy.counter import Counter as LineCounter
from fl_ppae.privacy.events import (
    PARTS,
    Declared,
    Event,
    Gaussian,
    JointGaussian,
    PoissonGaussian,
    RandomisedResponse,
    as_dict,
    from_dict,
)
from fl_ppae.privacy.terms import Terms, UploadTerms

GRID = 1e-3  # the oracle rounds up by as much
SIGMAS = st.sampled_from([0.4, 0.7, 1.0, 1.5, 4.0, 20.0]) | st.floats(0.3, 30.0)
RATES = st.sampled_from([1.0, 0.5, 0.1, 0.01, 0.001]) | st.floats(1e-4, 1.0)
ROUNDS = st.integers(1, 5)
TRAINED = st.builds(PoissonGaussian, SIGMAS, RATES, st.integers(1, 60), ROUNDS)
JOINT = st.builds(JointGaussian, SIGMAS, st.integers(1, 40), RATES, st.integers(1, 60), ROUNDS)
UPLOADED = st.builds(Gaussian, SIGMAS, st.sampled_from(PARTS), ROUNDS)
LABELLED = st.builds(RandomisedResponse, st.floats(0.01, 8.0), st.integers(2, 100), ROUNDS)


def parts(events: Sequence[PoissonGaussian | JointGaussian]) -> list[tuple[float, float, int]]:
    return [(event.noise_multiplier, event.sample_rate, event.steps) for event in events]


def check_updates(events: Sequence[PoissonGaussian]) -> None:
    truth = oracle(parts(events))
    assert epsilon(events, DELTA).spent >= truth * (1 - 1e-3) - GRID


def check_releases(events: Sequence[Event]) -> None:
    """A record pays for its own part; training and labels are the train part's."""
    of_train = [event for event in events if not (isinstance(event, Gaussian) and event.part == "test")]
    of_test = [event for event in events if event not in of_train]
    truth = max(replace_one_oracle(part) if part else 0.0 for part in (of_train, of_test))
    assert replace_one_epsilon(events, DELTA) >= truth * (1 - 2e-3) - 2 * GRID


def check_joint(events: Sequence[JointGaussian]) -> None:
    """The noise that counts is that of the fewest honest hospitals; alone, a hospital has its share."""
    fewest = min(event.honest for event in events)
    weaker = [
        (event.noise_multiplier * (fewest / event.honest) ** 0.5, event.sample_rate, event.steps)
        for event in events
    ]
    truth = oracle(weaker)
    assert epsilon(events, DELTA).spent >= truth * (1 - 1e-3) - GRID
    assert epsilon_alone(events, DELTA) >= truth * (1 - 1e-3) - GRID


@tiers(long=120)
def test_no_updates_cost_less_than_by_dp_accounting(cases: int) -> None:
    tried(cases, st.lists(TRAINED, min_size=1, max_size=3), check_updates)


@tiers(long=80)
def test_no_releases_cost_less_than_by_dp_accounting(cases: int) -> None:
    tried(cases, st.lists(TRAINED | UPLOADED | LABELLED, min_size=1, max_size=3), check_releases)


@tiers(long=60)
def test_no_joint_noise_costs_less_than_by_dp_accounting(cases: int) -> None:
    tried(cases, st.lists(JOINT, min_size=1, max_size=2), check_joint)


@pytest.mark.long
def test_a_noise_that_is_two_hundredths_less_would_be_noticed() -> None:
    """The control of the three: events of which dp-accounting gets another noise."""
    claimed = PoissonGaussian(1.0, 0.1, 50, 1)
    assert epsilon([claimed], DELTA).spent < oracle([(0.98, 0.1, 50)]) * (1 - 1e-3) - GRID


TERMS = Terms("7", "autoencoder", 100, 1.5, 0.25, 4, 1.0, 8.0, 1e-3, UploadTerms(4.0, 2.0, 1.0, 10))
EVENTS: tuple[Event, ...] = (
    PoissonGaussian(1.5, 0.25, 4, 1),
    PoissonGaussian(1.5, 0.25, 4, 2),
    Gaussian(2.0, "train", 2),
    RandomisedResponse(1.0, 10, 2),
    Declared(3.0, 1e-6),
)


@pytest.fixture
def kept(tmp_path: Path) -> tuple[Path, LineCounter]:
    """A ledger with events of two runs, and its counter."""
    path, counter = tmp_path / "state" / "ledger.jsonl", LineCounter(tmp_path / "counter.json", durable=False)
    path.parent.mkdir()
    ledger = ledgers.open_run(path, TERMS, counter)
    for event in EVENTS[:4]:
        ledger = ledger.announce(event)
    ledgers.open_run(path, Terms(**{**vars(TERMS), "run": "8"}), counter).announce(EVENTS[4])
    assert Counter(ledgers.verify(path, counter)) == Counter(EVENTS)
    return path, counter


@tiers(short=100, long=2500)
def test_a_damaged_ledger_is_refused_or_overstates(cases: int, kept: tuple[Path, LineCounter]) -> None:
    path, counter = kept
    sound, counted = path.read_bytes(), counter.path.read_bytes()
    refused = 0

    def check(content: bytes) -> None:
        nonlocal refused
        path.write_bytes(content)
        counter.path.write_bytes(counted)

        def look() -> None:
            assert Counter(ledgers.verify(path, counter)) >= Counter(EVENTS)
            opened = ledgers.open_run(path, TERMS, counter)
            assert Counter(opened.events) >= Counter(EVENTS)
            assert Counter(ledgers.read_ledger(path).events) == Counter(opened.events)

        refused += refused_in_one_line(look)

    tried(cases, damaged(sound), check)
    assert 0 < refused < cases, "control: torn ends overstate, the rest is refused"


@tiers(short=60, long=1000)
def test_a_damaged_counter_never_lets_a_payment_be_forgotten(
    cases: int, kept: tuple[Path, LineCounter]
) -> None:
    path, counter = kept
    sound = counter.path.read_bytes()

    def check(content: bytes) -> None:
        counter.path.write_bytes(content)
        refused_in_one_line(lambda: _holds_all(path, counter))

    anything = junk().map(lambda value: json.dumps(value).encode())
    lines = st.fixed_dictionaries({"lines": junk(), "head": junk()}).map(
        lambda value: json.dumps(value).encode()
    )
    tried(cases, damaged(sound) | anything | lines, check)


def _holds_all(path: Path, counter: LineCounter) -> None:
    assert Counter(ledgers.verify(path, counter)) >= Counter(EVENTS)


@tiers(short=100, long=2000)
def test_an_event_of_any_content_is_one_or_a_value_error(cases: int) -> None:
    """`ValueError` and its like are what every reader of events turns into one line."""
    sound = [as_dict(event) for event in EVENTS]
    changed = st.sampled_from(sound).flatmap(
        lambda body: st.dictionaries(st.sampled_from([*body, "extra"]), junk(), max_size=3).map(
            lambda changes: {**body, **changes}
        )
    )

    def check(body: object) -> None:
        try:
            event = from_dict(body)  # type: ignore[arg-type]
        except (KeyError, TypeError, ValueError, AttributeError):
            return
        assert from_dict(json.loads(json.dumps(as_dict(event)))) == event

    tried(cases, changed | junk(), check)
