"""Paths that a user names: any bytes, any kind of file, nothing left behind by a check."""

import errno
import os
from pathlib import Path

import pytest

from fl_ppae.errors import UserError, printable
from fl_ppae.paths import MISSING, check_can_hold_files, file_problem, kind_of, path_of, path_text

NAMES = [
    "plain",
    "with space",
    "Universit\u00e9",
    "Universit\udce9",
    "a\nb",
    "100%25 %E9",
    "[b]:smile:",
    "~x",
]


@pytest.mark.parametrize("name", NAMES)
def test_the_text_of_a_path_is_utf8_and_leads_back_to_it(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path_text(path).encode()
    assert path_of(path_text(path), "x") == path
    assert path_of(str(path), "x") == path


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("Universit\u00e9 \u0442\u0435\u0441\u0442", "Universit\u00e9 \u0442\u0435\u0441\u0442"),
        ("Universit\udce9", r"Universit\xe9"),
        ("a\nb\x1b[31m", r"a\x0ab\x1b[31m"),
        ("\u202egpj", r"\u202egpj"),
        ("\ud800", r"\ud800"),
    ],
)
def test_a_message_is_one_line_that_any_utf8_file_takes(name: str, shown: str) -> None:
    assert printable(name) == shown
    assert str(UserError(f"{name}: no")) == f"{shown}: no"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("~nobody-of-this-name/x", "is no user's home"),
        ("a\0b", "zero byte"),
        ("file:///a%00b", "zero byte"),
        ("{loop}", "leads back to itself"),
        ("{loop}/x.npz", "leads back to itself"),
    ],
)
def test_what_can_be_no_path_is_refused_by_key(text: str, problem: str, tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(UserError, match=f"^data-file = .*{problem}"):
        path_of(text.format(loop=tmp_path / "loop"), "data-file")


def test_a_deleted_working_directory_matters_only_to_relative_paths(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert path_of(str(tmp_path / "x"), "data-file") == tmp_path / "x"
    with pytest.raises(UserError, match="the current folder is gone"):
        path_of("x", "data-file")


def test_only_a_readable_file_passes_for_a_file(tmp_path: Path) -> None:
    """Nothing here waits for the other end of a pipe."""
    sound = tmp_path / "sound"
    sound.write_bytes(b"1")
    (tmp_path / "link").symlink_to("sound")
    assert [file_problem(tmp_path / name) for name in ("sound", "link")] == ["", ""]

    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "nowhere").symlink_to("missing")
    (tmp_path / "loop").symlink_to("loop")
    problems = {
        "pipe": "a named pipe, not a file",
        ".": "a folder, not a file",
        "missing": MISSING,
        "nowhere": MISSING,
        "sound/below": MISSING,
        "loop": "a link that leads back to itself",
        "n" * 300: "a name that is too long",
    }
    assert {name: file_problem(tmp_path / name) for name in problems} == problems
    assert file_problem(Path(os.devnull)) == "a device, not a file"


@pytest.mark.parametrize("refused", ["open", "stat"])
def test_an_unreadable_file_is_not_called_missing(
    refused: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuses(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    (tmp_path / "secret").write_bytes(b"1")
    monkeypatch.setattr(Path, refused, refuses)
    assert file_problem(tmp_path / "secret") == "no permission to read it"


def test_a_folder_that_can_hold_files_is_left_as_it_was(tmp_path: Path) -> None:
    check_can_hold_files(tmp_path / "a" / "b", "output-dir")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "there").mkdir()
    check_can_hold_files(tmp_path / "there", "output-dir")
    assert list(tmp_path.iterdir()) == [tmp_path / "there"]


def test_a_folder_that_cannot_hold_files_is_refused_and_nothing_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_bytes(b"")
    for folder, problem in (("file/run", "Not a directory"), ("a/" + "n" * 300, "File name too long")):
        with pytest.raises(UserError, match=f"^output-dir .* can't be written \\({problem}\\)"):
            check_can_hold_files(tmp_path / folder, "output-dir")

    def refuses(self: Path, *_: object, **__: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(Path, "mkdir", refuses)
    with pytest.raises(UserError, match="Read-only file system"):
        check_can_hold_files(tmp_path / "b", "output-dir")
    assert list(tmp_path.iterdir()) == [tmp_path / "file"]


def test_kinds_are_told_without_an_error(tmp_path: Path) -> None:
    assert (kind_of(tmp_path), kind_of(tmp_path / "no")) == ("a folder", MISSING)
