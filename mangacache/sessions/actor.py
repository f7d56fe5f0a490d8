"""One session in one process: what is known of it, and a mailbox that runs its writes one after the other.

An idle actor owns no task and no mailbox. A drain task runs only while messages wait.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Any, TypeVar, cast

import msgspec

from mangacache.errors import Closed, Rejected
from mangacache.model import Version
from mangacache.store.snapshot import Snapshot, joined
from mangacache.tasks import outlast

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine

    from mangacache.clock import Clock
    from mangacache.tasks import TaskOwner

T = TypeVar("T")


class Message:
    """An operation that waits for its turn."""

    __slots__ = ("deadline_s", "future", "operation", "started")

    def __init__(self, operation: Callable[[], Awaitable[Any]], future: asyncio.Future[Any], deadline_s: float) -> None:
        self.operation = operation
        self.future = future
        self.deadline_s = deadline_s
        self.started = False


class Fresh(msgspec.Struct, frozen=True):
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


class Actor:
    """What one process keeps of one session.

    Attributes:
        known: the memory tier's copy, None where nothing is known.
        validated_at_s: `clock.age_s` when the request was sent that last showed `known` to be current.
        changed_at_s: `clock.age_s` when another worker was last heard to have changed the session.
        window_at_s: the same for its turns alone, by strong reads and by puts, which end at a seal.
        first_version: the version at which `known` began.
        grew_at_s: `clock.monotonic_s` when `known` last became newer.
        touched_at_s: wall clock of META's last write, as far as known.
        flights: reads under way, at most one sent and one waiting of each kind.
        swept_upto: the incarnation below which this actor has seen to an interrupted sweep already.
    """

    __slots__ = (
        "changed_at_s", "draining", "first_version", "flights", "grew_at_s", "known", "last_used_s", "mailbox",
        "session_id", "swept_upto", "touched_at_s", "validated_at_s", "window_at_s",
    )  # fmt: skip

    def __init__(self, session_id: str) -> None:
        self.session_id = session_id
        self.known: Snapshot | None = None
        self.first_version: Version | None = None
        self.validated_at_s = float("-inf")
        self.changed_at_s = float("-inf")
        self.window_at_s = float("-inf")
        self.grew_at_s = float("-inf")
        self.touched_at_s = 0.0
        self.last_used_s = 0.0
        self.mailbox: deque[Message] | None = None
        self.draining = False
        self.flights: list[Flight] = []
        self.swept_upto = 0

    @property
    def busy(self) -> bool:
        """Whether something is under way, so that the actor must stay."""
        return self.draining or bool(self.flights)

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
        self.known = joined(before, read, grew_after_sent=not strong or self.grew_at_s >= sent_at_s)
        if before is None:
            self.first_version = self.known.version
        if before is None or self.known.version != before.version:
            self.grew_at_s = now_s
        return self.known

    def forget(self) -> None:
        """Drop what is known; the next call reads it again."""
        self.known = None
        self.validated_at_s = self.window_at_s = float("-inf")


class Mailboxes:
    """Runs the messages of actors: one at a time for each session, any number of sessions at once.

    Args:
        limit: messages that may wait in one session.
        wait_s: how long a message may wait before it is dropped unrun.
        after: run when a message has ended and before the next, for what is due besides.
    """

    def __init__(
        self,
        *,
        tasks: TaskOwner,
        clock: Clock,
        limit: int,
        wait_s: float,
        after: Callable[[Actor], Coroutine[Any, Any, None]],
    ) -> None:
        self._tasks = tasks
        self._clock = clock
        self._limit = limit
        self._wait_s = wait_s
        self._after = after
        self._closed = False

    def close(self) -> None:
        """Take in nothing more; what waits is still run."""
        self._closed = True

    async def run(self, actor: Actor, operation: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Run an operation when its turn comes, and return its result.

        A caller that is cancelled before the operation has begun takes it back. Once it has begun it runs to its
        end, and the caller stays for the outcome before the cancellation goes on.

        Raises:
            Rejected: the mailbox is full, or the turn did not come in time; nothing was done.
            Closed: the instance is closing.
        """
        if self._closed:
            raise Closed("this MangaCache is closing and takes no more writes")
        mailbox = actor.mailbox
        if mailbox is None:
            mailbox = actor.mailbox = deque()
        elif len(mailbox) >= self._limit:
            raise Rejected(
                f"{self._limit} writes are waiting in this session already (mailbox_size): nothing was done",
                retry_after_s=0.5,
            )
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        message = Message(operation, future, self._clock.monotonic_s() + self._wait_s)
        mailbox.append(message)
        if not actor.draining:
            actor.draining = True
            self._tasks.start(self._drain(actor), name="drain a session's mailbox")
        try:
            await asyncio.wait((future,))
        except asyncio.CancelledError:
            if message.started:
                await outlast(future)
            elif not future.done():  # it still waits, and gives its place back
                mailbox.remove(message)
                future.cancel()
            future.cancelled() or future.exception()  # retrieved: the cancellation is what the caller hears
            raise
        return future.result()

    async def _drain(self, actor: Actor) -> None:
        waiting = cast("deque[Message]", actor.mailbox)
        try:
            while waiting:
                message = waiting.popleft()
                if message.future.done():
                    continue
                if self._clock.monotonic_s() > message.deadline_s:
                    message.future.set_exception(
                        Rejected(f"waited over {self._wait_s:g} s in this session's mailbox: nothing was done")
                    )
                    continue
                message.started = True
                await _settle(message)
                await self._after(actor)
        finally:
            actor.draining = False
            actor.mailbox = None
            for message in waiting:
                if not message.future.done():
                    message.future.set_exception(Closed("this MangaCache was closed before the write began"))


async def _settle(message: Message) -> None:
    try:
        result = await message.operation()
    except asyncio.CancelledError:
        if not message.future.done():
            message.future.set_exception(
                Closed("this MangaCache was closed while the write was under way: repeat it with the same turn_id")
            )
        raise
    except Exception as error:  # noqa: BLE001 - handed to the caller, whatever it is
        message.future.set_exception(error)
        return
    message.future.set_result(result)
