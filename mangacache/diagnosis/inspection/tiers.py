"""What was found in each tier, as plain values: what is shown, compared, and written as JSON."""

from __future__ import annotations

import msgspec

from mangacache.sessions.copies import Copy, MetaCopy, Remembered, TurnCopy


class InDynamoDB(msgspec.Struct, frozen=True, kw_only=True):
    """The session in the table, read strongly.

    Attributes:
        copy: META, the newest turns and the summary that META names.
        fence: of META: how often the session's lock was claimed.
        last_number: META's own, which may lag behind.
        last_active_at: META's own, which may lag behind.
        unswept: whether turns of an earlier life may still be there.
        adopting: how far an `adopt` has come that is under way.
        item_bytes: what META and these turns take as items, about.
        expires_in_s: until META expires; None: never, or there is none.
        epoch: of the context cache; None: no worker has used one yet.
        moved: whether it changed while the other tiers were looked at.
    """

    copy: Copy
    fence: int
    last_number: int
    last_active_at: str
    unswept: bool
    adopting: str
    item_bytes: int
    expires_in_s: float | None
    epoch: int | None
    moved: bool = False


class InRedis(msgspec.Struct, frozen=True, kw_only=True):
    """The session's context in Redis, in the states of the protocol.

    Attributes:
        key: of the hash, under the present epoch.
        state: `absent`, `filling`, `full`, or `damaged` where it cannot be read as either.
        copy: of a full one.
        age_s: since it was filled.
        lease_left_ms: of a filling one; below 0 it has run out.
        floor: of a filling one: the least version that its fill must have.
        ttl_ms: until it expires; -1: never.
        memory_bytes: what it takes in Redis; None where that is not told.
        damage: what cannot be read.
        earlier: whether the hash of the epoch before is still there; it expires by itself.
    """

    key: str
    state: str
    copy: Copy | None = None
    age_s: float | None = None
    lease_left_ms: int | None = None
    floor: tuple[int, int, int] | None = None
    ttl_ms: int = -2
    memory_bytes: int | None = None
    damage: str = ""
    earlier: bool = False


class InDax(msgspec.Struct, frozen=True, kw_only=True):
    """What DAX answered to plain gets; each may be as old as its TTL.

    Attributes:
        meta: META; None: DAX says that there is none.
        newest: the newest turn; None: DAX says that there is none, or there is none.
    """

    meta: MetaCopy | None
    newest: TurnCopy | None


class InMemory(msgspec.Struct, frozen=True, kw_only=True):
    """What a worker says of its memory; `remembered` is None where it holds nothing."""

    worker: str
    remembered: Remembered | None


class Lock(msgspec.Struct, frozen=True, kw_only=True):
    """The session's lock in Redis: whether it is held, for how long, and who waits. Its token is nobody's business."""

    held: bool
    lease_left_ms: int
    waiting: int
    ttl_ms: int


class Socket(msgspec.Struct, frozen=True, kw_only=True):
    """A connection that the session's list names.

    Attributes:
        mapped: whether it is mapped to this session; the list may be behind.
    """

    id: str
    customer_id: str | None
    endpoint: str | None
    mapped: bool
    ttl_ms: int


class Failed(msgspec.Struct, frozen=True):
    """A tier that could not be looked at."""

    why: str


class Tiers(msgspec.Struct, frozen=True, kw_only=True):
    """A session everywhere; None where a tier is not configured, or was not asked."""

    session_id: str
    dynamodb: InDynamoDB
    redis: InRedis | Failed | None = None
    dax: InDax | Failed | None = None
    memory: tuple[InMemory | Failed, ...] = ()
    lock: Lock | None = None
    connections: tuple[Socket, ...] = ()
