"""What a worker's JSON says, read into the library's own types where there is one."""

from __future__ import annotations

from decimal import Decimal
from typing import Any, Final, TypeVar

import msgspec

from mangacache.errors import Transient
from mangacache.model import (
    Appended,
    Context,
    Deleted,
    History,
    Meta,
    SessionInfo,
    SessionPage,
    Summary,
    Turn,
    Updated,
    Version,
)

T = TypeVar("T")


class Lock(msgspec.Struct, frozen=True):
    """A session's lock, held until `ttl_s` after it was taken or renewed last.

    Attributes:
        lock_token: by which it is renewed and released.
        fence: to be passed with each guarded write.
        ttl_s: seconds until it ends by itself.
    """

    lock_token: str
    fence: int
    ttl_s: float


class Allowance(msgspec.Struct, frozen=True):
    """What became of a request for units of a customer's limit; see `mangacache.ephemeral.Decision`."""

    allowed: bool
    limit: int
    remaining: int
    retry_after_s: float
    source: str = ""


class Seen(msgspec.Struct, frozen=True):
    """When a customer was last seen."""

    customer_id: str
    ago_s: float
    online: bool


class Trend(msgspec.Struct, frozen=True):
    """A title among the first; `count` may be too high by `over`."""

    title: str
    count: int
    over: int = 0


class Prefetched(msgspec.Struct, frozen=True):
    """What a warm-up came to: contexts read, found warm, and left for later."""

    loaded: int = 0
    warm: int = 0
    left: int = 0


class WireTurn(msgspec.Struct, frozen=True):
    """A turn in JSON."""

    number: int
    role: str
    content: str = ""
    turn_id: str = ""
    created_at: str = ""
    attributes: dict[str, Any] = {}
    expires_at: int = 0

    def value(self) -> Turn:
        """Return the turn."""
        return Turn(
            self.number, self.turn_id, self.role, self.content, self.created_at, self.attributes, self.expires_at
        )


class WireMeta(msgspec.Struct, frozen=True):
    """META in JSON."""

    status: str
    customer_id: str | None = None
    created_at: str = ""
    last_active_at: str = ""
    last_number: int = 0
    attributes: dict[str, Any] = {}

    def value(self) -> Meta:
        """Return the META."""
        return Meta(
            self.customer_id, self.status, self.created_at, self.last_active_at, self.last_number, self.attributes
        )


class WireContext(msgspec.Struct, frozen=True):
    """A context in JSON."""

    version: str
    source: str
    session_id: str = ""
    meta: WireMeta | None = None
    turns: tuple[WireTurn, ...] = ()
    summary: Summary | None = None
    stale: bool = False
    degraded: bool = False

    def value(self, session_id: str) -> Context:
        """Return the context of a session."""
        return Context(
            session_id,
            self.meta.value() if self.meta is not None else None,
            tuple(turn.value() for turn in self.turns),
            self.summary,
            Version.parse(self.version),
            self.source,
            self.stale,
            self.degraded,
        )


class WireAppended(msgspec.Struct, frozen=True):
    """The result of one turn's append in JSON."""

    number: int
    version: str
    turn_id: str = ""
    duplicate: bool = False
    degraded: bool = False

    def value(self) -> Appended:
        """Return the result."""
        return Appended(self.number, Version.parse(self.version), self.duplicate, self.degraded)


class WireAppends(msgspec.Struct, frozen=True):
    """The results of an append in JSON."""

    turns: tuple[WireAppended, ...]


class WireUpdated(msgspec.Struct, frozen=True):
    """The result of a change to META in JSON."""

    version: str
    meta: WireMeta
    degraded: bool = False

    def value(self) -> Updated:
        """Return the result."""
        return Updated(Version.parse(self.version), self.meta.value(), self.degraded)


class WireDeleted(msgspec.Struct, frozen=True):
    """The result of a delete in JSON."""

    version: str
    existed: bool
    swept: bool = True
    degraded: bool = False

    def value(self) -> Deleted:
        """Return the result."""
        return Deleted(Version.parse(self.version), self.existed, self.swept, self.degraded)


class WireHistory(msgspec.Struct, frozen=True):
    """A page of turns in JSON."""

    turns: tuple[WireTurn, ...]
    older: str | None = None
    newer: str | None = None

    def value(self) -> History:
        """Return the page."""
        return History(tuple(turn.value() for turn in self.turns), self.older, self.newer)


class WireSessions(msgspec.Struct, frozen=True):
    """A page of a customer's sessions in JSON."""

    sessions: tuple[SessionInfo, ...]
    cursor: str | None = None

    def value(self) -> SessionPage:
        """Return the page."""
        return SessionPage(self.sessions, self.cursor)


class WireTrends(msgspec.Struct, frozen=True):
    """The first titles in JSON."""

    titles: tuple[Trend, ...]


_decoders: Final[dict[Any, msgspec.json.Decoder[Any]]] = {}


def read(kind: type[T], body: bytes | str) -> T:
    """Return what a body says; numbers that are not whole become `Decimal`, as the library gives them.

    Raises:
        Transient: it is no such thing: something else than a worker of this release has answered.
    """
    decoder = _decoders.get(kind)
    if decoder is None:
        decoder = _decoders[kind] = msgspec.json.Decoder(kind, float_hook=_exactly)
    try:
        value: T = decoder.decode(body)
    except msgspec.MsgspecError as error:
        raise Transient(f"an answer that is no {kind.__name__}: {error}; is this URL a worker's?") from error
    return value


def _exactly(text: str) -> Decimal:
    return Decimal(text)
