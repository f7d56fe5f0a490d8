"""The ephemeral services' scripts once more, in Python: what each `.lua` file does, step by step as it stands there."""

from __future__ import annotations

import struct
from math import ceil
from typing import TYPE_CHECKING, Final

from mangacache.ephemeral import scripts
from mangacache.testing.redis.keyspace import WrongType
from mangacache.testing.redis.scripts import make_known
from mangacache.testing.redis.sorted_sets import SortedSet

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mangacache.testing.redis.keyspace import Keyspace
    from mangacache.testing.redis.scripts import Reply

_ROUND: Final = 16_777_216
_SLOT: Final = 3
_HEAD: Final = 4


class Foreign(ValueError):
    """What a script's `error_reply('FOREIGN ...')` is."""


class _Ring:
    """The window's string of rate_limit.lua, taken apart."""

    def __init__(self, limit: int, kept: bytes | None) -> None:
        self.position = self.live = 0
        self.times = [0] * limit
        self.now = 0
        if kept is None:
            return
        if len(kept) != _HEAD + _SLOT * limit:
            raise Foreign(f"FOREIGN not a window of {limit} units")
        self.position, self.live = struct.unpack(">HH", kept[:_HEAD])
        if self.position >= limit or self.live > limit:
            raise Foreign("FOREIGN not a window")
        self.times = [int.from_bytes(kept[at : at + _SLOT], "big") for at in range(_HEAD, len(kept), _SLOT)]

    def age(self, entry: int) -> int:
        return (self.now - self.times[(self.position - self.live + entry) % len(self.times)]) % _ROUND

    def packed(self) -> bytes:
        head = struct.pack(">HH", self.position, self.live)
        return head + b"".join(time.to_bytes(_SLOT, "big") for time in self.times)


def rate_limit(db: Keyspace, keys: Sequence[str], argv: list[bytes]) -> Reply:
    """Do what rate_limit.lua does."""
    (key,) = keys
    limit, window_us, unit_us, cost, record = map(int, argv)
    window = ceil(window_us / unit_us)
    kept = db.value(key)
    if kept is not None and not isinstance(kept, bytes):
        raise WrongType(f"WRONGTYPE {key} holds no string")
    ring = _Ring(limit, kept)
    now_us = db.now_us()
    ring.now = now_us // unit_us % _ROUND
    ahead = 0
    if ring.live:
        newest = ring.age(ring.live - 1)
        if newest >= _ROUND - window:
            ahead = _ROUND - newest
            ring.now = (ring.now + ahead) % _ROUND
        elif newest > window:
            ring.live = 0
    ring.live -= sum(ring.age(entry) > window for entry in range(ring.live))
    if ring.live + cost > limit:
        waits = window + 1 - ring.age(ring.live + cost - limit - 1) + ahead
        return [0, limit - ring.live, waits * unit_us, now_us]
    if not record:
        return [1, limit - ring.live, 0, now_us]
    for unit in range(cost):
        ring.times[(ring.position + unit) % limit] = ring.now
    ring.position = (ring.position + cost) % limit
    ring.live += cost
    db.keep(key, ring.packed())
    db.pexpire(key, ceil(window_us / 1000) + 1)
    return [1, limit - ring.live, 0, now_us]


def workers_seen(db: Keyspace, keys: Sequence[str], argv: list[bytes]) -> Reply:
    """Do what workers_seen.lua does."""
    (key,) = keys
    worker, within_ms, stays = argv[0], int(argv[1]), argv[2] == b"1"
    there = SortedSet.of(db, key)
    if stays:
        there.zadd(worker, db.now_ms())
    else:
        there.zrem(worker)
    there.zrem(*there.upto(db.now_ms() - within_ms))
    there.keep(db, key, within_ms)
    return [member for member, _ in there.ranked()]


# Connections


def connection_put(db: Keyspace, keys: Sequence[str], argv: list[bytes]) -> Reply:
    """Do what connection_put.lua does."""
    (key,) = keys
    token, session_id, customer_id, endpoint, ttl_ms = argv
    before = db.hmget(key, ("k", "s", "c"))
    now = db.now_ms()
    db.delete(key)
    db.hset(key, {"k": token, "s": session_id, "c": customer_id, "e": endpoint, "b": now, "f": now})
    db.pexpire(key, int(ttl_ms))
    return [*before] if before[0] is not None else None


def connection_get(db: Keyspace, keys: Sequence[str], argv: list[bytes]) -> Reply:
    """Do what connection_get.lua does."""
    (key,) = keys
    ttl_ms, listed_ms = map(int, argv)
    *found, begun, listed = db.hmget(key, ("k", "s", "c", "e", "b", "f"))
    if found[0] is None or begun is None or listed is None:
        if db.value(key) is not None:
            raise Foreign("FOREIGN not a connection")
        return None
    due = 0
    if ttl_ms:
        since = db.now_ms() - int(listed)
        if since < 0 or since >= listed_ms:
            db.hset(key, {"f": db.now_ms()})
            due = 1
        db.pexpire(key, ttl_ms)
    return [*found, int(begun), due]


