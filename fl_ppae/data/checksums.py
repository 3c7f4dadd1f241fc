"""MD5s of files, remembered until a file changes: official files have up to 200 MB."""

from __future__ import annotations

import contextlib
import hashlib
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from filelock import FileLock

from fl_ppae.files import home, read_json, write_json
from fl_ppae.steps import count, step

# A file changed this recently could change again without getting a new time stamp.
_SETTLED_NS = 2_000_000_000


def md5_of(text: str) -> str:
    """Hexadecimal MD5 of `text`: an identity, not a protection."""
    return hashlib.md5(text.encode(errors="surrogateescape"), usedforsecurity=False).hexdigest()


def file_md5(path: Path) -> str:
    """Hexadecimal MD5 of the file.

    Remembered in the cache folder by absolute path, size and times of change. If one of them differs, the
    file is read again.

    Raises:
        OSError: the file is missing or unreadable.
    """
    return _remembered(path.absolute(), lambda: _stamp(path), lambda: _md5(path))


def tree_md5(folder: Path, names: Sequence[str]) -> str:
    """Hexadecimal MD5 of these files under `folder`: of their names and of what each holds.

    Remembered like `file_md5`. A file that can't be read counts with its name alone.
    """

    def stamp() -> list[object]:
        stamps = {name: _stamp_if_any(folder / name) for name in names}
        newest = max((times[1] for times in stamps.values() if times), default=0)
        return [md5_of(repr(stamps)), newest]

    def digest() -> str:
        step(f"looking for changes in {len(names):,} files")
        held = []
        for number, name in enumerate(names, 1):
            with contextlib.suppress(OSError):
                if (folder / name).is_file():  # a named pipe would be waited for
                    held.append((name, _md5(folder / name)))
            count(number, len(names))
        return md5_of(repr((names, held)))

    return _remembered(folder.absolute(), stamp, digest)


def _remembered(path: Path, stamp: Callable[[], list[Any]], digest: Callable[[], str]) -> str:
    """The digest of what is at `path`, computed if its stamp, which holds a time of change second, is new."""
    before = stamp()
    known = _read_index().get(str(path))
    if isinstance(known, dict) and known.get("stamp") == before and isinstance(known.get("md5"), str):
        return known["md5"]
    found = digest()
    settled = time.time_ns() - before[1] > _SETTLED_NS
    if settled and stamp() == before:
        _remember(path, {"stamp": before, "md5": found})
    return found


def _md5(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def _stamp(path: Path) -> list[int]:
    status = path.stat()
    return [status.st_size, status.st_mtime_ns, status.st_ctime_ns]


def _stamp_if_any(path: Path) -> list[int] | None:
    try:
        return _stamp(path)
    except OSError:
        return None


def _index() -> Path:
    return home() / "cache" / "md5.json"


def _read_index() -> dict[str, object]:
    try:
        index = read_json(_index())
    except (OSError, ValueError):
        return {}
    return index if isinstance(index, dict) else {}


def _remember(path: Path, entry: dict[str, object]) -> None:
    with contextlib.suppress(OSError):  # without this cache, the file is read again next time
        _index().parent.mkdir(parents=True, exist_ok=True)
        with FileLock(_index().with_name(".md5.lock")):
            index = _read_index() | {str(path): entry}
            write_json(_index(), index)
