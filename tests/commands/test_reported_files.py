"""Files and folders on which tools like this one are reported to fail: one line and exit 2, or they work."""

from __future__ import annotations

import errno
import io
import json
import os
import resource
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
from commands.command_line import run
from data.npz_files import forged
from support import quick_runs, write_npz

from fl_ppae import cli, server_app
from fl_ppae.paths import path_of

KEYS = {
    "data-source": "file",
    "min-records": 10,
    "target-delta": 1e-3,
    "noise-multiplier": 1.5,
    "num-server-rounds": 2,
    "batch-size": 25,
    "autoencoder": "fc",
    "encoding-size": 16,
}


def words(**keys: object) -> list[str]:
    """The `-c` pairs of a small run, with these changes."""
    given = KEYS | {key.replace("_", "-"): value for key, value in keys.items()}
    return [word for key, value in given.items() for word in ("-c", f"{key}={value}")]


def notices(err: str) -> list[str]:
    """The lines on stderr without those of progress, which a slow machine prints."""
    return [line for line in err.splitlines() if not line.startswith("[")]


@pytest.fixture
def sound(tmp_path: Path) -> Path:
    return write_npz(tmp_path / "sound.npz", 200)


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """`refused("plan", ...)`: the command ends with exit 2, one line and nothing on stdout."""

    def check(*arguments: str) -> str:
        capsys.readouterr()
        assert run(*arguments) == cli.USER_MISTAKE
        out, err = capsys.readouterr()
        assert out == ""
        (line,) = notices(err)
        assert line.startswith("fl-ppae: ")
        return line

    return check


def spoiled(content: bytes, how: str) -> bytes:
    return {
        "encrypted": lambda: forged(content, flags=1),
        "deflate64": lambda: forged(content, method=9),
        "cut": lambda: content[: len(content) // 2],
        "page": lambda: b"<!DOCTYPE html><title>404</title>",
        "empty": lambda: b"",
    }[how]()


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("encrypted", "x_train is encrypted; write it again with numpy.savez"),
        ("deflate64", "x_train has compression method 9; write it again with numpy.savez"),
        ("cut", "is not an .npz, or a damaged one"),
        ("page", "is not an .npz, or a damaged one"),
        ("empty", "is not an .npz, or a damaged one"),
    ],
)
def test_a_file_that_is_no_sound_npz(
    how: str, said: str, sound: Path, tmp_path: Path, refused: Callable[..., str]
) -> None:
    file = tmp_path / "spoiled.npz"
    file.write_bytes(spoiled(sound.read_bytes(), how))
    for command in (["plan"], ["run", "--in-process"]):
        assert said in refused(*command, "mnist_iid", *words(data_file=file))
    assert run("plan", "mnist_iid", "--hospitals", "2", *words(data_file=sound)) == cli.OK


