"""The scripts' arguments and replies: where contexts meet the wire, without input or output."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

import msgspec

from mangacache.context.codec import decode_head, decode_turns, encode_head, encode_ring, encode_turn
from mangacache.context.messages import Busy, Held
from mangacache.model import WINDOW, Version
from mangacache.redis.notices import CLOSED, DELETED, OWED, customer_channel, notice_tail, session_channel, whole_notice
from mangacache.store.snapshot import Snapshot

if TYPE_CHECKING:
    from mangacache.redis import Argument
    from mangacache.settings import Settings

LEASE_MS: Final = 2_000
_NOTHING: Final = (-1, -1, -1)


class Committed(msgspec.Struct, frozen=True):
    """COMMIT's reply: what was done, and at which version the hash is now; None where it is not FULL."""

    what: str
    version: Version | None


class Calls:
    """Builds the arguments for one cache, by its settings."""

    def __init__(self, settings: Settings) -> None:
        self._prefix = settings.key_prefix
        self._ttl_ms = settings.context_ttl_s * 1000
        self._max_age_ms = settings.context_max_age_s * 1000

    def key(self, session_id: str, epoch: int) -> str:
        """Return the hash's key: the id alone chooses the slot of a cluster."""
        return f"{self._prefix}session:{{{quote(session_id, safe='')}}}:context:{epoch}"

    def get(self, token: str, *, least: Version, have: Snapshot | None) -> list[Argument]:
        """Return GET's arguments."""
        held = _parts(have.version) if have is not None and not have.foreign else _NOTHING
        return [token, LEASE_MS, self._ttl_ms, self._max_age_ms, WINDOW, *_parts(least), *held]

    def commit(self, base: Snapshot | None, after: Snapshot) -> list[Argument]:
        """Return COMMIT's arguments: what `after` has and `base` has not; no turns where one in between is unknown."""
        version = after.version
        begun = base is None or base.version.incarnation != version.incarnation
        known = 0 if base is None or begun else base.version.number
        new = [turn for turn in after.turns if turn.number > known]
        whole = bool(new) and [turn.number for turn in new] == list(range(new[0].number, version.number + 1))
        head = b""
        if after.meta is not None and (begun or base is None or base.version.revision < version.revision):
            head = encode_head(after)
        turns = [encode_turn(turn) for turn in new] if whole else []
        return [self._ttl_ms, WINDOW, *_parts(version), head, new[0].number if turns else version.number + 1, *turns]

    def observe(self, version: Version) -> list[Argument]:
        """Return the arguments of a COMMIT without payload."""
        return [self._ttl_ms, WINDOW, *_parts(version), b"", version.number + 1]

    def told(self, session_id: str, base: Snapshot | None, after: Snapshot) -> tuple[Argument, Argument, str]:
        """Return what TOLD takes after COMMIT's arguments: what of a write is told, and on which channels.

        What was found stored is told as owed: who stored it may have failed before it could tell anybody.
        """
        version, meta = after.version, after.meta
        if base is not None and base.version == version:
            return self.owed(session_id, customer_of(base, after))
        before = base.version if base is not None else msgspec.structs.replace(version, number=version.number - 1)
        begun = before.incarnation != version.incarnation
        known, first, mark = 0 if begun else before.number, version.number + 1, ""
        for turn in reversed(after.turns):  # numbers may have been left out, where DynamoDB has deleted expired turns
            if turn.number != first - 1 or turn.number <= known:
                break
            first -= 1
        if meta is not None and (begun or before.revision < version.revision):
            mark = CLOSED if meta.status == CLOSED else DELETED if meta.revision == 0 else ""
        notice = notice_tail(session_id, version.number + 1 - first, mark)
        return notice, session_channel(self._prefix, session_id), self._customers(customer_of(base, after))

    def _customers(self, customer_id: str | None) -> str:
        return customer_channel(self._prefix, customer_id) if customer_id is not None else ""

    @staticmethod
    def whole(version: Version, notice: Argument) -> bytes:
        """Return a notice as the script publishes it."""
        parts = [str(part).encode() for part in _parts(version)]
        return whole_notice(parts, notice if isinstance(notice, bytes) else str(notice).encode())

    def owed(self, session_id: str, customer_id: str | None) -> tuple[Argument, Argument, str]:
        """Return the same for a version that was not told when it was written: how it came about is forgotten."""
        notice = notice_tail(session_id, 0, OWED)
        return notice, session_channel(self._prefix, session_id), self._customers(customer_id)

    def fill(self, token: str, snapshot: Snapshot) -> list[Argument]:
        """Return FILL's arguments."""
        first, ring = encode_ring(snapshot)
        return [self._ttl_ms, WINDOW, *_parts(snapshot.version), encode_head(snapshot), first, token, *ring]


def customer_of(base: Snapshot | None, after: Snapshot) -> str | None:
    """Return whose a session is that was written, or was until then."""
    for known in (after, base):
        if known is not None and known.meta is not None and known.meta.customer_id is not None:
            return known.meta.customer_id  # a tombstone is nobody's
    return None


def got(reply: Any, have: Snapshot | None) -> Held | Busy | None:
    """Return what GET's reply says; None where it gave the lease.

    Raises:
        Unreadable: what is held is no context of a format known here.
    """
    kind = reply[0]
    if kind == b"lease":
        return None
    if kind == b"busy":
        return Busy(reply[1] / 1000)
    age_s, version = reply[1] / 1000, Version(*reply[2:5])
    if kind == b"same":
        if have is None:
            raise AssertionError("the same as nothing")
        return Held(have, age_s)
    first, head, slots = reply[5:8]
    turns = decode_turns(first, slots)
    joins = have is not None and not have.foreign and have.version.incarnation == version.incarnation
    if have is not None and joins and first <= have.version.number + 1:
        turns = (have.turns + turns)[-WINDOW:]
    if head is None and have is not None and joins:
        meta, summary = have.meta, have.summary
    else:
        meta, summary = decode_head(head, version)
    return Held(Snapshot(meta=meta, version=version, turns=turns, summary=summary), age_s)


def committed(reply: Any) -> Committed:
    """Return what COMMIT's reply says."""
    what, *parts = reply
    return Committed(what.decode(), Version(*parts) if parts[0] >= 0 else None)


def _parts(version: Version) -> tuple[int, int, int]:
    return version.incarnation, version.number, version.revision
