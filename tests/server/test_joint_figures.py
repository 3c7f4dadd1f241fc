"""A run with joint noise shows no epsilon without what it assumes, in any file, table or page."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from reporting.html_page import text_of
from support import SMALL, Run, quick_runs, simulated_nodes, write_npz

from fl_ppae import cli, client_app, server_app
from fl_ppae.config import RunConfig
from fl_ppae.files import write_json
from fl_ppae.privacy.accounting import epsilon, epsilon_alone, replace_one_epsilon
from fl_ppae.privacy.events import JointGaussian, from_dict, trained
from fl_ppae.privacy.honest import ALONE, assuming
from fl_ppae.simulation.in_process import InProcessGrid

HONEST = 2
ASSUMED, ALONE_WORDS = (f"{HONEST} hospitals", "all others collude")
JOINT = {
    "noise": "joint",
    "protection": "secagg",
    "local-steps": 1,
    "sample-rate": 0.25,
    "honest-hospitals": HONEST,
    "dp-scope": "frozen-decoder",
    "noise-multiplier": 1.5,
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of three hospitals."""
    folder = tmp_path_factory.mktemp("joint")
    values = SMALL | JOINT | {"data-file": str(write_npz(folder / "tiny.npz"))}
    config = RunConfig.from_flat(values | {"output-dir": str(folder / "run")})
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FL_PPAE_HOME", str(folder / "home"))
        quick_runs(patch)
        server_app.serve(InProcessGrid(client_app.app, config.to_flat(), simulated_nodes(3)), config, "tiny")
    return folder / "run"


@pytest.fixture
def joint(finished: Path, tmp_path: Path) -> Run:
    """A copy of that run."""
    shutil.copytree(finished, tmp_path / "joint")
    return Run(tmp_path / "joint")


def test_every_file_has_both_figures_and_the_assumption(joint: Run) -> None:
    summary, basis = joint.summary, f"formal if {HONEST} are honest"
    account = joint.ledger["hospitals"]["hospital-0"]
    events = tuple(from_dict(row) for row in account["events"])
    assert events == tuple(JointGaussian(1.5, HONEST, 0.25, 1, number) for number in (1, 2))
    with_others, alone = epsilon(trained(events), 1e-3).spent, epsilon_alone(trained(events), 1e-3)
    assert alone > 1.2 * with_others, "the control: they differ"
    assert summary["epsilon"]["hospital-0"] == summary["epsilon_max"] == with_others
    assert summary["epsilon_alone"]["hospital-0"] == summary["epsilon_alone_max"] == alone
    assert set(summary["epsilon_basis"].values()) == {summary["epsilon_max_basis"], basis} == {basis}
    assert summary["formal"]
    for name in ("updates", "classifier"):
        promised = summary["guarantees"][name]
        assert (promised["epsilon"], promised["epsilon_alone"], promised["basis"]) == (
            with_others,
            alone,
            basis,
        )
    total = summary["guarantees"]["total"]
    assert (total["basis"], total["formal"]) == (basis, True)
    assert total["epsilon_alone"] == replace_one_epsilon(assuming(events, ALONE), 1e-3) > total["epsilon"]
    assert (account["formal"], account["basis"], account["epsilon"]["alone"]) == (True, basis, alone)
    rows = joint.rows("hospitals.csv")
    assert {row["epsilon_basis"] for row in (*rows, *joint.rows("rounds.csv"))} == {basis}
    assert float(rows[-1]["epsilon_alone"]) == pytest.approx(alone, rel=1e-4)


def numbers_of(run: Run) -> list[float]:
    """Every epsilon of the run under its assumption."""
    events = [from_dict(row) for row in run.ledger["hospitals"]["hospital-0"]["events"]]
    total = run.summary["guarantees"]["total"]["epsilon"]
    spent = epsilon(trained(events), 1e-3)
    return [spent.prv, spent.pld, total, *(float(row["epsilon"]) for row in run.rows("hospitals.csv"))]


def all_assumed(text: str, run: Run, where: str, before: int = 0) -> None:
    """Each place that shows one of the numbers says on how many honest hospitals it rests.

    `before`: how many characters before the number may do so, as the axis of a chart does.
    """
    words = " ".join(re.sub("[│┃|]|<[^>]*>", " ", text).split())
    written = {f"{number:.{count}f}" for number in numbers_of(run) for count in (2, 3)}
    places = [found for one in written for found in re.finditer(rf"(?<![\d.]){re.escape(one)}(?!\d)", words)]
    assert places, where
    for place in places:
        around = words[max(0, place.start() - before) : place.end() + 70]
        assert ASSUMED in around, (where, around)


