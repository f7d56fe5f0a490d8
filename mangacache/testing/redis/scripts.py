"""The context scripts once more, in Python: what each `.lua` file does to a hash, step by step as it stands there.

`make_known` teaches the double further scripts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final, TypeAlias

from mangacache.context import scripts
from mangacache.redis.notices import whole_notice

if TYPE_CHECKING:
    from mangacache.redis import Script
    from mangacache.testing.redis.keyspace import Keyspace

Reply: TypeAlias = "int | bytes | list[Reply] | None"
Function: TypeAlias = Callable[["Keyspace", Sequence[str], list[bytes]], Reply]
"""Does what a script does: the keyspace, `KEYS`, `ARGV`."""


def _numbers(*values: bytes | None) -> list[int]:
    """Return the numbers that values are; missing ones are -1, and are not looked at."""
    return [int(value) if value is not None else -1 for value in values]


def get(db: Keyspace, key: str, argv: list[bytes]) -> Reply:
    """Do what get.lua does."""
    lease_ms, ttl_ms, max_age_ms = _numbers(*argv[1:4])
    now = db.now_ms()
    held = db.hmget(key, ("i", "t", "r", "lo", "at", "l", "lx"))
    i, t, r, lo, at, _, lx = _numbers(*held[:5], None, held[6])
    if held[0] is not None:
        age = now - at
        least_i, least_t, least_r = _numbers(*argv[5:8])
        enough = least_i < i or (least_i == i and least_t <= t and least_r <= r)
        if enough and 0 <= age <= max_age_ms:
            if db.pttl(key) < ttl_ms * 0.9:
                db.pexpire(key, ttl_ms)
            return _current(db, key, [age, i, t, r, lo], argv)
        db.delete(key)
    elif held[5] is not None:
        left = lx - now
        if 0 < left <= lease_ms:
            return [b"busy", left]
        db.delete(key)
    db.hset(key, {"l": argv[0], "lx": now + lease_ms, "fi": -1, "ft": -1, "fr": -1})
    db.pexpire(key, lease_ms * 4)
    return [b"lease"]


def _current(db: Keyspace, key: str, held: list[int], argv: list[bytes]) -> Reply:
    """Return `same`, or a `hit` with what is newer than the caller's."""
    age, i, t, r, lo = held
    window, have_i, have_t, have_r = _numbers(argv[4], *argv[8:11])
    if have_i != i:
        have_t = have_r = -1
    if have_t >= t and have_r >= r:
        return [b"same", age, i, t, r]
    first = max(have_t + 1, lo)
    meta = db.hget(key, "m") if have_r < r else None
    turns: list[Reply] = [*db.hmget(key, [number % window for number in range(first, t + 1)])]
    return [b"hit", age, i, t, r, first, meta, turns]


def commit(db: Keyspace, key: str, argv: list[bytes]) -> Reply:
    """Do what commit.lua does."""
    ttl_ms, window, to_i, to_t, to_r = _numbers(*argv[:5])
    held = db.hmget(key, ("i", "t", "r", "lo", "l"))
    i, t, r, lo = _numbers(*held[:4])
    if held[0] is None:
        if held[4] is None:
            return [b"absent", -1, -1, -1]
        _raise_floor(db, key, to_i, to_t, to_r)
        return [b"filling", -1, -1, -1]
    if to_i < i or (to_i == i and to_t <= t and to_r <= r):
        return [b"known", i, t, r]

    meta, first, turns = argv[5], int(argv[6]), argv[7:]
    if to_i > i:
        if first != 1 or len(turns) != to_t or not turns or not meta:
            return _deleted(db, key)
        filled_at = db.hget(key, "at")
        db.delete(key)
        db.hset(key, {"at": filled_at})
        t, r, lo = 0, -1, 1
    holds_turns = to_t <= t or (len(turns) == to_t - first + 1 and bool(turns) and first <= t + 1)
    if not holds_turns or (to_r > r and not meta):
        return _deleted(db, key)

    fields: dict[str | int, bytes | int | None] = {"i": to_i}
    if to_t > t:
        for number in range(max(t + 1, to_t - window + 1), to_t + 1):
            fields[number % window] = turns[number - first]
        t, lo = to_t, max(lo, to_t - window + 1)
    if to_r > r:
        fields["m"] = meta
        r = to_r
    db.hset(key, {**fields, "t": t, "r": r, "lo": lo})
    db.pexpire(key, ttl_ms)
    return [b"written", to_i, t, r]


