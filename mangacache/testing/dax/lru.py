"""One cache of one node: entries by key, at most so old and so many bytes, the least recently used going first."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, NamedTuple, TypeVar

if TYPE_CHECKING:
    from collections.abc import Hashable

V = TypeVar("V")


@dataclass(slots=True)
class CacheCounts:
    """What happened in a cache since it was made.

    Attributes:
        hits: answers from an entry, negative ones included.
        misses: no entry, or an expired one.
        negative_hits: hits on an entry that says "nothing there".
        evictions: entries that went for want of memory, expired or not.
        expired: entries found to be past their TTL; each is also a miss.
    """

    hits: int = 0
    misses: int = 0
    negative_hits: int = 0
    evictions: int = 0
    expired: int = 0

    def __add__(self, other: CacheCounts) -> CacheCounts:
        return CacheCounts(
            self.hits + other.hits,
            self.misses + other.misses,
            self.negative_hits + other.negative_hits,
            self.evictions + other.evictions,
            self.expired + other.expired,
        )


class Entry(NamedTuple, Generic[V]):
    """What a cache holds of a key.

    Attributes:
        value: what was stored.
        negative: the value says "nothing there".
        size_bytes: what it counts for.
        expires_s: the monotonic second from which it is no longer served.
    """

    value: V
    negative: bool
    size_bytes: int
    expires_s: float


class LruCache(Generic[V]):
    """A cache bounded by bytes.

    Both of DAX's are of this kind. An entry lives for the TTL from when it was stored: a hit makes it more recently
    used but not younger. One that is larger than the whole cache is not stored, so a cache of 0 bytes is off.

    Args:
        ttl_s: how long an entry is served; infinity for ever.
        max_bytes: what all entries may count for together.
    """

    def __init__(self, *, ttl_s: float, max_bytes: int) -> None:
        self._ttl_s = ttl_s
        self._max_bytes = max_bytes
        self._entries: OrderedDict[Hashable, Entry[V]] = OrderedDict()
        self.used_bytes = 0
        self.counts = CacheCounts()

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: Hashable, now_s: float) -> Entry[V] | None:
        """Return the entry of `key`, or None; counted."""
        entry = self._entries.get(key)
        if entry is not None and entry.expires_s <= now_s:
            self.forget(key)
            self.counts.expired += 1
            entry = None
        if entry is None:
            self.counts.misses += 1
            return None
        self._entries.move_to_end(key)
        self.counts.hits += 1
        self.counts.negative_hits += entry.negative
        return entry

    def put(self, key: Hashable, value: V, *, size_bytes: int, negative: bool, now_s: float) -> None:
        """Store `value`, younger than all others; the least recently used make room."""
        self.forget(key)
        if size_bytes > self._max_bytes:
            return
        self._entries[key] = Entry(value, negative, size_bytes, now_s + self._ttl_s)
        self.used_bytes += size_bytes
        while self.used_bytes > self._max_bytes:
            _, evicted = self._entries.popitem(last=False)
            self.used_bytes -= evicted.size_bytes
            self.counts.evictions += 1

    def forget(self, key: Hashable) -> None:
        """Drop the entry of `key`, if there is one."""
        entry = self._entries.pop(key, None)
        if entry is not None:
            self.used_bytes -= entry.size_bytes

    def clear(self) -> None:
        """Drop every entry; the counts go on."""
        self._entries.clear()
        self.used_bytes = 0
