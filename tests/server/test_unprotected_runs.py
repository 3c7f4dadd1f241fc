"""Whole runs of real hospitals: what a card says after records have left without a guarantee."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from flwr.app import Message
from support import Run, simulated_nodes, write_npz

from fl_ppae.privacy.accounting import replace_one_epsilon
from fl_ppae.privacy.events import PoissonGaussian, from_dict, unprotected
from fl_ppae.privacy.ledger import read_ledger
from fl_ppae.simulation.in_process import InProcessGrid

PLAIN = {"share": "updates+encodings"}


@pytest.fixture
def site(tmp_path: Path) -> dict[str, Any]:
    """One hospital with a file and a state directory, which allows everything."""
    return {
        "partition-id": 0,
        "num-partitions": 1,
        "data-file": str(write_npz(tmp_path / "own.npz", 110)),
        "state-dir": str(tmp_path / "state"),
        "allow-plain-encodings": True,
        "allow-diagnostics": True,
        "allowed-scopes": "none,encoder,autoencoder",
        "allow-unlimited-epsilon": True,
        "max-delta": 1e-3,
    }


@pytest.mark.parametrize(
    ("first", "artefact"),
    [
        ({"dp_scope": "none", "noise_multiplier": 0.0}, "updates"),
        ({"dp_scope": "encoder"}, "updates"),
        (PLAIN, "encodings"),
        ({**PLAIN, "encoding_noise_epsilon": 4.0, "projection_size": 5}, "labels"),
        ({"diagnostics": True}, "diagnostics"),
    ],
)
def test_a_formal_run_after_an_unprotected_one_has_no_total(
    federate: Callable[..., Run], site: dict[str, Any], first: dict[str, Any], artefact: str
) -> None:
    earlier = federate("first", nodes=[site], target_epsilon=900.0, num_server_rounds=1, **first)
    run = federate("second", nodes=[site], target_epsilon=900.0, num_server_rounds=1)
    ledger = read_ledger(Path(site["state-dir"]) / "ledger.jsonl")
    released = unprotected(ledger.events)
    assert {event.artefact for event in released} >= {artefact}
    (name,) = {event.run for event in released}
    events = [from_dict(event) for event in run.ledger["hospitals"]["hospital-0"]["events"]]
    assert events == list(ledger.events)
    own = [events[-1]]
    assert isinstance(own[0], PoissonGaussian)
    added = f"adds at most epsilon {replace_one_epsilon(own, 1e-3):.3f}"
    assert not earlier.summary["formal"]
    assert run.summary["formal"]
    total = run.summary["guarantees"]["total"]
    assert (total["epsilon"], total["formal"]) == (None, False)
    card = (run.path / "privacy_card.md").read_text()
    for text in (total["note"], card):
        assert f"since run {name}" in text
        assert added in text
    assert "for everything that left a hospital." not in card
    assert "there is no total" in card


def test_after_formal_runs_only_the_card_has_a_total(
    federate: Callable[..., Run], site: dict[str, Any]
) -> None:
    federate("first", nodes=[site], target_epsilon=900.0, num_server_rounds=1)
    run = federate("second", nodes=[site], target_epsilon=900.0, num_server_rounds=1)
    events = [from_dict(event) for event in run.ledger["hospitals"]["hospital-0"]["events"]]
    assert len(events) == 2
    assert run.summary["guarantees"]["total"]["epsilon"] == replace_one_epsilon(events, 1e-3)
    card = (run.path / "privacy_card.md").read_text()
    assert "since run" not in card
    assert "for everything that left a hospital." in card


def test_a_hospital_with_a_ceiling_declines_unprotected_records_unless_its_operator_allows_them(
    federate: Callable[..., Run], site: dict[str, Any]
) -> None:
    federate("first", nodes=[site], num_server_rounds=1, **PLAIN)
    site |= {"max-epsilon": 50.0, "allow-unlimited-epsilon": False}
    declined = federate("second", nodes=[site], num_server_rounds=1, target_epsilon=50.0)
    (row,) = declined.rows("hospitals.csv")
    assert row["status"] == "stopped"
    assert "released encodings without a guarantee" in row["reason"]
    assert "allow-after-unprotected" in row["reason"]
    site["allow-after-unprotected"] = True
    allowed = federate("third", nodes=[site], num_server_rounds=1, target_epsilon=50.0)
    (row,) = allowed.rows("hospitals.csv")
    assert row["status"] == "trained"


@pytest.mark.parametrize("scope", ["none", "encoder", "autoencoder"])
@pytest.mark.parametrize("share", ["updates", "encodings", "updates+encodings"])
def test_a_simulation_writes_its_unprotected_releases_too(
    federate: Callable[..., Run], scope: str, share: str
) -> None:
    run = federate(
        "run", nodes=simulated_nodes(1), dp_scope=scope, share=share, num_server_rounds=1, diagnostics=True
    )
    (account,) = run.ledger["hospitals"].values()
    found = unprotected(from_dict(event) for event in account["events"])
    expected = {("diagnostics", "train")}
    if "updates" in share and scope != "autoencoder":
        expected.add(("updates", "train"))
    if "encodings" in share:
        expected |= {("encodings", "train"), ("labels", "train")}
    if share == "encodings":
        expected.add(("encodings", "test"))
    assert {(event.artefact, event.part) for event in found} == expected
    assert {event.run for event in found} == {"this-run"}
    own = read_ledger(run.path / "hospitals" / "hospital-0" / "ledger.jsonl")
    assert len(own.events) == len(account["events"])
    assert account["epsilon"]["replace_one"] is None


@pytest.mark.parametrize("dp_scope", ["none", "autoencoder"])
def test_every_unprotected_release_is_on_the_disk_before_its_reply(
    federate: Callable[..., Run], tmp_path: Path, dp_scope: str
) -> None:
    seen: list[tuple[str, set[str]]] = []

    class Listening(InProcessGrid):
        def _deliver(self, message: Message) -> Message:
            reply = super()._deliver(message)
            for path in (tmp_path / "run" / "hospitals").glob("*/ledger.jsonl"):
                events = unprotected(read_ledger(path).events)
                seen.append((message.metadata.message_type, {event.artefact for event in events}))
            return reply

    changes = {"dp_scope": dp_scope, "num_server_rounds": 1, "diagnostics": True, **PLAIN}
    federate("run", grid=Listening, nodes=simulated_nodes(1), **changes)
    trained = {"diagnostics"} | ({"updates"} if dp_scope == "none" else set())
    assert [(kind, found) for kind, found in seen if kind in ("train", "query.encodings")] == [
        ("train", trained),
        ("query.encodings", trained | {"encodings", "labels"}),
    ]


def test_the_loss_of_a_round_that_the_run_does_not_have_is_declined(federate: Callable[..., Run]) -> None:
    """Otherwise a server could ask for as many losses as it likes; each that is given is an event."""
    answers = []

    class AsksMore(InProcessGrid):
        def _deliver(self, message: Message) -> Message:
            if message.metadata.message_type == "evaluate":
                message.content["config"]["server-round"] = 77
                answers.append(set(super()._deliver(message).content))
                message.content["config"]["server-round"] = 1
            return super()._deliver(message)

    run = federate("run", grid=AsksMore, nodes=simulated_nodes(1), num_server_rounds=1, diagnostics=True)
    own = read_ledger(run.path / "hospitals" / "hospital-0" / "ledger.jsonl")
    assert [event.round for event in unprotected(own.events)] == [1]
    assert answers == [{"claim"}], "no loss"
