"""Decoding images that strangers made: any common format in, a small RGB picture out.

Decoding is part of a vector's version: the first frame, squashed to a square, transparency over white, turned as its EXIF
orientation says. "bilinear" and "bicubic" are Pillow's filters, which weigh every source pixel; a JPEG is decoded at the smallest
scale that keeps twice the wanted size. "fast" takes a third of their time: libjpeg-turbo decodes at the smallest power of two that
keeps the wanted size, and OpenCV scales what is left linearly, or by area where an axis shrinks by more than 2.5.
"""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from mixpeek_dagster.errors import ExtractionError
from mixpeek_dagster.extractors.content import Content
from mixpeek_dagster.extractors.sniff import LONGEST_MAGIC, kind_of

MAX_PIXELS = 50_000_000
# Formats decoded in this process without helper programs: no EPS, which starts Ghostscript.
FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF", "AVIF", "JPEG2000", "PPM", "ICO")
Filter = Literal["fast", "bilinear", "bicubic"]
Pixels = NDArray[np.uint8]

_MOST_LINEAR = 2.5
_RESAMPLING = {
    "fast": Image.Resampling.BILINEAR,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
}

_ORIENTATION_TAG = 0x0112
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@dataclass(frozen=True)
class Picture:
    """RGB of shape (size, size, 3) as a model wants it, and what the file was: its size in pixels as displayed, and its format."""

    pixels: Pixels
    width: int
    height: int
    format: str


def open_picture(content: Content, *, size: int, filter: Filter = "bilinear") -> Picture:
    """The image squashed to `size` × `size` pixels.

    Raises:
        ExtractionError: empty, no image, damaged, cut short, or more than 50 million pixels.
    """
    with _opened(content) as image:
        width, height = image.size
        pixels = _decoded_fast(content, image, size) if filter == "fast" else None
        if pixels is None:
            pixels = _decoded(image, size, filter)
        orientation = _orientation(image)
        if orientation in _TURNS:
            pixels = np.asarray(_turned(Image.fromarray(pixels), orientation))
        if orientation >= 5:
            width, height = height, width
        # A JPEG with further pictures inside calls itself MPO.
        return Picture(pixels, width, height, "JPEG" if image.format == "MPO" else image.format or "")


def _decoded(image: Image.Image, size: int, filter: Filter) -> Pixels:
    image.draft(None, (2 * size, 2 * size))
    image.load()
    if filter == "fast" and image.mode in ("RGB", "L") and "transparency" not in image.info:
        return _squashed(np.asarray(image.convert("RGB")), size)
    return np.asarray(_to_rgb(image, (size, size), _RESAMPLING[filter]))


def _decoded_fast(content: Content, image: Image.Image, size: int) -> Pixels | None:
    """A JPEG by libjpeg-turbo itself; None for everything else, and for what it finds damaged: Pillow says what is wrong."""
    if image.format not in ("JPEG", "MPO") or image.mode not in ("RGB", "L"):
        return None
    import simplejpeg

    smaller = next((by for by in (8, 4, 2) if min(image.size) >= by * size), 1)
    try:
        pixels: Pixels = simplejpeg.decode_jpeg(
            content.data, min_width=-(-image.width // smaller), min_height=-(-image.height // smaller)
        )
    except ValueError:
        return None
    return _squashed(pixels, size)


def _squashed(pixels: Pixels, size: int) -> Pixels:
    cv2 = _cv2()
    most = max(pixels.shape[:2]) / size
    small = cv2.resize(pixels, (size, size), interpolation=cv2.INTER_AREA if most > _MOST_LINEAR else cv2.INTER_LINEAR)
    return np.asarray(small, np.uint8)


@cache
def _cv2() -> Any:
    import cv2

    cv2.setNumThreads(1)  # the engine spreads pictures over the cores
    return cv2


def thumbnail(data: bytes, *, size: int = 128) -> bytes:
    """A JPEG of at most `size` × `size` pixels with the image's proportions, a few KB; made only for what is shown.

    Raises:
        ExtractionError: as `open_picture`.
    """
    with _opened(Content(data)) as image:
        image.draft(None, (2 * size, 2 * size))
        image.load()
        scale = min(1.0, size / max(image.size))
        box = max(1, round(image.width * scale)), max(1, round(image.height * scale))
        out = io.BytesIO()
        _turned(_to_rgb(image, box, Image.Resampling.BILINEAR), _orientation(image)).save(out, "JPEG", quality=80)
        return out.getvalue()


@cache
def _formats() -> tuple[str, ...]:
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)  # a build of Pillow may lack a codec


