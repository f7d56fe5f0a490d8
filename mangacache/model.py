"""What the package hands to its users: versions, turns, contexts and the results of calls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import TYPE_CHECKING, ClassVar, Final, TypeAlias

import msgspec

from mangacache.errors import Invalid

if TYPE_CHECKING:
    from decimal import Decimal

WINDOW: Final = 32
"""Turns whose ids a worker knows before it writes: the N of the protocol, and the most a context holds."""

MAX_ID_BYTES: Final = 128
ROLES: Final = frozenset({"assistant", "system", "tool", "user"})

Attribute: TypeAlias = (
    "bool | int | Decimal | str | bytes | Sequence[Attribute] | Mapping[str, Attribute]"
    " | AbstractSet[str] | AbstractSet[int] | AbstractSet[Decimal] | AbstractSet[bytes] | None"
)
"""A free attribute's value. Numbers come back as `int` where they are whole, else as `Decimal`."""


class Version(msgspec.Struct, frozen=True, gc=False):
    """The state of a session: (incarnation, number of the newest turn, revision of META).

    It only grows within an incarnation. `str(version)` is the token a client carries; it is opaque, small,
    and safe in a URL or a header. No session is (0, 0, 0).
    """

    incarnation: int = 0
    number: int = 0
    revision: int = 0

    def __str__(self) -> str:
        return f"{self.incarnation:x}.{self.number:x}.{self.revision:x}"

    @classmethod
    def parse(cls, token: Version | str) -> Version:
        """Return the version of `token`.

        Raises:
            Invalid: it is not a token that `str(version)` made.
        """
        if isinstance(token, Version):
            return token
        try:
            incarnation, number, revision = (int(part, 16) for part in token.split("."))
            version = cls(incarnation, number, revision)
        except (AttributeError, TypeError, ValueError):
            version = None
        if version is None or str(version) != token or min(incarnation, number, revision) < 0:
            raise Invalid(f"{token!r:.60} is not a version token: pass `version` of an earlier result unchanged")
        return version

    def covers(self, least: Version) -> bool:
        """Tell whether an answer at this version may be given to a client that has seen `least`."""
        if least.incarnation != self.incarnation:
            return least.incarnation < self.incarnation
        return self.number >= least.number and self.revision >= least.revision

    def join(self, other: Version) -> Version:
        """Return the least version that covers both: the higher incarnation whole, else each part's maximum."""
        if self.incarnation != other.incarnation:
            return self if self.incarnation > other.incarnation else other
        return Version(self.incarnation, max(self.number, other.number), max(self.revision, other.revision))


_LEVELS: Final = frozenset({"strong", "latest", "session", "eventual"})


class Consistency(msgspec.Struct, frozen=True):
    """How fresh an answer must be; whatever the level, never older than the token given with the call.

    `STRONG` reads DynamoDB. `LATEST` is linearizable. `SESSION`, the default, may answer from the process for
    up to `near_max_age_s`. `EVENTUAL(age_s)` may be up to that many seconds old.
    """

    name: str
    max_age_s: float | None = None

    def __post_init__(self) -> None:
        if self.name not in _LEVELS or (self.max_age_s is not None) != (self.name == "eventual"):
            raise Invalid(
                f"there is no level of consistency {self.name!r:.40} (max_age_s {self.max_age_s!r:.40}): "
                "take Consistency.STRONG, LATEST, SESSION or EVENTUAL(age_s)"
            )
        if self.max_age_s is not None and not (type(self.max_age_s) in {int, float} and self.max_age_s >= 0):
            raise Invalid(f"EVENTUAL takes an age of at least 0 seconds, not {self.max_age_s!r:.40}")

    STRONG: ClassVar[Consistency]
    LATEST: ClassVar[Consistency]
    SESSION: ClassVar[Consistency]

    @classmethod
    def EVENTUAL(cls, age_s: float) -> Consistency:  # noqa: N802 - one of four levels, named like the others
        """Return the level whose answers may be up to `age_s` seconds old."""
        return cls("eventual", age_s)


Consistency.STRONG = Consistency("strong")
Consistency.LATEST = Consistency("latest")
Consistency.SESSION = Consistency("session")


class Turn(msgspec.Struct, frozen=True, gc=False):
    """One message of a session. It never changes once stored.

    Attributes:
        number: its place in the session, from 1 without a hole; 0 in a foreign session, which is not numbered.
        turn_id: the caller's id, by which a retry is recognised.
        role: one of `ROLES`; a foreign session may hold others.
        created_at: ISO 8601 in UTC, stamped by the worker's clock; it orders nothing.
        attributes: the caller's free attributes.
        expires_at: seconds since 1970 after which no call returns the turn; 0 is never.
    """

    number: int
    turn_id: str
    role: str
    content: str
    created_at: str
    attributes: dict[str, Attribute] = {}
    expires_at: int = 0


