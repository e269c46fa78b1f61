"""Images in files: several of one shape side by side in one PNG, which also says their shape.

A file can have a part that no viewer shows: how far the images' thumbnail in 16 bits is from the
thumbnail of the 8 bits that are seen. Accepted images are such a thumbnail.
"""

from __future__ import annotations

import io
import re
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from PIL import Image
from PIL.PngImagePlugin import PngImageFile, PngInfo

from diffusers_perf.messages import records as messages
from diffusers_perf.records.files import write_bytes_whole
from diffusers_perf.records.measurement import Bits
from diffusers_perf.records.pixels import thumbnail

if TYPE_CHECKING:
    from diffusers_perf.records.pixels import Images

Quantized = npt.NDArray[np.uint8]
"""Shape (count, height, width, 3)."""

SHAPE_KEY = "diffusers_perf.images"
"""PNG text chunk that holds the shape, as ``COUNTxHEIGHTxWIDTH``."""
REST_CHUNK = b"reSt"
"""Private PNG chunk: what each number of the thumbnail has beyond the 8-bit images' thumbnail, in
256ths of an 8-bit level. Signed bytes in the order of `Images`, compressed."""
LEVELS = 255 * 256
PIXELS_MOST = 80_000_000
"""Of all images in one file together. Pillow warns of a decompression bomb above 89 million."""


class BadImage(ValueError):
    """A file that holds no images of this suite; a sentence."""


@dataclass(frozen=True, kw_only=True)
class Thumbnail:
    """Images as small as accepted ones."""

    images: Images
    bits: Bits


def save(images: Images, path: Path, *, bits: Bits = 8) -> None:
    """Write images in [0, 1] as 8-bit numbers, wholly or not at all; NaN becomes black.

    `bits`: those that are kept of their thumbnail.
    """
    write_bytes_whole(path, encoded(images, bits=bits))


def encoded(images: Images, *, bits: Bits = 8) -> bytes:
    """What stands in the file that `save` writes."""
    count, height, width, _ = images.shape
    shown = np.nan_to_num(images).clip(0, 1)
    quantized = (shown * 255).round().astype(np.uint8)
    info = PngInfo()
    info.add_text(SHAPE_KEY, f"{count}x{height}x{width}")
    if bits == 16:
        rest = (thumbnail(shown) - thumbnail(_in_floats(quantized))) * LEVELS
        bytes_of_rest = rest.round().clip(-128, 127).astype(np.int8).tobytes()
        info.add(REST_CHUNK, zlib.compress(bytes_of_rest))
    file = io.BytesIO()
    strip = np.concatenate(list(quantized), axis=1)
    Image.fromarray(strip).save(file, format="png", pnginfo=info)
    return file.getvalue()


def load(path: Path) -> Images:
    """The images that `save` wrote, in [0, 1]. `BadImage` for any other file."""
    return _in_floats(load_quantized(path))


def load_quantized(path: Path) -> Quantized:
    """The same as they were saved, in 8 bits.

    Files without a shape, as written before version 2, are squares side by side.
    """
    return _read(path).images


def load_thumbnail(path: Path, *, bits: Bits = 16) -> Thumbnail:
    """The thumbnail of the images that `save` wrote, in at most so many bits. `BadImage` for any
    other file.
    """
    file = _read(path)
    seen = thumbnail(_in_floats(file.images))
    if file.rest is None or bits == 8:
        return Thumbnail(images=seen, bits=8)
    try:
        data = zlib.decompressobj().decompress(file.rest, seen.size + 1)
        rest = np.frombuffer(data, dtype=np.int8).reshape(seen.shape)
    except (zlib.error, ValueError):
        raise BadImage(messages.damaged_rest(path)) from None
    images = seen + np.divide(rest, LEVELS, dtype=np.float32)
    return Thumbnail(images=images, bits=16)


@dataclass(frozen=True, kw_only=True)
class _Content:
    images: Quantized
    rest: bytes | None
    """The content of `REST_CHUNK`; None without one."""


def _in_floats(quantized: Quantized) -> Images:
    return np.divide(quantized, 255, dtype=np.float32)


def _read(path: Path) -> _Content:
    width, height = _size(path)
    if width * height > PIXELS_MOST:
        raise BadImage(messages.too_many_pixels(path, width, height, PIXELS_MOST))
    try:
        with Image.open(path, formats=["PNG"]) as image:
            strip = np.asarray(image)
            written = str(image.info.get(SHAPE_KEY, ""))
            chunks = image.private_chunks if isinstance(image, PngImageFile) else []
            rest = next((content for kind, content, *_ in chunks if kind == REST_CHUNK), None)
    # Pillow raises several kinds, struct.error among them, for a damaged file.
    except Exception as error:
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise BadImage(messages.damaged_png(path, reason[:100])) from None
    if strip.shape != (height, width, 3) or strip.dtype != np.uint8:
        raise BadImage(messages.not_rgb(path))
    count, own_height, own_width = _shape(written, width, height, path)
    parts = strip.reshape(own_height, count, own_width, 3)
    return _Content(
        images=np.ascontiguousarray(parts.transpose(1, 0, 2, 3)),
        rest=rest,
    )


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
