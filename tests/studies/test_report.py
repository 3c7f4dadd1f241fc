from pathlib import Path

import pytest
from reporting.html_page import page_of, text_of
from studies.study_tables import BASELINE, NO_DP, NOMINAL, failed, study_of

from fl_ppae import cli
from fl_ppae.files import write_json
from fl_ppae.studies.report import write_study_report

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
        NOMINAL,
        NO_DP,
        failed("<script>alert(1)</script>", seed=3),
    ]
    study_of(tmp_path, rows, machine={"cores": 2})
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


def test_a_stand_in_among_the_sources_is_marked(tmp_path: Path) -> None:
    source = "stand-in for CIFAR-10"
    rows = [
        {},
        {"dataset": "cifar10", "source": source},
        {"dataset": "cifar10", "source": source, "privacy": "none"},
    ]
    html = write_study_report(study_of(tmp_path, rows)).read_text()
    assert "NOT REAL DATA</title>" in html
    charts = [part.split("</svg>")[0] for part in html.split("<svg ")[1:]]
    assert len(charts) > 2
    for chart in charts:
        assert ("data: stand-in" in chart.partition(">")[2]) == ("cifar10" in chart)


def test_a_study_without_a_finished_cell_has_a_report(tmp_path: Path) -> None:
    write_json(tmp_path / "study.json", {"name": "paper"})
    assert "no cell has finished" in text_of(write_study_report(tmp_path))


def test_a_name_that_is_neither_run_nor_study_gives_a_one_line_error(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert cli.main(["report", "nothing"]) == cli.USER_MISTAKE
    assert capsys.readouterr().err.startswith("fl-ppae: no run 'nothing'")


def test_a_baseline_is_drawn_as_one(tmp_path: Path) -> None:
    baseline = {**BASELINE, "accuracy": 0.99, "inversion_ssim": 0.1}
    page = page_of(write_study_report(study_of(tmp_path, [{}, baseline])))
    tips = [attributes["data-tip"] or "" for _, attributes in page.tags if "data-tip" in attributes]
    assert any(tip.startswith("baseline, ") and "(PCA" in tip for tip in tips)
