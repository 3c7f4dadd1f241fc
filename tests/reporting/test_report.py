import base64
import hashlib
import json
import shlex
import shutil
from collections.abc import Callable
from functools import partial
from html.parser import HTMLParser
from pathlib import Path

import pytest
from support import SMALL, Run, simulated_nodes, write_npz

from fl_ppae import cli, client_app, server_app
from fl_ppae.catalogue import find, parse_overrides
from fl_ppae.config import RunConfig
from fl_ppae.files import read_json, write_json
from fl_ppae.leakage.reconstruction import probe_reconstruction_loss
from fl_ppae.reporting.charts import Axes, Point, Series, bar_chart, xy_chart
from fl_ppae.reporting.evidence import gather
from fl_ppae.reporting.page import markdown
from fl_ppae.reporting.run_report import write_run_report
from fl_ppae.runs.rerun import changed_keys, rerun_command
from fl_ppae.runs.stored import open_run
from fl_ppae.server import evaluation as server_evaluation
from fl_ppae.simulation.in_process import InProcessGrid

VOID = {"meta", "img", "br", "hr", "link", "input"}
LOADING = {"src", "srcset", "poster", "data", "action", "background"}


class Page(HTMLParser):
    """A page taken apart: its tags with their attributes, its text outside of script and style."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text = ""
        self.script = ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1:] == ["script"]:
            self.script += data
        elif self.open[-1:] != ["style"]:
            self.text += data + " "

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def page_of(path: Path) -> Page:
    page = Page(path.read_text(encoding="utf-8"))
    assert not page.open  # every tag is closed
    return page


def text_of(path: Path) -> str:
    return " ".join(page_of(path).text.split())


def report_of(run_directory: Path, output: Path | None = None) -> Path:
    run = open_run(run_directory)
    return write_run_report(run, gather(run), output)


def show(*arguments: str) -> int:
    return cli.main(["report", *arguments])


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One run for all tests here, with its data file beside it."""
    folder = tmp_path_factory.mktemp("finished")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FL_PPAE_HOME", str(folder / "home"))
        patch.setattr(
            server_evaluation, "probe_reconstruction_loss", partial(probe_reconstruction_loss, steps=5)
        )
        values = SMALL | {"data-file": str(write_npz(folder / "tiny.npz")), "evaluate-every": 1}
        config = RunConfig.from_flat(values | {"output-dir": str(folder / "run")})
        server_app.serve(InProcessGrid(client_app.app, config.to_flat(), simulated_nodes(3)), config, "tiny")
    return folder


@pytest.fixture
def formal(finished: Path, tmp_path: Path) -> Run:
    """A copy of it, to be changed."""
    shutil.copytree(finished / "run", tmp_path / "formal")
    return Run(tmp_path / "formal")


def test_a_finished_run_left_a_report_with_everything(formal: Run) -> None:
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
    charts = [svg["aria-label"] or "" for svg in page.all("svg")]
    assert len(charts) == 6  # quality, epsilon, loss, two of leakage; budgets
    assert all("Data: MNIST (file tiny.npz)" in label for label in charts)
    assert sum(tag == "polyline" for tag, _ in page.tags) == 8  # two rounds are a line
    assert all(image["alt"] for image in page.all("img"))
    assert "NOT REAL DATA" not in text


def test_the_label_mix_is_what_was_dealt(formal: Run) -> None:
    text = text_of(formal.path / "report.html")
    for name, records in read_json(formal.path / "config.json")["records"].items():
        row = text.split("Train records by class")[1].split(f"{name} ", 1)[1].split()
        assert sum(map(int, row[:10])) == records == int(row[10])


def test_nothing_is_loaded_from_outside(formal: Run) -> None:
    page = page_of(formal.path / "report.html")
    for tag, attributes in page.tags:
        for name, value in attributes.items():
            if name in LOADING:
                assert (value or "").startswith("data:image/png;base64,"), (tag, name)
            if name in ("href", "xlink:href"):
                assert (value or "").startswith("#"), (tag, value)
            assert not name.startswith("on"), (tag, name)
            assert "url(" not in (value or "")
    assert not page.all("link") and not page.all("iframe")
    assert "@import" not in (formal.path / "report.html").read_text()
    policy = next(tag["content"] for tag in page.all("meta") if "http-equiv" in tag) or ""
    assert policy.startswith("default-src 'none'; img-src data:;")


def test_the_only_script_is_the_one_that_the_policy_names_and_it_sorts(formal: Run) -> None:
    page = page_of(formal.path / "report.html")
    assert len(page.all("script")) == 1
    digest = base64.b64encode(hashlib.sha256(page.script.encode()).digest()).decode()
    policy = next(tag["content"] for tag in page.all("meta") if "http-equiv" in tag) or ""
    assert f"script-src 'sha256-{digest}'" in policy
    assert "aria-sort" in page.script and "data-tip" in page.script
    assert any("sortable" in (table["class"] or "") for table in page.all("table"))
    assert all(head.get("scope") in ("col", "row") for head in page.all("th") if head)


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


def test_what_comes_from_files_is_escaped(formal: Run) -> None:
    attack = "<script>alert(1)</script>"
    config = read_json(formal.path / "config.json")
    config["data_source"]["label"] = attack
    write_json(formal.path / "config.json", config)
    summary = formal.summary | {
        "status": "failed",
        "error": attack,
        "data_source": attack,
        "simulation": attack,
    }
    write_json(formal.path / "summary.json", summary)
    card = f"# x\n\n{attack} <img src=http://x> ![x](http://example.org/x.png) [y](http://example.org)"
    (formal.path / "privacy_card.md").write_text(card)
    path = report_of(formal.path, formal.path / "other.html")
    page = page_of(path)
    assert len(page.all("script")) == 1
    assert page.text.count("alert(1)") > 5
    assert not [a for a in page.all("a") if not (a["href"] or "").startswith("#")]
    assert not [i for i in page.all("img") if not (i["src"] or "").startswith("data:")]
    assert "alert" not in page.script


