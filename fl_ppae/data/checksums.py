"""MD5s of files, remembered until a file changes: official files have up to 200 MB."""

from __future__ import annotations

import contextlib
import hashlib
import time
from pathlib import Path

from filelock import FileLock

from fl_ppae.files import home, read_json, write_json

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
    path = path.absolute()
    stamp = _stamp(path)
    known = _read_index().get(str(path))
    if isinstance(known, dict) and known.get("stamp") == stamp and isinstance(known.get("md5"), str):
        return known["md5"]
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
    settled = time.time_ns() - path.stat().st_mtime_ns > _SETTLED_NS
    if settled and _stamp(path) == stamp:
        _remember(path, {"stamp": stamp, "md5": digest})
    return digest


def _stamp(path: Path) -> list[int]:
    status = path.stat()
    return [status.st_size, status.st_mtime_ns, status.st_ctime_ns]


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
