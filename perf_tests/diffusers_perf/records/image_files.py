"""Images in files: several of one shape side by side in one PNG, which also says their shape."""

from __future__ import annotations

import io
import re
import struct
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from diffusers_perf.messages import records as messages
from diffusers_perf.records.files import write_bytes_whole

if TYPE_CHECKING:
    from diffusers_perf.records.pixels import Images

Quantized = npt.NDArray[np.uint8]
"""Shape (count, height, width, 3)."""

SHAPE_KEY = "diffusers_perf.images"
"""PNG text chunk that holds the shape, as ``COUNTxHEIGHTxWIDTH``."""
PIXELS_MOST = 80_000_000
"""Of all images in one file together. Pillow warns of a decompression bomb above 89 million."""


class BadImage(ValueError):
    """A file that holds no images of this suite; a sentence."""


def save(images: Images, path: Path) -> None:
    """Write images in [0, 1] as 8-bit numbers, wholly or not at all; NaN becomes black."""
    write_bytes_whole(path, encoded(images))


def encoded(images: Images) -> bytes:
    """What stands in the file that `save` writes."""
    count, height, width, _ = images.shape
    strip = np.concatenate(list(np.nan_to_num(images)), axis=1)
    shape = PngInfo()
    shape.add_text(SHAPE_KEY, f"{count}x{height}x{width}")
    quantized = (strip.clip(0, 1) * 255).round().astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(quantized).save(file, format="png", pnginfo=shape)
    return file.getvalue()


def load(path: Path) -> Images:
    """The images that `save` wrote, in [0, 1]. `BadImage` for any other file."""
    return np.divide(load_quantized(path), 255, dtype=np.float32)


def load_quantized(path: Path) -> Quantized:
    """The same as they were saved, in 8 bits.

    Files without a shape, as written before version 2, are squares side by side.
    """
    width, height = _size(path)
    if width * height > PIXELS_MOST:
        raise BadImage(messages.too_many_pixels(path, width, height, PIXELS_MOST))
    try:
        with Image.open(path, formats=["PNG"]) as image:
            strip = np.asarray(image)
            written = str(image.info.get(SHAPE_KEY, ""))
    # Pillow raises several kinds, struct.error among them, for a damaged file.
    except Exception as error:
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise BadImage(messages.damaged_png(path, reason[:100])) from None
    if strip.shape != (height, width, 3) or strip.dtype != np.uint8:
        raise BadImage(messages.not_rgb(path))
    count, own_height, own_width = _shape(written, width, height, path)
    parts = strip.reshape(own_height, count, own_width, 3)
    return np.ascontiguousarray(parts.transpose(1, 0, 2, 3))


def _size(path: Path) -> tuple[int, int]:
    """Width and height from the file's header, before anything is decoded."""
    try:
        # A pipe or a device never ends.
        if path.is_symlink() or not path.is_file():
            raise BadImage(messages.not_regular(path))
        with path.open("rb") as file:
            header = file.read(24)
    except OSError as error:
        raise BadImage(f"{path}: {error.strerror or error}") from None
    if not header.startswith(b"\x89PNG\r\n\x1a\n") or header[12:16] != b"IHDR" or len(header) < 24:
        raise BadImage(messages.not_png(path))
    width, height = struct.unpack(">II", header[16:])
    if not width or not height:
        raise BadImage(messages.no_pixels(path, width, height))
    return width, height


def _shape(written: str, width: int, height: int, path: Path) -> tuple[int, int, int]:
    """Count, height and width of the images in a strip of this size."""
    if not written:
        if width % height:
            raise BadImage(messages.no_squares(path, width, height))
        return width // height, height, height
    found = re.fullmatch(r"([1-9]\d{0,8})x([1-9]\d{0,8})x([1-9]\d{0,8})", written)
    count, own_height, own_width = map(int, found.groups()) if found else (0, 0, 0)
    if (count * own_width, own_height) != (width, height):
        raise BadImage(messages.other_shape(path, f"{written!r:.40}", width, height))
    return count, own_height, own_width
