"""Keys of the table, and how ids and numbers stand in them."""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import quote, unquote

META: Final = "META"
TURN: Final = "TURN#"
SUMMARY: Final = "SUMMARY#"
SESSION: Final = "SESSION#"

MAX_INCARNATION: Final = 9_999
MAX_NUMBER: Final = 9_999_999_999

# Readable ids stay as they are, so that the layout of other writers is met; what could break a key, a Redis
# hash tag or a log line is percent-encoded: control signs, space, % # { } and everything beyond ASCII.
_SAFE: Final = "!\"$&'()*+,-./:;<=>?@[\\]^_`|~"
_OUR_TURN: Final = re.compile(r"TURN#([0-9]{4})-([0-9]{10})")
_OUR_SUMMARY: Final = re.compile(r"SUMMARY#[0-9]{4}-[0-9]{10}")


def encoded_id(session_id: str) -> str:
    """Return the id as it stands in keys."""
    return quote(session_id, safe=_SAFE)


def decoded_id(encoded: str) -> str:
    """Return the id that `encoded_id` encoded."""
    return unquote(encoded)


def partition(session_id: str) -> str:
    """Return the partition key of a session."""
    return SESSION + encoded_id(session_id)


def turn_key(incarnation: int, number: int) -> str:
    """Return the sort key of a turn: it sorts by incarnation, then by number."""
    return f"{TURN}{incarnation:04d}-{number:010d}"


def summary_key(incarnation: int, upto: int) -> str:
    """Return the sort key of a summary."""
    return f"{SUMMARY}{incarnation:04d}-{upto:010d}"


def is_summary_key(sort_key: str) -> bool:
    """Tell whether a sort key is that of one of our summaries."""
    return _OUR_SUMMARY.fullmatch(sort_key) is not None


def parse_turn_key(sort_key: str) -> tuple[int, int] | None:
    """Return (incarnation, number) of one of our turns, None for a turn that somebody else wrote."""
    match = _OUR_TURN.fullmatch(sort_key)
    return (int(match[1]), int(match[2])) if match else None
