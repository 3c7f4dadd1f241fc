"""Robust aggregation: compared with Flower, with wrong updates, and in the strategy."""

import itertools
from collections.abc import Callable, Iterable
from typing import ClassVar

import numpy as np
import pytest
import torch
from flwr.app import Array, ArrayRecord, Message, MessageType, MetricRecord, RecordDict
from flwr.serverapp.strategy.fedtrimmedavg import trim_mean
from flwr.serverapp.strategy.multikrum import select_multikrum
from safetensors.torch import load_file
from scripted_replies import Server, failure, reply, update
from support import Run, simulated_nodes

from fl_ppae.config import RunConfig
from fl_ppae.errors import UserError
from fl_ppae.files import read_json
from fl_ppae.simulation.in_process import InProcessGrid
from strategies.robust import check_enough, combine, krum, median, trimmed_mean, wrong_updates

RULES = {"median": median, "trimmed-mean": trimmed_mean, "krum": krum}
LEAST = [("average", 1), ("median", 3), ("trimmed-mean", 3), ("krum", 5)]


def updates(count: int, size: int = 40, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng([seed, count])
    spread = rng.uniform(0.5, 1.5, (count, 1))
    return rng.normal(size=size) + spread * rng.normal(size=(count, size))


def selected_by_flower(rows: np.ndarray, malicious: int) -> int:
    contents = [
        RecordDict({"arrays": ArrayRecord({"w": Array(row)}), "metrics": MetricRecord({"position": index})})
        for index, row in enumerate(rows)
    ]
    chosen = select_multikrum(contents, malicious, 1)[0]["metrics"]
    assert isinstance(chosen, MetricRecord)
    return int(chosen["position"])  # type: ignore[arg-type]


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 9, 10, 21])
def test_the_median_is_coordinate_wise(count: int) -> None:
    rows = updates(count)
    by_hand = [sorted(column)[(count - 1) // 2 : count // 2 + 1] for column in rows.T.tolist()]
    np.testing.assert_allclose(median(rows), [sum(middle) / len(middle) for middle in by_hand])


@pytest.mark.parametrize("count", [5, 7, 10, 14, 20, 21])
def test_the_trimmed_mean_agrees_with_flower_from_five_updates_on(count: int) -> None:
    rows = updates(count)
    np.testing.assert_allclose(trimmed_mean(rows), trim_mean(rows, 0.2))


@pytest.mark.parametrize(("count", "kept"), [(3, 1), (4, 2)])
def test_three_or_four_updates_are_trimmed_by_one_at_each_end(count: int, kept: int) -> None:
    rows = np.arange(count, dtype=float)[:, None] ** 2
    cut = (count - kept) // 2
    assert trimmed_mean(rows) == pytest.approx(rows[cut : cut + kept].mean(axis=0))


@pytest.mark.parametrize("count", [3, 4, 5, 6, 7, 10, 15])
@pytest.mark.parametrize("seed", range(10))
def test_krum_selects_the_same_update_as_flower(count: int, seed: int) -> None:
    rows = updates(count, seed=seed)
    assert krum(rows).tobytes() == rows[selected_by_flower(rows, wrong_updates(count))].tobytes()


def test_krum_distinguishes_updates_that_are_close_together_and_far_from_zero() -> None:
    """In float32, |x|^2 + |y|^2 - 2 x y is only rounding error here."""
    rows = (1 + 1e-5 * updates(7, size=10_000)).astype(np.float32)
    exact = rows.astype(np.float64)
    assert krum(exact).tobytes() == exact[selected_by_flower(exact - 1, wrong_updates(7))].tobytes()
    assert combine("krum", [{"w": row} for row in rows])["w"].tobytes() in {row.tobytes() for row in rows}


@pytest.mark.parametrize("seed", range(5))
def test_krum_prefers_an_empty_update_to_honest_ones_that_are_mostly_noise(seed: int) -> None:
    """The squared distance of two noisy updates is twice that to an empty one: Krum selects a free rider."""
    rng = np.random.default_rng(seed)
    direction = rng.normal(size=5000)
    noisy = 0.3 * direction + rng.normal(size=(5, 5000))
    noisy[3] = 0
    assert not krum(noisy).any()
    plain = direction + 0.3 * rng.normal(size=(5, 5000))
    plain[3] = 0
    assert krum(plain).any()


def test_krum_assumes_as_many_wrong_updates_as_it_allows() -> None:
    for count in range(3, 50):
        assert 2 * wrong_updates(count) + 2 < count <= 2 * wrong_updates(count) + 4


TOLERATED = [
    ("median", 5, 2),
    ("median", 9, 4),
    ("trimmed-mean", 5, 1),
    ("trimmed-mean", 10, 2),
    ("krum", 5, 1),
]


@pytest.mark.parametrize(("rule", "count", "wrong"), [*TOLERATED, ("krum", 9, 3)])
@pytest.mark.parametrize("lie", [1e6, -1e6, 0.5e30])
def test_a_few_wrong_updates_move_the_result_no_further_than_the_honest_updates(
    rule: str, count: int, wrong: int, lie: float
) -> None:
    rows = updates(count)
    honest = rows[wrong:].copy()
    rows[:wrong] = lie
    found = RULES[rule](rows)
    assert (found >= honest.min(axis=0)).all() and (found <= honest.max(axis=0)).all()
    assert not ((rows.mean(axis=0) >= honest.min(axis=0)) & (rows.mean(axis=0) <= honest.max(axis=0))).any()


@pytest.mark.parametrize(("rule", "count", "wrong"), [("median", 5, 3), ("trimmed-mean", 5, 2)])
def test_more_wrong_updates_dominate(rule: str, count: int, wrong: int) -> None:
    rows = updates(count)
    rows[:wrong] = 1e6
    assert (np.abs(RULES[rule](rows)) > 1e5).all()


@pytest.mark.parametrize("rule", RULES)
def test_names_shapes_and_types_stay(rule: str) -> None:
    found = combine(rule, [update(seed) for seed in range(5)])
    assert {name: (array.shape, array.dtype) for name, array in found.items()} == {
        name: (array.shape, array.dtype) for name, array in update(0).items()
    }


@pytest.mark.parametrize("rule", RULES)
def test_the_order_of_the_arrays_in_an_update_does_not_matter(rule: str) -> None:
    given = [update(seed) for seed in range(5)]
    turned = [dict(reversed(one.items())) if number % 2 else one for number, one in enumerate(given)]
    assert list(turned[1]) != list(given[1])
    found, expected = combine(rule, turned), combine(rule, given)
    assert all(np.array_equal(found[name], expected[name]) for name in expected)


@pytest.mark.parametrize("rule", ["median", "trimmed-mean"])
def test_a_coordinate_wise_rule_treats_each_array_independently(rule: str) -> None:
    given = [update(seed) for seed in range(5)]
    found = combine(rule, given)
    for name, array in found.items():
        expected = RULES[rule](np.stack([one[name] for one in given]).astype(float))
        np.testing.assert_array_equal(array, expected.astype(np.float32))


@pytest.mark.parametrize("rule", RULES)
def test_the_strategy_combines_only_what_it_accepts_and_in_any_order_of_replies(rule: str) -> None:
    found = set()
    for order in list(itertools.permutations(range(6)))[::60]:
        server = Server(hospitals=6)
        server.strategy.aggregation = rule
        questions = server.ask()
        replies = [reply(q, update(i)) for i, q in enumerate(questions[:5])]
        bad = {name: values + np.nan for name, values in update(5).items()}
        replies.append(reply(questions[5], bad))
        taken = server.take(replies[index] for index in order)
        assert taken is not None
        assert server.status("hospital-5") == "excluded"
        found.add(b"".join(array.tobytes() for array in taken.values()))
    assert found == {
        b"".join(array.tobytes() for array in combine(rule, [update(i) for i in range(5)]).values())
    }


@pytest.mark.parametrize(("rule", "least"), LEAST)
@pytest.mark.parametrize("came", range(7))
def test_a_round_with_fewer_replies_than_the_rule_needs_is_not_combined_and_says_why(
    rule: str, least: int, came: int
) -> None:
    server = Server(hospitals=6)
    server.strategy.aggregation = rule
    questions = server.ask()
    replies = [reply(q, update(i)) if i < came else failure(q) for i, q in enumerate(questions)]
    taken = server.take(replies)
    rows = server.reports[-1].replies
    assert [row.status for row in rows.values()].count("trained") == came
    reasons = {row.reason for row in rows.values() if row.status == "trained"}
    if 0 < came < least:
        assert taken is None
        assert reasons == {
            f'not combined: aggregation = "{rule}" needs {least} updates to outvote one, {came} came'
        }
        with pytest.raises(ValueError, match=f"needs {least} updates"):
            combine(rule, [update(i) for i in range(came)])
    else:
        assert (taken is not None) == (came > 0)
        assert reasons <= {""}


@pytest.mark.parametrize(("rule", "least"), LEAST[1:])
def test_of_the_replies_that_a_rule_needs_no_single_one_decides(rule: str, least: int) -> None:
    """The control: of two replies, a liar moves the result as far as it likes."""

    def worst(count: int) -> float:
        moved = []
        for liar in range(count):
            rows = updates(count)
            rows[liar] = 1e6
            moved.append(np.abs(RULES[rule](rows)).max())
        return max(moved)

    assert worst(least) < 100
    assert rule == "trimmed-mean" or worst(2) > 1e5  # nothing is left of two trimmed ones


class LosesReplies(InProcessGrid):
    """A grid that delivers the first two replies of each training round."""

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> list[Message]:
        sent = list(messages)
        replies = list(super().send_and_receive(sent, timeout=timeout))
        training = sent and sent[0].metadata.message_type == MessageType.TRAIN
        round_of = sent[0].content.config_records["config"].get("server-round") if training else None
        return replies[:2] if round_of in self.lossy else replies

    lossy: ClassVar[set[int]] = {2}


def test_a_lost_round_leaves_the_encoder_and_a_run_of_lost_rounds_fails(
    federate: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = {"aggregation": "median", "dp_scope": "none", "noise_multiplier": 0.0}
    once = federate("once", num_server_rounds=1, **keys)
    lost = federate("lost", grid=LosesReplies, **keys)
    first, kept = (load_file(run.path / "encoder.safetensors") for run in (once, lost))
    assert all(torch.equal(first[name], kept[name]) for name in first)
    rows = [row for row in lost.rows("hospitals.csv") if row["round"] == "2"]
    assert [row["status"] for row in rows] == ["trained", "trained", "failed"]
    assert all("needs 3 updates to outvote one, 2 came" in row["reason"] for row in rows[:2])
    events = lost.ledger["hospitals"]["hospital-0"]["events"]
    assert {event["round"] for event in events} == {1, 2}  # it was paid
    monkeypatch.setattr(LosesReplies, "lossy", {1, 2})
    with pytest.raises(RuntimeError, match=r"no round was combined.*needs 3 updates"):
        federate("never", grid=LosesReplies, **keys)


def test_krum_has_the_charges_and_guarantees_of_the_average(federate: Callable[..., Run]) -> None:
    plain = federate("average", nodes=simulated_nodes(5))
    run = federate("krum", nodes=simulated_nodes(5), aggregation="krum", record_messages=True)
    assert run.ledger == plain.ledger
    assert run.summary["guarantees"] == plain.summary["guarantees"]
    assert "combined by `krum`, which is post-processing" in (run.path / "privacy_card.md").read_text()
    assert read_json(run.path / "config.json")["config"]["aggregation"] == "krum"
    received = [load_file(path) for path in (run.path / "received" / "round-2").iterdir()]
    kept = load_file(run.path / "encoder.safetensors")
    assert sum(all(torch.equal(kept[name], one[name]) for name in kept) for one in received) == 1


@pytest.mark.parametrize(("rule", "least"), LEAST)
def test_a_rule_with_too_few_hospitals_is_refused_and_the_error_says_how_many_it_needs(
    rule: str, least: int
) -> None:
    for hospitals in range(1, 8):
        if hospitals >= least:
            check_enough(rule, hospitals)
            continue
        with pytest.raises(UserError, match=f'"{rule}" needs at least {least} hospitals') as mistake:
            check_enough(rule, hospitals)
        assert "\n" not in str(mistake.value)


def test_the_server_refuses_a_rule_before_any_record_is_read(federate: Callable[..., Run]) -> None:
    with pytest.raises(UserError, match="needs at least 5 hospitals"):
        federate("run", aggregation="krum")


def test_a_rule_is_refused_if_no_update_is_shared() -> None:
    with pytest.raises(UserError, match=r'combines encoder updates.*use "average"'):
        RunConfig.from_flat({"aggregation": "median", "share": "encodings"})
