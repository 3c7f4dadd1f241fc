"""What is made of a DICOM file: its pixels by its header and public constants alone, and its patient."""

from __future__ import annotations

import io
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from data.own_sets import WRITERS, first_image, opened, small_arrays
from PIL import Image

from fl_ppae.data.dicom import read_dicom
from fl_ppae.errors import UserError


@pytest.fixture
def scans(tmp_path: Path) -> Path:
    return WRITERS["dicom"](tmp_path, small_arrays(1))


def header(scans: Path, **changed: Any) -> None:
    """Change the header of one of the scans, that of the first image of train."""
    path = scans / "train" / "blue" / "00000.dcm"
    dataset = pydicom.dcmread(path)
    for tag, value in changed.items():
        if value is None:
            delattr(dataset, tag)
        else:
            setattr(dataset, tag, value)
    dataset.save_as(path)


STORED = small_arrays(1)["train_images"][0][..., 0].astype(int) * 16
HEADERS: dict[str, tuple[dict[str, Any], Callable[[], np.ndarray]]] = {
    "MONOCHROME1 is turned": (
        {"PhotometricInterpretation": "MONOCHROME1"},
        lambda: 255 - np.rint(STORED / 16),
    ),
    "a window": (
        {"WindowCenter": 1000.5, "WindowWidth": 401},
        lambda: np.rint((STORED.clip(800, 1200) - 800) / 400 * 255),
    ),
    "the first of several windows": (
        {"WindowCenter": [1000.5, 9], "WindowWidth": [401, 2]},
        lambda: np.rint((STORED.clip(800, 1200) - 800) / 400 * 255),
    ),
    "an exact window": (
        {"WindowCenter": 1000, "WindowWidth": 400, "VOILUTFunction": "LINEAR_EXACT"},
        lambda: np.rint((STORED.clip(800, 1200) - 800) / 400 * 255),
    ),
    "slope and intercept": (
        {"RescaleSlope": 2, "RescaleIntercept": -1000, "WindowCenter": 0.5, "WindowWidth": 1001},
        lambda: np.rint(((STORED * 2 - 1000).clip(-500, 500) + 500) / 1000 * 255),
    ),
}


@pytest.mark.parametrize("what", HEADERS)
def test_a_dicom_header_gives_pixels_their_meaning(what: str, scans: Path) -> None:
    changed, expected = HEADERS[what]
    header(scans, **changed)
    assert np.array_equal(opened(scans).train.images[0, ..., 0], expected())


def test_a_declared_range_takes_the_place_of_a_window(scans: Path) -> None:
    header(scans, WindowCenter=None, WindowWidth=None)
    with pytest.raises(UserError, match="pixels of no known range; set intensity-range"):
        opened(scans)
    dataset = opened(scans, intensity_range=(0.0, 4080.0))
    assert np.array_equal(dataset.train.images, small_arrays(1)["train_images"])


@pytest.mark.parametrize(
    ("changed", "line"),
    [
        ({"NumberOfFrames": 2}, "00000.dcm holds 2 frames; expected one image in each file"),
        ({"PhotometricInterpretation": "PALETTE COLOR"}, "has the photometric interpretation PALETTE COLOR"),
        ({"VOILUTFunction": "SIGMOID"}, "has a window of function SIGMOID"),
        ({"Rows": 9}, "00000.dcm is damaged or cut short"),
        ({"BitsAllocated": 7}, "00000.dcm is damaged or cut short"),
    ],
)
def test_a_dicom_file_that_gives_no_image_is_one_line(
    changed: dict[str, Any], line: str, scans: Path
) -> None:
    header(scans, **changed)
    with pytest.raises(UserError, match=line):
        opened(scans)


def test_a_damaged_dicom_file_is_one_line(scans: Path) -> None:
    os.truncate(first_image(scans), 300)
    with pytest.raises(UserError, match=r"00000\.dcm holds no image, or is cut short"):
        opened(scans)