def test_a_nominal_epsilon_is_never_shown_as_a_guarantee(federate: Callable[..., Run]) -> None:
    run = federate("nominal", dp_scope="encoder")
    page, text = page_of(run.path / "report.html"), text_of(run.path / "report.html")
    number = f"{run.summary['epsilon_max']:.2f}"
    assert f"{number} nominal, not a guarantee" in text
    assert "nominal, not a guarantee" in next(
        svg["aria-label"] or "" for svg in page.all("svg") if "Privacy spent" in (svg["aria-label"] or "")
    )
    assert "Not everything that left a hospital has a formal guarantee." in text


def test_a_run_whose_encoders_stayed_at_home_has_a_report(federate: Callable[..., Run]) -> None:
    run = federate("uploads", share="encodings")
    assert not (run.path / "encoder.safetensors").exists()
    text = text_of(run.path / "report.html")
    assert "is a hospital" in text or "one hospital, with its own train part" in text
    assert "train images whose encodings were uploaded" in text


def test_noised_encodings_are_attacked_as_they_left(formal: Run, federate: Callable[..., Run]) -> None:
    noised = federate("noised", share="updates+encodings", encoding_noise_epsilon=1.0, projection_size=4)

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
    assert "No round ended." in text
    assert "unknown data" in text


def test_a_run_that_failed_later_shows_what_there_is(formal: Run) -> None:
    keep = {key: formal.summary[key] for key in ("simulation", "data_source", "baselines")}
    write_json(formal.path / "summary.json", keep | {"status": "failed", "error": "disk full"})
    for name in ("privacy_card.md", "encoder.safetensors", "classifier.safetensors"):
        (formal.path / name).unlink()
    path = report_of(formal.path)
    page, text = page_of(path), text_of(path)
    assert "disk full" in text
    assert "only a completed run can be audited" not in text
    assert any("Stacked bars" in (image["alt"] or "") for image in page.all("img"))  # the run's own figure
    assert any("Privacy spent" in (svg["aria-label"] or "") for svg in page.all("svg"))
    assert "fl-ppae run tiny" in text


def test_without_its_data_a_report_says_so_and_data_file_helps(
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
    for words in ("0.432", "0.400..0.500", "77", "no messages were kept", "a low value shows no protection"):
        assert words in text
    assert [i for i in page_of(path).all("img") if "Figure of the audit" in (i["alt"] or "")]


@pytest.mark.parametrize("where", ["folder", "nowhere/report.html"])
def test_a_bad_output_is_told_in_one_line(
    where: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "folder").mkdir()
    write_json(tmp_path / "run" / "summary.json", {"status": "failed"})
    assert show(str(tmp_path / "run"), "--output", str(tmp_path / where)) == cli.USER_MISTAKE
    assert capsys.readouterr().err.startswith("fl-ppae: --output ")


@pytest.mark.parametrize("simulation", ["bloodmnist_iid", "pathmnist_encodings"])
def test_the_rerun_command_gives_the_same_configuration(simulation: str, tmp_path: Path) -> None:
    pairs = ["target-epsilon=3", "diagnostics=true", "data-source=file", "data-file=/a b/c$d.npz", "seed=-1"]
    config = find(simulation).config(parse_overrides(pairs))
    document = {"simulation": simulation, "config": config.to_flat(), "hospitals": 4}
    write_json(tmp_path / "config.json", document)
    run = open_run(tmp_path)
    words = shlex.split((rerun_command(run) or "").replace("\\\n", " "))
    assert words[:5] == ["fl-ppae", "run", simulation, "--hospitals", "4"]
    assert find(simulation).config(parse_overrides(words[6::2])) == config
    assert {change.key for change in changed_keys(run)} == {pair.split("=")[0] for pair in pairs}


def test_a_chart_places_larger_values_higher_and_names_them() -> None:
    axes = Axes("t", "round", "accuracy (0 to 1)", "MNIST")
    points = (Point(1, 0.2), Point(2, 0.9, 0.8, 0.95, note="<b>"))
    svg = str(xy_chart([Series("one", points), Series("two", (Point(1, 0.5),))], axes, target=0.7))
    page = Page(svg)
    line = next(attributes["points"] or "" for tag, attributes in page.tags if tag == "polyline")
    (_, low), (_, high) = (map(float, pair.split(",")) for pair in line.split())
    assert high < low  # SVG counts from above
    tips = [attributes["data-tip"] for _, attributes in page.tags if "data-tip" in attributes]
    assert tips == [
        "one, round 1: 0.2",
        "one, round 2: 0.9 (95 % interval 0.8 to 0.95) <b>",
        "two, round 1: 0.5",
    ]
    assert "<b>" not in svg
    assert "target 0.7" in page.text


@pytest.mark.parametrize("values", [{"a": 0.0}, {"a": 1e-9, "b": 3.0}, {"x" * 80: 900.0}])
def test_bars_of_any_size_can_be_drawn(values: dict[str, float]) -> None:
    page = Page(str(bar_chart(values, Axes("t", "epsilon", "", "MNIST"), target=8.0)))
    assert len([tag for tag, _ in page.tags if tag == "rect"]) == len(values)


def test_markdown_shows_html_as_text() -> None:
    assert "<b>" not in markdown("<b>x</b> **y**")
    assert "<strong>y</strong>" in markdown("<b>x</b> **y**")


def test_every_key_that_differs_has_a_meaning() -> None:
    assert all(field.description for field in RunConfig.model_fields.values())
