"""The numbers that records hold. A bound keeps out what no machine can have, infinity and NaN."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

MOST = 10**18
"""No time, ratio, count or size that a machine can have is larger."""

Number = Annotated[float, Meta(ge=-MOST, le=MOST)]
Positive = Annotated[float, Meta(gt=0, le=MOST)]
NotNegative = Annotated[float, Meta(ge=0, le=MOST)]
Integer = Annotated[int, Meta(ge=-MOST, le=MOST)]
NotNegativeInteger = Annotated[int, Meta(ge=0, le=MOST)]
PositiveInteger = Annotated[int, Meta(gt=0, le=MOST)]


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """A part of a JSON file: written, validated and read by this one definition.

    Reading passes over fields that a later version added.
    """


class StrictRecord(Record, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A part of a file that a person may edit: an unknown field is a mistake."""