class NewTurn(msgspec.Struct, frozen=True, kw_only=True):
    """A turn to be stored by `append_many`; without a `turn_id` it gets a random one and cannot be retried."""

    role: str
    content: str
    turn_id: str | None = None
    attributes: Mapping[str, Attribute] = {}


class Meta(msgspec.Struct, frozen=True, gc=False):
    """A session's META as of the context's version.

    Attributes:
        status: `active` or `closed`, or what a foreign writer put there.
        created_at: when this incarnation began, ISO 8601.
        last_active_at: the newest turn's `created_at`.
        last_number: the newest turn's number.
        attributes: the bot's free attributes.
    """

    customer_id: str | None
    status: str
    created_at: str
    last_active_at: str
    last_number: int
    attributes: dict[str, Attribute] = {}


class Summary(msgspec.Struct, frozen=True, gc=False):
    """What was said up to turn `upto`, in short."""

    upto: int
    text: str
    created_at: str
    expires_at: int = 0


class Context(msgspec.Struct, frozen=True, gc=False):
    """What a bot loads before it answers.

    Attributes:
        meta: None where there is no live session (never begun, deleted, expired).
        turns: oldest first, at most as many as asked for.
        summary: the newest one, or None.
        version: the token to pass as `at_least` with the next read.
        source: `memory`, `redis`, `dax` or `dynamodb`.
        stale: True where the source of truth could not be asked and this is older than the level promises.
        degraded: True where Redis could not be asked or told, so that other workers' reads may not follow on this one.
    """

    session_id: str
    meta: Meta | None
    turns: tuple[Turn, ...]
    summary: Summary | None
    version: Version
    source: str
    stale: bool = False
    degraded: bool = False


class Appended(msgspec.Struct, frozen=True, gc=False):
    """The result of an append: the turn is durable under `number`.

    Attributes:
        version: the token from which on every reader sees the turn.
        duplicate: True where the turn_id had been stored before this call; nothing was written then.
        degraded: True where Redis could not be told, so that other workers' reads without the token may lag behind.
    """

    number: int
    version: Version
    duplicate: bool = False
    degraded: bool = False


class Updated(msgspec.Struct, frozen=True):
    """The result of a change to META: the revision it made, in `version`; `degraded` as in `Appended`."""

    version: Version
    meta: Meta
    degraded: bool = False


class Deleted(msgspec.Struct, frozen=True, gc=False):
    """The result of a delete.

    Attributes:
        existed: False where there was nothing to delete.
        swept: True where every old item has been overwritten; else the next loader of the session goes on.
        degraded: as in `Appended`.
    """

    version: Version
    existed: bool
    swept: bool
    degraded: bool = False


class History(msgspec.Struct, frozen=True, gc=False):
    """A page of a session's turns, oldest first.

    Attributes:
        older: cursor for `history(before=...)`, None where nothing older is stored.
        newer: cursor for `history(after=...)`, None where the page reaches the newest turn.
    """

    turns: tuple[Turn, ...]
    older: str | None
    newer: str | None


class SessionInfo(msgspec.Struct, frozen=True, gc=False):
    """A line of a customer's list of sessions, read from the index: up to five minutes old."""

    session_id: str
    status: str
    last_active_at: str


class SessionPage(msgspec.Struct, frozen=True, gc=False):
    """Sessions of one customer, the most recently active first; `cursor` is None on the last page."""

    sessions: tuple[SessionInfo, ...]
    cursor: str | None


def checked_id(value: str, *, what: str) -> str:
    """Return `value` if it can be an id: 1 to 128 bytes of UTF-8, any script and any sign.

    Raises:
        Invalid: it is no text, empty, too long, or holds a lone surrogate.
    """
    if not isinstance(value, str):
        raise Invalid(f"{what} must be text, not {type(value).__name__}")
    try:
        size = len(value.encode())
    except UnicodeEncodeError as error:
        raise Invalid(
            f"{what} {value!a:.80} holds a lone surrogate at position {error.start}: "
            "decode it properly before passing it on"
        ) from error
    if not 1 <= size <= MAX_ID_BYTES:
        shown = ascii(value) if size <= MAX_ID_BYTES else f"{ascii(value)[:40]}..."
        raise Invalid(f"{what} must have 1 to {MAX_ID_BYTES} bytes of UTF-8; {shown} has {size}")
    return value
