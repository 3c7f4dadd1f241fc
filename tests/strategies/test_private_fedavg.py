"""The strategy with scripted replies: what it averages, charges and leaves out."""

import itertools
import math
from typing import Any

import numpy as np
import pytest
from scripted_replies import DELTA, RECORDS, SHAPES, Server, events, failure, reply, update

from fl_ppae.privacy.accounting import epsilon
from fl_ppae.privacy.events import Event, PoissonGaussian, Unprotected
from fl_ppae.privacy.figures import FORMAL, REFUTED, Figure
from strategies.server_ledger import ACTIVE, EXCLUDED, STOPPED


def mean(updates: dict[int, dict[str, np.ndarray]], name: str) -> np.ndarray:
    """The mean of updates by hospital index, weighted by the enrolled records."""
    total = sum(RECORDS[index] for index in updates)
    return sum(RECORDS[index] / total * values[name].astype(float) for index, values in updates.items())


def test_the_average_is_weighted_by_the_enrolled_records_and_not_by_the_claimed() -> None:
    server = Server()
    lies = [{"num-examples": number} for number in (10**6, 1, 3, 5)]
    questions = server.ask()
    replies = [reply(q, update(i), metrics=lies[i]) for i, q in enumerate(questions)]
    found = server.take(replies)
    assert found is not None
    for name in SHAPES:
        np.testing.assert_allclose(found[name], mean({i: update(i) for i in range(4)}, name), rtol=1e-5)


def test_the_average_is_the_same_bits_in_whatever_order_replies_arrive() -> None:
    found = set()
    for order in itertools.permutations(range(4)):
        server = Server()
        replies = [reply(q, update(i)) for i, q in enumerate(server.ask())]
        averaged = server.take(replies[index] for index in order)
        assert averaged is not None
        found.add(b"".join(averaged[name].tobytes() for name in SHAPES))
    assert len(found) == 1


def test_hospitals_are_asked_in_their_order_whatever_their_node_ids() -> None:
    server = Server()
    assert [server.names[q.metadata.dst_node_id] for q in server.ask()] == list(server.server_ledger.accounts)


BAD_UPDATES = {
    "NaN": {**update(3), "bias": np.full(3, np.nan, np.float32)},
    "shape": {**update(3), "weight": np.zeros((4, 3), np.float32)},
    "type": {**update(3), "weight": np.zeros((3, 4))},
    "missing": {"weight": update(3)["weight"]},
    "extra": {**update(3), "decoder": np.zeros(3, np.float32)},
}


@pytest.mark.parametrize("kind", BAD_UPDATES)
def test_a_malformed_update_is_excluded_and_not_averaged(kind: str) -> None:
    server = Server()
    questions = server.ask()
    replies = [reply(q, update(i)) for i, q in enumerate(questions[:3])]
    found = server.take([*replies, reply(questions[3], BAD_UPDATES[kind])])
    assert found is not None
    np.testing.assert_allclose(found["bias"], mean({i: update(i) for i in range(3)}, "bias"), rtol=1e-5)
    assert server.status("hospital-3") == EXCLUDED
    assert len(server.ask(2)) == 3


BAD_CLAIMS: dict[str, dict[str, Any]] = {
    "a smaller epsilon than its events cost": {"spent": 0.5},
    "a larger epsilon than its events cost": {"spent": 50.0},
    "an epsilon that is no number": {"spent": math.nan},
    "an infinite epsilon": {"spent": -1.0},
    "no events": {"claimed": ()},
    "events of another round": {"claimed": events(2)},
    "less noise than planned": {"claimed": (PoissonGaussian(1.2, 0.25, 4, 1),)},
    "more noise than planned": {"claimed": (PoissonGaussian(3.0, 0.25, 4, 1),)},
    "another sample rate": {"claimed": (PoissonGaussian(1.5, 0.1, 4, 1),)},
    "fewer steps": {"claimed": (PoissonGaussian(1.5, 0.25, 1, 1),)},
}


@pytest.mark.parametrize("kind", BAD_CLAIMS)
def test_a_claim_that_does_not_hold_is_excluded_and_not_averaged(kind: str) -> None:
    server = Server()
    questions = server.ask()
    bad = reply(questions[0], update(0), **BAD_CLAIMS[kind])
    found = server.take([bad, *(reply(questions[i], update(i)) for i in (1, 2, 3))])
    assert found is not None
    np.testing.assert_allclose(found["bias"], mean({i: update(i) for i in (1, 2, 3)}, "bias"), rtol=1e-5)
    assert server.status("hospital-0") == EXCLUDED
    claimed = BAD_CLAIMS[kind].get("claimed", events(1))
    said = BAD_CLAIMS[kind].get("spent", 0.0)
    costs = [said, epsilon(claimed, DELTA).spent, epsilon(events(1), DELTA).spent]
    largest = None if said < 0 else max(cost for cost in costs if not math.isnan(cost))
    figures = server.server_ledger.figures()
    assert figures["hospital-0"] == Figure(largest, REFUTED), "the largest of claim, events and charges"
    assert figures["hospital-1"] == Figure(costs[-1], FORMAL), "an honest hospital's figure stands"


