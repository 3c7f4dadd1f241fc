"""A run directory with a damaged file: every other run is shown as before, and this one is marked."""

import copy
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from commands.command_line import run as fl_ppae
from support import SMALL, quick_runs, simulated_nodes, write_npz

from fl_ppae import cli, client_app, server_app
from fl_ppae.attacks.audited_run import QUICK, open_for_audit
from fl_ppae.config import RunConfig
from fl_ppae.errors import UserError
from fl_ppae.files import read_json
from fl_ppae.reporting import evidence
from fl_ppae.reporting.comparison import comparison_tables
from fl_ppae.reporting.run_report import write_run_report
from fl_ppae.reporting.tables import run_tables
from fl_ppae.runs.comparison import compare
from fl_ppae.runs.reading import MAX_BYTES
from fl_ppae.runs.stored import open_run
from fl_ppae.simulation.in_process import InProcessGrid

AUDIT = {
    "results": [
        {"attack": "a", "threat_model": "t", "metric": "m", "value": 0.5, "low": 0.4, "high": 0.6, "n": 9}
        | {"chance": 0.5, "undefended": 0.7, "variant": ""}
    ],
    "skipped": [{"attack": "b", "threat_model": "t", "reason": "no"}],
    "figures": ["one.png"],
    "quick": False,
}
NOTHING = evidence.Evidence(None, None, "not drawn here")


def hole(path: Path, size: int) -> None:
    with path.open("wb") as file:
        file.truncate(size)


def first_half(content: bytes) -> bytes:
    """About half, not ending with a line: a table that does is whole."""
    size = len(content) // 2 + 3
    return content[: size + content[size - 1 : size].count(b"\n")]


def table_of_another_version(path: Path) -> None:
    header, *rows = [line.split(",") for line in path.read_text().splitlines()]
    kept = [header.index(name) for name in ("round", "hospital", "status", "phase") if name in header]
    lines = [[*(line[i] for i in kept), "new"] for line in (header, *rows)]
    path.write_text("".join(",".join(line) + "\n" for line in lines))


DAMAGE: dict[str, Callable[[Path], Any]] = {
    "cut short": lambda path: path.write_bytes(first_half(path.read_bytes())),
    "empty": lambda path: path.write_bytes(b""),
    "binary": lambda path: path.write_bytes(bytes(range(256)) * 4),
    "zeros": lambda path: hole(path, 4096),
    "a list": lambda path: path.write_text("[1, 2]\n"),
    "a number": lambda path: path.write_text("7\n"),
    "deep": lambda path: path.write_text("[" * 100_000 + "\n"),
    "long number": lambda path: path.write_text('{"status": ' + "7" * 10_000 + "}\n"),
    "a folder": lambda path: (path.unlink(), path.mkdir()),
    "a pipe": lambda path: (path.unlink(), os.mkfifo(path)),
    "a link to itself": lambda path: (path.unlink(), path.symlink_to(path)),
    "huge": lambda path: hole(path, MAX_BYTES + 1),
}
FILES = (
    *("config.json", "summary.json", "ledger.json", "audit/results.json"),
    *("rounds.csv", "hospitals.csv", "timing.csv"),
    *("encoder.safetensors", "classifier.safetensors"),
)
NEEDED = ("config.json", "summary.json")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """One run, and a folder beside it with its data."""
    folder = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FL_PPAE_HOME", str(folder / "home"))
        quick_runs(patch)
        values = SMALL | {"data-file": str(write_npz(folder / "tiny.npz"))}
        config = RunConfig.from_flat(values | {"output-dir": str(folder / "run")})
        server_app.serve(InProcessGrid(client_app.app, config.to_flat(), simulated_nodes(3)), config, "tiny")
        (folder / "run" / "audit").mkdir()
        (folder / "run" / "audit" / "results.json").write_text(json.dumps(AUDIT))
        yield folder / "run"


