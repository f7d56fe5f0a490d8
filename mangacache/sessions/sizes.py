"""About how much memory a session's knowledge takes: enough to bound the whole by, at a few microseconds each."""

from __future__ import annotations

from sys import getsizeof
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from mangacache.store.snapshot import Snapshot

_SNAPSHOT: Final = 1_000  # the snapshot, its version and META's texts
_TURN: Final = 420  # a turn without its content: the struct, its ids, times and numbers
_KIB: Final = 1_024


def size_kib(known: Snapshot | None) -> int:
    """Return about how many KiB a snapshot takes, rounded up; 0 of nothing."""
    if known is None:
        return 0
    size = _SNAPSHOT
    if known.meta is not None and known.meta.attributes:
        size += _size(known.meta.attributes)
    if known.summary is not None:
        size += getsizeof(known.summary.text)
    for turn in known.turns:
        size += _TURN + getsizeof(turn.content)
        if turn.attributes:
            size += _size(turn.attributes)
    return -(-size // _KIB)


def _size(value: Any) -> int:
    size = getsizeof(value)
    if isinstance(value, dict):
        return size + sum(_size(name) + _size(member) for name, member in value.items())
    if isinstance(value, list | set | tuple):
        return size + sum(map(_size, value))
    return size
