"""Files: read within bounds, and written whole or not at all. JSON by the types that wrote it."""

from __future__ import annotations

import errno
import gzip
import io
import os
import re
import secrets
import stat
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from diffusers_perf.messages import common
from diffusers_perf.messages import records as messages

T = TypeVar("T")

READ_MOST_BYTES = 256 * 2**20
"""No file that this suite reads whole is larger: a run of a thousand cases has 4 MB."""
ROOM_BYTES = 2**20
PHRASE_MOST = 300


class Unwritable(OSError):
    """The system's error for a file that could not be written."""


class BadContent(Exception):
    """Content that is not what it must be; a phrase says where and what."""


def unwritable(path: Path, error: OSError) -> str:
    """Why nothing could be written there, in a sentence."""
    return common.cannot_write(path, _reason(path, error))


def unreadable(path: Path, error: OSError) -> str:
    """Why nothing could be read there, in a sentence."""
    return common.cannot_read(path, _reason(path, error))


def _reason(path: Path, error: OSError) -> str | None:
    if error.errno in (errno.EEXIST, errno.ENOTDIR):
        # So it says of a file in the way, and not which.
        file = next((part for part in (path, *path.parents) if part.is_file()), None)
        return messages.in_the_way(file) if file else error.strerror
    return error.strerror


def read_bytes(path: Path, *, most: int = READ_MOST_BYTES) -> bytes:
    """All of a regular file. `OSError` for anything else, which may never end, or a larger one."""
    # A pipe without a writer would block here.
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    with os.fdopen(descriptor, "rb") as file:
        kind = os.fstat(descriptor)
        if stat.S_ISDIR(kind.st_mode):
            raise OSError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        if not stat.S_ISREG(kind.st_mode):
            raise OSError(errno.EINVAL, messages.NOT_A_FILE, str(path))
        too_large = kind.st_size > most
        # Some files of the system say that they are empty.
        data = b"" if too_large else file.read(most + 1)
        if too_large or len(data) > most:
            raise OSError(errno.EFBIG, messages.too_large(most), str(path))
        return data


def read_gzip(path: Path, *, most: int = READ_MOST_BYTES) -> bytes:
    """What a compressed file holds, as `read_bytes`. `EOFError`, `zlib.error` for a broken one."""
    with gzip.GzipFile(fileobj=io.BytesIO(read_bytes(path, most=most))) as file:
        data = file.read(most + 1)
    if len(data) > most:
        raise OSError(errno.EFBIG, messages.too_large(most), str(path))
    return data


def real(path: Path) -> Path:
    """Where the path leads, links followed. A circle of links leads to itself."""
    # Path.resolve raises for it in Python 3.11 and 3.12.
    return Path(os.path.realpath(path))


def read_text(path: Path, *, most: int = READ_MOST_BYTES) -> str:
    """As `read_bytes`, in UTF-8 whatever the locale. `UnicodeDecodeError` for other bytes."""
    return read_bytes(path, most=most).decode("utf-8")


def write_whole(path: Path, text: str) -> None:
    """Write all of it, or leave what was there and raise `Unwritable` for this file.

    `BrokenPipeError` where it is a pipe whose reader goes.
    """
    write_bytes_whole(path, utf8(text))


def utf8(text: str) -> bytes:
    """The text in UTF-8, also one from a command line in another encoding, as far as it goes."""
    # Under LC_ALL=C Python takes each byte for a character of its own; others stand for no byte.
    with suppress(UnicodeEncodeError):
        text = text.encode(errors="surrogateescape").decode(errors="backslashreplace")
    return text.encode(errors="backslashreplace")


def write_bytes_whole(path: Path, data: bytes, *, kind: str = "file") -> None:
    """The same for bytes; `kind` as `drafted` takes it."""
    if path.exists() and not path.is_file():
        _into_device(path, data)
        return
    target = real(path)
    draft = drafted(target, data, kind=kind)
    try:
        draft.replace(target)
    except OSError as error:
        with suppress(OSError):
            draft.unlink()
        raise _of(error, path) from None


