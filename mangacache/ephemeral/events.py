"""What happens to sessions, told as it happens: numbers, and never content.

Workers publish in the script that commits a write to the cache, so an event costs its writer nothing to wait for. A
subscription is not a log: what is published while it does not stand is lost. Therefore every stream says so itself
(`subscribed`, `gap`), and whoever follows a session reads its context at each of the two.

The stream of a session is in the order of its versions and has nothing twice: notices carry the version that they
lead to, so one that comes again or late is recognised, and one that never came shows in the next.
"""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Final, Literal, Self

import msgspec

from mangacache.errors import Closed, Invalid
from mangacache.model import Version, checked_id
from mangacache.redis.channels import Deaf, Hears, Said
from mangacache.redis.notices import CLOSED, DELETED, OWED, customer_channel, decode_notice, session_channel
from mangacache.redis.subscriptions import MOST_WAITING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from types import TracebackType

    from mangacache.redis.channels import Listener, Signal
    from mangacache.redis.notices import Notice
    from mangacache.redis.subscriptions import Subscriptions
    from mangacache.settings import Settings

_MOST_SESSIONS: Final = 1_024
_MOST_WAITING: Final = 65_536

Kind = Literal["subscribed", "gap", "turn", "meta", "closed", "deleted"]


class Event(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Something that has happened to a session, or to the stream of events itself.

    Attributes:
        kind: `turn`: a turn was appended. `meta`: META or the summary changed. `closed`: META changed, and the status
            is `closed` now. `deleted`: the session was deleted. `subscribed`: from here on everything is told; what
            was before is not: read it. `gap`: something may have been missed: read again, and once more at the next
            `subscribed` where `lost` says that nothing is heard meanwhile.
        session_id: whose; None where the stream itself is meant, of all its sessions.
        version: from which on a reader sees it: pass it as `at_least`. None with `subscribed` and with some gaps.
        number: of the turn, with `turn`; else 0.
        why: of a gap, in words.
        lost: whether the subscription is lost, until the next `subscribed`.
    """

    kind: Kind
    session_id: str | None = None
    version: Version | None = None
    number: int = 0
    why: str = ""
    lost: bool = False


class Follower:
    """Puts the notices of one session in order: what is new in each, and what is missing before it.

    Args:
        session_id: whose.
        seen: the version from which on nothing has been missed; None takes the first notice as it comes.
    """

    __slots__ = ("_seen", "_session_id", "_unsure")

    def __init__(self, session_id: str, seen: Version | None = None) -> None:
        self._session_id = session_id
        self._seen = seen
        self._unsure = seen is None

    def interrupt(self) -> None:
        """Take the next notice as it comes: that something is missing before it has been told already."""
        self._unsure = True

    def take(self, notice: Notice) -> Iterator[Event]:
        """Return the events that a notice amounts to, oldest first."""
        version = notice.version
        if notice.mark == OWED:
            yield from self._owed(version)
            return
        seen = self._seen if self._seen is not None else _before(notice)
        if version.incarnation < seen.incarnation:
            return
        if version.incarnation > seen.incarnation:
            yield from self._next_life(notice, seen)
            return
        if seen.covers(version):
            return
        revision = version.revision - 1 if version.revision > seen.revision else seen.revision
        before = seen.join(Version(version.incarnation, max(seen.number, version.number - notice.turns), revision))
        if before != seen and not self._unsure:
            yield self._gap(before)
        self._unsure, self._seen = False, before.join(version)
        for number in range(before.number + 1, version.number + 1):
            at = Version(version.incarnation, number, before.revision)
            yield Event(kind="turn", session_id=self._session_id, version=at, number=number)
        if version.revision > before.revision:
            kind: Kind = "closed" if notice.mark == CLOSED else "meta"
            yield Event(kind=kind, session_id=self._session_id, version=self._seen)

    def _next_life(self, notice: Notice, seen: Version) -> Iterator[Event]:
        """A later life begins by a delete, which is told; where it was not heard, it was missed."""
        version = notice.version
        begins = not seen.incarnation and version.incarnation == 1
        told = notice.mark == DELETED and version.incarnation == seen.incarnation + 1
        before = Version(version.incarnation, 0, 0)
        if not begins and not told:
            before = version if notice.mark == DELETED else _before(notice)
            if not self._unsure:
                yield self._gap(before)
        self._seen = before
        if notice.mark == DELETED:
            self._seen, self._unsure = version, False
            yield Event(kind="deleted", session_id=self._session_id, version=version)
        else:
            yield from self.take(notice)

    def _owed(self, version: Version) -> Iterator[Event]:
        """What a worker could not tell when it happened is told later as a version alone."""
        if self._seen is not None and self._seen.covers(version):
            return
        self._seen = self._seen.join(version) if self._seen is not None else version
        self._unsure = False
        yield self._gap(version)

    def _gap(self, version: Version) -> Event:
        return Event(
            kind="gap", session_id=self._session_id, version=version, why="what comes before this version was not heard"
        )


def _before(notice: Notice) -> Version:
    """Return the version that a notice follows on by itself."""
    version = notice.version
    revision = version.revision if notice.turns and version.number > 1 else max(0, version.revision - 1)
    if notice.mark == DELETED:
        return Version(version.incarnation - 1, 0, 0)
    return Version(version.incarnation, version.number - notice.turns, revision)


class EventStream:
    """The events of one session or of all sessions of a customer: `async for event in stream`.

    Iterated bare, it subscribes when it is first asked and ends its subscription when the loop ends. As an asynchronous
    context manager it subscribes on entering, and its end is certain, whatever the loop does:
    `async with session.events() as events:`.

    A stream that is not taken from for long is bounded: what does not fit is dropped, and a `gap` stands for it.
    """

    def __init__(
        self,
        subscriptions: Subscriptions,
        channel: str,
        *,
        session_id: str | None,
        after: Version | None,
        limit: int,
        check: Callable[[], None],
    ) -> None:
        self._subscriptions = subscriptions
        self._channel = channel
        self._session_id = session_id
        self._limit = limit
        self._check = check
        self._stack = AsyncExitStack()
        self._listener: Listener | None = None
        self._followers: dict[str, Follower] = {}
        self._waiting: list[Event] = []
        self._ended = False
        if session_id is not None:
            self._followers[session_id] = Follower(session_id, after)

    def __repr__(self) -> str:
        state = "ended" if self._ended else "open" if self._listener is not None else "not begun"
        return f"<EventStream of {self._channel}, {state}>"

    async def __aenter__(self) -> Self:
        """Subscribe, and wait until it is known whether the subscription stands: the first event says so."""
        await self._begin()
        try:
            if self._listener is not None:
                await self._listener.ready()
        except BaseException:
            await self.aclose()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the subscription."""
        await self.aclose()

    async def aclose(self) -> None:
        """End the subscription; the stream ends after what it has taken in already."""
        self._ended = True
        await self._stack.aclose()

    async def __aiter__(self) -> AsyncIterator[Event]:
        """Iterate over the events, from the first `subscribed` on."""
        await self._begin()
        try:
            while True:
                event = await self._next()
                if event is None:
                    return
                yield event
        finally:
            await self.aclose()

    async def _begin(self) -> None:
        self._check()
        if self._ended:
            raise Closed("this stream of events has ended: ask for another one")
        if self._listener is None:
            listening = self._subscriptions.listen(self._channel, limit=self._limit)
            self._listener = await self._stack.enter_async_context(listening)

    async def _next(self) -> Event | None:
        while not self._waiting:
            if self._ended or self._listener is None:
                return None
            try:
                signal = await self._listener.next()
            except Closed:
                return None
            self._waiting = list(self._events(signal))[::-1]
        return self._waiting.pop()

    def _events(self, signal: Signal) -> Iterator[Event]:
        match signal:
            case Hears():
                yield Event(kind="subscribed", session_id=self._session_id)
            case Deaf(why, lost):
                self._interrupt()
                yield Event(kind="gap", session_id=self._session_id, why=why, lost=lost)
            case Said(payload):
                notice = decode_notice(payload)
                if notice is not None and (self._session_id is None or notice.session_id == self._session_id):
                    yield from self._follower(notice.session_id).take(notice)

    def _interrupt(self) -> None:
        for follower in self._followers.values():
            follower.interrupt()

    def _follower(self, session_id: str) -> Follower:
        """Return what is known of a session; of a customer's sessions those heard of last are known."""
        follower = self._followers.pop(session_id, None)
        if follower is None:
            follower = Follower(session_id)
            if len(self._followers) >= _MOST_SESSIONS:
                del self._followers[next(iter(self._followers))]
        self._followers[session_id] = follower
        return follower


class Events:
    """Streams of what happens to sessions, as workers tell it by way of Redis.

    Args:
        subscriptions: None where no Redis is configured.
        check: raises `Closed` where the instance is closed.
    """

    def __init__(self, subscriptions: Subscriptions | None, *, settings: Settings, check: Callable[[], None]) -> None:
        self._subscriptions = subscriptions
        self._prefix = settings.key_prefix
        self._check = check

    def __repr__(self) -> str:
        return f"<Events by {self._subscriptions}>"

    def session(self, session_id: str, *, after: Version | str | None = None, limit: int = MOST_WAITING) -> EventStream:
        """Return the stream of one session's events.

        Args:
            session_id: which, whether or not it has begun.
            after: the `version` of what has been read of it already: what it holds is not told, and where something
                between it and the first event is missing, a `gap` comes first.
            limit: events that may wait for the consumer, 1 to 65,536.

        Raises:
            Invalid: no Redis is configured, or an argument is none.
        """
        checked_id(session_id, what="session id")
        seen = Version.parse(after) if after is not None else None
        return self._stream(session_channel(self._prefix, session_id), session_id, seen, limit)

    def customer(self, customer_id: str, *, limit: int = MOST_WAITING) -> EventStream:
        """Return the stream of the events of all sessions of a customer, each of which names its session.

        Args:
            customer_id: whose sessions.
            limit: see `session`.

        Raises:
            Invalid: no Redis is configured, or an argument is none.
        """
        checked_id(customer_id, what="customer id")
        return self._stream(customer_channel(self._prefix, customer_id), None, None, limit)

    def _stream(self, channel: str, session_id: str | None, after: Version | None, limit: int) -> EventStream:
        self._check()
        if type(limit) is not int or not 1 <= limit <= _MOST_WAITING:
            raise Invalid(f"`limit` is how many events may wait, 1 to {_MOST_WAITING:,}, not {limit!r:.60}")
        if self._subscriptions is None:
            raise Invalid("events need Redis, and none is configured: set REDIS_ENDPOINT (redis_endpoint)")
        return EventStream(
            self._subscriptions, channel, session_id=session_id, after=after, limit=limit, check=self._check
        )