@pytest.mark.parametrize(
    "hostile",
    [
        PoissonGaussian(1e-300, 1.0, 1, 1),
        PoissonGaussian(0.2, 1.0, 10**9, 1),
        PoissonGaussian(1.5, 0.25, 10**400, 1),
        PoissonGaussian(0.2, 1e-300, 1, 1),
    ],
)
def test_events_that_no_accountant_can_bound_do_not_stop_the_server(hostile: PoissonGaussian) -> None:
    server = Server()
    first, *others = server.ask()
    server.take(
        [reply(first, update(0), claimed=(hostile,), spent=1.0), *(reply(q, update(1)) for q in others)]
    )
    figure = server.server_ledger.figures()["hospital-0"]
    assert figure.basis == REFUTED
    assert figure.epsilon is None or figure.epsilon >= epsilon(events(1), DELTA).spent


def test_a_claim_that_forgets_its_history_is_excluded() -> None:
    earlier = (PoissonGaussian(2.0, 0.1, 7, 1),)
    server = Server(history=earlier)
    first, second, *_ = server.ask()
    server.take(
        [reply(first, update(0), claimed=events(1)), reply(second, update(1), claimed=earlier + events(1))]
    )
    assert (server.status("hospital-0"), server.status("hospital-1")) == (EXCLUDED, "trained")
    assert server.server_ledger.figures()["hospital-0"].epsilon == epsilon(earlier + events(1), DELTA).spent


def test_a_restarted_accountant_does_not_lower_the_server_s_epsilon() -> None:
    server = Server()
    for number in (1, 2):
        server.take([reply(q, update(0), claimed=events(number)) for q in server.ask(number)], number)
    assert server.server_ledger.figures()["hospital-0"].epsilon == epsilon(events(1, 2), DELTA).spent


def test_events_that_a_hospital_paid_and_the_server_did_not_charge_are_counted() -> None:
    server = Server()
    server.take([reply(q, update(0), claimed=events(1, 1)) for q in server.ask()])
    assert server.server_ledger.figures()["hospital-0"].epsilon == epsilon(events(1, 2), DELTA).spent


UNPROTECTED = Unprotected("updates", "none", "train", "run-a", 1)


@pytest.mark.parametrize("claimed", [(), events(1), (UNPROTECTED, *events(1))])
def test_events_that_a_run_without_dp_does_not_have_are_excluded(claimed: tuple[Event, ...]) -> None:
    server = Server(noise=None)
    first, second, *_ = server.ask()
    honest = reply(second, update(1), claimed=(UNPROTECTED,), spent=-1.0)
    server.take([reply(first, update(0), claimed=claimed, spent=-1.0), honest])
    assert (server.status("hospital-0"), server.status("hospital-1")) == (EXCLUDED, "trained")
    assert {figure.epsilon for figure in server.server_ledger.figures().values()} == {None}


def test_a_run_without_dp_accepts_hospitals_that_paid_in_earlier_runs() -> None:
    earlier = (PoissonGaussian(2.0, 0.1, 7, 1),)
    server = Server(noise=None, history=earlier)
    claimed = (*earlier, UNPROTECTED)
    server.take([reply(q, update(i), claimed=claimed, spent=-1.0) for i, q in enumerate(server.ask())])
    assert server.status("hospital-0") == "trained"


def test_a_round_is_charged_when_it_is_sent() -> None:
    server = Server()
    server.ask()
    assert set(server.server_ledger.figures().values()) == {Figure(epsilon(events(1), DELTA).spent, FORMAL)}


@pytest.mark.parametrize("answered", [True, False])
def test_an_error_or_silence_is_left_out_is_not_refunded_and_may_train_again(answered: bool) -> None:
    server = Server()
    questions = server.ask()
    replies = [reply(q, update(i)) for i, q in enumerate(questions[:3])]
    found = server.take([*replies, failure(questions[3])] if answered else replies)
    assert found is not None
    np.testing.assert_allclose(found["bias"], mean({i: update(i) for i in range(3)}, "bias"), rtol=1e-5)
    assert server.status("hospital-3") == "failed"
    assert server.server_ledger.figures()["hospital-3"].epsilon == epsilon(events(1), DELTA).spent
    assert server.server_ledger.accounts["hospital-3"].status == ACTIVE
    assert len(server.ask(2)) == 4


