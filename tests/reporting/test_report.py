import json
from collections.abc import Callable
from pathlib import Path

import pytest
from reporting.html_page import page_of, report_of, text_of
from support import Run

from fl_ppae import cli
from fl_ppae.files import read_json, write_json


def show(*arguments: str) -> int:
    return cli.main(["report", *arguments])


def test_a_finished_run_leaves_a_complete_report(formal: Run) -> None:
    path = formal.path / "report.html"
    page, text = page_of(path), text_of(path)
    for section in ("result", "rounds", "budgets", "labels", "images", "card", "rerun"):
        assert {"id": section} in page.all("section")
    for number in (f"{formal.summary['accuracy']:.4f}", f"{formal.summary['epsilon_max']:.2f}"):
        assert number in text
    for words in (
        "random encoder",
        "raw pixels",
        "No hospital sent its label mix",
        "attacker, linear",
        "class-mean image",
        "Per hospital",  # of the privacy card
        "fl-ppae run tiny --hospitals 3",
        "-c noise-multiplier=1.5",
    ):
        assert words in text
    card = path.read_text().split('<section id="card">')[1].split("</section>")[0]
    assert card.count("<table>") == 2 and card.count("<td>hospital-") == 3
    charts = [svg["aria-label"] or "" for svg in page.all("svg")]
    assert len(charts) == 6  # quality, epsilon, loss, two of leakage; budgets
    assert all("Data: MNIST (file tiny.npz)" in label for label in charts)
    tips = [held["data-tip"] or "" for _, held in page.tags if "data-tip" in held]
    assert sum(", round " in tip for tip in tips) == 8 * 2  # a tip for each of two rounds in 8 series
    assert all(image["alt"] for image in page.all("img"))
    assert "NOT REAL DATA" not in text


def test_the_label_mix_is_that_of_the_deal(formal: Run) -> None:
    text = text_of(formal.path / "report.html")
    for name, records in read_json(formal.path / "config.json")["records"].items():
        row = text.split("Train records by class")[1].split(f"{name} ", 1)[1].split()
        assert sum(map(int, row[:10])) == records == int(row[10])


def test_a_stand_in_is_marked_in_the_title_and_on_every_figure(formal: Run) -> None:
    config, summary = read_json(formal.path / "config.json"), formal.summary
    config["data_source"]["label"] = summary["data_source"] = "stand-in for MNIST"
    write_json(formal.path / "config.json", config)
    write_json(formal.path / "summary.json", summary)
    page = page_of(report_of(formal.path))
    html = (formal.path / "report.html").read_text()
    mark = "stand-in for MNIST - NOT REAL DATA"
    assert f"<title>tiny - {mark}</title>" in html
    assert '<p class="source loud">stand-in' in html
    figures = html.split("<svg ")[1:]
    assert len(figures) == len(page.all("svg")) > 0
    for figure in figures:
        drawn = figure.split("</svg>")[0].partition(">")[2]  # in the picture, not only in its label
        assert f"data: {mark}" in drawn
    assert html.count(f'<p class="figure-source marked">data: {mark}</p>') == 2  # label mix, images


def test_a_nominal_epsilon_is_never_shown_as_a_guarantee(federate: Callable[..., Run]) -> None:
    run = federate("nominal", pages=True, dp_scope="encoder")
    page, text = page_of(run.path / "report.html"), text_of(run.path / "report.html")
    number = f"{run.summary['epsilon_max']:.2f}"
    assert f"{number} nominal, not a guarantee" in text
    assert "nominal, not a guarantee" in next(
        svg["aria-label"] or ""
        for svg in page.all("svg")
        if "Epsilon of each hospital" in (svg["aria-label"] or "")
    )
    assert "Not everything that left a hospital has a formal guarantee." in text


def test_a_run_that_shares_only_encodings_has_a_report(federate: Callable[..., Run]) -> None:
    run = federate("uploads", pages=True, share="encodings")
    assert not (run.path / "encoder.safetensors").exists()
    text = text_of(run.path / "report.html")
    assert "is a hospital" in text or "one hospital, with its own train part" in text
    assert "train images whose encodings were uploaded" in text


