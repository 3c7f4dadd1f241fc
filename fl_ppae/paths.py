"""Paths that a user names: read from a key or an option, checked before work starts, written as text.

On Linux a file's name is bytes. Python keeps those that are not UTF-8 as lone surrogates, which no message,
TOML file or figure takes; a `file:` URI holds any name in ASCII.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import tempfile
from pathlib import Path
from urllib.parse import unquote_to_bytes

from fl_ppae.errors import UserError

FILE, FOLDER = "a file", "a folder"
MISSING, _LOOP = "no such file", "a link that leads back to itself"

_URI = "file:///"
_KINDS = {
    stat.S_IFREG: FILE,
    stat.S_IFDIR: FOLDER,
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}
_REASONS = {
    errno.ENOENT: MISSING,
    errno.ENOTDIR: MISSING,
    errno.EACCES: "no permission to read it",
    errno.EPERM: "no permission to read it",
    errno.ELOOP: _LOOP,
    errno.ENAMETOOLONG: "a name that is too long",
}


def path_of(text: str, what: str) -> Path:
    """The absolute path that `text` names: a path, which may begin with `~`, or a `file:` URI.

    Raises:
        UserError: there can be no such path, or a link in it leads back to itself. Begins with `what`.
    """
    name = os.fsdecode(unquote_to_bytes(text.removeprefix("file://"))) if text.startswith(_URI) else text
    if "\0" in name:
        raise UserError(f"{what} = {text!r}: no path has a zero byte")
    path = Path(name)
    try:
        path = path.expanduser().absolute()
    except RuntimeError:
        raise UserError(f"{what} = {text!r}: {path.parts[0]} is no user's home") from None
    except FileNotFoundError:
        raise UserError(f"{what} = {text!r}: the current folder is gone; give the whole path") from None
    if kind_of(path) == _LOOP:
        raise UserError(f"{what} = {text!r}: {_LOOP}")
    return path


def path_text(path: Path) -> str:
    """The absolute `path` as UTF-8 text that `path_of` reads: itself, or a `file:` URI if it isn't UTF-8."""
    text = str(path)
    try:
        text.encode()
    except UnicodeEncodeError:
        return path.as_uri()
    return text


def kind_of(path: Path) -> str:
    """What `path` names, links followed: FILE, FOLDER or another kind; MISSING; or why it can't be told."""
    try:
        return _KINDS.get(stat.S_IFMT(path.stat().st_mode), "of an unknown kind")
    except OSError as error:
        return _reason(error)


def file_problem(path: Path) -> str:
    """Why `path` can't be read as a file, in a few words; empty if it can. Never waits for a pipe."""
    kind = kind_of(path)
    if kind != FILE:
        return f"{kind}, not a file" if kind in _KINDS.values() else kind
    try:
        with path.open("rb"):
            return ""
    except OSError as error:
        return _reason(error)


def check_can_hold_files(folder: Path, what: str) -> None:
    """Raise unless `folder` can be made, or is there, and a file can be written in it. Leaves nothing behind.

    Raises:
        UserError: says why not. The message begins with `what`.
    """
    made: list[Path] = []
    try:
        made = [path for path in (folder, *folder.parents) if not path.exists()]
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as probe:
            probe.write(bytes(4096))
    except OSError as error:
        raise UserError(
            f"{what} {folder} can't be written ({os_reason(error)}); name another folder"
        ) from None
    finally:
        for path in made:
            with contextlib.suppress(OSError):  # it was never made, or another run has files in it by now
                path.rmdir()


def os_reason(error: OSError) -> str:
    """The cause of `error` in the system's words, without the path."""
    return error.strerror or str(error)


def _reason(error: OSError) -> str:
    return _REASONS.get(error.errno or 0, os_reason(error))
