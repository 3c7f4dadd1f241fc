"""What a user's own data hold, and everything that is wrong with them: more than the first mistake."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from fl_ppae.data.cache import Dataset, DataSource, Split
from fl_ppae.data.identities import identities
from fl_ppae.data.listing import Listing, named, with_server_split
from fl_ppae.data.near import CELLS, LEVELS, nearest
from fl_ppae.data.npz import SPLITS, Arrays
from fl_ppae.data.own_data import OwnData, look_at, with_header_patients
from fl_ppae.data.own_files import hospital_numbers, read_listing
from fl_ppae.data.own_npz import read_own_npz
from fl_ppae.data.repeats import examine
from fl_ppae.data.spec import own_spec
from fl_ppae.declared import Declared, names_text, shape_text
from fl_ppae.errors import UserError

_PAIRS = (("train", "val"), ("train", "test"), ("val", "test"))


@dataclass
class Inspection:
    """What was found at `path`. Nothing of it leaves the machine.

    Attributes:
        keys: `image-shape` and `class-names` as a run's configuration has them.
        counts: records of each class, by split.
        hospitals: train records of each hospital that the data name, in the order of their numbers.
        patients: how many there are; None if the data name none.
        sites: records of each site that a manifest names.
        intensities: the lowest and the highest pixel as stored; None for an `.npz` of 8 bits.
        wrong: why the data can't be used, a line each; empty if they can.
        warnings: what a reader of results should know, a line each.
    """

    path: Path
    keys: dict[str, str] = field(default_factory=dict)
    counts: dict[str, dict[str, int]] = field(default_factory=dict)
    hospitals: dict[str, int] = field(default_factory=dict)
    patients: int | None = None
    sites: dict[str, int] = field(default_factory=dict)
    intensities: tuple[float, float] | None = None
    wrong: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    @property
    def records(self) -> dict[str, int]:
        """How many there are in each split."""
        return {split: sum(classes.values()) for split, classes in self.counts.items()}

    def document(self) -> dict[str, Any]:
        """The JSON form."""
        return {
            "path": str(self.path),
            "usable": not self.wrong,
            "wrong": self.wrong,
            "warnings": self.warnings,
            "keys": self.keys,
            "records": self.records,
            "classes": self.counts,
            "hospitals": self.hospitals,
            "patients": self.patients,
            "sites": self.sites,
            "intensities": self.intensities,
        }


def inspect(path: Path, asked: Declared, scratch: Path) -> Inspection:
    """Read everything at `path` and note what is wrong; images are kept in the empty folder `scratch`."""
    found = Inspection(path)
    with _noted(found.wrong):
        own = look_at(path, asked)
        found.keys = {
            "image-shape": shape_text(own.target.shape),
            "class-names": names_text(own.target.class_names),
        }
        arrays, names = _read(own, scratch, found)
        if all(len(arrays[f"{split}_labels"]) for split in SPLITS):
            _count(arrays, own.target.class_names, found)
            _look_for_repeats(own, arrays, names, found)
        elif not found.wrong:
            found.wrong.append(f"{path}: no usable record is left in one of the splits")
    return found


@contextmanager
def _noted(wrong: list[str]) -> Iterator[None]:
    """Go on after this block, with the mistake that ended it noted."""
    try:
        yield
    except UserError as error:
        wrong.append(str(error))


def _read(own: OwnData, scratch: Path, found: Inspection) -> tuple[Arrays, Mapping[str, Sequence[str]]]:
    if own.listing is None:
        spec = own_spec(own.target.shape, own.target.class_names, any_way_up=False)
        arrays = read_own_npz(own.path, spec, own.asked, scratch)
        return arrays, {
            split: [f"record {row}" for row in range(len(arrays[f"{split}_labels"]))] for split in SPLITS
        }
    listing = with_header_patients(own.listing)
    with _noted(found.wrong):
        listing = with_server_split(listing)
    _describe(listing, found)
    read = read_listing(listing, own.asked, own.target, scratch)
    found.wrong += read.problems.lines(listing, own.asked, own.target)
    found.warnings += read.problems.warnings(listing) if not found.wrong else []
    found.intensities = read.intensities
    return read.arrays, read.names


def _describe(listing: Listing, found: Inspection) -> None:
    """Note what the listing says of hospitals, patients and sites."""
    sizes = Counter(entry.hospital for entry in listing.of("train"))
    found.hospitals = {name: sizes[name] for name in hospital_numbers(listing.entries)}
    patients = {entry.patient for entry in listing.entries} - {""}
    found.patients = len(patients) or None
    found.sites = dict(Counter(entry.site for entry in listing.entries if entry.site))


def _count(arrays: Arrays, class_names: Sequence[str], found: Inspection) -> None:
    for split in SPLITS:
        counts = np.bincount(arrays[f"{split}_labels"], minlength=len(class_names))
        found.counts[split] = dict(zip(class_names, counts.tolist(), strict=True))


def _look_for_repeats(
    own: OwnData, arrays: Arrays, names: Mapping[str, Sequence[str]], found: Inspection
) -> None:
    numbers = identities({split: arrays[f"{split}_images"] for split in SPLITS})
    if np.isin(numbers["test"], numbers["train"]).all():
        found.wrong.append(f"{own.path}: every test image stands in train")
    spec = own_spec(own.target.shape, own.target.class_names, any_way_up=False)
    splits = {split: Split(arrays[f"{split}_images"], arrays[f"{split}_labels"]) for split in SPLITS}
    dataset = Dataset(
        spec=spec,
        source=DataSource(spec.title, "file", own.path.name, ""),
        identities=numbers,
        path=own.path,
        **splits,
    )
    found.warnings += examine(dataset).in_words()
    for one, other in _PAIRS:
        positions, distances = nearest(splits[other].images, splits[one].images)
        near = np.flatnonzero((distances <= LEVELS) & ~np.isin(numbers[other], numbers[one]))
        if len(near):
            pairs = [f"{names[other][row]} and {names[one][positions[row]]}" for row in near.tolist()]
            found.warnings.append(
                f"{len(near)} {other} images are nearly the same as one in {one} (within {LEVELS:g} of 255 "
                f"grey levels at {CELLS} x {CELLS}): {named(pairs)}"
            )
