"""A user's own images (`dataset = "custom"`): an `.npz`, a folder or a manifest, described and cached.

What is in the files decides shape and classes only where nothing is declared. `fl-ppae run` writes what it
finds into the run's configuration, and every hospital checks its own files against that.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from fl_ppae.data.cache import Dataset, DataSource, obtain
from fl_ppae.data.checksums import file_md5, md5_of, tree_md5
from fl_ppae.data.dicom import is_dicom, patient_in
from fl_ppae.data.folder import list_folder
from fl_ppae.data.listing import Listing, in_class_order, named, with_server_split
from fl_ppae.data.manifest import SUFFIXES, list_manifest
from fl_ppae.data.npz import SPLITS, Arrays
from fl_ppae.data.own_files import Target, first_shape, read_listing
from fl_ppae.data.own_npz import describe_npz, read_own_npz
from fl_ppae.data.pictures import Unreadable
from fl_ppae.data.spec import DatasetSpec, own_spec
from fl_ppae.declared import Declared
from fl_ppae.errors import UserError, printable
from fl_ppae.paths import FOLDER, MISSING, kind_of, os_reason
from fl_ppae.steps import count, step

_READER = 1  # part of every digest: raise it when a file is read differently than before
_UNKNOWN = "\0"
Warn = Callable[[str], None]


@dataclass(frozen=True)
class OwnData:
    """A user's data, looked at but not read.

    Attributes:
        listing: of a folder or manifest; None for an `.npz`.
        asked: what was declared.
        target: the shape and classes, declared or found.
    """

    path: Path
    listing: Listing | None
    asked: Declared
    target: Target


def look_at(path: Path, asked: Declared) -> OwnData:
    """What is at `path`: lists a folder or manifest, and reads one image or the labels of an `.npz`.

    Raises:
        UserError: it can't be used; names what is wrong and what would be right.
    """
    if path.suffix.lower() == ".npz" and kind_of(path) != FOLDER:
        return OwnData(path, None, asked, Target(*describe_npz(path, asked)))
    listing = in_class_order(listing_at(path), asked.class_names)
    shape = asked.shape or first_shape(listing, asked)
    return OwnData(path, listing, asked, Target(shape, listing.class_names or ()))


def listing_at(path: Path) -> Listing:
    """The records of the folder or manifest at `path`."""
    kind = kind_of(path)
    if kind == FOLDER:
        return list_folder(path)
    if path.suffix.lower() in SUFFIXES:
        return list_manifest(path)
    what = kind if kind == MISSING else "of an unknown kind"
    raise UserError(f"{path}: {what}; expected an .npz, a folder of images, or a manifest (.csv or .parquet)")


def own_dataset(own: OwnData, any_way_up: bool, warn: Warn) -> Dataset:
    """The images, read once into the cache.

    Raises:
        UserError: as `look_at`; or the files can't be read, or train and test are the same.
    """
    spec = own_spec(own.target.shape, own.target.class_names, any_way_up)
    source = DataSource(spec.title, "file", printable(own.path.name), _digest(own, spec))

    def read(scratch: Path) -> Arrays:
        arrays = _read(own, spec, scratch, warn)
        if _digest(own, spec) != source.md5:
            raise UserError(f"{own.path} changed while it was being read; start again")
        return arrays

    dataset = obtain(spec, source, read)
    if np.isin(dataset.identities["test"], dataset.identities["train"]).all():
        raise UserError(f"{own.path}: every test image stands in train; results on test would say nothing")
    return dataset


def with_header_patients(listing: Listing) -> Listing:
    """`listing` with the patients that DICOM headers name, where the listing itself names none."""
    if any(entry.patient for entry in listing.entries):
        return listing
    step("reading the headers of DICOM files")
    entries = []
    for number, entry in enumerate(listing.entries, 1):
        path = listing.folder / entry.path
        try:
            entries.append(replace(entry, patient=patient_in(path)) if is_dicom(path) else entry)
        except Unreadable:  # a patient of its own, until its pixels can't be read either
            entries.append(replace(entry, patient=f"{_UNKNOWN}{entry.path}"))
        count(number, len(listing.entries))
    if all(entry.patient.startswith(_UNKNOWN) or not entry.patient for entry in entries):
        return listing
    return replace(listing, entries=tuple(entries))


def _read(own: OwnData, spec: DatasetSpec, scratch: Path, warn: Warn) -> Arrays:
    if own.listing is None:
        return read_own_npz(own.path, spec, own.asked, scratch)
    listing = with_server_split(with_header_patients(own.listing))
    read = read_listing(listing, own.asked, own.target, scratch)
    if lines := read.problems.lines(listing, own.asked, own.target):
        raise UserError(lines[0])
    if empty := [split for split in SPLITS if not read.names[split]]:
        raise UserError(f"{own.path}: no file of {named(empty)} can be used: {read.problems.reasons()}")
    for warning in read.problems.warnings(listing):
        warn(warning)
    return read.arrays


def _digest(own: OwnData, spec: DatasetSpec) -> str:
    """Of what the files hold and of how they are read."""
    try:
        if own.listing is None:
            held = file_md5(own.path)
        else:
            held = tree_md5(own.listing.folder, [entry.path for entry in own.listing.entries])
    except OSError as error:
        raise UserError(f"data-file: {own.path} can't be read ({os_reason(error)})") from None
    entries = own.listing.entries if own.listing else ()
    asked = (own.asked.intensity_range, own.asked.resize, own.asked.max_unreadable)
    return md5_of(f"{_READER}|{held}|{spec}|{asked}|{entries}")
