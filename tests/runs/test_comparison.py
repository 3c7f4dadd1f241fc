"""Comparing runs: which keys differ, and when a comparison is invalid."""

import json
from pathlib import Path
from typing import Any

import pytest

from fl_ppae import cli
from fl_ppae.config import RunConfig
from fl_ppae.files import write_json
from fl_ppae.runs.comparison import compare, differing_keys
from fl_ppae.runs.stored import StoredRun, open_run

REAL = {"label": "MNIST (official files)", "md5": "abc"}


def stored(
    path: Path, source: dict[str, str] = REAL, *, formal: bool = True, accuracy: float = 0.5, **keys: Any
) -> StoredRun:
    values = RunConfig.from_flat({key.replace("_", "-"): value for key, value in keys.items()}).to_flat()
    values["output-dir"] = str(path)
    write_json(
        path / "config.json", {"simulation": "x", "hospitals": 3, "config": values, "data_source": source}
    )
    summary = {
        "status": "completed",
        "accuracy": accuracy,
        "auc": 0.9,
        "reconstruction_loss": 0.01,
        "epsilon_max": 7.5,
    }
    summary |= {"guarantees": {"updates": {"formal": formal}}, "formal": formal, "leakage": {"cosine": 0.2}}
    write_json(path / "summary.json", summary)
    return open_run(path)


def test_only_keys_that_differ_are_named_with_the_value_of_each_run(tmp_path: Path) -> None:
    runs = [
        stored(tmp_path / "a"),
        stored(tmp_path / "b", target_epsilon=3.0, seed=7),
        stored(tmp_path / "c", seed=7),
    ]
    assert differing_keys(runs) == {"target-epsilon": [8.0, 3.0, 8.0], "seed": [42, 7, 7]}
    assert differing_keys([runs[0], stored(tmp_path / "d")]) == {}


def test_a_key_that_an_older_run_did_not_have_is_a_difference(tmp_path: Path) -> None:
    old = stored(tmp_path / "old")
    del old.values["precision"]
    assert differing_keys([old, stored(tmp_path / "new")]) == {"precision": [None, "auto"]}


def test_comparable_runs_raise_no_warning(tmp_path: Path) -> None:
    assert compare([stored(tmp_path / "a"), stored(tmp_path / "b")])["warnings"] == []


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        (
            {"source": {"label": "MNIST (official files)", "md5": "xyz"}},
            "not comparable: the runs used different data",
        ),
        ({"source": {"label": "stand-in for MNIST", "md5": "abc"}}, "stand-in for MNIST - NOT REAL DATA"),
        ({"formal": False}, "nominal, not a guarantee"),
        ({"target_delta": 1e-3}, "different deltas"),
    ],
)
def test_an_invalid_comparison_raises_a_warning(changed: dict[str, Any], words: str, tmp_path: Path) -> None:
    runs = [stored(tmp_path / "a"), stored(tmp_path / "b", **changed)]
    assert any(words in warning for warning in compare(runs)["warnings"])


def test_audits_are_shown_side_by_side(tmp_path: Path) -> None:
    runs = [stored(tmp_path / "a"), stored(tmp_path / "b"), stored(tmp_path / "c")]

    def row(attack: str, value: float, variant: str) -> dict[str, Any]:
        row = {"attack": attack, "threat_model": "server-split", "metric": "ssim", "value": value}
        return row | {"low": None, "high": None, "variant": variant, "n": 5}

    first = [
        row("inversion-black-box", 0.9, "linear"),
        row("membership", 0.5, "a"),
        row("membership", 0.6, "b"),
    ]
    write_json(tmp_path / "a" / "audit" / "results.json", {"results": first})
    write_json(
        tmp_path / "b" / "audit" / "results.json",
        {"results": [row("inversion-black-box", 0.8, "convolutional")]},
    )
    found = {(one["attack"], one["metric"]): one["values"] for one in compare(runs)["audit"]}
    values = {key: [value and value["value"] for value in held] for key, held in found.items()}
    assert values == {
        ("inversion-black-box", "ssim"): [0.9, 0.8, None],
        ("membership", "ssim (a)"): [0.5, None, None],
        ("membership", "ssim (b)"): [0.6, None, None],
    }


def test_the_command_shows_both_and_json_is_one_document(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stored(tmp_path / "a", accuracy=0.1234)
    stored(tmp_path / "b", {"label": "stand-in for MNIST", "md5": "s"}, formal=False, target_epsilon=3.0)
    paths = [str(tmp_path / "a"), str(tmp_path / "b")]
    assert cli.main(["compare", *paths]) == cli.OK
    out, err = capsys.readouterr()
    for words in ("0.1234", "0.5000", "7.50 nominal, not a guarantee", "target-epsilon", "NOT REAL DATA"):
        assert words in " ".join(out.split())
    assert "warning: not comparable" in err
    assert cli.main(["compare", *paths, "--json"]) == cli.OK
    document = json.loads(capsys.readouterr().out)
    assert document["differing_keys"] == {"target-epsilon": [8.0, 3.0]}
    assert [run["epsilon_formal"] for run in document["runs"]] == [True, False]


@pytest.mark.parametrize("names", [["a"], ["a", "a"]])
def test_one_run_cannot_be_compared(
    names: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stored(tmp_path / "a")
    assert cli.main(["compare", *(str(tmp_path / name) for name in names)]) == cli.USER_MISTAKE
    assert "at least two different runs" in capsys.readouterr().err