@contextmanager
def _opened(content: Content) -> Iterator[Image.Image]:
    name = content.filename or "The image"
    if not content.size:
        raise ExtractionError(f"{name} is empty (0 bytes).")
    try:
        image = Image.open(content.open(), formats=_formats())
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ExtractionError(f"{name} has far more than {MAX_PIXELS:,} pixels, the most that is decoded.") from error
    except UnidentifiedImageError as error:
        with content.open() as stream:
            kind = kind_of(stream.read(LONGEST_MAGIC), plain=True)
        is_image = kind is not None and "image" in kind
        seems = (
            f"damaged: it starts like {kind}, but cannot be read"
            if is_image
            else f"no image{f': it looks like {kind}' if kind else ''}"
        )
        raise ExtractionError(f"{name} is {seems}.") from error
    except Exception as error:  # a decoder may raise anything on a crafted header
        raise ExtractionError(f"{name} is damaged: {_reason(error)}.") from error
    with image:
        # Looked at before anything is decoded; Pillow's own limit is a process-wide setting and a warning.
        if image.width * image.height > MAX_PIXELS:
            size = f"{image.width} × {image.height}"
            raise ExtractionError(f"{name} has {size} pixels; at most {MAX_PIXELS:,} are decoded. Scale it down.")
        try:
            yield image
        except Exception as error:
            raise ExtractionError(f"{name} is a damaged or truncated {image.format} image: {_reason(error)}.") from error


def _to_rgb(image: Image.Image, box: tuple[int, int], resample: Image.Resampling) -> Image.Image:
    """Scale, then flatten: few pixels are composited, and Pillow weighs colours by their opacity while scaling."""
    image = _to_eight_bits(image)
    if image.mode in ("LA", "PA", "RGBA", "La", "RGBa") or "transparency" in image.info:
        small = image.convert("RGBA").resize(box, resample, reducing_gap=2.0)
        white = Image.new("RGBA", box, "white")
        return Image.alpha_composite(white, small).convert("RGB")
    if image.mode not in ("RGB", "L", "CMYK", "YCbCr"):
        image = image.convert("RGB")
    return image.resize(box, resample, reducing_gap=2.0).convert("RGB")


def _to_eight_bits(image: Image.Image) -> Image.Image:
    """16 bits lose their low byte; wider integers and floats are stretched from their least to their greatest value."""
    if not image.mode.startswith(("I", "F")):
        return image
    values = np.asarray(image)
    if image.mode.startswith("I;16"):
        return Image.fromarray((values >> 8).astype(np.uint8))
    values = np.nan_to_num(values.astype(np.float64))
    low, high = values.min(), values.max()
    return Image.fromarray(((values - low) * (255 / max(high - low, 1e-12))).astype(np.uint8))


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(_ORIENTATION_TAG, 1))
    except Exception:  # noqa: BLE001 - a broken EXIF block does not make the picture unreadable
        return 1


def _turned(image: Image.Image, orientation: int) -> Image.Image:
    return image.transpose(_TURNS[orientation]) if orientation in _TURNS else image


def _reason(error: Exception) -> str:
    if isinstance(error, MemoryError):
        return "it needs more memory than there is"
    return (str(error).strip().rstrip(".") or type(error).__name__).splitlines()[0]