def test_the_attacker_sees_encodings_with_their_noise(formal: Run, federate: Callable[..., Run]) -> None:
    uploads = {"share": "updates+encodings", "encoding_noise_epsilon": 1.0, "projection_size": 4}
    noised = federate("noised", pages=True, **uploads)

    def ssim(run: Run) -> float:
        return float(
            text_of(run.path / "report.html").split("attacker, linear")[1].split("SSIM ")[1].split()[0]
        )

    assert ssim(noised) < ssim(formal) - 0.1


def test_a_run_that_failed_before_round_1_has_a_report(tmp_path: Path) -> None:
    write_json(
        tmp_path / "summary.json", {"status": "failed", "error": "no such file: x.npz", "simulation": "tiny"}
    )
    text = text_of(report_of(tmp_path))
    assert "did not complete: status failed. no such file: x.npz" in text
    assert "No round was completed." in text
    assert "unknown data" in text


def test_a_run_that_failed_later_shows_what_exists(formal: Run) -> None:
    keep = {key: formal.summary[key] for key in ("simulation", "data_source", "baselines")}
    write_json(formal.path / "summary.json", keep | {"status": "failed", "error": "disk full"})
    for name in ("privacy_card.md", "encoder.safetensors", "classifier.safetensors"):
        (formal.path / name).unlink()
    path = report_of(formal.path)
    page, text = page_of(path), text_of(path)
    assert "disk full" in text
    assert "only a completed run can be audited" not in text
    assert any("Stacked bars" in (image["alt"] or "") for image in page.all("img"))  # the run's own figure
    assert any("Epsilon of each hospital" in (svg["aria-label"] or "") for svg in page.all("svg"))
    assert "fl-ppae run tiny" in text


def test_a_report_without_its_data_says_so_and_accepts_a_moved_file(
    formal: Run, finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = read_json(formal.path / "config.json")
    config["config"]["data-file"] = "/gone/tiny.npz"
    write_json(formal.path / "config.json", config)
    assert show(str(formal.path)) == cli.OK
    assert "No reconstructions here: data-file: no such file" in text_of(formal.path / "report.html")
    elsewhere, moved = tmp_path / "elsewhere.html", str(finished / "tiny.npz")
    capsys.readouterr()
    assert show(str(formal.path), "--data-file", moved, "--output", str(elsewhere), "--json") == cli.OK
    assert json.loads(capsys.readouterr().out)["report"] == str(elsewhere)
    assert "attacker, linear" in text_of(elsewhere)


def test_an_audit_is_shown(formal: Run) -> None:
    row = {"attack": "inversion-black-box", "threat_model": "server-split", "metric": "ssim", "value": 0.4321}
    row |= {
        "low": 0.4,
        "high": 0.5,
        "chance": 0.1,
        "undefended": 0.6,
        "n": 77,
        "variant": "linear",
        "group": "all",
    }
    skipped = {"attack": "membership", "threat_model": "server", "reason": "no messages were kept"}
    png = (formal.path / "figures" / "rounds.png").read_bytes()
    (formal.path / "audit").mkdir()
    (formal.path / "audit" / "inversion.png").write_bytes(png)
    document = {
        "quick": True,
        "results": [row],
        "skipped": [skipped],
        "figures": ["inversion.png", "gone.png"],
    }
    write_json(formal.path / "audit" / "results.json", document)
    path = report_of(formal.path)
    text = text_of(path)
    for words in (
        "0.432",
        "0.400..0.500",
        "77",
        "no messages were kept",
        "a low value does not show protection",
    ):
        assert words in text
    assert [i for i in page_of(path).all("img") if "Figure of the audit" in (i["alt"] or "")]


@pytest.mark.parametrize("where", ["folder", "nowhere/report.html"])
def test_a_bad_output_is_reported_in_one_line(
    where: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "folder").mkdir()
    write_json(tmp_path / "run" / "summary.json", {"status": "failed"})
    assert show(str(tmp_path / "run"), "--output", str(tmp_path / where)) == cli.USER_MISTAKE
    assert capsys.readouterr().err.startswith("fl-ppae: --output ")
