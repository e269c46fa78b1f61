"""Images of any shape in files, and files that are none."""

from __future__ import annotations

import os
import zlib
from pathlib import Path
from struct import pack
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from diffusers_perf.catalog.declarations import REFERENCE
from diffusers_perf.catalog.refusal import Refusal
from diffusers_perf.catalog.registry import Catalog
from diffusers_perf.catalog.workload import Workload
from diffusers_perf.measurement.kept import bits_of, to_accepted
from diffusers_perf.records import image_files
from diffusers_perf.records.image_files import BadImage
from diffusers_perf.records.names import BadName, image_file
from diffusers_perf.records.pixels import Images, NotComparable, thumbnail


def some(count: int, height: int, width: int) -> Images:
    return np.random.default_rng(0).random((count, height, width, 3), dtype=np.float32)


def png(width: int, height: int, *, data: bytes = b"") -> bytes:
    """A PNG file of a size, whatever is in it."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return pack(">I", len(content)) + kind + content + pack(">I", zlib.crc32(kind + content))

    head = chunk(b"IHDR", pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("shape", [(2, 96, 64), (3, 64, 64), (1, 64, 96), (5, 1, 7), (1, 1, 1)])
def test_images_keep_their_shape(tmp_path: Path, shape: tuple[int, int, int]) -> None:
    path = tmp_path / "new" / "images.png"
    image_files.save(some(*shape), path)
    loaded = image_files.load(path)
    assert loaded.shape == (*shape, 3)
    assert np.allclose(loaded, some(*shape), atol=0.5 / 255 + 1e-6)


@pytest.mark.parametrize("shape", [(2, 96, 64), (1, 512, 256), (1, 1, 1)])
def test_thumbnail_keeps_16_bits_where_asked(tmp_path: Path, shape: tuple[int, int, int]) -> None:
    path, images = tmp_path / "images.png", some(*shape)
    image_files.save(images, path)
    assert image_files.load_thumbnail(path).bits == 8
    image_files.save(images, path, bits=16)
    seen = image_files.load_thumbnail(path)
    assert seen.bits == 16
    assert np.allclose(seen.images, thumbnail(images), atol=1 / image_files.LEVELS)
    # What is seen has 8 bits either way, and is all that a comparison in 8 bits takes.
    assert np.allclose(image_files.load(path), images, atol=0.5 / 255 + 1e-6)
    coarse = image_files.load_thumbnail(path, bits=8)
    assert coarse.bits == 8
    assert np.array_equal(coarse.images, thumbnail(image_files.load(path)))


def test_thumbnail_of_a_thumbnail_is_the_same(tmp_path: Path) -> None:
    path = tmp_path / "images.png"
    image_files.save(some(1, 256, 256), path, bits=16)
    first = image_files.load_thumbnail(path)
    image_files.save(first.images, path, bits=16)
    assert np.allclose(
        image_files.load_thumbnail(path).images, first.images, atol=1.1 / image_files.LEVELS
    )


@pytest.mark.parametrize("rest", [b"", b"few", zlib.compress(b"few"), zlib.compress(bytes(9999))])
def test_damaged_16_bits_are_refused(tmp_path: Path, rest: bytes) -> None:
    path, info = tmp_path / "images.png", PngInfo()
    info.add(image_files.REST_CHUNK, rest)
    Image.new("RGB", (8, 8)).save(path, pnginfo=info)
    with pytest.raises(BadImage, match="its 16-bit part does not fit its images"):
        image_files.load_thumbnail(path)
    assert image_files.load(path).shape == (1, 8, 8, 3)


def test_strip_without_a_shape_is_squares(tmp_path: Path) -> None:
    path = tmp_path / "old.png"
    Image.new("RGB", (192, 64)).save(path)
    assert image_files.load(path).shape == (3, 64, 64, 3)
    Image.new("RGB", (96, 64)).save(path)
    with pytest.raises(BadImage, match=r"old\.png: 96x64 pixels do not divide into squares"):
        image_files.load(path)


@pytest.mark.parametrize("written", ["3x64x64", "1x64x63", "0x64x64", "-1x64x-64", "2", "axbxc"])
def test_shape_that_contradicts_the_file_is_refused(tmp_path: Path, written: str) -> None:
    path, info = tmp_path / "images.png", PngInfo()
    info.add_text(image_files.SHAPE_KEY, written)
    Image.new("RGB", (64, 64)).save(path, pnginfo=info)
    with pytest.raises(BadImage, match=r"declares .*, but has 64x64 pixels"):
        image_files.load(path)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "not a PNG file"),
        (b"GIF89a" + bytes(40), "not a PNG file"),
        (b"\x89PNG\r\n\x1a\n", "not a PNG file"),
        (png(0, 64), "an image cannot have 0x64 pixels"),
        (png(100_000, 100_000), "are more than 80,000,000"),
        (png(64, 64, data=b"few"), "damaged PNG file"),
        (png(64, 64)[:40], "damaged PNG file"),
        (png(64, 64)[:33] + os.urandom(100), "damaged PNG file"),
    ],
)
def test_file_that_is_not_an_image_is_one_sentence(
    tmp_path: Path, content: bytes, sentence: str
) -> None:
    path = tmp_path / "images.png"
    path.write_bytes(content)
    with pytest.raises(BadImage, match=sentence) as caught:
        image_files.load(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "I;16"])
def test_other_kinds_of_pixels_are_refused(tmp_path: Path, mode: str) -> None:
    path = tmp_path / "images.png"
    Image.new(mode, (64, 64)).save(path)
    with pytest.raises(BadImage, match="not an RGB image with 8 bits per channel"):
        image_files.load(path)


def test_only_a_regular_file_is_read(tmp_path: Path) -> None:
    image_files.save(some(1, 8, 8), tmp_path / "images.png")
    (tmp_path / "link.png").symlink_to(tmp_path / "images.png")
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "folder.png").mkdir()
    for name in ("link", "pipe", "folder", "missing"):
        with pytest.raises(BadImage, match="not a regular file"):
            image_files.load(tmp_path / f"{name}.png")


@pytest.mark.parametrize(
    "name", ["ddim50-tf32+fp16", "a model-1.5", "ß", "w-cfg=7.5@x", "ddim50-my_kernels"]
)
def test_name_becomes_a_file_in_the_folder(tmp_path: Path, name: str) -> None:
    assert image_file(tmp_path, name) == tmp_path / f"{name}.png"


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", ".hidden", "../x", "a/b", "a\\b", "/etc/x", "a\0", "a\nb", "x" * 201, "\ud800"],
)
def test_name_that_may_lead_elsewhere_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(BadName, match="cannot be the name of a file"):
        image_file(tmp_path, name)


@pytest.mark.parametrize(
    ("dtype", "device", "bits"),
    [
        (torch.float32, "cpu", 16),
        (torch.float32, "cuda", 8),
        # Of a function that builds in another dtype than it is asked for.
        (torch.bfloat16, "cpu", 8),
    ],
)
def test_a_reference_counts_in_16_bits_where_it_computes_in_float32(
    dtype: torch.dtype, device: str, bits: int
) -> None:
    workload = Workload(name="some", model="acme.pipelines:build", call={}, steps=4)
    pipeline = SimpleNamespace(components={"unet": torch.nn.Linear(2, 2).to(dtype)})
    case = Catalog().case(workload, REFERENCE)
    assert bits_of(case, torch.device(device), pipeline) == bits


TWO_WIDE = Workload(
    name="some",
    model="acme.pipelines:build",
    call={"prompt": ["a", "b"], "height": 64, "width": 128},
    steps=4,
)
UNSAID = Workload(name="some", model="acme.pipelines:build", call={"prompt_embeds": 0}, steps=4)
"""Neither how many images it makes nor their size."""


@pytest.mark.parametrize(
    ("given", "accepted", "workload"),
    [
        ((2, 64, 64), (2, 64, 128), TWO_WIDE),
        ((1, 64, 128), (2, 64, 128), TWO_WIDE),
        # Of neither can be said that it is the workload's.
        ((1, 64, 128), (2, 64, 64), TWO_WIDE),
        ((2, 64, 64), (1, 32, 64), UNSAID),
    ],
)
def test_images_of_another_shape_than_the_accepted_are_the_pipelines(
    given: tuple[int, int, int],
    accepted: tuple[int, int, int],
    workload: Workload,
    tmp_path: Path,
) -> None:
    path = tmp_path / "accepted.png"
    image_files.save(thumbnail(some(*accepted)), path)
    with pytest.raises(NotComparable, match="the pipeline gave images of shape") as raised:
        to_accepted(some(*given), path, workload=workload, bits=8)
    assert str((*given, 3)) in str(raised.value)
    assert "remove it" not in str(raised.value)


def test_accepted_image_of_another_shape_than_the_workload_declares_is_named(
    tmp_path: Path,
) -> None:
    path = tmp_path / "accepted.png"
    image_files.save(some(1, 32, 64), path)
    with pytest.raises(Refusal, match=r"not an image of this workload .*remove it"):
        to_accepted(some(2, 64, 128), path, workload=TWO_WIDE, bits=8)


def test_damaged_accepted_image_is_named_once_and_can_be_accepted_anew(tmp_path: Path) -> None:
    path = tmp_path / "accepted.png"
    path.write_bytes(b"not a picture")
    with pytest.raises(Refusal) as raised:
        to_accepted(some(1, 8, 8), path, workload=TWO_WIDE, bits=8)
    assert str(raised.value).count(str(path)) == 1
    assert str(raised.value).endswith("restore the file, or remove it and accept the image anew")
