"""`fl-ppae ledger`: what an operator sees, opens and answers for."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from commands.command_line import run
from support import write_npz

from fl_ppae.hospital.ledgers import MAIN, Site, site_of
from fl_ppae.privacy.accounting import replace_one_epsilon
from fl_ppae.privacy.events import Declared, PoissonGaussian
from fl_ppae.privacy.honest import assuming
from fl_ppae.privacy.ledger import Ledger
from fl_ppae.privacy.terms import Terms

TERMS = Terms("run-a", "autoencoder", 100, 1.5, 0.25, 4, 1.0, 8.0, 1e-3)
EVENT = PoissonGaussian(1.5, 0.25, 4, 1)


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    """A site in the default directories, whose main ledger has paid once."""
    monkeypatch.setenv("FL_PPAE_HOME", str(tmp_path / "home"))
    site = site_of(None, None)
    pay(site)
    return site


def pay(site: Site, ledger: str = MAIN, terms: Terms = TERMS) -> Ledger:
    state = site.state_of(ledger)
    with state.lock():
        return state.open_ledger(terms).announce(EVENT)


def test_ledgers_are_listed_with_what_they_cost_and_what_is_wrong(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("ledger", "show", "--delta", "1e-4", "--json") == 0
    (row,) = json.loads(capsys.readouterr().out)["ledgers"]
    assert (row["ledger"], row["events"], row["problem"]) == (MAIN, 1, "")
    assert row["epsilon_total"] == replace_one_epsilon([EVENT], 1e-4)
    site.state_of(MAIN).ledger_path.unlink()
    assert run("ledger", "show") == 0
    out = capsys.readouterr().out
    assert "is missing" in out
    assert "in order" not in out


def test_a_ledger_with_joint_noise_is_listed_with_what_its_total_assumes(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    joint = replace(TERMS, run="run-b", honest=3)
    state = site.state_of(MAIN)
    with state.lock():
        state.open_ledger(joint).announce(*joint.round_events(1))
    assert run("ledger", "show", "--delta", "1e-4", "--json") == 0
    (row,) = json.loads(capsys.readouterr().out)["ledgers"]
    events = (EVENT, *joint.round_events(1))
    assert row["epsilon_total"] == replace_one_epsilon(events, 1e-4)
    assert row["epsilon_alone"] == replace_one_epsilon(assuming(events, 1), 1e-4) > row["epsilon_total"]
    assert row["epsilon_basis"] == "formal if 3 are honest"
    assert run("ledger", "show", "--delta", "1e-4") == 0
    out = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert f"{row['epsilon_total']:.2f} if 3 hospitals are honest" in out


def test_a_further_ledger_is_opened_for_new_records_only(
    site: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    new = str(write_npz(tmp_path / "new.npz", 130))
    assert run("ledger", "open", "second", "--data-file", new, "--dataset", "mnist", "--json") == 0
    said = capsys.readouterr()
    assert json.loads(said.out) == {"ledger": "second", "records": 190}
    assert "is your declaration" in said.err
    assert site.ledgers == (MAIN, "second")
    assert run("ledger", "open", "third", "--data-file", new, "--dataset", "mnist") == 2
    assert "190 records of new.npz belong to another ledger of this site, second" in capsys.readouterr().err
    assert run("ledger", "open", "../up", "--data-file", new, "--dataset", "mnist") == 2
    assert "can't name a ledger" in capsys.readouterr().err
    assert site.ledgers == (MAIN, "second")


@pytest.mark.parametrize("damage", ["missing", "shorter", "unreadable", "no counter", "older"])
def test_an_accepted_loss_is_charged_in_full_and_never_starts_at_zero(
    site: Site, damage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    state = site.state_of(MAIN)
    path, kept = state.ledger_path, (EVENT,)
    if damage == "missing":
        path.unlink()
        kept = ()
    elif damage == "shorter":
        path.write_bytes(path.read_bytes().splitlines(keepends=True)[0])
        kept = ()
    elif damage == "unreadable":
        path.write_bytes(path.read_bytes().replace(b'"steps": 4', b'"steps": 1'))
        kept = ()
    elif damage == "no counter":
        assert state.counter_path is not None
        state.counter_path.unlink()
    else:
        old = site.state / f"{1:032x}" / path.name
        old.parent.mkdir()
        old.write_text("{}\n")
    assert run("ledger", "accept-loss", MAIN, "--max-epsilon", "8", "--delta", "1e-6", "--json") == 0
    assert json.loads(capsys.readouterr().out) == {"ledger": MAIN, "epsilon": 8.0, "delta": 1e-6}
    paid = pay(site, terms=Terms("run-b", *list(vars(TERMS).values())[1:]))
    assert paid.events == (*kept, Declared(8.0, 1e-6), EVENT)
    if damage == "unreadable":
        assert list(path.parent.glob("ledger.jsonl.unreadable-*")), "nothing is thrown away"
    assert run("ledger", "accept-loss", MAIN, "--max-epsilon", "8", "--delta", "1e-6") == 2
    assert "is in order: there is no loss to accept" in capsys.readouterr().err


@pytest.mark.parametrize("wrong", [("0", "1e-6"), ("-1", "1e-6"), ("inf", "1e-6"), ("8", "0"), ("8", "1")])
def test_a_loss_can_not_be_accepted_for_nothing(
    site: Site, wrong: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    site.state_of(MAIN).ledger_path.unlink()
    loss = ("ledger", "accept-loss", MAIN, "--max-epsilon", wrong[0], "--delta", wrong[1])
    assert run(*loss) == 2
    assert capsys.readouterr().err.startswith("fl-ppae: --max-epsilon or --delta: ")
    assert not site.state_of(MAIN).ledger_path.exists()
