"""Decoding one picture file into RGB pixels of a fixed square size."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

EXTENSIONS = frozenset(
    {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".ppm", ".pgm", ".tif", ".tiff"}
)
# What Pillow raises on damaged files, beside OSError: broken PNG chunks, EXIF, sizes, palettes.
_DAMAGE = (OSError, SyntaxError, ValueError, TypeError, EOFError, struct.error)


class UndecodableError(Exception):
    """A file that is no picture, or a damaged one; the message says which."""


def is_picture(name: str) -> bool:
    """Whether a file name is a picture's by its extension (`._x.jpg` is a Mac's note, not one)."""
    return not name.startswith(".") and Path(name).suffix.lower() in EXTENSIONS


def read_rgb(path: Path, size: int) -> tuple[NDArray[np.uint8], float]:
    """Decode `path`, turned upright, squashed to `size` x `size` pixels with antialiasing.

    Any colour mode becomes RGB; of an animation the first frame is read; transparency is dropped.

    Returns:
        Pixels `[3, size, size]` uint8, and the picture's true width / height.

    Raises:
        UndecodableError: the file is empty, truncated, damaged or no picture at all.
    """
    try:
        with Image.open(path) as image:
            # JPEG decodes at 1/2, 1/4 or 1/8 almost for free; twice the size loses no detail.
            image.draft(None, (2 * size, 2 * size))
            ImageOps.exif_transpose(image, in_place=True)
            width, height = image.size
            rgb = _to_rgb(image)
        if (width, height) != (size, size):
            rgb = rgb.resize((size, size), Image.Resampling.BILINEAR)
        return np.asarray(rgb).transpose(2, 0, 1), width / height
    except UnidentifiedImageError as error:
        empty = path.stat().st_size == 0
        raise UndecodableError("empty file" if empty else "not a picture") from error
    except Image.DecompressionBombError as error:
        raise UndecodableError("too many pixels") from error
    except _DAMAGE as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UndecodableError(reason or type(error).__name__) from error


def header_size(path: Path) -> tuple[int, int] | None:
    """A picture's (width, height) by its header alone; None where it cannot be read."""
    try:
        with Image.open(path) as image:
            return image.size
    except (*_DAMAGE, Image.DecompressionBombError):
        return None


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):
        # Pillow would clip 16-bit greys at 255; their high byte is the 8-bit picture.
        grey: NDArray[Any] = np.asarray(image).astype(np.int64) >> 8
        return Image.fromarray(grey.clip(0, 255).astype(np.uint8)).convert("RGB")
    if "transparency" in image.info:
        image = image.convert("RGBA")
    return image.convert("RGB")
