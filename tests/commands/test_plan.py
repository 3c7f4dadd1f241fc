"""`fl-ppae plan`: shows each hospital, and marks nominal epsilons."""

import json

import pytest
from commands.command_line import STAND_IN, run

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