@pytest.fixture
def odd(tmp_path: Path) -> dict[str, str]:
    """A path of each kind that is neither a file nor a folder."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to("loop")
    return {
        "a named pipe": str(tmp_path / "pipe"),
        "a device": os.devnull,
        "leads back to itself": str(tmp_path / "loop"),
        "too long": str(tmp_path / ("n" * 300)),
        "no user's home": "~nobody-of-this-name/x",
    }


def test_an_odd_path_is_told_from_a_missing_one_and_waits_for_nothing(
    odd: dict[str, str], tmp_path: Path, refused: Callable[..., str]
) -> None:
    for kind, path in odd.items():
        root = ["-c", f"data-root={path}", "-c", "data-source=torchvision"]
        assert kind in refused("plan", "mnist_iid", *words(data_file=path))
        assert kind in refused("plan", "mnist_iid", *root)
        assert kind in refused("plan", path)
        assert kind in refused("audit-epsilon", "mnist_iid", *words(data_file=path))
        assert kind in refused("ledger", "open", "other", "--dataset", "mnist", "--data-file", path)
        assert kind in refused("ledger", "show", "--state-dir", path)
        assert kind in refused("study", "paper", "--datasets", "mnist", "--data", f"mnist={path}")
    assert "no user's home" in refused("report", odd["no user's home"])
    assert "a folder, not a file" in refused("plan", "mnist_iid", *words(data_file=tmp_path))
    assert "no such file" in refused("plan", "mnist_iid", *words(data_file=tmp_path / "x.npz"))
    assert "no folder of that name" in refused("plan", str(tmp_path / "x"))


def test_an_output_dir_that_cannot_be_made_is_refused_before_the_data_is_read(
    odd: dict[str, str], tmp_path: Path, refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_bytes(b"")
    odd |= {"Not a directory": str(tmp_path / "file" / "run"), "is taken": str(tmp_path / "file")}
    before = set(tmp_path.iterdir())
    for kind, path in odd.items():
        said = refused("run", "mnist_iid", *words(data_file=tmp_path / "missing.npz", output_dir=path))
        assert kind in said
        assert "output-dir" in said

    def refuses(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(Path, "mkdir", refuses)
    new = words(data_file=tmp_path / "missing.npz", output_dir=tmp_path / "new")
    said = refused("run", "mnist_iid", *new)
    assert "can't be written (Permission denied)" in said
    assert set(tmp_path.iterdir()) == before


def test_a_data_root_that_names_the_file_is_told_its_folder(
    sound: Path, tmp_path: Path, refused: Callable[..., str]
) -> None:
    for source in ("auto", "torchvision"):
        said = refused("plan", "mnist_iid", "-c", f"data-root={sound}", "-c", f"data-source={source}")
        assert f"data-root {sound} is a file; give its folder, {tmp_path}" in said


def test_a_file_limit_while_caching_is_named_and_leaves_no_cache(
    sound: Path, tmp_path: Path, refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FL_PPAE_HOME", str(tmp_path / "home"))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
    try:
        said = refused("plan", "mnist_iid", *words(data_file=sound))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert "the data cache can't be read or written (File too large)" in said
    assert [path for path in (tmp_path / "home" / "cache").iterdir() if path.is_dir()] == []
    assert run("plan", "mnist_iid", "--hospitals", "2", *words(data_file=sound)) == cli.OK


SIMULATION = """[project]
name = "mine"
version = "1"
description = "Universit\u00e9"

