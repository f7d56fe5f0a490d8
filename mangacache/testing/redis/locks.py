"""The locks' scripts once more, in Python: what each `.lua` file does, step by step as it stands there."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from mangacache.ephemeral import scripts
from mangacache.testing.redis.scripts import make_known

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mangacache.testing.redis.keyspace import Keyspace
    from mangacache.testing.redis.scripts import Reply

_PLACE: Final = re.compile(rb"(\d+) (\d+)")


def take(db: Keyspace, keys: Sequence[str], argv: list[bytes]) -> Reply:
    """Do what lock_take.lua does."""
    (key,) = keys
    token, what = argv[0], argv[4]
    lease, patience, most = map(int, argv[1:4])
    now = db.now_ms()
    held = db.hgetall(key)
    waiting = _waiting(held)
    mine = waiting.pop(token, (None, 0))[0]
    for other, (_, till) in list(waiting.items()):
        if till <= now:
            db.hdel(key, "w" + other.decode())
            del waiting[other]
    first, first_until = min(waiting.values(), default=(None, 0))
    last = max((till for _, till in waiting.values()), default=now)

    holder, ends = held.get(b"h"), int(held.get(b"x", b"0"))
    taken = holder is not None and holder != token and ends > now
    again = holder == token and ends > now
    my_turn = again or (not taken and (first is None or (mine is not None and mine < first)))
    if my_turn and what == b"take":
        db.hdel(key, "w" + token.decode())
        db.hset(key, {"h": token, "x": now + lease})
        db.pexpire(key, max(lease, last - now))
        return [b"held", len(waiting)]

    may_change_ms = max(1, (ends if taken else first_until) - now)
    if mine is None:
        if len(waiting) >= most:
            return [b"full", may_change_ms]
        mine = int(held.get(b"n", b"0")) + 1
        db.hset(key, {"n": mine})
    db.hset(key, {"w" + token.decode(): f"{mine} {now + patience}".encode()})
    db.pexpire(key, max(patience, last - now, ends - now))
    return [b"turn", patience] if my_turn else [b"waits", may_change_ms]


def leave(db: Keyspace, keys: Sequence[str], argv: list[bytes]) -> Reply:
    """Do what lock_leave.lua does."""
    (key,), (token,) = keys, argv
    now = db.now_ms()
    holder, ends = db.hmget(key, ("h", "x"))
    was = holder == token
    if was:
        db.hdel(key, "h", "x")
    db.hdel(key, "w" + token.decode())
    if not was and holder is not None and int(ends or 0) > now:
        return 0
    waiting = {other: place for other, place in _waiting(db.hgetall(key)).items() if place[1] > now}
    if waiting:
        db.publish(f"{key}:next", min(waiting, key=waiting.__getitem__))
    else:
        db.delete(key)
    return int(was)


def extend(db: Keyspace, keys: Sequence[str], argv: list[bytes]) -> Reply:
    """Do what lock_extend.lua does."""
    (key,) = keys
    token, lease = argv[0], int(argv[1])
    now = db.now_ms()
    holder, ends = db.hmget(key, ("h", "x"))
    if holder != token or int(ends or 0) <= now:
        return 0
    db.hset(key, {"x": now + lease})
    if db.pttl(key) < lease:
        db.pexpire(key, lease)
    return 1


def _waiting(held: dict[bytes, bytes]) -> dict[bytes, tuple[int, int]]:
    """Return who waits: their tickets, and until when they count."""
    found = {}
    for name, value in held.items():
        if name.startswith(b"w"):
            place = _PLACE.fullmatch(value)
            if place is None:
                raise ValueError(f"FOREIGN {name!r} is no place in line")
            found[name[1:]] = (int(place[1]), int(place[2]))
    return found


make_known(scripts.LOCK_TAKE, take)
make_known(scripts.LOCK_LEAVE, leave)
make_known(scripts.LOCK_EXTEND, extend)
