"""A folder of images: `train/CLASS/*.png`, `val/CLASS/...` if there is a server's split, `test/CLASS/...`."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from fl_ppae.data.listing import Entry, Listing, named
from fl_ppae.data.natural import natural
from fl_ppae.data.npz import SPLITS
from fl_ppae.declared import class_name
from fl_ppae.errors import UserError
from fl_ppae.paths import file_problem, os_reason

SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".dcm")
CLASSES = "classes.txt"
_LITTER = ("thumbs.db", "desktop.ini")  # what file managers leave; hidden files are skipped too


def list_folder(root: Path) -> Listing:
    """The images under `root`, in natural order of their names, whatever their class.

    Raises:
        UserError: the layout is another, or something can't be read.
    """
    splits = [name for name in _names(root) if (root / name).is_dir() and not name.startswith(".")]
    if not {"train", "test"} <= set(splits):
        raise UserError(
            f"{root}: its folders are {named(splits) or 'none'}; expected train and test, each with a folder "
            "for each class, and val for the server's images if there are any"
        )
    if others := [name for name in splits if name not in SPLITS]:
        raise UserError(f"{root}: unknown folder {named(others)}; expected {', '.join(SPLITS)}")
    images: list[str] = []
    strangers: list[str] = []
    for split in SPLITS:
        for path in _files(root, split) if split in splits else ():
            is_image = path.lower().endswith(SUFFIXES) and path.count("/") >= 2
            (images if is_image else strangers).append(path)
    entries = [Entry(path, path.split("/")[0], class_name(path.split("/")[1])) for path in images]
    entries.sort(key=_place)
    classes = _declared_classes(root)
    empty = _classes_with_a_folder(root) - {entry.label for entry in entries}
    if empty and classes is None:
        raise UserError(
            f"{root}: no image of class {named(sorted(empty, key=natural))}; remove the folder, or list all "
            f"classes in {CLASSES}"
        )
    return Listing(root, root, tuple(entries), classes, tuple(strangers))


def _place(entry: Entry) -> tuple[object, ...]:
    """By split, then by the path within the class: names that count through all classes keep their order."""
    within = entry.path.split("/", 2)[2]
    return SPLITS.index(entry.split), natural(within), natural(entry.label)


def _classes_with_a_folder(root: Path) -> set[str]:
    return {
        class_name(name)
        for split in SPLITS
        if (root / split).is_dir()
        for name in _names(root / split)
        if (root / split / name).is_dir() and not name.startswith(".")
    }


def _files(root: Path, start: str) -> Iterator[str]:
    """Paths of all files below `start`, relative to `root`. Follows no link to a folder."""
    for name in _names(root / start):
        path = f"{start}/{name}"
        if name.startswith(".") or name.lower() in _LITTER:
            continue
        if not (root / path).is_dir():
            yield path
        elif (root / path).is_symlink():
            raise UserError(f"{root / path} is a link to a folder; put the folder itself there")
        else:
            yield from _files(root, path)


def _names(folder: Path) -> list[str]:
    try:
        return sorted(path.name for path in folder.iterdir())
    except OSError as error:
        raise UserError(f"{folder}: the folder can't be read ({os_reason(error)})") from None


def _declared_classes(root: Path) -> tuple[str, ...] | None:
    path = root / CLASSES
    if not path.exists():
        return None
    if problem := file_problem(path):
        raise UserError(f"{path}: {problem}")
    lines = [line.rstrip(b"\r") for line in path.read_bytes().removeprefix(b"\xef\xbb\xbf").split(b"\n")]
    names = tuple(class_name(os.fsdecode(line)) for line in lines if line)
    if len(set(names)) < max(len(names), 2):
        raise UserError(f"{path}: must list two or more different classes, one a line")
    return names