def test_the_warnings_of_pydicom_do_not_reach_the_terminal(
    scans: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """A header that is at odds with its transfer syntax; the warning would come before the results."""
    image = first_image(scans)
    content = image.read_bytes().replace(b"1.2.840.10008.1.2.1\x00", b"1.2.840.10008.1.2\x00\x00\x00")
    image.write_bytes(content)
    with pytest.warns(UserWarning, match="Expected implicit VR"):  # control
        pydicom.dcmread(image)
    capfd.readouterr()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        opened(scans)
    assert "VR" not in capfd.readouterr().err


def test_pixel_spacing_is_ignored_aloud(scans: Path) -> None:
    header(scans, PixelSpacing=[0.5, 0.5])
    warned: list[str] = []
    opened(scans, warned)
    assert len(warned) == 1
    assert "not used, though in 1 files: pixel spacing" in warned[0]


def test_patients_in_dicom_headers_are_not_divided_between_splits(scans: Path) -> None:
    assert opened(scans).train.patients is not None
    header(scans, PatientID="test-0")
    with pytest.raises(UserError, match="1 patients have records in more than one split"):
        opened(scans)


def compressed_header(path: Path, pixels: np.ndarray) -> pydicom.FileDataset:
    """The header of a scan, for 8-bit `pixels`, (H, W) or (H, W, 3)."""
    dataset = pydicom.dcmread(path)
    dataset.Rows, dataset.Columns = pixels.shape[:2]
    dataset.SamplesPerPixel = 3 if pixels.ndim == 3 else 1
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 8, 8, 7
    if pixels.ndim == 3:
        dataset.PhotometricInterpretation, dataset.PlanarConfiguration = "RGB", 0
    dataset.PixelData = pixels.tobytes()
    return dataset


SMOOTH = np.indices((64, 96)).sum(0).astype(np.uint8)
COLOURS = np.stack([SMOOTH, SMOOTH[::-1], SMOOTH[:, ::-1]], axis=-1)


@pytest.mark.parametrize("pixels", [SMOOTH, COLOURS], ids=["grey", "colour"])
@pytest.mark.parametrize(("syntax", "loss"), [("JPEGBaseline8Bit", 6), ("JPEG2000Lossless", 0)])
def test_a_jpeg_in_dicom_is_decoded(pixels: np.ndarray, syntax: str, loss: int, scans: Path) -> None:
    from pydicom.encaps import encapsulate
    from pydicom.uid import UID

    path = first_image(scans)
    dataset = compressed_header(path, pixels)
    if syntax == "JPEG2000Lossless":
        pytest.importorskip("openjpeg", reason="pylibjpeg-openjpeg, of the extra dicom, encodes it")
        dataset.compress(pydicom.uid.JPEG2000Lossless)
    else:
        coded = io.BytesIO()
        Image.fromarray(pixels).save(coded, "JPEG", quality=95, subsampling=0)
        dataset.PixelData = encapsulate([coded.getvalue()])
        dataset["PixelData"].is_undefined_length = True
        dataset.file_meta.TransferSyntaxUID = UID(pydicom.uid.JPEGBaseline8Bit)
        if pixels.ndim == 3:
            dataset.PhotometricInterpretation = "YBR_FULL"
    dataset.save_as(path)
    found = read_dicom(path).pixels.astype(int)
    assert found.shape == pixels.shape
    assert np.abs(found - pixels).max() <= loss
    assert np.abs(found - pixels[::-1]).max() > 50, "control: another image"


@pytest.mark.parametrize(
    ("syntax", "line"),
    [
        ("MPEG2MPML", r"which nothing here decodes; store it as another"),
        (
            "JPEGLossless",
            r'which nothing here decodes; pip install "fl-ppae\[dicom\]" brings decoders of JPEG',
        ),
    ],
)
def test_what_nothing_decodes_is_one_line_that_names_the_file(
    syntax: str, line: str, scans: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pydicom.encaps import encapsulate
    from pydicom.pixels import get_decoder

    path = first_image(scans)
    dataset = compressed_header(path, SMOOTH)
    dataset.PixelData = encapsulate([b"\0" * 64])
    dataset["PixelData"].is_undefined_length = True
    dataset.file_meta.TransferSyntaxUID = getattr(pydicom.uid, syntax)
    dataset.save_as(path)
    if syntax == "JPEGLossless":  # as without the extra's plugins
        monkeypatch.setattr(get_decoder(pydicom.uid.JPEGLossless), "_available", {})
    with pytest.raises(UserError, match=rf"00000\.dcm has the transfer syntax .*, {line}") as told:
        opened(scans)
    assert "\n" not in str(told.value)


def test_compressed_dicom_is_read(scans: Path) -> None:
    from pydicom.uid import RLELossless

    path = scans / "train" / "blue" / "00000.dcm"
    dataset = pydicom.dcmread(path)
    dataset.compress(RLELossless)
    dataset.save_as(path)
    assert np.array_equal(opened(scans).train.images, small_arrays(1)["train_images"])
