"""`fl-ppae plan`: shows each hospital, and marks nominal epsilons."""

import json
from pathlib import Path

import numpy as np
import pytest
from commands.command_line import STAND_IN, run
from support import write_npz

from fl_ppae import cli


def test_plan_shows_each_hospital_and_says_what_is_nominal(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("plan", *STAND_IN, "--json", "-c", "batch-size=1500", "-c", "dp-scope=encoder") == cli.OK
    out, err = capsys.readouterr()
    plan = json.loads(out)
    assert [row["name"] for row in plan["hospitals"]] == ["hospital-0", "hospital-1"]
    assert all(row["epsilon_total"] <= 8 for row in plan["hospitals"])
    assert all(row["epsilon_total_shared_noise"] > 0 for row in plan["hospitals"])
    assert not plan["formal"]
    assert "nominal, not a guarantee" in err
    assert "sample rate 0.75" in err

    assert run("plan", *STAND_IN, "-c", "dp-scope=encoder") == cli.OK
    out, _ = capsys.readouterr()
    assert "STAND-IN FOR PATHMNIST, NOT REAL DATA" in out
    assert "nominal" in out


JOINT = {
    "noise": "joint",
    "protection": "secagg",
    "local-steps": 1,
    "sample-rate": 0.2,
    "honest-hospitals": 3,
    "min-hospitals": 4,
    "dp-scope": "frozen-decoder",
    "target-epsilon": 2,
}


def test_plan_shows_what_joint_noise_costs_with_and_without_honest_hospitals(
    capsys: pytest.CaptureFixture[str],
) -> None:
    pairs = [word for key, value in JOINT.items() for word in ("-c", f"{key}={value}")]
    five = ("pathmnist_iid", "--hospitals", "5", "-c", "data-source=stand-in")
    assert run("plan", *five, *pairs, "--json") == cli.OK
    rows = json.loads(capsys.readouterr().out)["hospitals"]
    assert len({(row["noise_multiplier"], row["sample_rate"], row["steps_per_round"]) for row in rows}) == 1
    for row in rows:
        assert row["epsilon_basis"] == "formal if 3 are honest"
        assert row["epsilon_total"] <= 2 < row["epsilon_alone"]
    assert run("plan", *five, *pairs) == cli.OK
    out = capsys.readouterr().out
    assert out.count("if 3 hospitals are honest;") == out.count("if all others collude") == 5


def test_plan_counts_repeats_and_prices_them_as_a_group(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arrays = dict(np.load(write_npz(tmp_path / "base.npz", 300)))
    np.savez(tmp_path / "once.npz", **arrays)
    arrays["x_train"][::60] = arrays["x_train"][0]  # five records, of which some may become the server's
    np.savez(tmp_path / "often.npz", **arrays)
    plans, said = {}, {}
    for name in ("once", "often"):
        keys = [f"data-file={tmp_path / name}.npz", "data-source=file", "min-records=10", "target-delta=1e-3"]
        overrides = [word for key in keys for word in ("-c", key)]
        assert run("plan", "mnist_iid", "--hospitals", "2", *overrides, "--json") == cli.OK
        out, said[name] = capsys.readouterr()
        plans[name] = json.loads(out)
    (cost,) = plans["often"]["repeated_records"]
    assert cost["epsilon"] > max(row["epsilon_total"] for row in plans["often"]["hospitals"])
    assert "train records repeat an earlier one" in said["often"]
    assert f"up to epsilon {cost['epsilon']:.2f}" in " ".join(said["often"].split())
    assert plans["once"]["repeated_records"] == []
    assert plans["once"]["data_findings"]["in_words"] == []
    assert "several records" not in said["once"]
