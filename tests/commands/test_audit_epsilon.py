"""`fl-ppae audit-epsilon`: what it prints, what it does not prove, and how it ends."""

import json
from pathlib import Path
from typing import Any

import pytest
from commands.command_line import run

from fl_ppae import cli
from fl_ppae.epsilon_audit import updates
from fl_ppae.epsilon_audit.joint_sum import ALL_BUT_ONE
from fl_ppae.hospital import training


def arguments(data_file: Path, **changes: str) -> list[str]:
    values = {
        "data-source": "file",
        "data-file": str(data_file),
        "autoencoder": "fc",
        "encoding-size": "16",
        "num-server-rounds": "2",
        "batch-size": "500",
        "min-records": "10",
        "target-epsilon": "4",
    } | {key.replace("_", "-"): value for key, value in changes.items()}
    pairs = [word for key, value in values.items() for word in ("-c", f"{key}={value}")]
    sizes = ["--hospitals", "1", "--canaries", "3000", "--trainings", "2"]
    return ["audit-epsilon", "mnist_iid", *sizes, *pairs]


def without_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "add_noise", lambda sums, _std, _stream: sums)


def with_outcome(monkeypatch: pytest.MonkeyPatch, **changes: Any) -> None:
    """Skip the trainings: 3 of 4 claimed, each control refuted, with changes."""
    values = {
        "claimed": 4.0,
        "lower_bound": 3.0,
        "largest_possible": 12.0,
        "controls": {updates.NO_NOISE: 9.0, updates.HALF: 5.0},
        "failed": (),
        "right": (9, 40, 70),
        "made": (10, 50, 100),
    }
    finding = updates.Finding(**{**values, **changes})
    found = updates.UpdateFinding(finding, 1.0, {"fresh noise": "passed"})
    monkeypatch.setattr(updates, "audit_updates", lambda *_, **__: found)


def test_the_command_shows_claim_bound_controls_and_what_it_does_not_prove(
    data_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*arguments(data_file)) == cli.OK
    out, err = capsys.readouterr()
    text = " ".join(out.split())
    for words in ("hospital-0", "file tiny.npz", "Consistent", "proves nothing", "Nothing left this machine"):
        assert words in text
    for words in ("control, no noise", "half the noise", "noise for one round only", "test, fresh noise"):
        assert words in text
    assert "round 4/4" in err
    assert "round 4/4" in err