def test_a_decline_is_refunded_not_averaged_and_not_asked_again() -> None:
    server = Server()
    questions = server.ask()
    declined = reply(questions[0], update(0), claimed=(), spent=0.0, status="declined")
    found = server.take([declined, *(reply(questions[i], update(i)) for i in (1, 2, 3))])
    assert found is not None
    np.testing.assert_allclose(found["bias"], mean({i: update(i) for i in (1, 2, 3)}, "bias"), rtol=1e-5)
    assert server.status("hospital-0") == STOPPED
    assert server.server_ledger.figures()["hospital-0"].epsilon == 0.0
    assert len(server.ask(2)) == 3


def test_a_decline_refunds_nothing_that_was_paid_before() -> None:
    server = Server()
    server.take([reply(q, update(i)) for i, q in enumerate(server.ask())])
    question = server.ask(2)[0]
    server.take([reply(question, {}, claimed=events(1), status="declined")], 2)
    assert server.server_ledger.figures()["hospital-0"].epsilon == epsilon(events(1), DELTA).spent


def test_if_all_decline_nothing_is_aggregated() -> None:
    server = Server()
    assert server.take([reply(q, {}, claimed=(), spent=0.0, status="declined") for q in server.ask()]) is None
    assert server.ask(2) == []
    assert server.take([], 2) is None


def test_a_reply_from_an_unasked_node_is_dropped() -> None:
    server = Server()
    questions = server.ask()
    stranger = reply(questions[0], {name: value + 1e6 for name, value in update(0).items()})
    stranger.metadata.__dict__["_src_node_id"] = 5
    found = server.take([stranger, *(reply(questions[i], update(i)) for i in (1, 2, 3))])
    assert found is not None
    assert np.abs(found["weight"]).max() < 10


@pytest.mark.parametrize("metric", [0.5, [0.5, 0.1]])
def test_one_hospital_with_a_metric_that_the_others_lack_does_not_stop_the_round(metric: Any) -> None:
    server = Server()
    questions = server.ask()
    odd = reply(questions[0], update(0), metrics={"num-examples": 1, "loss": metric})
    found = server.take([odd, *(reply(questions[i], update(i)) for i in (1, 2, 3))])
    assert found is not None


def test_a_hospital_that_answers_twice_counts_once() -> None:
    server = Server()
    questions = server.ask()
    replies = [reply(q, update(i)) for i, q in enumerate(questions)]
    found = server.take([*replies, reply(questions[0], update(9))])
    assert found is not None
    np.testing.assert_allclose(found["bias"], mean({i: update(i) for i in range(4)}, "bias"), rtol=1e-5)


def test_a_reply_under_another_hospitals_name_is_excluded() -> None:
    server = Server()
    questions = server.ask()
    forged = reply(questions[0], update(0), hospital="hospital-1")
    found = server.take([forged, *(reply(questions[i], update(i)) for i in (1, 2, 3))])
    assert found is not None
    np.testing.assert_allclose(found["bias"], mean({i: update(i) for i in (1, 2, 3)}, "bias"), rtol=1e-5)
    assert server.reports[-1].replies["hospital-0"].reason == (
        "malformed reply: it calls itself 'hospital-1'"
    )


def test_a_round_of_fewer_than_min_hospitals_is_not_combined_and_says_why() -> None:
    server = Server()
    server.strategy.min_hospitals = 3
    questions = server.ask()
    assert server.take([reply(questions[i], update(i)) for i in (0, 1)]) is None
    assert server.reports[-1].not_combined == "2 updates, fewer than min-hospitals = 3"
    questions = server.ask(2)
    claimed = events(1, 2)
    found = server.take([reply(questions[i], update(i), claimed=claimed) for i in (0, 1, 2)], 2)
    assert found is not None, "those that were silent once are asked again"


def test_events_that_would_fill_the_memory_are_not_parsed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fl_ppae.messages.LONGEST_LEDGER", 1000)
    server = Server()
    questions = server.ask()
    long = reply(questions[0], update(0), claimed=events(*range(1, 30)))
    server.take([long, *(reply(questions[i], update(i)) for i in (1, 2, 3))])
    assert "its events take more than 1000 characters" in server.reports[-1].replies["hospital-0"].reason
