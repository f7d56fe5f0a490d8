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
Page: TypeAlias = Annotated[int, msgspec.Meta(ge=1, le=1000)]


class Asked(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a client sends."""


class Said(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the worker answers."""


# What the library's own structs look like as JSON


class TurnSaid(Said):
    """A turn."""

    number: int
    turn_id: str
    role: str
    content: str
    created_at: str
    attributes: Attributes
    expires_at: int


class MetaSaid(Said):
    """META as of the context's version."""

    customer_id: str | None
    status: str
    created_at: str
    last_active_at: str
    last_number: int
    attributes: Attributes


class SummarySaid(Said):
    """What was said up to turn `upto`, in short."""

    upto: int
    text: str
    created_at: str
    expires_at: int


# Contexts


class Freshness(Asked):
    """How fresh an answer must be: never older than `at_least`, a version of an earlier answer."""

    at_least: Token | None = None
    consistency: Literal["session", "latest", "strong", "eventual"] = "session"
    age_s: Annotated[float, msgspec.Meta(ge=0)] | None = None


class ContextQuery(Freshness):
    """How many turns, and how fresh."""

    turns: Annotated[int, msgspec.Meta(ge=1, le=WINDOW)] = 20
    rate_limit: str | None = None


class ContextAnswer(Said):
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


class TurnGiven(Asked):
    """A turn to be stored."""

    role: str
    content: str
    turn_id: Id | None = None
    attributes: Attributes = {}


class AppendBody(Asked):
    """One turn, or several in `turns`: all of them or none are stored.

    Attributes:
        after: for a retry that may come after 32 more turns: the version from before the first try.
        rate_limit: the limit of the customer's of which a unit is taken first.
    """

    role: str | None = None
    content: str | None = None
    turn_id: Id | None = None
    attributes: Attributes = {}
    turns: Annotated[tuple[TurnGiven, ...], msgspec.Meta(min_length=1, max_length=WINDOW)] | None = None
    after: Token | None = None
    rate_limit: str | None = None


class AppendedSaid(Said):
    """A turn that is durable under `number`."""

    number: int
    turn_id: str
    version: str
    duplicate: bool
    degraded: bool


class AppendAnswer(Said):
    """The turns, as they were given, and the version from which on all of them are seen."""

    turns: tuple[AppendedSaid, ...]
    version: str


class HistoryQuery(Asked):
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


class HistoryAnswer(Said):
    """A page of turns, oldest first; each cursor is None where nothing is stored on that side."""

    turns: tuple[TurnSaid, ...]
    older: str | None
    newer: str | None
    cursor: str | None