[tool.flwr.app.config]
dataset = "mnist"
"""


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_a_simulation_in_utf8_is_read_with_or_without_a_mark(
    encoding: str, sound: Path, tmp_path: Path
) -> None:
    (tmp_path / "pyproject.toml").write_text(SIMULATION, encoding=encoding)
    assert run("plan", str(tmp_path), "--hospitals", "2", *words(data_file=sound)) == cli.OK


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-32", "latin-1", "cp1252"])
def test_a_simulation_in_another_encoding_is_refused(
    encoding: str, tmp_path: Path, refused: Callable[..., str]
) -> None:
    (tmp_path / "pyproject.toml").write_text(SIMULATION, encoding=encoding)
    said = refused("plan", str(tmp_path))
    assert "is not UTF-8 text" in said or "is not valid TOML" in said


@pytest.mark.parametrize("value", ['"text"', "1", "1.5", "true", "[1, 2]", "[]", "2020-01-01"])
@pytest.mark.parametrize("table", ["tool", "tool.flwr", "tool.flwr.app", "tool.flwr.app.config"])
def test_a_table_replaced_by_something_else_is_named(
    table: str, value: str, tmp_path: Path, refused: Callable[..., str]
) -> None:
    (tmp_path / "pyproject.toml").write_text(f"{table} = {value}\n")
    assert f"pyproject.toml: {table} must be a table, not " in refused("plan", str(tmp_path))


def test_a_list_of_tables_and_a_file_beyond_the_parser_are_refused(
    tmp_path: Path, refused: Callable[..., str]
) -> None:
    cases = {
        "[[tool.flwr.app.config]]\nseed = 1\n": "must be a table, not ",
        "": "has no [tool.flwr.app.config] table",
        "a = " + "[" * 5_000: "nested too deeply",
        "a = " + "9" * 5_000: "is not valid TOML",
        "a = 1\na = 2": "is not valid TOML",
        "[tool.flwr.app.config]\n[tool.flwr.app.config.seed]\nx = 1": "seed",
    }
    for content, problem in cases.items():
        (tmp_path / "pyproject.toml").write_text(content)
        assert problem in refused("plan", str(tmp_path))


@pytest.mark.parametrize(
    ("encoding", "shown"),
    [
        ("ascii", r"Universit\xe9 \u0416 \xe9 [b]:x:"),
        ("latin-1", "Universit\u00e9 \\u0416 \\xe9 [b]:x:"),
        ("utf-8", "Universit\u00e9 \u0416 \\xe9 [b]:x:"),
    ],
)
def test_what_stdout_cannot_encode_is_printed_as_an_escape(
    encoding: str, shown: str, sound: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = sound.rename(sound.with_name("Universit\u00e9 \u0416 \udce9 [b]:x:.npz"))
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding, errors="strict")
    monkeypatch.setattr(sys, "stdout", stream)
    assert run("plan", "mnist_iid", "--hospitals", "2", *words(data_file=file)) == cli.OK
    stream.flush()
    assert shown in stream.buffer.getvalue().decode(encoding)


def test_names_that_are_not_utf8_work_from_the_simulation_to_the_report(
    sound: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    quick_runs(monkeypatch)
    logged: list[str] = []
    monkeypatch.setattr(server_app, "log", lambda _level, text, *values: logged.append(text % values))
    simulation = tmp_path / "mine\udce9"
    simulation.mkdir()
    (simulation / "pyproject.toml").write_text(SIMULATION)
    file = sound.rename(tmp_path / "Universit\udce9.npz")
    output = tmp_path / "[" / "b]out\udce9"
    given = ["--hospitals", "2", "--in-process", *words(data_file=file, output_dir=output)]
    assert run("run", str(simulation), *given, "--json") == cli.OK
    assert json.loads(capsys.readouterr().out)["summary"]["status"] == "completed"

    assert "artefacts: " in logged[0]
    "".join(logged).encode()  # Flower sends its log in messages, which take nothing but UTF-8

    for artefact in ("config.json", "summary.json", "privacy_card.md", "report.html"):
        assert r"Universit\xe9.npz" in (output / artefact).read_text(encoding="utf-8").replace("\\\\", "\\")
    config = json.loads((output / "config.json").read_text())["config"]
    assert path_of(config["data-file"], "data-file") == file
    assert path_of(config["output-dir"], "output-dir") == output
    json.dumps(config, ensure_ascii=False).encode()
    for command in ("show", "report"):
        assert run(command, str(output)) == cli.OK
    assert r"Universit\xe9.npz" in capsys.readouterr().out


def test_plan_prints_no_warning_of_a_library(sound: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A sample rate of 1 makes Opacus take the logarithm of 0."""
    given = words(data_file=sound, batch_size=500)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert run("plan", "mnist_iid", "--hospitals", "2", *given) == cli.OK
    lines = notices(capsys.readouterr().err)
    assert lines
    assert all(line.startswith("warning: ") for line in lines)


def test_plan_says_that_the_smallest_noise_decides_for_a_large_target(
    sound: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for target, said in ((100, True), (3, False)):
        given = words(data_file=sound, batch_size=90, noise_multiplier=0, target_epsilon=target)
        assert run("plan", "mnist_iid", "--hospitals", "2", *given) == cli.OK
        err = " ".join(capsys.readouterr().err.split())
        text = f"is the smallest allowed, so target-epsilon = {target} is not used up"
        assert (text in err) is said
