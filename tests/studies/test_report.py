import csv
from pathlib import Path
from typing import Any

import pytest
from reporting.test_report import page_of, text_of

from fl_ppae import cli
from fl_ppae.files import write_json
from fl_ppae.studies.report import write_study_report
from fl_ppae.studies.report_cells import Cell, Measured, frontier, read_cells, summarise

COLUMNS = (
    "cell",
    "dataset",
    "source",
    "stand_in",
    "encoding",
    "autoencoder",
    "privacy",
    "scope",
    "hospitals",
)
COLUMNS += ("seed", "classifier", "accuracy", "inversion_ssim", "epsilon", "epsilon_status", "error")
ROW = {
    "dataset": "mnist",
    "source": "MNIST (official files)",
    "classifier": "lr",
    "autoencoder": "fc",
    "hospitals": 1,
}
ROW |= {"privacy": "8", "scope": "autoencoder", "seed": 1, "accuracy": 0.8, "inversion_ssim": 0.5}
ROW |= {"epsilon": 7.9, "epsilon_status": "formal", "encoding": "trained", "stand_in": "false"}
FAILED = {"classifier": "", "accuracy": "", "inversion_ssim": "", "epsilon": "", "epsilon_status": ""}


def study(folder: Path, rows: list[dict[str, Any]], **extra: Any) -> Path:
    folder.mkdir(exist_ok=True)
    with (folder / "cells.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        for number, row in enumerate(rows):
            writer.writerow({"cell": f"cell-{number}", **ROW, **row})
    write_json(
        folder / "study.json", {"name": "paper", "command": "fl-ppae study paper --scale small", **extra}
    )
    return folder


def test_the_interval_is_student_s() -> None:
    # By a table of Student's t: 4.303 for 2 degrees of freedom; the standard error of 1, 2, 3 is 1 / sqrt(3).
    found = summarise([1.0, 2.0, 3.0])
    assert found.mean == 2.0
    assert found.high == pytest.approx(2 + 4.3027 / 3**0.5, abs=1e-3)
    assert found.low == pytest.approx(2 - 4.3027 / 3**0.5, abs=1e-3)
    assert summarise([0.5]) == Measured(0.5, None, None, 1)


def test_seeds_come_together_and_failed_rows_apart(tmp_path: Path) -> None:
    rows = [
        {},
        {"seed": 2, "accuracy": 0.9},
        {**FAILED, "seed": 3, "error": "no luck"},
        {"autoencoder": "conv"},
    ]
    (first, second), failed = read_cells(study(tmp_path, rows) / "cells.csv")
    assert first.measured["accuracy"].mean == pytest.approx(0.85)
    assert (first.measured["accuracy"].seeds, first.formal) == (2, True)
    assert second.identity["autoencoder"] == "conv"
    assert [row["error"] for row in failed] == ["no luck"]


def test_a_later_success_ends_a_failure_and_the_last_row_counts(tmp_path: Path) -> None:
    rows = [{**FAILED, "cell": "a", "error": "no luck"}, {"cell": "a"}, {"cell": "a", "accuracy": 0.6}]
    (only,), failed = read_cells(study(tmp_path, rows) / "cells.csv")
    assert (only.value("accuracy"), failed) == (0.6, [])


def cell(accuracy: float | None, epsilon: float | None, ssim: float | None, *, formal: bool = True) -> Cell:
    values = {"accuracy": accuracy, "epsilon": epsilon, "inversion_ssim": ssim}
    measured = {name: Measured(value, None, None, 1) for name, value in values.items() if value is not None}
    return Cell({"epsilon_status": "formal" if formal else "nominal"}, measured)


def test_the_frontier_is_what_nothing_beats() -> None:
    accurate, private, hiding = cell(0.9, 8, 0.9), cell(0.7, 1, 0.9), cell(0.6, 8, 0.2)
    worse, unmeasured = cell(0.69, 1, 0.9), cell(0.99, 1, None)
    same = cell(0.9, 8, 0.9)
    found = frontier([accurate, private, hiding, worse, unmeasured, same])
    assert found == [accurate, private, hiding, same]


def test_a_nominal_epsilon_buys_no_place_on_the_frontier() -> None:
    guaranteed, nominal = cell(0.8, 8, 0.5), cell(0.8, 1, 0.5, formal=False)
    assert frontier([guaranteed, nominal]) == [guaranteed]
    assert frontier([cell(0.8, None, 0.5), nominal])[1:] == [nominal]  # as good as no DP, and no better


VERDICT = {
    "claim": "1a",
    "statement": "LR gains",
    "dataset": "mnist",
    "setting": "central",
    "compared": "LR on fc: 0.9; LR on raw pixels: 0.8",
    "verdict": "holds",
    "value": 0.1,
    "low": 0.05,
    "high": 0.15,
}


def test_a_study_has_a_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [
        {},
        {"seed": 2, "accuracy": 0.9},
        {"scope": "encoder", "epsilon_status": "nominal"},
        {"privacy": "none", "scope": "none", "epsilon": "", "epsilon_status": "none"},
        {**FAILED, "seed": 3, "error": "<script>alert(1)</script>"},
    ]
    study(tmp_path, rows, machine={"cores": 2})
    write_json(
        tmp_path / "verdicts.json",
        {"note": "Directional.", "verdicts": [VERDICT, {**VERDICT, "low": None, "verdict": "undecided"}]},
    )
    assert cli.main(["report", str(tmp_path), "--json"]) == cli.OK
    page, text = page_of(tmp_path / "report.html"), text_of(tmp_path / "report.html")
    for words in (
        "1 holds, 1 undecided",
        "Every test",
        "1a: LR gains",
        "+0.100 [+0.050, +0.150]",
        "Directional.",
        "0.850 ± 0.635",  # 12.706 * 0.05
        "nominal, not a guarantee",
        "fl-ppae study paper --scale small",
        "machine.cores",
        "<script>alert(1)</script>",  # as text
    ):
        assert words in text
    assert len(page.all("script")) == 1
    assert [svg["aria-label"] for svg in page.all("svg")]
    assert "NOT REAL DATA" not in text
    tips = [attributes["data-tip"] for _, attributes in page.tags if "data-tip" in attributes]
    assert any("epsilon 8, nominal" in (tip or "") for tip in tips)


def test_a_stand_in_among_a_study_s_sources_is_marked(tmp_path: Path) -> None:
    source = "stand-in for CIFAR-10"
    rows = [
        {},
        {"dataset": "cifar10", "source": source},
        {"dataset": "cifar10", "source": source, "privacy": "none"},
    ]
    html = write_study_report(study(tmp_path, rows)).read_text()
    assert "NOT REAL DATA</title>" in html
    charts = [part.split("</svg>")[0] for part in html.split("<svg ")[1:]]
    assert len(charts) > 2
    for chart in charts:
        assert ("data: stand-in" in chart.partition(">")[2]) == ("cifar10" in chart)


def test_a_study_without_a_finished_cell_has_a_report(tmp_path: Path) -> None:
    write_json(tmp_path / "study.json", {"name": "paper"})
    assert "no cell has ended" in text_of(write_study_report(tmp_path))


def test_what_is_neither_run_nor_study_is_told_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["report", "nothing"]) == cli.USER_MISTAKE
    assert capsys.readouterr().err.startswith("fl-ppae: no run 'nothing'")


def test_a_baseline_is_not_ranked_and_is_drawn_as_one(tmp_path: Path) -> None:
    baseline = {"encoding": "pca", "autoencoder": "none", "privacy": "none", "scope": "none", "epsilon": ""}
    baseline |= {"epsilon_status": "none", "accuracy": 0.99, "inversion_ssim": 0.1}
    cells, _ = read_cells(study(tmp_path, [{}, baseline]) / "cells.csv")
    assert frontier(cells) == cells[:1]
    page = page_of(write_study_report(tmp_path))
    tips = [attributes["data-tip"] or "" for _, attributes in page.tags if "data-tip" in attributes]
    assert any(tip.startswith("baseline, ") and "(PCA" in tip for tip in tips)
