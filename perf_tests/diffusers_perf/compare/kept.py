"""What a command keeps of its work in a file of its folder, so that it can go on."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from diffusers_perf.catalog.refusal import Refusal
from diffusers_perf.messages import common as messages
from diffusers_perf.records.files import read_bytes

T = TypeVar("T")

Setting = str | tuple[str, ...]


def kept(file: Path, kind: type[T], *, by: str, option: str = "--out") -> T | None:
    """The record in this file; None without the file. `Refusal` for what the command `by`, whose
    `option` names the folder, did not write.
    """
    if not file.exists():
        return None
    try:
        return msgspec.json.decode(read_bytes(file), type=kind)
    except (OSError, ValueError, RecursionError):
        raise Refusal(messages.not_written_by(file, by, option)) from None


def refuse_others(
    folder: Path, was: Mapping[str, Any], now: Mapping[str, Any], *, option: str = "--out"
) -> None:
    """`Refusal` where what was measured in a folder had other settings than these."""
    for name, value in now.items():
        if was.get(name) != value:
            values = None if isinstance(value, dict) else (_shown(was.get(name)), _shown(value))
            raise Refusal(messages.other_settings(folder, name, values, option))


def _shown(value: object) -> str:
    if value is None:
        return "none"
    return (" ".join(value) if isinstance(value, tuple) else str(value)) or "none"