def drafted(path: Path, data: bytes, *, kind: str = "file") -> Path:
    """A new file beside this one with this content, which is on the disk, ready to replace it.

    `kind` is part of its name. `Unwritable` for `path`. No two drafts have one name, however many
    processes write.
    """
    draft = path.with_name(f".{path.name[:40]}-{secrets.token_hex(8)}.{kind}.draft")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with draft.open("xb") as file:
            file.write(data)
            file.flush()
            # A disk that is full may say so no earlier.
            os.fsync(file.fileno())
    except OSError as error:
        with suppress(OSError):
            draft.unlink()
        raise _of(error, path) from None
    except BaseException:
        with suppress(OSError):
            draft.unlink()
        raise
    return draft


def make_room(path: Path) -> None:
    """See that a file can be written here before there is anything to write. `OSError` of `path`.

    Nothing is left behind, and what is there stays.
    """
    if path.exists() and not path.is_file():
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        return
    target = real(path)
    drafted(target, bytes(ROOM_BYTES)).unlink()
    if target.exists():
        # A file that may not be written must not be replaced either.
        with target.open("ab"):
            pass


def _into_device(path: Path, data: bytes) -> None:
    # A device takes it as it comes, and must not be replaced by a file. A pipe that nothing reads
    # would block.
    try:
        descriptor = os.open(path, os.O_WRONLY | getattr(os, "O_NONBLOCK", 0))
        os.set_blocking(descriptor, True)
        with os.fdopen(descriptor, "wb") as device:
            device.write(data)
    except OSError as error:
        raise _of(error, path) from None


def _of(error: OSError, path: Path) -> OSError:
    # A reader that has gone, as of /dev/stdout, wants to know no more.
    kind = OSError if error.errno == errno.EPIPE else Unwritable
    return kind(error.errno, error.strerror, str(path))


def as_json(content: Any, *, indent: int = 1) -> str:
    """JSON text of records or plain data; a number that is not finite becomes null, and whatever
    JSON does not know its text.
    """
    return msgspec.json.format(msgspec.json.encode(content, enc_hook=str), indent=indent).decode()


def laid_out(content: Any, *, depth: int) -> str:
    """The same with a line for each entry of an object down to this depth, as a person reviews it.
    What is deeper stands on one line.
    """
    return _lines(msgspec.json.decode(msgspec.json.encode(content)), depth=depth, indent=0) + "\n"


def _lines(value: Any, *, depth: int, indent: int) -> str:
    if not depth or not isinstance(value, dict) or not value:
        return as_json(value, indent=0)
    margin = " " * (indent + 1)
    entries = (
        f"{margin}{as_json(name)}: {_lines(inner, depth=depth - 1, indent=indent + 1)}"
        for name, inner in value.items()
    )
    return "{\n" + ",\n".join(entries) + "\n" + " " * indent + "}"


def decoded(content: Any, kind: type[T]) -> T:
    """The record of this kind that plain data describes. `BadContent` where it does not."""
    try:
        return msgspec.convert(content, kind)
    except msgspec.ValidationError as error:
        raise BadContent(phrase_of(error)) from None
    except UnicodeEncodeError:
        raise BadContent(messages.NOT_UNICODE) from None


def phrase_of(error: msgspec.ValidationError) -> str:
    """Where something is wrong, then what: ``cases.a.rounds_s[0]: expected `float`, got `str```."""
    what, _, where = str(error).partition(" - at ")
    # Of a key of an object, msgspec says that it is one.
    where = re.sub(r"^`(?:key` in `)?\$\.?|`$", "", where)
    what = what[:1].lower() + what[1:]
    # The names of fields in it are anybody's.
    phrase = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in what[:PHRASE_MOST])
    return f"{where}: {phrase}" if where else phrase
