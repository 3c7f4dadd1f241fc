"""Whole runs on data with repeats: the summary, the card and the log say so, with the group's epsilon."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from flwr.app import Message
from support import Run, write_npz

from fl_ppae.privacy.events import from_dict
from fl_ppae.privacy.groups import Holding, group_epsilon, group_replace_epsilon
from fl_ppae.simulation.in_process import InProcessGrid

NAME = "hospital-0"
FORMAL_UPLOADS = {
    "share": "updates+encodings",
    "encoding_noise_epsilon": 4.0,
    "projection_size": 5,
    "label_epsilon": 1.0,
}


def medmnist_file(path: Path, change: Callable[[dict[str, np.ndarray]], object] = lambda _: None) -> str:
    """240 train, 40 validation and 60 test records, all different, then changed."""
    found = np.load(write_npz(path.with_name("base.npz"), 280))
    arrays = {
        "train_images": found["x_train"][:240],
        "train_labels": found["y_train"][:240],
        "val_images": found["x_train"][240:],
        "val_labels": found["y_train"][240:],
        "test_images": found["x_test"],
        "test_labels": found["y_test"],
    }
    change(arrays)
    np.savez(path, **arrays)
    return str(path)


def repeat(arrays: dict[str, np.ndarray]) -> None:
    """One image in three train records and in a test record."""
    arrays["train_images"][[10, 100]] = arrays["train_images"][0]
    arrays["test_images"][7] = arrays["train_images"][0]


def events_of(run: Run, name: str) -> tuple[Any, ...]:
    return tuple(from_dict(event) for event in run.ledger["hospitals"][name]["events"])


def test_a_run_prices_an_image_in_several_records_as_a_group(
    federate: Callable[..., Run], tmp_path: Path
) -> None:
    run = federate("run", data_file=medmnist_file(tmp_path / "own.npz", repeat), target_epsilon=50.0)
    assert run.summary["data_findings"]["repeated"]["train"] == 2
    (cost,) = run.summary["repeated_records"]
    assert sum(held["train"] for held in cost["copies"].values()) == 3
    assert sum(held["test"] for held in cost["copies"].values()) == 0, "no test record is released"
    holdings = [
        Holding(events_of(run, name), held["train"], held["test"]) for name, held in cost["copies"].items()
    ]
    assert cost["epsilon"] == pytest.approx(group_epsilon(holdings, 1e-3), rel=1e-4)
    assert cost["epsilon_replace"] == pytest.approx(group_replace_epsilon(holdings, 1e-3), rel=1e-4)
    assert cost["epsilon"] > 1.3 * run.summary["epsilon_max"], "control: not the epsilon of one record"
    card = (run.path / "privacy_card.md").read_text()
    assert f"{cost['epsilon']:.3f}" in card
    assert "Hospitals do not hold disjoint records" in card
    assert "1 image stands in both train and test: results on test flatter" in card


def test_a_run_without_repeats_says_that_it_was_checked(federate: Callable[..., Run], tmp_path: Path) -> None:
    run = federate("run", data_file=medmnist_file(tmp_path / "own.npz"))
    assert run.summary["repeated_records"] == []
    assert run.summary["data_findings"]["in_words"] == []
    card = (run.path / "privacy_card.md").read_text()
    assert "No record stands twice" in card
    assert "largest of theirs, not the sum" in card


def test_a_copy_in_the_test_part_pays_too_if_encodings_leave(
    federate: Callable[..., Run], tmp_path: Path
) -> None:
    file = medmnist_file(tmp_path / "own.npz", repeat)
    run = federate("run", data_file=file, target_epsilon=50.0, **FORMAL_UPLOADS)
    assert run.summary["formal"]
    (cost,) = run.summary["repeated_records"]
    assert sum(held["test"] for held in cost["copies"].values()) == 1
    assert cost["epsilon_replace"] > run.summary["guarantees"]["total"]["epsilon"]


def test_a_nominal_run_has_no_epsilon_for_a_group(federate: Callable[..., Run], tmp_path: Path) -> None:
    file = medmnist_file(tmp_path / "own.npz", repeat)
    run = federate("run", data_file=file, dp_scope="encoder", target_epsilon=50.0)
    (cost,) = run.summary["repeated_records"]
    assert (cost["epsilon"], cost["epsilon_replace"]) == (None, None)


def test_a_one_class_test_split_has_no_auc_and_the_reason_is_said(
    federate: Callable[..., Run], tmp_path: Path
) -> None:
    def one_class(arrays: dict[str, np.ndarray]) -> None:
        arrays["test_labels"][:] = 4

    run = federate("run", data_file=medmnist_file(tmp_path / "own.npz", one_class))
    assert run.summary["auc"] is None
    assert run.summary["accuracy"] is not None
    said = " ".join(run.summary["data_findings"]["in_words"])
    assert "all are of one class, so there is no AUC" in said
    assert "so there is no AUC" in (run.path / "privacy_card.md").read_text()


class Recorded(InProcessGrid):
    """Keeps what a hospital says in every reply: no noised arrays, no checksums that hold the run's id."""

    claims: ClassVar[list[dict[str, Any]]] = []

    def _deliver(self, message: Message) -> Message:
        reply = super()._deliver(message)
        for record in reply.content.config_records.values():
            self.claims.append({key: value for key, value in record.items() if key != "chain"})
        return reply


def test_a_deployed_hospitals_repeats_stay_in_its_own_log(
    federate: Callable[..., Run],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(logging.getLogger("flwr"), "propagate", True)
    caplog.set_level(logging.INFO, logger="flwr")  # whatever a study left behind
    server = medmnist_file(tmp_path / "server.npz")
    said, sent, cards = {}, {}, {}
    for name, change in {"twice": repeat, "once": lambda _: None}.items():
        caplog.clear()
        monkeypatch.setattr(Recorded, "claims", [])
        monkeypatch.setenv("FL_PPAE_HOME", str(tmp_path / f"home-{name}"))
        node = {
            "partition-id": 0,
            "num-partitions": 1,
            "data-file": medmnist_file(tmp_path / f"{name}.npz", change),
            "state-dir": str(tmp_path / f"state-{name}"),
            "max-epsilon": 100.0,
            "max-delta": 1e-3,
        }
        run = federate(name, data_file=server, nodes=[node], grid=Recorded, target_epsilon=60.0)
        messages = [record.getMessage() for record in caplog.records]
        # A set: other tests leave handlers behind, and then a record is captured twice.
        said[name] = {message for message in messages if "several records" in message}
        sent[name] = Recorded.claims
        assert run.summary["repeated_records"] is None
        cards[name] = (run.path / "privacy_card.md").read_text()
    assert len(said["twice"]) == 1
    assert "1 image stands in several records" in said["twice"].pop()
    assert said["once"] == set(), "control"
    assert sent["twice"] == sent["once"] != []
    assert cards["twice"] == cards["once"]
    assert "That hospitals hold disjoint records is **assumed**" in cards["once"]
