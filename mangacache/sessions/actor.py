"""One session in one process: what is known of it, and what it is busy with.

An idle actor is a shell of a few slots. What only a busy one needs, its mailbox and its reads under way, lives in an
`Activity`, made on demand and thrown away when the actor is idle again. An idle actor owns no task.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final

import msgspec

from mangacache.model import Context, Version
from mangacache.store.snapshot import Snapshot, joined

if TYPE_CHECKING:
    import asyncio

    from mangacache.sessions.message import Message

NEVER_S: Final = float("-inf")


class Fresh(msgspec.Struct, frozen=True, gc=False):
    """What a flight brought.

    Attributes:
        known: what the actor knows now.
        source, strong, degraded, stale: as in `context.Found`.
    """

    known: Snapshot
    source: str
    strong: bool
    degraded: bool
    stale: bool


class Flight:
    """A read that several readers wait for; one may be joined only while it has not been sent (R8).

    Attributes:
        strong: whether it goes to DynamoDB, whatever Redis holds.
        least: join of its readers' tokens.
    """

    __slots__ = ("least", "sent", "strong", "task")

    def __init__(self, *, strong: bool) -> None:
        self.strong = strong
        self.least = Version()
        self.sent = False
        self.task: asyncio.Task[Fresh] | None = None


class Activity:
    """What a busy actor has besides its shell.

    Attributes:
        mailbox: messages that wait, in order.
        draining: whether a task runs them.
        flights: reads under way, at most one sent and one waiting of each kind.
        first_version: the version that memory began with while this actor was busy.
    """

    __slots__ = ("draining", "first_version", "flights", "mailbox")

    def __init__(self) -> None:
        self.mailbox: deque[Message] = deque()
        self.draining = False
        self.flights: list[Flight] = []
        self.first_version: Version | None = None


class Answer(msgspec.Struct, frozen=True, gc=False):
    """A context that memory answered, kept for whoever asks the same again.

    Attributes:
        turns: how many were asked for.
        from_s, until_s: wall clock between which nothing in it expires, and nothing that it leaves out is live.
        owned: whether it holds what a caller could change, so that each gets a copy.
    """

    context: Context
    turns: int
    from_s: float
    until_s: float
    owned: bool


class Actor(msgspec.Struct, gc=False, eq=False):
    """What one process keeps of one session.

    Attributes:
        known: the memory tier's copy, None where nothing is known.
        activity: what it is busy with; None while it is idle.
        answer: the last context that was made of `known`.
        used: the wheel's stamp of its last use.
        validated_at_s: `clock.age_s` when the request was sent that last showed `known` to be current.
        changed_at_s: `clock.age_s` when another worker was last heard to have changed the session.
        window_at_s: the same for its turns alone, by strong reads and by puts, which end at a seal.
        grew_at_s: `clock.monotonic_s` when `known` last became newer.
        touched_at_s: wall clock of META's last write, as far as known.
        size_kib: what `known` takes in memory, about, in KiB: a small number needs no object of its own.
        swept_upto: the incarnation below which this actor has seen to an interrupted sweep already.
        gone: it has left memory; whoever still holds it asks for the session's actor anew.
    """

    session_id: str
    known: Snapshot | None = None
    activity: Activity | None = None
    answer: Answer | None = None
    used: float = 0.0
    validated_at_s: float = NEVER_S
    changed_at_s: float = NEVER_S
    window_at_s: float = NEVER_S
    grew_at_s: float = NEVER_S
    touched_at_s: float = 0.0
    size_kib: int = 0
    swept_upto: int = 0
    gone: bool = False

    @property
    def busy(self) -> bool:
        """Whether something is under way, so that the actor must stay."""
        return self.activity is not None

    @property
    def draining(self) -> bool:
        """Whether messages are being run."""
        return self.activity is not None and self.activity.draining

    @property
    def mailbox(self) -> deque[Message] | None:
        """The messages that wait; None where nothing is run."""
        return self.activity.mailbox if self.activity is not None and self.activity.draining else None

    def begin_activity(self) -> Activity:
        """Return what a busy actor has, made if need be."""
        activity = self.activity
        if activity is None:
            activity = self.activity = Activity()
        return activity

    def end_activity(self) -> None:
        """Become a mere shell again, where nothing is under way."""
        activity = self.activity
        if activity is not None and not activity.draining and not activity.flights:
            self.activity = None

    def learn(self, read: Snapshot, *, strong: bool, sent_at_s: float, now_s: float) -> Snapshot:
        """Join what was read or written into memory (R9).

        Args:
            read: what was read, or what a write left.
            strong: whether it comes from DynamoDB. Sent after memory last grew, it counts even where it is older.
            sent_at_s: `clock.monotonic_s` when its first request was sent.
            now_s: `clock.monotonic_s` now.

        Returns:
            What is known now.
        """
        before = self.known
        known = joined(before, read, grew_after_sent=not strong or self.grew_at_s >= sent_at_s)
        if known is not before:
            self.known, self.answer = known, None
        if before is None and self.activity is not None and self.activity.first_version is None:
            self.activity.first_version = known.version
        if before is None or known.version != before.version:
            self.grew_at_s = now_s
        return known

    def forget(self) -> None:
        """Drop what is known; the next call reads it again."""
        self.known = self.answer = None
        self.validated_at_s = self.window_at_s = NEVER_S
