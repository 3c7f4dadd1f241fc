"""One DICOM file, decoded (PS3.3, C.7.6.3 and C.11.2). Needs the extra `dicom`.

Of the header only what gives the pixels their meaning is used, and the patient's ID to group records.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fl_ppae.data.pictures import Picture, Unreadable
from fl_ppae.errors import UserError
from fl_ppae.paths import file_problem

if TYPE_CHECKING:
    from pydicom import FileDataset

_GREY, _COLOUR = ("MONOCHROME1", "MONOCHROME2"), ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_RCT", "YBR_ICT")
IGNORED = "pixel spacing: images are compared pixel by pixel, whatever a pixel measures"


def is_dicom(path: Path) -> bool:
    """Whether the file says of itself that it is DICOM; an unreadable one does not, nor does a named pipe."""
    if file_problem(path):
        return False
    with path.open("rb") as file:
        return file.read(132)[128:] == b"DICM"


@contextmanager
def _quiet() -> Iterator[None]:
    """pydicom warns of every oddity of a header, in several lines that may quote it."""
    logger = logging.getLogger("pydicom")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


@_quiet()
def read_dicom(path: Path, *, windowed: bool = True) -> Picture:
    """The image in a DICOM file, in units of its modality: rescaled by the header's slope and intercept.

    If `windowed`, `full_range` is the header's window, or that of the type for 8 bits without rescaling.

    Raises:
        Unreadable: it is damaged, holds several frames, or is compressed in a way that nothing here decodes.
        UserError: the extra `dicom` is not installed.
    """
    from pydicom.pixels import apply_rescale, pixel_array

    header = _header(path, with_pixels=True)
    _check_decoder(header)
    if (frames := int(header.get("NumberOfFrames") or 1)) > 1:
        raise Unreadable(f"holds {frames} frames; expected one image in each file")
    kind = header.get("PhotometricInterpretation")
    if kind is None:
        raise Unreadable("holds no image, or is cut short")
    if kind not in (*_GREY, *_COLOUR):
        raise Unreadable(f"has the photometric interpretation {kind}; expected grey or RGB")
    try:
        pixels = pixel_array(header)
        values = apply_rescale(pixels, header) if kind in _GREY else pixels
        window = (_window(header) or _range_of_type(header)) if windowed else None
    except Unreadable:
        raise
    except Exception:  # a header of any content, in any combination
        raise Unreadable("is damaged or cut short") from None
    notes = (IGNORED,) if {"PixelSpacing", "ImagerPixelSpacing"} & set(header.dir()) else ()
    return Picture(values, window, kind == "MONOCHROME1", _patient(header), notes)


@_quiet()
def patient_in(path: Path) -> str:
    """The patient's ID in the header, empty if it has none. Decodes no pixels.

    Raises:
        Unreadable, UserError: as `read_dicom`.
    """
    header = _header(path, with_pixels=False)
    if "Rows" not in header:
        raise Unreadable("holds no image, or is cut short")
    return _patient(header)


def _header(path: Path, *, with_pixels: bool) -> FileDataset:
    try:
        from pydicom import dcmread
    except ImportError:
        raise UserError(f'{path} is DICOM, which needs pydicom: pip install "fl-ppae[dicom]"') from None
    try:
        return dcmread(path, stop_before_pixels=not with_pixels)
    except OSError as error:
        raise Unreadable(f"can't be read ({error.strerror or error})") from None
    except Exception:  # as above
        raise Unreadable("is no DICOM file, or a damaged one") from None


def _check_decoder(header: FileDataset) -> None:
    """Refuse a transfer syntax that nothing installed decodes."""
    from pydicom.pixels import get_decoder
    from pydicom.uid import UID

    syntax = UID(str(header.file_meta.get("TransferSyntaxUID", "")))
    if not syntax.is_valid or not syntax.is_transfer_syntax or not syntax.is_compressed:
        return
    try:
        if get_decoder(syntax).is_available:
            return
        remedy = 'pip install "fl-ppae[dicom]" brings decoders of JPEG and JPEG 2000'
    except NotImplementedError:
        remedy = "store it as another, such as Explicit VR Little Endian"
    raise Unreadable(f"has the transfer syntax {syntax.name}, which nothing here decodes; {remedy}")


def _patient(header: FileDataset) -> str:
    return str(header.get("PatientID") or "").strip()


def _window(header: FileDataset) -> tuple[float, float] | None:
    """The values of black and white by the first window of the header (PS3.3, C.11.2.1.2)."""
    if "VOILUTSequence" in header and "WindowCenter" not in header:
        raise Unreadable("has a table of grey values in place of a window; set intensity-range")
    if "WindowCenter" not in header or "WindowWidth" not in header:
        return None
    centre, width = _first(header.WindowCenter), _first(header.WindowWidth)
    function = header.get("VOILUTFunction", "LINEAR") or "LINEAR"
    if function == "LINEAR" and width > 1:
        return centre - 0.5 - (width - 1) / 2, centre - 0.5 + (width - 1) / 2
    if function == "LINEAR_EXACT" and width > 0:
        return centre - width / 2, centre + width / 2
    raise Unreadable(f"has a window of function {function} and width {width:g}; set intensity-range")


def _first(value: Any) -> float:
    """The first of several values, such as several windows."""
    return float(np.atleast_1d(np.asarray(value, dtype=float))[0])


def _range_of_type(header: FileDataset) -> tuple[float, float] | None:
    rescaled = header.get("RescaleSlope", 1) != 1 or header.get("RescaleIntercept", 0) != 0
    plain = header.BitsStored == 8 and header.PixelRepresentation == 0 and not rescaled
    return (0, 255) if plain or header.PhotometricInterpretation in _COLOUR else None
