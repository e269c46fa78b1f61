"""Files are read within bounds, and written whole or not at all."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from diffusers_perf.records import files
from diffusers_perf.records.files import make_room, read_bytes, read_text, write_whole

STATUS = Path("/proc/self/status")


def test_reader_refuses_what_never_ends(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for path in (pipe, Path("/dev/zero")):
        with pytest.raises(OSError, match="not a regular file"):
            read_bytes(path)
    with pytest.raises(IsADirectoryError):
        read_bytes(tmp_path)


def test_reader_refuses_a_file_that_is_too_large(tmp_path: Path) -> None:
    path = tmp_path / "large"
    with path.open("wb") as file:
        file.truncate(files.READ_MOST_BYTES + 1)
    with pytest.raises(OSError, match="larger than 256 MiB"):
        read_bytes(path)


@pytest.mark.skipif(not STATUS.exists(), reason="a file that says it is empty, of Linux")
def test_reader_refuses_a_file_that_is_larger_than_it_says() -> None:
    assert STATUS.stat().st_size == 0
    assert read_bytes(STATUS)
    with pytest.raises(OSError, match="larger than"):
        read_bytes(STATUS, most=10)


def test_text_is_utf8_whatever_the_locale(tmp_path: Path) -> None:
    """An invalid byte, bytes that are valid, as under LC_ALL=C, and half of a character."""
    write_whole(tmp_path / "text", "512×512 → café \udce9 \udcc3\udca9")
    assert read_text(tmp_path / "text") == "512×512 → café \\xe9 é"
    write_whole(tmp_path / "text", "\ud800")
    assert read_text(tmp_path / "text") == "\\ud800"


def test_concurrent_writers_of_one_file_never_fail(tmp_path: Path) -> None:
    target = tmp_path / "run.json"
    texts = [f"{number}" * 1000 for number in range(800)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda text: write_whole(target, text), texts))
    assert target.read_text() in texts
    assert [*tmp_path.iterdir()] == [target]


def test_dangling_link_is_kept_and_its_target_written(tmp_path: Path) -> None:
    link, target = tmp_path / "link", tmp_path / "elsewhere" / "file"
    link.symlink_to(target)
    make_room(link)
    assert link.is_symlink()
    assert not target.exists()
    write_whole(link, "new")
    assert link.is_symlink()
    assert target.read_text() == "new"


def test_device_and_pipe_are_written_and_stay() -> None:
    write_whole(Path("/dev/null"), "text")
    make_room(Path("/dev/null"))
    assert Path("/dev/null").is_char_device()


def test_pipe_that_nothing_reads_is_refused_without_waiting(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(OSError, match="No such device or address") as refused:
        write_whole(pipe, "text")
    assert refused.value.filename == str(pipe)


def test_text_goes_into_the_pipe_of_another_process(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    try:
        write_whole(Path(f"/dev/fd/{writing}"), "text")
        assert os.read(reading, 10) == b"text"
    finally:
        os.close(reading)
        os.close(writing)


def test_full_disk_names_the_file_and_keeps_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "run.json"
    target.write_text("old")

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    writers: tuple[Callable[[], None], ...] = (
        lambda: write_whole(target, "new"),
        lambda: make_room(target),
    )
    for write in writers:
        with pytest.raises(OSError, match="No space left on device") as refused:
            write()
        assert refused.value.filename == str(target)
    assert target.read_text() == "old"
    assert [*tmp_path.iterdir()] == [target]


def test_name_that_a_file_system_just_takes_can_be_written(tmp_path: Path) -> None:
    target = tmp_path / ("é" * 125 + ".json")
    write_whole(target, "text")
    assert target.read_text() == "text"
    with pytest.raises(OSError, match="File name too long"):
        write_whole(tmp_path / ("x" * 300), "text")
