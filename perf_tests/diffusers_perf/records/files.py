"""JSON files: written whole or not at all, and read by the types that wrote them."""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import msgspec

T = TypeVar("T")


class BadContent(Exception):
    """Content that is not what it must be; a phrase says where and what."""


def write_whole(path: Path, text: str) -> None:
    """Write all of it, or leave what was there and raise the `OSError` of this file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path = path.resolve()
    if path.exists() and not path.is_file():
        # A device takes it as it comes, and must not be replaced by a file.
        path.write_text(text, encoding="utf-8", errors="backslashreplace")
        return
    draft = path.with_name(f"{path.name}.draft")
    try:
        # A command line that was not UTF-8 is no reason to write nothing.
        draft.write_text(text, encoding="utf-8", errors="backslashreplace")
        draft.replace(path)
    except OSError as error:
        with suppress(OSError):
            draft.unlink()
        raise OSError(error.errno, error.strerror, str(path)) from None


def as_json(content: Any, *, indent: int = 1) -> str:
    """JSON text of records or plain data; a number that is not finite becomes null, and whatever
    JSON does not know its text.
    """
    return msgspec.json.format(msgspec.json.encode(content, enc_hook=str), indent=indent).decode()


def decoded(content: Any, kind: type[T]) -> T:
    """The record of this kind that plain data describes. `BadContent` where it does not."""
    try:
        return msgspec.convert(content, kind)
    except msgspec.ValidationError as error:
        raise BadContent(phrase_of(error)) from None


def phrase_of(error: msgspec.ValidationError) -> str:
    """Where something is wrong, then what: ``cases.a.rounds_s[0]: expected `float`, got `str```."""
    what, _, where = str(error).partition(" - at ")
    # Of a key of an object, msgspec says that it is one.
    where = re.sub(r"^`(?:key` in `)?\$\.?|`$", "", where)
    what = what[:1].lower() + what[1:]
    return f"{where}: {what}" if where else what
