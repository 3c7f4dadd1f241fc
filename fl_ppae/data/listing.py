"""The records of a user's own folder or manifest, before any image is decoded."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from fl_ppae.data.natural import natural
from fl_ppae.data.npz import carved_positions
from fl_ppae.errors import UserError, printable

_NAMED = 3  # files, classes or rows named in a message


@dataclass(frozen=True)
class Entry:
    """One record: a file and what is said of it.

    Attributes:
        path: of the file, relative to the listing's folder.
        label: the name of its class, as `declared.class_name`.
        patient, hospital, site: empty if nothing is said. `patient` only groups records and is never shown.
    """

    path: str
    split: str
    label: str
    patient: str = ""
    hospital: str = ""
    site: str = ""


@dataclass(frozen=True)
class Listing:
    """All records of a folder or a manifest, in order.

    Attributes:
        where: the folder or manifest that the user named; every message begins with it.
        folder: paths of entries are relative to it.
        class_names: the classes in the order of their labels, if something declares it.
        others: files in the folder that are no images, relative to it.
    """

    where: Path
    folder: Path
    entries: tuple[Entry, ...]
    class_names: tuple[str, ...] | None = None
    others: tuple[str, ...] = ()

    def of(self, split: str) -> list[Entry]:
        """The entries of a split, in order."""
        return [entry for entry in self.entries if entry.split == split]


def in_class_order(listing: Listing, class_names: tuple[str, ...] | None) -> Listing:
    """`listing` with its classes in order: declared, else by `classes.txt`, else the natural one.

    Raises:
        UserError: a class is not declared, or train or test has no record.
    """
    for split in ("train", "test"):
        if not listing.of(split):
            raise UserError(f"{listing.where}: no {split} record; train and test need at least one each")
    found = {entry.label for entry in listing.entries}
    order, said_by = class_names or listing.class_names, "class-names" if class_names else "classes.txt"
    if order is None:
        order = tuple(sorted(found, key=natural))
    elif unknown := sorted(found - set(order), key=natural):
        raise UserError(f"{listing.where}: {said_by} lacks {named(unknown)}; it lists {named(order)}")
    if len(order) < 2:
        raise UserError(f"{listing.where}: its only class is {order[0]}; at least 2 are needed")
    return replace(listing, class_names=order)


def with_server_split(listing: Listing) -> Listing:
    """`listing` with a validation split, and no patient in two splits.

    Where there is none, a tenth of train becomes it: whole patients, and always the same records.

    Raises:
        UserError: some records lack a patient, or patients are in several splits.
    """
    _check_patients(listing)
    return listing if listing.of("val") else _carved(listing)


def named(names: Iterable[str]) -> str:
    """The first few of these names, and how many more there are."""
    every = [printable(name) for name in names]
    more = f" and {len(every) - _NAMED} more" if len(every) > _NAMED else ""
    return ", ".join(every[:_NAMED]) + more


def divided(groups: Sequence[str], parts: Sequence[str]) -> int:
    """How many of the different `groups` (N) have members in more than one of `parts` (N)."""
    return sum(
        count > 1 for count in Counter(group for group, _ in set(zip(groups, parts, strict=True))).values()
    )


def _check_patients(listing: Listing) -> None:
    patients = [entry.patient for entry in listing.entries]
    without = [entry.path for entry in listing.entries if not entry.patient]
    if len(without) == len(patients):
        return
    if without:
        raise UserError(
            f"{listing.where}: {len(without)} records have no patient, the others do, such as "
            f"{named(without)}; name one for each record, or for none"
        )
    if count := divided(patients, [entry.split for entry in listing.entries]):
        raise UserError(
            f"{listing.where}: {count} patients have records in more than one split; results on test would "
            "flatter, so put all records of a patient into one split"
        )


def _carved(listing: Listing) -> Listing:
    """Move a tenth of train to val: whole patients, and always the same records."""
    train = [place for place, entry in enumerate(listing.entries) if entry.split == "train"]
    units = [listing.entries[place].patient or str(place) for place in train]
    order = list(dict.fromkeys(units))
    chosen = {order[position] for position in carved_positions(len(order), str(listing.where))}
    moved = {place for place, unit in zip(train, units, strict=True) if unit in chosen}
    entries = [
        replace(entry, split="val") if place in moved else entry
        for place, entry in enumerate(listing.entries)
    ]
    return replace(listing, entries=tuple(entries))
