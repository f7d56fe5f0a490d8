"""What a session's hash in Redis says, field by field: the protocol's three states."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from mangacache.context.codec import Unreadable, decode_head, decode_turns
from mangacache.diagnosis.inspection.tiers import InRedis, Lock
from mangacache.model import WINDOW, Version
from mangacache.sessions.copies import copy_of
from mangacache.store.snapshot import Snapshot

if TYPE_CHECKING:
    from collections.abc import Mapping


def context_of(key: str, fields: Mapping[bytes, bytes], *, now_ms: float) -> InRedis:
    """Return what a hash holds, words included; its TTL and size are not in it.

    Args:
        key: under which it stands.
        fields: HGETALL's.
        now_ms: Redis's time.
    """
    if not fields:
        return InRedis(key=key, state="absent")
    try:
        if b"l" in fields:
            floor = (int(fields[b"fi"]), int(fields[b"ft"]), int(fields[b"fr"]))
            return InRedis(
                key=key,
                state="filling",
                lease_left_ms=round(int(fields[b"lx"]) - now_ms),
                floor=floor if floor[0] >= 0 else None,
            )
        version = Version(int(fields[b"i"]), int(fields[b"t"]), int(fields[b"r"]))
        first, age_s = int(fields[b"lo"]), (now_ms - int(fields[b"at"])) / 1000
        slots = [fields.get(b"%d" % (number % WINDOW)) for number in range(first, version.number + 1)]
        turns = decode_turns(first, slots)
        meta, summary = decode_head(fields.get(b"m"), version)
    except (KeyError, ValueError) as error:
        return InRedis(key=key, state="damaged", damage=f"the hash is none of ours: {error}")
    except Unreadable as error:
        return InRedis(key=key, state="damaged", damage=str(error))
    known = Snapshot(meta=meta, version=version, turns=turns, summary=summary)
    return InRedis(key=key, state="full", copy=copy_of(known, words=True), age_s=round(age_s, 3))


def lock_of(fields: Mapping[bytes, bytes], *, now_ms: float, ttl_ms: int) -> Lock | None:
    """Return what the hash of a lock says; None where there is none, or nothing of ours."""
    if not fields:
        return None
    try:
        left_ms = round(int(fields.get(b"x", b"0")) - now_ms) if b"h" in fields else 0
        waiting = sum(
            int(value.split()[1]) > now_ms for name, value in fields.items() if name.startswith(b"w") and name != b"w"
        )
    except (ValueError, IndexError):
        return None
    return Lock(held=left_ms > 0, lease_left_ms=max(left_ms, 0), waiting=waiting, ttl_ms=ttl_ms)


def with_life(found: InRedis, *, ttl_ms: int, memory_bytes: Any, earlier: bool) -> InRedis:
    """Return what a hash holds, with how long and in how much room."""
    return msgspec.structs.replace(
        found,
        ttl_ms=ttl_ms,
        memory_bytes=memory_bytes if isinstance(memory_bytes, int) else None,
        earlier=earlier,
    )
