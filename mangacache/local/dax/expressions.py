"""Compiled expressions, back to text with placeholders of the server's own."""

from __future__ import annotations

from typing import Any

from mangacache.local.dax.limits import DEFAULT_LIMITS, Limits


class Placeholders:
    """The names and values of one request's expressions: no name or value ever stands in a text itself.

    Attributes:
        names: ExpressionAttributeNames.
        values: ExpressionAttributeValues.
    """

    def __init__(self, prefix: str = "n") -> None:
        self.names: dict[str, str] = {}
        self.values: dict[str, dict[str, Any]] = {}


def condition_text(data: bytes, placeholders: Placeholders, limits: Limits = DEFAULT_LIMITS) -> str:
    """Return the text of a compiled condition, filter or key condition; its names and values go to `placeholders`.

    Raises:
        Malformed: it is none.
    """
    raise NotImplementedError


def update_text(data: bytes, placeholders: Placeholders, limits: Limits = DEFAULT_LIMITS) -> str:
    """Return the text of a compiled update; its names and values go to `placeholders`.

    Raises:
        Malformed: it is none.
    """
    raise NotImplementedError