def test_the_command_prints_one_json_document(
    data_file: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    without_noise(monkeypatch)
    assert run(*arguments(data_file), "--json", "--confidence", "0.9") == 1
    document = json.loads(capsys.readouterr().out)
    assert document["claimed"] == pytest.approx(4, rel=0.01)
    assert document["claimed"] < document["lower_bound"] <= document["largest_possible"]
    assert document["verdict"] == "refuted"
    assert set(document["controls"].values()) == {"refuted"}
    assert (document["records"], document["canaries"], document["confidence"]) == (300, 3000, 0.9)
    assert document["formal"] is True


@pytest.mark.parametrize(
    ("changes", "verdict", "words", "code"),
    [
        ({}, "consistent", "each planted fault was found", 0),
        ({"lower_bound": 4.1}, "refuted", "above the 4.00 that is claimed, which is a bug", 1),
        ({"failed": ("fresh noise: two releases",)}, "refuted", "Refuted: fresh noise: two releases", 1),
        ({"controls": {updates.HALF: 3.9}}, "cannot-tell", "half the noise did not refute it either", 0),
        ({"largest_possible": 3.5}, "cannot-tell", "perfect guesses would have shown only 3.50", 0),
    ],
)
def test_each_verdict_has_its_words_and_exit_code(
    changes: dict[str, Any],
    verdict: str,
    words: str,
    code: int,
    data_file: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with_outcome(monkeypatch, **changes)
    assert run(*arguments(data_file), "--json") == code
    document = json.loads(capsys.readouterr().out)
    assert document["verdict"] == verdict
    assert words in document["explanation"]


def test_a_nominal_epsilon_is_called_so(
    data_file: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with_outcome(monkeypatch)
    assert run(*arguments(data_file, dp_scope="encoder")) == cli.OK
    out = " ".join(capsys.readouterr().out.split())
    assert "nominal, not a guarantee" in out
    assert "the nominal claim is 4.00" in out


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        (("--hospitals", "2", "--hospital", "2"), "--hospital 2: must be from 0 to 1"),
        (("--hospitals", "0"), "--hospitals 0"),
        (("--canaries", "19"), "--canaries 19: must be from 20 to 6472"),
        (("--canaries", "6473"), "--canaries 6473: must be from 20 to 6472"),
        (("--trainings", "0"), "--trainings 0"),
        (("--confidence", "95"), "--confidence 95"),
        (("--claim", "-1"), "--claim -1"),
        (("-c", "dp-scope=none"), "dp-scope none adds no noise"),
        (("--artefact", "encodings"), "set encoding-noise-epsilon, and share = encodings"),
        (("--artefact", "labels", "-c", "share=encodings"), "set label-epsilon, and share = encodings"),
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


@pytest.mark.parametrize("artefact", ["encodings", "labels"])
def test_encodings_and_labels_are_audited_by_name(
    artefact: str, data_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    keys = {"share": "encodings", "encoding-noise-epsilon": "4", "label-epsilon": "2"}
    noised = arguments(data_file, **keys)
    assert run(*noised, "--artefact", artefact, "--json") == cli.OK
    out, err = capsys.readouterr()
    document = json.loads(out)
    assert document["artefact"] == artefact
    assert document["claimed"] == pytest.approx({"encodings": 4, "labels": 2}[artefact], rel=0.01)
    assert document["lower_bound"] < document["claimed"]
    assert document["verdict"] == "consistent"
    assert set(document["controls"].values()) == {"refuted"}
    assert "now the bounds" in err


JOINT = {
    "dp-scope": "frozen-decoder",
    "local-steps": "1",
    "protection": "secagg",
    "noise": "joint",
    "sample-rate": "1.0",
    "honest-hospitals": "2",
}


def test_of_joint_noise_the_sum_of_the_honest_hospitals_is_audited(
    data_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*arguments(data_file, **JOINT), "--hospitals", "3", "--json") == cli.OK
    document = json.loads(capsys.readouterr().out)
    assert document["claimed"] == pytest.approx(4, rel=0.01), "target-epsilon"
    assert document["lower_bound"] < document["claimed"]
    assert document["controls"]["no noise"] == document["controls"][ALL_BUT_ONE] == "refuted"
    assert (document["figure"], document["lower_bound_from_weights"]) == ("joint", None)
    assert document["assumes"] == "at least 2 hospitals in a round are honest"
    assert f"the claim is 4.00 if {document['assumes']}" in document["explanation"]
    assert "unmasks the sum of 2 honest hospitals" in " ".join(document["notes"])


def test_of_joint_noise_a_hospitals_own_share_is_audited_on_request(
    data_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ["--hospitals", "3", "--figure", "alone"]
    assert run(*arguments(data_file, **JOINT), *asked, "--json") == cli.OK
    document = json.loads(capsys.readouterr().out)
    assert document["claimed"] > 4.5, "the epsilon if all others collude, not target-epsilon"
    assert document["lower_bound"] < document["claimed"]
    assert document["controls"]["no noise"] == "refuted" and ALL_BUT_ONE not in document["controls"]
    assert (document["figure"], document["assumes"]) == ("alone", "all others collude")
    assert "All other hospitals collude" in " ".join(document["notes"])


def test_which_figure_is_asked_for_joint_noise_alone(
    data_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*arguments(data_file), "--figure", "joint") == cli.USER_MISTAKE
    assert 'is for the updates of a run with noise = "joint"' in capsys.readouterr().err