def told(db: Keyspace, key: str, argv: list[bytes]) -> Reply:
    """Do what told.lua does before commit.lua."""
    *argv, notice, session, customer = argv
    for channel in filter(None, (session, customer)):
        db.publish(channel.decode(), whole_notice(argv[2:5], notice))
    return commit(db, key, argv)


def fill(db: Keyspace, key: str, argv: list[bytes]) -> Reply:
    """Do what fill.lua does."""
    ttl_ms, window, to_i, to_t, to_r = _numbers(*argv[:5])
    meta, first, lease, turns = argv[5], int(argv[6]), argv[7], argv[8:]
    if len(turns) != to_t - first + 1:
        raise NotImplementedError(f"FILL of {key} with {len(turns)} turns for {first}..{to_t}")
    held = db.hmget(key, ("i", "t", "r", "l", "fi", "ft", "fr"))
    i, t, r, _, fi, ft, fr = _numbers(*held[:3], None, *held[4:])
    if held[3] is not None and held[3] == lease:
        db.delete(key)
        if to_i < fi or (to_i == fi and (to_t < ft or to_r < fr)):
            return b"overtaken"
        lo = max(first, to_t - window + 1)
        ring: dict[str | int, bytes | int | None] = {
            number % window: turns[number - first] for number in range(lo, to_t + 1)
        }
        db.hset(key, {"i": to_i, "t": to_t, "r": to_r, "lo": lo, "at": db.now_ms(), "m": meta, **ring})
        db.pexpire(key, ttl_ms)
        return b"filled"
    if held[0] is not None:
        if to_i > i or (to_i == i and (to_t > t or to_r > r)):
            db.delete(key)
    elif held[3] is not None:
        _raise_floor(db, key, to_i, to_t, to_r)
    return b"refused"


def release(db: Keyspace, key: str, argv: list[bytes]) -> Reply:
    """Do what release.lua does."""
    return db.delete(key) if db.hget(key, "l") == argv[0] else 0


def discard(db: Keyspace, key: str, argv: list[bytes]) -> Reply:
    """Do what discard.lua does."""
    del argv
    return db.delete(key) if db.hget(key, "i") is not None else 0


def _raise_floor(db: Keyspace, key: str, to_i: int, to_t: int, to_r: int) -> None:
    fi, ft, fr = _numbers(*db.hmget(key, ("fi", "ft", "fr")))
    if to_i > fi:
        db.hset(key, {"fi": to_i, "ft": to_t, "fr": to_r})
    elif to_i == fi:
        db.hset(key, {"ft": max(ft, to_t), "fr": max(fr, to_r)})


def _deleted(db: Keyspace, key: str) -> Reply:
    db.delete(key)
    return [b"deleted", -1, -1, -1]


def known(script: Script) -> Function | None:
    """Return what does as a script does; None where the double does not know it."""
    return _BY_SHA.get(script.sha)


def make_known(script: Script, function: Function) -> None:
    """Have the double run a function for a script."""
    _BY_SHA[script.sha] = function


def _of_one_key(function: Callable[[Keyspace, str, list[bytes]], Reply]) -> Function:
    def run(db: Keyspace, keys: Sequence[str], argv: list[bytes]) -> Reply:
        (key,) = keys
        return function(db, key, argv)

    return run


_BY_SHA: Final[dict[str, Function]] = {
    script.sha: _of_one_key(function)
    for script, function in {
        scripts.GET: get,
        scripts.COMMIT: commit,
        scripts.TOLD: told,
        scripts.FILL: fill,
        scripts.RELEASE: release,
        scripts.DISCARD: discard,
    }.items()
}