def connection_drop(db: Keyspace, keys: Sequence[str], argv: list[bytes]) -> Reply:
    """Do what connection_drop.lua does."""
    (key,) = keys
    found = db.hmget(key, ("k", "s", "c"))
    if found[0] is None or (argv[0] and found[1] != argv[0]):
        return None
    db.delete(key)
    return [*found]


def connections_list(db: Keyspace, keys: Sequence[str], argv: list[bytes]) -> Reply:
    """Do what connections_list.lua does."""
    (key,) = keys
    what, ttl_ms, most, entries = argv[0], int(argv[1]), int(argv[2]), argv[3:]
    listed = SortedSet.of(db, key)
    if what in {b"remove", b"prune"}:
        old = listed.upto(db.now_ms() - most) if what == b"prune" else entries
        removed = listed.zrem(*(entry for entry in entries if entry in old))
        if removed:
            listed.keep(db, key)
        return removed
    past = db.now_ms() - ttl_ms
    if what == b"read":
        return [*listed.after(past)]
    for entry in entries:
        listed.zadd(entry, db.now_ms())
    listed.zrem(*listed.upto(past))
    listed.zrem(*(entry for entry, _ in listed.ranked()[: max(0, listed.zcard() - most)]))
    listed.keep(db, key, ttl_ms)
    return len(entries)


# Presence


def presence_seen(db: Keyspace, keys: Sequence[str], argv: list[bytes]) -> Reply:
    """Do what presence_seen.lua does."""
    (key,) = keys
    keep_ms, most = int(argv[1]), int(argv[2])
    seen = SortedSet.of(db, key)
    seen.zadd(argv[0], db.now_ms())
    past = seen.upto(db.now_ms() - keep_ms)[:most]
    seen.zrem(*past)
    seen.keep(db, key, keep_ms)
    return len(past)


def presence_gone(db: Keyspace, keys: Sequence[str], argv: list[bytes]) -> Reply:
    """Do what presence_gone.lua does."""
    (key,) = keys
    seen = SortedSet.of(db, key)
    removed = seen.zrem(argv[0])
    if removed:
        seen.keep(db, key)
    return removed


def presence_look(db: Keyspace, keys: Sequence[str], argv: list[bytes]) -> Reply:
    """Do what presence_look.lua does."""
    (key,) = keys
    past = db.now_ms() - int(argv[0])
    seen = SortedSet.of(db, key)
    if not argv[1]:
        return len(seen.after(past))
    score = seen.zscore(argv[1])
    return -1 if score is None or score <= past else max(0, db.now_ms() - score)


def presence_page(db: Keyspace, keys: Sequence[str], argv: list[bytes]) -> Reply:
    """Do what presence_page.lua does."""
    (key,) = keys
    within_ms, after_ms, limit = int(argv[0]), int(argv[1]), int(argv[3])
    seen = SortedSet.of(db, key)
    ranked = seen.ranked()
    first = len(seen.upto(db.now_ms() - within_ms))
    if after_ms != -1:
        after = sum(score < after_ms for _, score in ranked)
        if seen.zscore(argv[2]) == after_ms:
            after = ranked.index((argv[2], after_ms)) + 1
        first = max(first, after)
    return [db.now_ms(), *_flat(ranked[first : first + limit])]


# Trending titles


def trending_add(db: Keyspace, keys: Sequence[str], argv: list[bytes]) -> Reply:
    """Do what trending_add.lua does."""
    (key,) = keys
    title, weight, capacity, ttl_ms = argv[0], int(argv[1]), int(argv[2]), int(argv[3])
    counts = SortedSet.of(db, key)
    count = counts.zscore(title) or 0
    if not count and counts.zcard() >= capacity:
        least, count = counts.ranked()[0]
        counts.zrem(least)
    counts.zadd(title, count + weight)
    counts.keep(db, key, ttl_ms)
    return count + weight


def trending_top(db: Keyspace, keys: Sequence[str], argv: list[bytes]) -> Reply:
    """Do what trending_top.lua does."""
    (key,) = keys
    capacity, first = int(argv[0]), int(argv[1])
    counts = SortedSet.of(db, key)
    ranked = counts.ranked()
    least = ranked[0][1] if ranked and len(ranked) >= capacity else 0
    if not first:
        return [least, 0, *(counts.zscore(title) or 0 for title in argv[2:])]
    found = ranked[::-1][:first]
    following = found[-1][1] if len(ranked) > first else 0
    return [least, following, *_flat(found)]


def _flat(ranked: Sequence[tuple[bytes, int]]) -> list[Reply]:
    return [part for each in ranked for part in each]


for _script, _function in {
    scripts.RATE_LIMIT: rate_limit,
    scripts.WORKERS_SEEN: workers_seen,
    scripts.CONNECTION_PUT: connection_put,
    scripts.CONNECTION_GET: connection_get,
    scripts.CONNECTION_DROP: connection_drop,
    scripts.CONNECTIONS_LIST: connections_list,
    scripts.PRESENCE_SEEN: presence_seen,
    scripts.PRESENCE_GONE: presence_gone,
    scripts.PRESENCE_LOOK: presence_look,
    scripts.PRESENCE_PAGE: presence_page,
    scripts.TRENDING_ADD: trending_add,
    scripts.TRENDING_TOP: trending_top,
}.items():
    make_known(_script, _function)
