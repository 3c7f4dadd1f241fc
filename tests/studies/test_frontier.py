import json
import re
from pathlib import Path
from typing import Any

import pytest
from studies.study_tables import BASELINE, NO_DP, NOMINAL, study_of, table_of

from fl_ppae.cli import main
from fl_ppae.studies.frontier import frontier
from fl_ppae.studies.report import write_study_report
from fl_ppae.studies.summary import summarise


def case(name: str, accuracy: float | None, epsilon: float | None, ssim: float | None, **values: Any) -> dict:
    """One configuration, named by its `hospitals` column."""
    return {"hospitals": name, "accuracy": accuracy, "epsilon": epsilon, "inversion_ssim": ssim, **values}


# Name, accuracy, epsilon and SSIM, and whether the configuration is on the frontier.
CASES = {
    "11": (case("11", 0.80, 8.0, 0.50), True),
    "12": (case("12", 0.80, 8.0, 0.50), True),  # an exact tie
    "13": (case("13", 0.80, 8.0, 0.51), False),  # leaks more
    "14": (case("14", 0.70, 1.0, 0.50), True),  # more private
    "15": (case("15", 0.60, 8.0, 0.40), True),  # leaks less
    "16": (case("16", None, 0.1, 0.10), False),  # missing values are not ranked
    "17": (case("17", 0.99, 0.1, None), False),
    "21": (case("21", 0.80, 0.5, 0.50, **NOMINAL), False),  # dominated by a formal epsilon of 8
    "22": (case("22", 0.85, 0.5, 0.50, **NOMINAL), False),  # dominated by no DP, which is more accurate
    "23": (case("23", 0.50, 0.5, 0.30, **NOMINAL), True),  # leaks least
    "24": (case("24", 0.50, 9.0, 0.30, **NOMINAL), True),  # a tie: neither epsilon is a guarantee
    "31": (case("31", 0.90, None, 0.50) | NO_DP, True),  # the most accurate
    "32": (case("32", 0.95, None, 0.20) | BASELINE, False),  # a baseline is not ranked and dominates nothing
    "41": (case("41", 0.95, 8.0, 0.10, dataset="cifar10"), True),  # another data set
}
ROWS = [row for row, _ in CASES.values()]
FRONTIER = {name for name, (_, on) in CASES.items() if on}


def test_the_frontier_is_what_no_other_configuration_dominates() -> None:
    found = frontier(summarise(table_of(ROWS)))
    assert {group.keys["hospitals"] for group in found} == FRONTIER


def test_configurations_with_different_classifiers_are_compared() -> None:
    rows = [case("1", 0.8, 8.0, 0.5), case("1", 0.7, 8.0, 0.5, classifier="resnet18")]
    assert [group.keys["classifier"] for group in frontier(summarise(table_of(rows)))] == ["lr"]


@pytest.mark.parametrize("more", [[], ["--no-formal-only"]])
def test_recommend_shows_the_frontier_of_the_report(
    more: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = study_of(tmp_path, ROWS)
    wish = ["--max-epsilon", "8", "--max-inversion-ssim", "1", "--dataset", "mnist", "--study", str(folder)]
    assert main(["recommend", *wish, *more, "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)["frontier"]
    reported = _marked(write_study_report(folder).read_text())
    assert reported == FRONTIER
    expected = {name for name in reported - {"41"} if more or CASES[name][0].get("epsilon_status") is None}
    assert {one["keys"]["hospitals"] for one in shown} == expected


def _marked(html: str) -> set[str]:
    """The `hospitals` column of the rows that a report marks as on the frontier."""
    lines = [re.findall(r"<t[dh][^>]*>(.*?)</t[dh]>", line) for line in re.findall(r"<tr>(.*?)</tr>", html)]
    heads = next(line for line in lines if "on the frontier" in line)
    rows = [dict(zip(heads, line, strict=True)) for line in lines if len(line) == len(heads)]
    return {row["hospitals"] for row in rows if row["on the frontier"] == "yes"}
