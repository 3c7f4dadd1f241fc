"""One image file, decoded: PNG, JPEG or TIFF. DICOM is read by `data.dicom`."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

FORMATS = ("PNG", "JPEG", "TIFF")
_GREY, _COLOUR = ("1", "L", "LA"), ("RGB", "RGBA", "P", "YCbCr")
_DEEP = {"I;16": 65535, "I;16L": 65535, "I;16B": 65535, "I": None, "F": None}


class Unreadable(Exception):
    """A file that gives no image. The message says why, without its name."""


@dataclass(frozen=True, eq=False)
class Picture:
    """A decoded image.

    Attributes:
        pixels: (H, W) or (H, W, C), numbers of any type.
        full_range: the values of black and of white, from the type or the file's own header; None: nothing
            says it.
        negative: small values are bright.
        patient: as the header names it; only used to group records.
        notes: what the file says that is ignored here, in words.
    """

    pixels: np.ndarray
    full_range: tuple[float, float] | None
    negative: bool = False
    patient: str = ""
    notes: tuple[str, ...] = ()


def read_picture(path: Path) -> Picture:
    """The image in a PNG, JPEG or TIFF file, turned as its EXIF orientation says.

    A palette is resolved and an opaque alpha channel dropped.

    Raises:
        Unreadable: it is damaged, of another kind, or none that has one plain meaning as grey or colour.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path, formats=FORMATS) as image:
                return _decoded(image)
    except (Unreadable, MemoryError):
        raise
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        limit = Image.MAX_IMAGE_PIXELS or 0
        raise Unreadable(f"has more than {limit / 1e6:.0f} million pixels") from None
    except Image.UnidentifiedImageError:
        raise Unreadable(f"is no {', '.join(FORMATS[:-1])} or {FORMATS[-1]} image") from None
    except OSError as error:
        if error.errno is not None:
            raise Unreadable(f"can't be read ({error.strerror})") from None
        raise Unreadable("is damaged or cut short") from None
    except Exception:  # decoders raise almost anything on bytes that nobody wrote for them
        raise Unreadable("is damaged or cut short") from None


def _decoded(image: Image.Image) -> Picture:
    if (frames := getattr(image, "n_frames", 1)) > 1:
        raise Unreadable(f"holds {frames} images; expected one in each file")
    if ";16" in str(getattr(image, "tile", "")) and image.mode not in _DEEP:
        raise Unreadable("has 16 bits for each of several channels; save it with 8, or as grey")
    image.load()
    if image.mode == "CMYK":
        raise Unreadable("is a CMYK image, whose colours depend on a printing press; save it as RGB")
    if image.mode not in (*_GREY, *_COLOUR, *_DEEP):
        raise Unreadable(f"has the colour mode {image.mode}; expected grey, RGB or a palette")
    image = ImageOps.exif_transpose(image)
    if image.mode in _DEEP:
        white = _DEEP[image.mode]
        return Picture(np.asarray(image), None if white is None else (0, white))
    if image.has_transparency_data and np.asarray(image.convert("RGBA").getchannel("A")).min() < 255:
        raise Unreadable("has transparent pixels; save it without an alpha channel")
    grey = image.mode in _GREY or (image.mode == "P" and _is_grey(image))
    return Picture(np.asarray(image.convert("L" if grey else "RGB")), (0, 255))


def _is_grey(image: Image.Image) -> bool:
    """Whether every colour of its palette is a grey."""
    palette = np.array(image.getpalette("RGB")).reshape(-1, 3)
    return bool((palette == palette[:, :1]).all())