@pytest.fixture
def runs(whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three runs in a home: `first`, `damaged` (not yet) and `last`."""
    monkeypatch.setattr(evidence, "gather", lambda *_: NOTHING)
    folder = tmp_path / "home" / "runs"
    for day, name in enumerate(("first", "damaged", "last"), start=1):
        shutil.copytree(whole, folder / name)
        summary = read_json(whole / "summary.json") | {"started": f"2026-01-0{day}T00:00:00.000000+00:00"}
        (folder / name / "summary.json").write_text(json.dumps(summary))
    return folder


def shown(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """Exit code, stdout and stderr, each in one line."""
    code = fl_ppae(*arguments)
    out, err = capsys.readouterr()
    assert "Traceback" not in err
    return code, " ".join(out.split()), " ".join(err.split())


@contextmanager
def damaged(path: Path, damage: str) -> Iterator[None]:
    """The file is damaged inside the block, and whole again after it."""
    content = path.read_bytes()
    DAMAGE[damage](path)
    yield
    if path.is_dir() and not path.is_symlink():
        path.rmdir()
    else:
        path.unlink()
    path.write_bytes(content)


@pytest.mark.parametrize("file", FILES)
def test_a_damaged_file_is_named_and_every_other_run_is_shown_as_before(
    file: str, runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = shown(capsys, "show", "latest")
    assert "unreadable" not in shown(capsys, "runs")[1], "control"
    for damage in DAMAGE:
        with damaged(runs / "damaged" / file, damage):
            assert shown(capsys, "show", "latest") == before, damage
            code, out, _ = shown(capsys, "runs", "--json")
            listed = {row["name"]: row["unreadable"] for row in json.loads(out)["runs"]}
            assert code == cli.OK
            assert {name: set(files) for name, files in listed.items()} == {
                "first": set(),
                "damaged": {file},
                "last": set(),
            }, damage
            code, out, err = shown(capsys, "show", "damaged")
            if file in NEEDED:
                assert (code, out) == (cli.USER_MISTAKE, "")
                assert f"damaged is unreadable: {runs / 'damaged' / file}: " in err
            else:
                assert code == cli.OK
                assert out.startswith(f"{runs / 'damaged' / file} is unreadable")


@pytest.mark.parametrize("file", FILES)
def test_every_command_says_which_file_it_can_not_read(
    file: str, runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = shown(capsys, "compare", "first", "last")
    DAMAGE["binary"](runs / "damaged" / file)
    assert shown(capsys, "compare", "first", "last") == before
    assert f"unreadable: {file}" in shown(capsys, "runs")[1]
    for command in (("report", "damaged"), ("compare", "first", "damaged")):
        code, out, err = shown(capsys, *command)
        assert code == (cli.USER_MISTAKE if file in NEEDED else cli.OK)
        assert file in out + err
        assert "unreadable" in out + err


@pytest.mark.parametrize("file", FILES)
def test_a_run_without_a_file_is_shown_as_far_as_there_is_something(
    file: str, runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (runs / "damaged" / file).unlink()
    assert shown(capsys, "runs")[0] == shown(capsys, "show", "last")[0] == cli.OK
    code, _, err = shown(capsys, "show", "damaged")
    assert code == (cli.USER_MISTAKE if file in NEEDED else cli.OK)
    assert (f"{file}: no such file" in err) == (file in NEEDED)
    assert fl_ppae("report", "damaged") == code


@pytest.mark.parametrize("file", FILES[:-2])
def test_a_file_of_another_version_is_read_as_far_as_it_is_known(
    file: str, runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = runs / "damaged" / file
    if path.suffix == ".csv":
        table_of_another_version(path)
    else:
        kept = ("status", "delta", "scope", "hospitals", "results") if file != "config.json" else ()
        document = read_json(path)
        path.write_text(json.dumps({key: document[key] for key in kept if key in document} | {"new": [1]}))
    for command in (("show", "damaged"), ("report", "damaged"), ("compare", "first", "damaged"), ("runs",)):
        code, out, err = shown(capsys, *command)
        assert code == cli.OK, err
        assert "unreadable" not in (out + err).replace("max-unreadable", "")


def places(value: Any) -> Iterator[tuple[str, ...]]:
    """The path of everything in a JSON document."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield (key,)
            yield from ((key, *path) for path in places(inner))


@pytest.mark.parametrize("file", ["config.json", "summary.json", "ledger.json", "audit/results.json"])
def test_a_value_of_any_type_at_any_place_is_shown_or_named(file: str, runs: Path) -> None:
    path, first = runs / "damaged" / file, open_run(runs / "first")
    document = read_json(path)
    named = 0
    for place in places(document):
        for value in (None, "text", 7.5, [1], {"a": 1}, {"a": {"b": None}}):
            changed = copy.deepcopy(document)
            inner = changed
            for key in place[:-1]:
                inner = inner[key]
            inner[place[-1]] = value
            path.write_text(json.dumps(changed))
            run = open_run(runs / "damaged")
            if set(run.problems) & set(NEEDED):
                named += 1
                continue
            run_tables(run)
            compare([first, run])
            comparison_tables([first, run])
    assert named > 10 or file not in NEEDED, "control: some are named"


def test_a_report_shows_whatever_can_be_read(runs: Path) -> None:
    """Without half the keys of its summary, and without the other half."""
    path = runs / "damaged" / "summary.json"
    document = read_json(path)
    keys = [key for key in document if key != "status"]
    for left_out in (keys[::2], keys[1::2]):
        path.write_text(json.dumps({key: value for key, value in document.items() if key not in left_out}))
        assert write_run_report(open_run(runs / "damaged"), NOTHING).stat().st_size > 10_000


@pytest.mark.parametrize("damage", ["cut short", "empty", "binary", "a folder"])
@pytest.mark.parametrize(
    "file", ["hospitals/hospital-1/train_records.npy", "encoder.safetensors", "classifier.safetensors"]
)
def test_an_audit_names_the_file_that_it_cannot_read(file: str, damage: str, runs: Path) -> None:
    run = open_run(runs / "damaged")
    open_for_audit(run, QUICK, lambda _: None)  # control
    DAMAGE[damage](runs / "damaged" / file)
    with pytest.raises(UserError) as mistake:
        open_for_audit(open_run(runs / "damaged"), QUICK, lambda _: None)
    assert str(runs / "damaged" / file) in str(mistake.value)
    assert "\n" not in str(mistake.value)


@pytest.mark.parametrize("name", ["privacy_card.md", "figures/label_distributions.png"])
@pytest.mark.parametrize("damage", ["empty", "binary", "a folder", "a pipe", "huge"])
def test_a_report_leaves_out_a_damaged_card_or_figure(name: str, damage: str, runs: Path) -> None:
    def page() -> str:
        return write_run_report(open_run(runs / "damaged"), NOTHING).read_text()

    picture, card = "Stacked bars: train records", "Privacy card: tiny"
    before = page()
    assert picture in before
    assert card in (runs / "damaged" / "privacy_card.md").read_text()
    DAMAGE[damage](runs / "damaged" / name)
    after = page()
    if name.endswith(".md"):
        assert "privacy_card.md is unreadable" in after
    else:
        assert picture not in after
