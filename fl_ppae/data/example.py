"""Writes images as a user's own data would lie on a disk: a folder, a manifest, or DICOM files."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from fl_ppae.data.manifest import NEEDED
from fl_ppae.data.npz import SPLITS, Arrays
from fl_ppae.data.spec import own_spec
from fl_ppae.data.standin import stand_in

_DEEPER = 16  # what DICOM files of grey images store for one of 255 levels


def example_arrays() -> tuple[Arrays, tuple[str, ...]]:
    """Drawn images of 28 x 28 grey pixels, of 3 classes: 400 for train, 80 for val, 100 for test."""
    names = ("few", "many", "pairs")
    spec = own_spec((1, 28, 28), names, any_way_up=False)
    counts = {"train": 400, "val": 80, "test": 100}
    return {key: array[: counts[key.split("_")[0]]] for key, array in stand_in(spec).items()}, names


def write_folder(arrays: Arrays, class_names: Sequence[str], root: Path) -> Path:
    """`root`/SPLIT/CLASS/NUMBER.png; numbers count through the classes, so that names keep the order."""
    for split, number, image, label in _records(arrays):
        path = root / split / class_names[label] / f"{number:05}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        _picture(image).save(path)
    return root


def write_manifest(
    arrays: Arrays, class_names: Sequence[str], root: Path, hospitals: Sequence[str], of_a_patient: int = 3
) -> Path:
    """`root`/manifest.csv with its images in `root`/images; a patient's records are of one hospital."""
    (root / "images").mkdir(parents=True)
    manifest = root / "manifest.csv"
    with manifest.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow([*NEEDED, "patient", "hospital"])
        for split, number, image, label in _records(arrays):
            name = f"images/{split}-{number:05}.png"
            _picture(image).save(root / name)
            patient = number // of_a_patient
            hospital = hospitals[patient % len(hospitals)]
            table.writerow([name, class_names[label], split, f"{split}-{patient}", hospital])
    return manifest


def write_dicom(arrays: Arrays, class_names: Sequence[str], root: Path, of_a_patient: int = 3) -> Path:
    """As `write_folder`, as uncompressed DICOM: colour of 8 bits, grey of 16 bits with a window.

    Raises:
        ImportError: pydicom is not installed.
    """
    for split, number, image, label in _records(arrays):
        path = root / split / class_names[label] / f"{number:05}.dcm"
        path.parent.mkdir(parents=True, exist_ok=True)
        _save_dicom(image, f"{split}-{number // of_a_patient}", path)
    return root


def _records(arrays: Arrays) -> Iterator[tuple[str, int, np.ndarray, int]]:
    for split in SPLITS:
        pairs = zip(arrays[f"{split}_images"], arrays[f"{split}_labels"].ravel().tolist(), strict=True)
        for number, (image, label) in enumerate(pairs):
            yield split, number, image, label


def _picture(image: np.ndarray) -> Image.Image:
    return Image.fromarray(image[..., 0] if image.shape[2] == 1 else image)


def _save_dicom(image: np.ndarray, patient: str, path: Path) -> None:
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage, generate_uid

    grey = image.shape[2] == 1
    header = Dataset()
    header.file_meta = FileMetaDataset()
    header.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    header.SOPClassUID = SecondaryCaptureImageStorage
    header.SOPInstanceUID = generate_uid(entropy_srcs=[str(path)])
    header.PatientID = patient
    header.Rows, header.Columns, header.SamplesPerPixel = image.shape
    header.PixelRepresentation = 0
    if grey:
        header.PhotometricInterpretation = "MONOCHROME2"
        header.BitsAllocated, header.BitsStored, header.HighBit = 16, 12, 11
        header.WindowCenter, header.WindowWidth = 255 * _DEEPER / 2 + 0.5, 255 * _DEEPER + 1
        header.PixelData = (image.astype("<u2") * _DEEPER).tobytes()
    else:
        header.PhotometricInterpretation, header.PlanarConfiguration = "RGB", 0
        header.BitsAllocated = header.BitsStored = 8
        header.HighBit = 7
        header.PixelData = image.tobytes() + bytes(image.size % 2)
    header.save_as(path, enforce_file_format=True)
