"""Which of a cluster's 16,384 slots a key is in, and whose slots they are."""

from __future__ import annotations

from binascii import crc_hqx
from typing import TYPE_CHECKING, Any, Final

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterable

SLOTS: Final = 16384


def slot_of(key: str) -> int:
    """Return the slot of a key or of a channel: what stands between its first braces chooses it, or all of it."""
    begin = key.find("{")
    if begin >= 0:
        end = key.find("}", begin + 1)
        if end > begin + 1:
            key = key[begin + 1 : end]
    return crc_hqx(key.encode(), 0) % SLOTS


def ranges(text: str) -> list[range]:
    """Return the slots that `0-5460,7000` names."""
    found = []
    for part in filter(None, text.split(",")):
        first, _, last = part.partition("-")
        found.append(range(int(first), int(last or first) + 1))
    return found


def named(slots: Iterable[int]) -> str:
    """Return slots as `ranges` reads them."""
    parts: list[list[int]] = []
    for slot in sorted(slots):
        if parts and slot == parts[-1][1] + 1:
            parts[-1][1] = slot
        else:
            parts.append([slot, slot])
    return ",".join(f"{first}-{last}" if last > first else str(first) for first, last in parts)


class Owned(msgspec.Struct, frozen=True):
    """A range of slots and the primary that has it; an empty host is that of the node that was asked."""

    first: int
    last: int
    host: str
    port: int


def owned(reply: Any) -> list[Owned]:
    """Return what CLUSTER SLOTS says of primaries."""
    found = []
    for first, last, primary, *_ in reply:
        host = (primary[0] or b"").decode()
        found.append(Owned(first, last, "" if host == "?" else host, primary[1]))
    return found
