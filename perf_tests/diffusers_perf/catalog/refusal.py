"""The one exception for what cannot be used as it was asked for or given."""

from __future__ import annotations


class Refusal(Exception):
    """A file, folder, device, model or declaration that cannot be used; one sentence says which and
    why. Commands print it, and their exit code is 2.
    """
