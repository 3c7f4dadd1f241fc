"""What a hospital gains by joining, against what it and the server reach without the others."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from support import Run

from fl_ppae.config import RunConfig
from fl_ppae.data.deal import make_deal
from fl_ppae.data.sources import resolve
from fl_ppae.privacy.figures import formal_if
from fl_ppae.reporting.worth_line import headline
from fl_ppae.runs.stored import open_run
from fl_ppae.server import plain_networks, worth_joining
from fl_ppae.server.evaluation import Recognised
from fl_ppae.server.plain_networks import Budget
from fl_ppae.server.worth_joining import gains, measured_hospitals

IMAGES = 400


def hits(share: float, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).permutation(IMAGES) < share * IMAGES


@pytest.fixture
def briefly(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Trainings of 2 steps; the list gets a line for each."""
    trained = []
    train = plain_networks.train_plainly

    def counted(network, records, *rest):
        trained.append(f"{len(records)} records")
        return train(network, records, *rest)

    monkeypatch.setattr(plain_networks, "SERVER", Budget(1, 2, 2))
    for name in ("_HOSPITAL", "_POOLED", "_FROM_RANDOM"):
        monkeypatch.setattr(worth_joining, name, Budget(1, 2, 2))
    monkeypatch.setattr(plain_networks, "train_plainly", counted)
    return trained


def test_the_gain_is_over_the_better_of_alone_and_server() -> None:
    found = gains(hits(0.8), {"a": hits(0.9, 1), "b": hits(0.5, 2)}, hits(0.7, 3))
    assert found["gain"] == pytest.approx({"a": -0.1, "b": 0.1})
    assert found["mean_gain"] == pytest.approx(0.0)
    assert (found["worst_hospital"], found["worst_gain"]) == ("a", pytest.approx(-0.1))
    without_server = gains(hits(0.8), {"b": hits(0.5, 2)}, None)
    assert without_server["gain"] == pytest.approx({"b": 0.3})
    assert without_server["server_alone"] is None


def test_intervals_are_paired_by_image_and_wider_for_the_worst_of_several() -> None:
    base = hits(0.8)
    one_more = base.copy()
    one_more[np.flatnonzero(~base)[:4]] = True
    low, high = gains(one_more, {"a": base}, None)["interval"]["mean_gain"]
    assert 0 < high - low < 0.03  # unpaired: 0.11
    among = gains(hits(0.8), {name: hits(0.6, 1) for name in "abc"}, None)["interval"]
    width = {name: high - low for name, (low, high) in among.items()}
    assert width["worst_gain"] > 1.1 * width["mean_gain"]


def test_at_most_three_hospitals_are_measured_by_their_size() -> None:
    sizes = {"a": 50, "b": 10, "c": 40, "d": 20, "e": 30}
    assert measured_hospitals(sizes) == ["b", "e", "a"]
    assert measured_hospitals({"a": 2, "b": 1}) == ["b", "a"]


def test_a_run_measures_what_joining_gains_and_says_so(
    federate: Callable[..., Run], briefly: list[str]
) -> None:
    run = federate("first", pages=True, worth_joining="quick")
    found = run.summary["worth_joining"]
    # 300 records dealt to three hospitals, 33 public ones: the server, each hospital, all together
    assert briefly == ["33 records", "133 records", "133 records", "133 records", "333 records"]
    assert found["accuracy"] == pytest.approx(run.summary["accuracy"])
    assert set(found["alone"]) == {"hospital-0", "hospital-1", "hospital-2"}
    line = headline(run.summary)
    assert line.startswith("Worth joining? ")
    assert line in (run.path / "report.html").read_text(encoding="utf-8")
    assert line in (run.path / "privacy_card.md").read_text(encoding="utf-8")
    assert open_run(run.path).problems == {}


def test_what_was_trained_once_is_kept_by_all_that_it_depends_on(
    small: Callable[..., RunConfig], briefly: list[str]
) -> None:
    def measured(**changes: Any) -> dict[str, Any]:
        config = small(worth_joining="quick", **changes)
        deal = make_deal(resolve(config), config, ["a", "b"])
        return worth_joining.worth_joining(config, deal, Recognised(np.arange(60), np.ones(60, bool)))

    first = measured()
    made = len(briefly)
    assert made == 4
    assert measured(num_server_rounds=1) == first and len(briefly) == made
    for changes in ({"public_records": 20}, {"seed": 1}, {"partition": "acquisition-shift"}):
        measured(**changes)
        assert len(briefly) > made, changes
        made = len(briefly)
    assert made == 4 + 4 + 4 + 3  # hospitals' shifts leave the server's images as they are


def test_uploads_are_compared_on_the_images_that_hospitals_tested(
    federate: Callable[..., Run], briefly: list[str]
) -> None:
    run = federate("uploads", worth_joining="quick", share="encodings", dp_scope="none", public_records=0)
    found = run.summary["worth_joining"]
    assert found["accuracy"] == pytest.approx(run.summary["accuracy"])
    assert found["server_alone"] is None
    assert briefly == ["100 records"] * 3 + ["300 records"]


def test_a_run_without_the_key_or_with_real_hospitals_measures_nothing(
    federate: Callable[..., Run], briefly: list[str]
) -> None:
    run = federate("none")
    assert "worth_joining" not in run.summary and headline(run.summary) == ""
    assert briefly == []


@pytest.mark.parametrize(
    ("mean", "low", "high", "worst", "answer"),
    [
        (0.10, 0.08, 0.12, 0.07, "Yes"),
        (0.10, 0.08, 0.12, -0.01, "Not shown"),
        (0.05, 0.04, 0.06, 0.05, "Not shown"),  # less than brief training may have lost
        (0.01, -0.01, 0.03, 0.0, "Not shown"),
        (-0.06, -0.07, -0.05, -0.07, "No"),
        (0.0, 0.0, 0.0, 0.0, "No"),
        (0.05, None, None, 0.05, "Not shown"),
    ],
)
def test_the_headline_answers_as_the_numbers_say(
    mean: float, low: float | None, high: float | None, worst: float, answer: str
) -> None:
    found = {"mean_gain": mean, "worst_gain": worst, "interval": {"mean_gain": [low, high]}}
    found |= {"alone": {"a": 0.9}, "server_alone": None, "pooled": 0.96}
    line = headline({"worth_joining": found, "epsilon_max": 8.0, "epsilon_max_basis": "formal"})
    assert line.startswith(f"Worth joining? {answer}: mean gain {mean:+.3f}")
    assert line.endswith(
        "alone 0.900, server alone -, pooled without privacy 0.960 (trained briefly); epsilon 8.00."
    )


def test_the_headline_says_what_an_epsilon_by_joint_noise_assumes() -> None:
    found = {"mean_gain": 0.0, "worst_gain": 0.0, "interval": {"mean_gain": [0.0, 0.0]}}
    found |= {"alone": {"a": 0.9}, "server_alone": 0.9, "pooled": 0.96}
    summary = {"worth_joining": found, "epsilon_max": 4.0, "epsilon_max_basis": formal_if(3)}
    line = headline(summary | {"epsilon_alone_max": 13.2})
    assert line.endswith("epsilon 4.00 if 3 hospitals are honest; 13.20 if all others collude.")
