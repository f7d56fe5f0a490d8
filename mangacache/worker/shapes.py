"""What goes over the wire, as structs: what queries and bodies may hold, and what is answered.

OpenAPI is made of these, and so is each answer: what is encoded is one of them, with the library's own structs inside.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

import msgspec

from mangacache.model import WINDOW

Attributes: TypeAlias = dict[str, Any]
Id: TypeAlias = Annotated[str, msgspec.Meta(min_length=1, max_length=128)]
Token: TypeAlias = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]+[.][0-9a-f]+[.][0-9a-f]+$", max_length=64)]
Role: TypeAlias = Literal["assistant", "system", "tool", "user"]
Page: TypeAlias = Annotated[int, msgspec.Meta(ge=1, le=1000)]


class Asked(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a client sends."""


class Said(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the worker answers."""


# What the library's own structs look like as JSON


class TurnSaid(Said, frozen=True):
    """A turn."""

    number: int
    turn_id: str
    role: str
    content: str
    created_at: str
    attributes: Attributes
    expires_at: int


class MetaSaid(Said, frozen=True):
    """META as of the context's version."""

    customer_id: str | None
    status: str
    created_at: str
    last_active_at: str
    last_number: int
    attributes: Attributes


class SummarySaid(Said, frozen=True):
    """What was said up to turn `upto`, in short."""

    upto: int
    text: str
    created_at: str
    expires_at: int


# Contexts


class Freshness(Asked, frozen=True):
    """How fresh an answer must be: never older than `at_least`, a version of an earlier answer."""

    at_least: Token | None = None
    consistency: Literal["session", "latest", "strong", "eventual"] = "session"
    age_s: Annotated[float, msgspec.Meta(ge=0)] | None = None


class ContextQuery(Freshness, frozen=True):
    """How many turns, and how fresh."""

    turns: Annotated[int, msgspec.Meta(ge=1, le=WINDOW)] = 20
    rate_limit: str | None = None


class ContextAnswer(Said, frozen=True):
    """A session's context.

    Attributes:
        version: for `at_least` of the next read; it is the ETag too.
        last_active_at, last_number: META's, None where there is no live session.
    """

    session_id: str
    version: str
    source: Literal["memory", "redis", "dax", "dynamodb"]
    stale: bool
    degraded: bool
    meta: MetaSaid | None
    turns: tuple[TurnSaid, ...]
    summary: SummarySaid | None
    last_active_at: str | None
    last_number: int | None


# Turns


class TurnGiven(Asked, frozen=True):
    """A turn to be stored."""

    role: Role
    content: str
    turn_id: Id | None = None
    attributes: Attributes = {}


class AppendBody(Asked, frozen=True):
    """One turn, or several in `turns`: all of them or none are stored.

    Attributes:
        after: where a try may arrive after 32 more turns: the version from before the first try, with each.
        rate_limit: the limit of the customer's of which a unit is taken first.
    """

    role: Role | None = None
    content: str | None = None
    turn_id: Id | None = None
    attributes: Attributes = {}
    turns: Annotated[tuple[TurnGiven, ...], msgspec.Meta(min_length=1, max_length=WINDOW)] | None = None
    after: Token | None = None
    rate_limit: str | None = None


class AppendedSaid(Said, frozen=True):
    """A turn that is durable under `number`."""

    number: int
    turn_id: str
    version: str
    duplicate: bool
    degraded: bool


class AppendAnswer(Said, frozen=True):
    """The turns, as they were given, and the version from which on all of them are seen."""

    turns: tuple[AppendedSaid, ...]
    version: str


class HistoryQuery(Asked, frozen=True):
    """A page: the newest turns, those before or after a cursor, or the next in an order.

    Attributes:
        before: `older` of another page.
        after: `newer` of another page, or nothing for the oldest turns.
        order: page from the `newest` turns back, the default, or from the `oldest` on.
        cursor: `cursor` of the page before, in the same order.
    """

    limit: Page = 50
    before: str | None = None
    after: str | None = None
    order: Literal["newest", "oldest"] | None = None
    cursor: str | None = None


class HistoryAnswer(Said, frozen=True):
    """A page of turns, oldest first; each cursor is None where nothing is stored on that side."""

    turns: tuple[TurnSaid, ...]
    older: str | None
    newer: str | None
    cursor: str | None


# META, summaries, ends


class MetaAnswer(Said, frozen=True):
    """META without what turns change; its ETag is incarnation and revision."""

    session_id: str
    customer_id: str | None
    status: str
    created_at: str
    attributes: Attributes


Fence: TypeAlias = Annotated[int, msgspec.Meta(ge=1)]


class ChangeBody(Asked, frozen=True):
    """Free attributes to set and to remove, a status, and the fence of the lock under which that is done."""

    attributes: Attributes = {}
    remove: tuple[str, ...] = ()
    status: str | None = None
    fence: Fence | None = None


class SummaryBody(Asked, frozen=True):
    """A summary of the turns up to number `upto`; without it, up to the newest."""

    text: str
    upto: Annotated[int, msgspec.Meta(ge=1)] | None = None
    fence: Fence | None = None


class UpdatedAnswer(Said, frozen=True):
    """The revision that a change made, in `version`."""

    version: str
    meta: MetaSaid
    degraded: bool


class DeletedAnswer(Said, frozen=True):
    """What a delete came to; `existed` is false where there was nothing to delete."""

    version: str
    existed: bool
    swept: bool
    degraded: bool


class AdoptAnswer(Said, frozen=True):
    """How many turns were taken over; 0 where the session was ours already."""

    adopted: int


# Locks


class LockBody(Asked, frozen=True):
    """How long a lock is held without being renewed, and how long to wait for it."""

    lease_s: Annotated[float, msgspec.Meta(ge=0.1, le=300)] = 10.0
    wait_s: Annotated[float, msgspec.Meta(ge=0, le=30)] = 0.0


class LockAnswer(Said, frozen=True):
    """A lock in the hands of whoever has its token; `fence` goes with each guarded write."""

    lock_token: str
    fence: int
    ttl_s: float
    source: str


# Customers


class PageQuery(Asked, frozen=True):
    """A page of so many, after a cursor."""

    limit: Page = 50
    cursor: str | None = None


class PresenceQuery(Asked, frozen=True):
    """A page of so many, after a cursor."""

    limit: Page = 100
    cursor: str | None = None


class SessionSaid(Said, frozen=True):
    """A line of a customer's list of sessions."""

    session_id: str
    status: str
    last_active_at: str


class SessionsAnswer(Said, frozen=True):
    """A page of a customer's sessions; `cursor` is null on the last."""

    sessions: tuple[SessionSaid, ...]
    cursor: str | None


class ForgottenAnswer(Said, frozen=True):
    """How many sessions were deleted."""

    deleted: int


class SeenSaid(Said, frozen=True):
    """When a customer was last seen."""

    customer_id: str
    ago_s: float
    online: bool


class PresenceAnswer(Said, frozen=True):
    """How many are online, and some of them."""

    count: int
    customers: tuple[SeenSaid, ...]
    cursor: str | None


class CostBody(Asked, frozen=True):
    """How many units."""

    cost: Annotated[int, msgspec.Meta(ge=1, le=10_000)] = 1


class LimitAnswer(Said, frozen=True):
    """What became of a request for units."""

    allowed: bool
    limit: int
    remaining: int
    retry_after_s: float
    source: str


# Titles, warm-up


class TrendsQuery(Asked, frozen=True):
    """Of which span, and how many."""

    span: Literal["hour", "day"] = "hour"
    limit: Annotated[int, msgspec.Meta(ge=1, le=100)] = 10


class TitleBody(Asked, frozen=True):
    """A title, and by how much it is counted."""

    title: Id
    weight: Annotated[int, msgspec.Meta(ge=1, le=1_000_000)] = 1


class TrendSaid(Said, frozen=True):
    """A title among the first; `count` may be too high by `over`."""

    title: str
    count: int
    over: int


class TrendsAnswer(Said, frozen=True):
    """The first titles, the most asked for first."""

    titles: tuple[TrendSaid, ...]


class PrefetchBody(Asked, frozen=True):
    """Which contexts to load."""

    session_ids: Annotated[tuple[Id, ...], msgspec.Meta(max_length=1000)]


class PrefetchAnswer(Said, frozen=True):
    """What a warm-up came to: contexts read, found warm, and left for later."""

    loaded: int
    warm: int
    left: int


class Document(msgspec.Struct, frozen=True):
    """An OpenAPI document."""

    openapi: str
    info: dict[str, Any]
    paths: dict[str, Any]
    components: dict[str, Any]
