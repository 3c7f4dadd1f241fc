"""A hospital whose claim was refuted has no formal epsilon in any file, table or page."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from flwr.app import Message
from support import Run, simulated_nodes

from fl_ppae import cli
from fl_ppae.simulation.in_process import InProcessGrid

CHEAT, CLAIMED = "hospital-1", 3.25
TEXTS = ("privacy_card.md", "report.html")


class Cheating(InProcessGrid):
    """`hospital-1` keeps to the plan in round 1 and claims another epsilon in round 2."""

    def _deliver(self, message: Message) -> Message:
        reply = super()._deliver(message)
        second = message.metadata.message_type == "train" and message.content["config"]["server-round"] == 2
        if second and reply.content["claim"]["hospital"] == CHEAT:
            reply.content["claim"]["epsilon"] = CLAIMED
        return reply


@pytest.fixture
def cheated(federate: Callable[..., Run]) -> Run:
    return federate("cheated", grid=Cheating, nodes=simulated_nodes(2))


def test_the_larger_figure_is_marked_refuted_in_the_summary_and_the_run_is_not_formal(
    cheated: Run, federate: Callable[..., Run]
) -> None:
    summary = cheated.summary
    assert summary["epsilon"]["hospital-0"] < CLAIMED
    assert summary["epsilon"][CHEAT] == summary["epsilon_max"] == CLAIMED
    assert summary["epsilon_basis"] == {"hospital-0": "formal", CHEAT: "refuted"}
    assert summary["epsilon_max_basis"] == "refuted"
    assert not summary["formal"]
    assert "it claims epsilon 3.250" in summary["refuted"][CHEAT]
    left = {name for name, row in summary["guarantees"].items() if row["formal"]}
    assert left == {"encodings", "labels"}, "only what never left"
    honest = federate("honest", nodes=simulated_nodes(2)).summary
    assert honest["formal"]
    assert (honest["refuted"], honest["epsilon_max_basis"]) == ({}, "formal")


def test_no_file_of_the_run_has_a_formal_figure_for_it(federate: Callable[..., Run]) -> None:
    cheated = federate("cheated", pages=True, grid=Cheating, nodes=simulated_nodes(2))
    rows = cheated.rows("hospitals.csv")
    assert {row["epsilon_basis"] for row in rows if row["hospital"] == CHEAT} == {"refuted"}, (
        "also of round 1"
    )
    assert {row["epsilon_basis"] for row in rows if row["hospital"] != CHEAT} == {"formal"}
    assert {row["epsilon_basis"] for row in cheated.rows("rounds.csv")} == {"refuted"}
    account = cheated.ledger["hospitals"][CHEAT]
    assert (account["formal"], account["basis"]) == (False, "refuted")
    assert "it claims epsilon" in account["refuted"]
    assert cheated.ledger["hospitals"]["hospital-0"]["formal"]
    for file in TEXTS:
        text = (cheated.path / file).read_text()
        marked(text, file)
        assert "claim was refuted" in text
        assert "has a formal guarantee" not in text
    (line,) = [
        line
        for line in (cheated.path / "privacy_card.md").read_text().splitlines()
        if line.startswith(f"| {CHEAT} |")
    ]
    assert line.count("refuted, not a guarantee") == 4


def marked(text: str, where: str) -> None:
    """Each place that shows the claimed number says that it was refuted."""
    words = " ".join(re.sub("[│┃]|<[^>]*>", " ", text).split())
    places = [found.start() for found in re.finditer(f"{CLAIMED:.2f}", words)]
    assert places, where
    for place in places:
        around = words[max(0, place - 80) : place + 80]
        assert "refuted" in around or "it claims epsilon" in around, (where, around)


@pytest.mark.parametrize("command", [["show"], ["runs"], ["compare"]])
def test_no_command_shows_it_as_formal(
    cheated: Run,
    federate: Callable[..., Run],
    command: list[str],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", "400")
    monkeypatch.setenv("FL_PPAE_HOME", str(cheated.path.parent))
    names: list[str] = [str(cheated.path)] if command != ["runs"] else []
    if command == ["compare"]:
        names.append(str(federate("honest", nodes=simulated_nodes(2)).path))
    if command == ["runs"]:
        (cheated.path.parent / "runs").mkdir()
        (cheated.path.parent / "runs" / "cheated").symlink_to(cheated.path)
    assert cli.main([*command, *names]) == cli.OK
    out, err = capsys.readouterr()
    marked(out, command[0])
    if command == ["compare"]:
        assert "epsilon is refuted, not a guarantee" in err
    assert cli.main([*command, *names, "--json"]) == cli.OK
    document = json.loads(capsys.readouterr().out)
    for one in bases(document):
        assert one.get("epsilon_max") != CLAIMED or "refuted" in one.values(), one


def bases(document: Any) -> list[dict[str, Any]]:
    """Every object of a JSON document."""
    if isinstance(document, list):
        return [found for one in document for found in bases(one)]
    if isinstance(document, dict):
        return [document, *(found for one in document.values() for found in bases(one))]
    return []


@pytest.mark.parametrize("lie", ["events", "no events", "unreadable"])
def test_an_upload_with_a_false_claim_is_refuted_too(federate: Callable[..., Run], lie: str) -> None:
    class Lying(InProcessGrid):
        def _deliver(self, message: Message) -> Message:
            reply = super()._deliver(message)
            if message.metadata.message_type == "query.encodings":
                claim = reply.content["claim"]
                if claim["hospital"] == CHEAT:
                    events = json.loads(str(claim["events"]))
                    false = [{**event, "round": 9} if "part" in event else event for event in events]
                    claim["events"] = {
                        "events": json.dumps([*false, *false]),
                        "no events": json.dumps(events[:1]),
                        "unreadable": "?",
                    }[lie]
            return reply

    noised = {"encoding_noise_epsilon": 4.0, "label_epsilon": 2.0, "projection_size": 5}
    run = federate("run", grid=Lying, nodes=simulated_nodes(2), share="updates+encodings", **noised)
    assert set(run.summary["refuted"]) == {CHEAT}
    assert not run.summary["formal"]
    assert {row["epsilon_basis"] for row in run.rows("hospitals.csv") if row["hospital"] == CHEAT} == {
        "refuted"
    }
    assert "claim was refuted" in (Path(run.path) / "privacy_card.md").read_text()


def test_a_malformed_update_with_a_true_claim_excludes_but_refutes_nothing(
    federate: Callable[..., Run],
) -> None:
    class Broken(InProcessGrid):
        def _deliver(self, message: Message) -> Message:
            reply = super()._deliver(message)
            if message.metadata.message_type == "train" and reply.content["claim"]["hospital"] == CHEAT:
                del reply.content["arrays"]
            return reply

    run = federate("run", grid=Broken, nodes=simulated_nodes(2))
    assert {row["status"] for row in run.rows("hospitals.csv") if row["hospital"] == CHEAT} == {"excluded"}
    assert run.summary["refuted"] == {}
    assert run.summary["epsilon_basis"][CHEAT] == "formal", "what it paid for is what it sent"
