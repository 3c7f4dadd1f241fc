"""`fl-ppae audit-epsilon`: what it prints, what it does not prove, and how it ends."""

import json
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
from commands.command_line import run
from epsilon_audit.canary_runs import scale_noise

from fl_ppae import cli


def arguments(data_file: Path, **changes: str) -> list[str]:
    values = {
        "data-source": "file",
        "data-file": str(data_file),
        "autoencoder": "fc",
        "encoding-size": "16",
        "num-server-rounds": "2",
        "batch-size": "250",
        "min-records": "10",
        "target-epsilon": "1",
    } | {key.replace("_", "-"): value for key, value in changes.items()}
    pairs = [word for key, value in values.items() for word in ("-c", f"{key}={value}")]
    return ["audit-epsilon", "mnist_iid", "--hospitals", "1", "--canaries", "200", *pairs]


def test_the_command_shows_claim_bound_and_what_it_does_not_prove(
    data_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*arguments(data_file)) == cli.OK
    out, err = capsys.readouterr()
    text = " ".join(out.split())
    for words in (
        "hospital-0",
        "file tiny.npz",
        "Not refuted",
        "does not prove",
        "Nothing left this machine",
    ):
        assert words in text
    assert "round 2/2" in err
    assert "warning" not in err


def test_the_command_prints_one_json_document(data_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = (*arguments(data_file, target_epsilon="8"), "--json", "--confidence", "0.9")
    assert run(*command) == cli.OK
    out, err = capsys.readouterr()
    document = json.loads(out)
    assert document["claimed_epsilon"] == pytest.approx(8, rel=0.01)
    assert document["epsilon_lower_bound"] < document["refutable_epsilon"] < 8
    assert (document["records"], document["canaries"], document["confidence"]) == (300, 200, 0.9)
    assert document["formal"] is True
    assert not document["violated"]
    assert "200 canaries refute at most" in err


def test_a_nominal_epsilon_is_called_so(data_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*arguments(data_file, dp_scope="encoder")) == cli.OK
    assert "nominal, not a guarantee" in capsys.readouterr().out


@pytest.mark.parametrize("scope", ["autoencoder", "frozen-decoder"])
def test_the_command_ends_with_1_when_the_claim_is_refuted(
    scope: str, data_file: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    scale_noise(monkeypatch, 0.0)
    assert run(*arguments(data_file, dp_scope=scope)) == 1
    assert "Refuted" in capsys.readouterr().out


def test_without_dp_a_claim_has_to_be_given(data_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*arguments(data_file, dp_scope="none")) == cli.USER_MISTAKE
    assert "--claim" in capsys.readouterr().err
    assert run(*arguments(data_file, dp_scope="none"), "--claim", "1") == 1
    assert "Refuted" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        (("--hospitals", "2", "--hospital", "2"), "--hospital 2: must be from 0 to 1"),
        (("--hospitals", "0"), "--hospitals 0"),
        (("--canaries", "1"), "--canaries 1"),
        (("--confidence", "95"), "--confidence 95"),
        (("--claim", "-1"), "--claim -1"),
        (("-c", "noise-multiplier=1.5", "-c", "target-epsilon=0.01"), "does not last one round"),
        (("-c", "target-delta=0.1"), "1/records"),
    ],
)
def test_a_mistake_is_one_line(
    changed: tuple[str, ...], words: str, data_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*arguments(data_file), *changed) == cli.USER_MISTAKE
    out, err = capsys.readouterr()
    assert words in err
    assert err.count("\n") == 1
    assert not out


def test_gradients_that_do_not_fit_into_memory_are_refused(
    data_file: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=2**20))
    assert run(*arguments(data_file)) == cli.USER_MISTAKE
    assert "fewer --canaries" in capsys.readouterr().err