@pytest.mark.parametrize("file", ["privacy_card.md", "report.html"])
def test_no_page_shows_an_epsilon_without_it(joint: Run, file: str) -> None:
    page = joint.path / file
    text = text_of(page).split("Seconds by phase")[0] if file.endswith("html") else page.read_text()
    all_assumed(text, joint, file, before=300 if file.endswith("html") else 0)
    assert ALONE_WORDS in text
    alone = joint.summary["epsilon_alone_max"]
    assert f"{alone:.2f} {ALONE_WORDS}" in text or f"{alone:.3f} if {ALONE_WORDS}" in text


def test_the_card_says_what_is_assumed_and_that_dropouts_change_nothing(joint: Run) -> None:
    card = (joint.path / "privacy_card.md").read_text()
    assert f"as long as {HONEST} hospitals in a round don't" in card
    assert f"They hold if at least {HONEST} hospitals in each round" in card
    assert "a hospital that drops out lowers no charge" in card
    assert f"at least 3 of 3. What a single hospital sends is masked, as long as {HONEST} of them" in card


@pytest.mark.parametrize("command", ["show", "runs", "compare"])
def test_no_command_shows_one_without_it(
    joint: Run, command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "400")
    names = [str(joint.path)]
    if command == "compare":
        own = shutil.copytree(joint.path, joint.path.with_name("own"))
        without = {"epsilon_max": 5.5, "epsilon_max_basis": "formal", "epsilon_alone_max": None}
        write_json(own / "summary.json", joint.summary | without)
        names.append(str(own))
    if command == "runs":
        monkeypatch.setenv("FL_PPAE_HOME", str(joint.path.parent))
        (joint.path.parent / "runs").mkdir()
        (joint.path.parent / "runs" / "joint").symlink_to(joint.path)
        names = []
    assert cli.main([command, *names]) == cli.OK
    out, err = capsys.readouterr()
    all_assumed(out, joint, command)
    assert ALONE_WORDS in out
    if command == "compare":
        assert "different numbers of honest hospitals are not comparable" in " ".join(err.split())
    assert cli.main([command, *names, "--json"]) == cli.OK
    for one in objects(json.loads(capsys.readouterr().out)):
        if one.get("epsilon_max") == joint.summary["epsilon_max"]:
            assert f"formal if {HONEST} are honest" in one.values(), one


def test_a_narrow_terminal_cuts_nothing_off(
    joint: Run, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert cli.main(["show", str(joint.path)]) == cli.OK
    out = capsys.readouterr().out
    table = out.split("Privacy budgets")[1].split("Guarantee of each")[0]
    assert table.count(f"if {HONEST} hospitals are honest;") == table.count("if all others collude") == 3


def objects(document: Any) -> list[dict[str, Any]]:
    """Every object of a JSON document."""
    if isinstance(document, list):
        return [found for one in document for found in objects(one)]
    if isinstance(document, dict):
        return [document, *(found for one in document.values() for found in objects(one))]
    return []


@pytest.mark.parametrize(("key", "ceiling"), [("max-epsilon", 0.8), ("max-epsilon-alone", 1.2)])
def test_each_ceiling_keeps_a_hospital_out_of_a_run_that_goes_on_without_it(
    federate: Callable[..., Run], key: str, ceiling: float
) -> None:
    """The run costs epsilon 0.91, and 1.70 if all others collude."""
    nodes = simulated_nodes(3)
    nodes[2] |= {"max-epsilon": 10.0, "max-epsilon-alone": 10.0, key: ceiling}
    keys = {name.replace("-", "_"): value for name, value in JOINT.items()}
    run = federate("run", nodes=nodes, **(keys | {"min_hospitals": 2, "target_epsilon": 1.0}))
    last = {row["hospital"]: row for row in run.rows("hospitals.csv")}
    assert [last[f"hospital-{number}"]["status"] for number in range(3)] == ["trained", "trained", "stopped"]
    assert re.search(rf"this hospital('s| has) {key} = {ceiling}", last["hospital-2"]["reason"])
    assert run.summary["epsilon"]["hospital-2"] == 0
