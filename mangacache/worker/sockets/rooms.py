"""The sockets of one worker that follow the same session, told together of what any worker has made of it.

The session's events wake a room; what its sockets are told is read from the session's context, once for all of them,
and for all events that came meanwhile. So an event that is lost, or comes twice, or late, costs at most time: the next
one, or the subscription that stands again, brings what was missed.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from mangacache.errors import Closed, Invalid, MangaCacheError, Rejected, Transient, VersionGone
from mangacache.model import WINDOW, Consistency, Version
from mangacache.store import keys
from mangacache.tasks import TaskOwner
from mangacache.worker.sockets.news import MOST_FILLED
from mangacache.worker.sockets.own import place
from mangacache.worker.sockets.telling import Telling

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mangacache import MangaCache
    from mangacache.clock import Clock
    from mangacache.ephemeral import Event
    from mangacache.model import Context, Turn
    from mangacache.worker.sockets.member import Member
    from mangacache.worker.sockets.news import Hole

ALONE: Final = "no Redis is configured: what other workers append is not heard"
UNHEARD: Final = "the session's events cannot be heard now"
UNREADABLE: Final = "the session cannot be read now"
GONE: Final = "the session is older than what was seen of it: it has expired, or the table was restored"
_PATIENT_TRIES: Final = 2
_PAUSE_S: Final = 0.05
_CAP_S: Final = 2.0


class Room:
    """The sockets that follow one session.

    Attributes:
        members: who they are.
        deaf: why nothing is heard of other workers now; None where all is heard.
    """

    def __init__(self, session_id: str, *, cache: MangaCache, clock: Clock, tasks: TaskOwner) -> None:
        self._session_id = session_id
        self._cache = cache
        self._clock = clock
        self._tasks = tasks
        self._entering = 0
        self._begun: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._listening: asyncio.Task[None] | None = None
        self._failures = 0
        self._told = Version()
        self._target = Version()
        self._due = self._latest = self._telling = False
        self.members: dict[Member, None] = {}
        self.deaf: str | None = None

    def __repr__(self) -> str:
        return f"<Room of {self._session_id!r}, {len(self.members)} sockets{', deaf' if self.deaf else ''}>"

    # Coming and going

    @property
    def is_empty(self) -> bool:
        """Whether nobody is in it, or about to be."""
        return not self.members and not self._entering

    async def begun(self) -> None:
        """Wait until it is known whether the session's events are heard; the room stays until `join` or `give_up`.

        Raises:
            Rejected: too many sessions are followed in this process.
            Closed: the instance is closed.
        """
        self._entering += 1
        if self._listening is None:
            self._listening = self._tasks.start(self._listen(), name="hear the events of a session's sockets")
        try:
            await asyncio.wait((self._begun,))
            self._begun.result()
        except BaseException:
            self.give_up()
            raise

    def give_up(self) -> None:
        """Note that one who waited for `begun` does not join."""
        self._entering -= 1

    def join(self, member: Member, read: Context) -> None:
        """Tell a socket from now on what comes after what it has seen.

        Args:
            member: who joins.
            read: the session, read at LATEST after `begun`.
        """
        self._entering -= 1
        self.members[member] = None
        if self.deaf is not None:
            member.gap(self.deaf)
        target = self._target.join(self._told).join(read.version)
        if self._latest or member.behind(read) or not member.seen.covers(target):
            self._target = target
            self._tell_soon()

    def leave(self, member: Member) -> None:
        """Tell a socket nothing more."""
        self.members.pop(member, None)

    def close(self) -> None:
        """End the subscription."""
        if self._listening is not None:
            self._listening.cancel()

    # What is heard

    def appended(self, member: Member, version: Version, numbers: Sequence[int]) -> None:
        """Hear of turns that one of the sockets has appended: the others need not wait for the event.

        Args:
            member: who appended them, and has their acknowledgements.
            version: that they lead to.
            numbers: theirs.
        """
        before = Version(version.incarnation, numbers[0] - 1, version.revision)
        in_a_row = numbers[-1] == version.number == before.number + len(numbers)
        if in_a_row and member.seen == before and not (self._telling or member.lagging or len(self.members) > 1):
            member.seen = self._told = version  # nobody else is there, and nothing came between
            member.own.forget(place(version))
            return
        self._reached(version)

    def look(self) -> None:
        """Look whether there is something for those who were lagging."""
        self._tell_soon()

    async def _listen(self) -> None:
        try:
            while True:
                await self._hear()
        except Invalid:  # without Redis there are no events, and one worker does without
            self.deaf = ALONE
            self._known()
        except (Rejected, Closed) as error:
            if self._begun.done():
                self._lost(str(error))
            else:
                self._begun.set_exception(error)
        finally:
            if not self._begun.done():
                self._begun.set_exception(Closed("this worker's sockets are closed"))
                self._begun.exception()

    async def _hear(self) -> None:
        """Hear the events until they end; whatever ends them, the sockets are told, and after a pause it goes on.

        Raises:
            Closed: the instance is closed.
            Invalid, Rejected: there are no events, or too many are followed; only before anybody was let in.
        """
        failed: Exception = Transient("the session's events have ended")
        try:
            async with self._cache.session(self._session_id).events() as events:
                self._known()
                async for event in events:
                    self._heard(event)
                    self._failures = 0
        except Closed:
            raise
        except Exception as error:  # a room that hears nothing and says nothing would leave its sockets behind
            if isinstance(error, Invalid | Rejected) and not self._begun.done():
                raise
            failed = error
        self._failures += 1
        self._cache.telemetry.count_survived("session_unheard", failed)
        self._lost(UNHEARD)
        self._known()
        await self._clock.sleep(min(_CAP_S, _PAUSE_S * 2 ** min(self._failures, 10)))

    def _known(self) -> None:
        """Let in who waits: it is known whether the events are heard."""
        if not self._begun.done():
            self._begun.set_result(None)

    def _lost(self, why: str) -> None:
        self.deaf = why
        self._tell_gap(why)

    def _heard(self, event: Event) -> None:
        match event.kind:
            case "subscribed":
                was_deaf, self.deaf = self.deaf is not None, None
                if self.members or (was_deaf and self._entering):  # who is being let in may have read before this
                    self._latest = True
                    self._tell_soon()
            case "gap" if event.lost:
                self._lost(event.why)
            case "gap" if event.version is None:
                self.deaf = None  # that it is heard again may be among what was dropped
                self._latest = True
                self._tell_soon()
            case _:
                if event.version is not None:
                    self._reached(event.version)

    def _reached(self, version: Version) -> None:
        if not self._told.covers(version):
            self._target = self._target.join(version)
            self._tell_soon()

    def _tell_soon(self) -> None:
        self._due = True
        if not self._telling:
            self._telling = True
            self._tasks.start(self._tell(), name="tell a session's sockets")

    # What is told

    async def _tell(self) -> None:
        tries = 0
        try:
            while self._due and self.members:
                try:
                    await self._tell_once()
                except (Transient, Rejected) as error:
                    tries += 1
                    self._due = True
                    if tries > _PATIENT_TRIES:
                        self._tell_gap(UNREADABLE)
                    await self._clock.sleep(min(_CAP_S, max(_PAUSE_S * 2 ** min(tries, 10), error.retry_after_s)))
                except Closed:
                    return
                except Exception as error:  # noqa: BLE001 - what comes next is another try, or has come already
                    self._latest = True
                    self._cache.telemetry.count_survived("session_untold", error)
                    self._tell_gap(UNREADABLE)
                else:
                    tries = 0
        finally:
            self._telling = False

    def _tell_gap(self, why: str) -> None:
        for member in self.members:
            member.gap(why)

    async def _tell_once(self) -> None:
        latest = self._latest
        self._due = self._latest = False  # what is heard from here on asks for another read
        try:
            context = await self._read(latest=latest)
        except BaseException:
            self._latest = self._latest or latest
            raise
        telling = Telling(context)
        told = tuple(self.members)
        for member in told:
            if member.behind(context):
                hole = member.missing(context)
                older: Sequence[Turn] = () if hole is None else await self._older(hole, context)
                member.take(context, telling, older)
        self._told = context.version
        if any(member.behind(context) for member in self.members.keys() - told):
            self._due = True  # who came meanwhile had read before it
        if self.deaf is None and not self._latest:
            for member in self.members:
                if member.seen.covers(context.version):
                    member.caught_up()

    async def _read(self, *, latest: bool) -> Context:
        """Return the session's context, not older than what was heard of."""
        session, target = self._cache.session(self._session_id), self._target
        level = Consistency.LATEST if latest else Consistency.SESSION
        try:
            return await session.context(turns=WINDOW, at_least=target, consistency=level)
        except VersionGone:
            context = await session.context(turns=WINDOW, consistency=Consistency.STRONG)
            if self._target == target:  # else of something newer was heard: the next read meets it
                self._target = context.version
            for member in self.members:
                if not context.version.covers(member.seen):
                    member.restart(GONE, context.version)
            return context

    async def _older(self, hole: Hole, context: Context) -> Sequence[Turn]:
        """Return turns that are older than the context's, as far as they can be read; the rest is told as a gap."""
        if hole.count > MOST_FILLED:
            return ()
        incarnation = context.version.incarnation
        before_first = keys.turn_key(incarnation, hole.first - 1).removeprefix(keys.TURN)
        session = self._cache.session(self._session_id)
        try:
            page = await session.history(after=before_first, limit=hole.count)
            again = await session.context(turns=1, consistency=Consistency.LATEST)
        except Closed:
            raise
        except MangaCacheError:
            return ()  # told as a gap, which the client can read itself when that works again
        if again.version.incarnation != incarnation:
            return ()  # the turns of another life have the same numbers
        return [turn for turn in page.turns if hole.first <= turn.number <= hole.last]


class Rooms:
    """The rooms of one worker, each there as long as somebody is in it."""

    def __init__(self, cache: MangaCache, *, clock: Clock) -> None:
        self._cache = cache
        self._clock = clock
        self._tasks = TaskOwner(on_failure=cache.telemetry.count_survived)
        self._rooms: dict[str, Room] = {}

    def __len__(self) -> int:
        return len(self._rooms)

    def room(self, session_id: str) -> Room:
        """Return a session's room; who calls it waits for `begun` next."""
        room = self._rooms.get(session_id)
        if room is None:
            room = Room(session_id, cache=self._cache, clock=self._clock, tasks=self._tasks)
            self._rooms[session_id] = room
        return room

    def tidy(self, session_id: str) -> None:
        """End a session's room where nobody is in it any more."""
        room = self._rooms.get(session_id)
        if room is not None and room.is_empty:
            del self._rooms[session_id]
            room.close()

    async def close(self) -> None:
        """End all of them."""
        self._rooms.clear()
        await self._tasks.cancel()
