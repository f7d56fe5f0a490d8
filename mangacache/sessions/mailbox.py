"""Mailboxes: the messages of a session run one after the other, those of different sessions at once.

A mailbox is made on demand, and a task drains it only while it is not empty. A drain gives way to others after so many
messages or so much time. A message that has begun is settled whatever becomes of its sender.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final, TypeVar

import msgspec

from mangacache.errors import Closed, Invalid, MangaCacheError, Rejected, Transient
from mangacache.sessions.actor import NEVER_S, Activity, Actor
from mangacache.sessions.treatment import MAX_TRIES, DeadLetter, DeadLetters, Treatment, treatment_of
from mangacache.tasks import outlast

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterable

    from mangacache.clock import Clock, Random
    from mangacache.sessions.intake import Intake
    from mangacache.settings import Settings
    from mangacache.tasks import TaskOwner
    from mangacache.telemetry import Telemetry

T = TypeVar("T")

_MESSAGES_A_SLICE: Final = 32
_SLICE_S: Final = 0.002
_AT_ONCE_A_SLICE: Final = 64

SLOW: Final = 1
CUT_OFF: Final = 2
"""What `Message.stuck` says once its turn has been logged, and once it has been cancelled."""

_turn: ContextVar[Message | None] = ContextVar("mangacache_turn", default=None)


class Message(msgspec.Struct, eq=False):
    """An operation that waits for its turn, or has it.

    Attributes:
        what: what it does, in a word, for logs and dead letters.
        parent: the message in whose turn it was sent.
        repeats: tells whether it may be run once more; None where it may not.
        long: it may take as long as it takes.
        began_s: `Mailboxes.now_s` when its turn began; minus infinity before that.
        finished: its turn is over.
        stuck: 0, SLOW or CUT_OFF.
        task: which runs it.
    """

    actor: Actor
    operation: Callable[[], Awaitable[Any]]
    future: asyncio.Future[Any]
    deadline_s: float
    what: str
    parent: Message | None
    repeats: Callable[[], bool] | None
    long: bool
    began_s: float = NEVER_S
    finished: bool = False
    stuck: int = 0
    task: asyncio.Task[Any] | None = None

    def fail(self, error: BaseException) -> None:
        """Tell the sender, where he is still there."""
        if not self.future.done():
            self.future.set_exception(error)

    def is_of_turn(self, actor: Actor) -> bool:
        """Tell whether this is a message to that actor, or was sent in the turn of one."""
        message: Message | None = self
        while message is not None:
            if message.actor is actor and not message.finished:
                return True
            message = message.parent
        return False


class Mailboxes:
    """Runs the messages of actors.

    Args:
        after: run when a message has ended and before the next, for what is due besides; None is nothing.
        recover: run after a turn that was cut off, before the next: nothing is known of what it did.
        escalate: told of an error after which nothing can be trusted.

    Attributes:
        running: the messages that have their turn, longest first.
        dead_letters: what could not be carried out.
        stood_still_s: how long the whole process has stood still, or its clock was moved; no turn is as long as that.
    """

    def __init__(
        self,
        *,
        settings: Settings,
        tasks: TaskOwner,
        clock: Clock,
        random: Random,
        telemetry: Telemetry,
        intake: Intake,
        after: Callable[[Actor], Coroutine[Any, Any, None] | None],
        recover: Callable[[Actor], Coroutine[Any, Any, None]],
        escalate: Callable[[str, BaseException], None],
    ) -> None:
        self.running: dict[Message, None] = {}
        self.dead_letters = DeadLetters()
        self.stood_still_s = 0.0
        self._tasks = tasks
        self._clock = clock
        self._random = random
        self._telemetry = telemetry
        self._intake = intake
        self._after = after
        self._recover = recover
        self._escalate = escalate
        self._limit = settings.mailbox_size
        self._wait_s = settings.message_deadline_s
        self._retry_base_s = settings.retry_base_s
        self._retry_within_s = settings.retry_cap_s
        self._closed = False
        self._at_once = 0

    @property
    def now_s(self) -> float:
        """Return the time by which turns are measured."""
        return self._clock.monotonic_s() - self.stood_still_s

    def close(self) -> None:
        """Take in nothing more; what waits is still run."""
        self._closed = True

    async def run(
        self,
        actor: Actor,
        operation: Callable[[], Coroutine[Any, Any, T]],
        *,
        what: str = "run",
        deadline_s: float | None = None,
        waits: bool = False,
        repeats: Callable[[], bool] | None = None,
        long: bool = False,
    ) -> T:
        """Run an operation when its turn comes, and return its result.

        A caller that is cancelled before the operation has begun takes it back. Once it has begun it runs to its
        end, and the caller stays for the outcome before the cancellation goes on.

        Args:
            actor: whose turn; where it has left memory meanwhile, nothing is done.
            operation: what is run.
            what: the operation in a word.
            deadline_s: how long it may wait for its turn; `message_deadline_s` where none is given.
            waits: whether it waits where the mailbox is full, rather than being refused.
            repeats: tells, after a failure, whether it may be run once more.
            long: it is never cut off.

        Raises:
            Rejected: the mailbox is full, or the turn did not come in time; nothing was done.
            Closed: the instance is closing.
            Invalid: it would wait for itself.
        """
        if self._closed:
            raise Closed("this MangaCache is closing and takes no more writes")
        parent = _turn.get()
        if parent is not None and parent.is_of_turn(actor):
            raise Invalid(
                "this call was made in the turn of a message to the same session, and would wait for itself for ever: "
                "make it when that call has returned"
            )
        activity = actor.begin_activity()
        mailbox = activity.mailbox
        if len(mailbox) >= self._limit and not waits:
            raise Rejected(
                f"{self._limit} writes are waiting in this session already (mailbox_size): nothing was done",
                retry_after_s=max(0.5, self._intake.retry_after_s()),
            )
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        until_s = self._clock.monotonic_s() + (self._wait_s if deadline_s is None else deadline_s)
        if (tracer := self._telemetry.tracer) is not None:
            operation = tracer.carry(operation)
        message = Message(actor, operation, future, until_s, what, parent, repeats, long)
        mailbox.append(message)
        if not activity.draining:
            activity.draining = True
            self._tasks.start(self._drain(actor, activity), name="drain a session's mailbox")
        try:
            return await future
        except asyncio.CancelledError:
            if message.began_s > NEVER_S and not message.finished:
                # The cancellation has gone into the future that was awaited: the outcome comes into another one.
                outcome = message.future = asyncio.get_running_loop().create_future()
                await outlast(outcome)
                outcome.exception()  # retrieved: the cancellation is what the caller hears
            elif not message.finished:  # it still waits, and gives its place back
                mailbox.remove(message)
                message.finished = True
            elif future.done() and not future.cancelled():
                future.exception()
            raise

    async def call(self, actor: Actor, operation: Callable[[], T], *, what: str = "call") -> T:
        """Run an operation that waits for nothing in the actor's turn: at once where the actor is idle.

        Nobody can come between, so neither a mailbox nor a task is needed. See `run` for the rest.
        """
        if actor.activity is None and not self._closed:
            self._at_once += 1
            if self._at_once >= _AT_ONCE_A_SLICE:
                self._at_once = 0
                await self._clock.sleep(0)
            if actor.activity is None:
                return operation()

        async def in_turn() -> T:
            return operation()

        return await self.run(actor, in_turn, what=what)

    async def _drain(self, actor: Actor, activity: Activity) -> None:
        waiting, clock, running = activity.mailbox, self._clock, self.running
        task = asyncio.current_task()
        slice_began_s, ran = clock.monotonic_s(), 0
        try:
            while waiting:
                message = waiting.popleft()
                now_s = clock.monotonic_s()
                if message.future.done():
                    message.finished = True
                    continue
                if now_s > message.deadline_s:
                    self._expire(message)
                    continue
                message.began_s, message.task = now_s - self.stood_still_s, task
                running[message] = None
                _turn.set(message)
                try:
                    await self._settle(message)
                finally:
                    message.finished = True
                    message.task = None
                    del running[message]
                    if not message.future.done():  # whatever ended the turn: nobody waits for ever
                        message.fail(_cut_off())
                if (due := self._after(actor)) is not None:
                    await due
                ran += 1
                if waiting and (ran >= _MESSAGES_A_SLICE or now_s - slice_began_s > _SLICE_S):
                    await clock.sleep(0)
                    slice_began_s, ran = clock.monotonic_s(), 0
        finally:
            activity.draining = False
            actor.end_activity()
            self.abandon(waiting)

    def abandon(self, waiting: Iterable[Message]) -> None:
        """Tell the senders of messages that will not be run any more."""
        for message in waiting:
            message.finished = True
            message.fail(Closed("this MangaCache was closed before the write began"))

    def _expire(self, message: Message) -> None:
        message.finished = True
        message.fail(
            Rejected(
                "waited in this session's mailbox until its deadline: nothing was done",
                retry_after_s=self._intake.retry_after_s(),
            )
        )

    async def _settle(self, message: Message) -> None:
        """Run a message's operation to its end, again where its failure is treated so, and tell the sender."""
        tries = 1
        while True:
            try:
                result = await message.operation()
            except asyncio.CancelledError:
                await self._cancelled(message)
                return
            except Exception as error:  # noqa: BLE001 - handed to the sender, whatever it is
                pause_s = self._treated(message, error, tries)
                if pause_s is None:
                    message.fail(error)
                    return
            else:
                if not message.future.done():
                    message.future.set_result(result)
                return
            tries += 1
            if pause_s:
                await self._clock.sleep(pause_s)

    def _treated(self, message: Message, error: Exception, tries: int) -> float | None:
        """Return after how long the operation is run again, None where it is not; what is due besides is done."""
        treatment = treatment_of(error)
        repeats = treatment is not Treatment.SENDER and message.repeats is not None and message.repeats()
        if treatment is Treatment.TRANSIENT:
            pause_s = self._random.random() * self._retry_base_s * 2.0**tries
            in_time = self.now_s + pause_s - message.began_s < self._retry_within_s
            repeats = repeats and in_time and tries < MAX_TRIES
        elif treatment is Treatment.CONFLICT:
            pause_s, repeats = 0.0, repeats and tries == 1
        elif treatment is Treatment.POISON:
            pause_s, repeats = 0.0, repeats and tries < MAX_TRIES
            if not repeats:
                self._bury(message, error, tries)
        else:
            pause_s, repeats = 0.0, False
        if treatment is Treatment.FATAL:
            self._bury(message, error, tries)
            self._escalate(message.what, error)
        if not repeats:
            return None
        self._telemetry.turns.labels(f"{treatment.value}_again").inc()
        return pause_s

    def _bury(self, message: Message, error: Exception, tries: int) -> None:
        said = f"{type(error).__name__}: {error}"[:300]
        self.dead_letters.add(
            DeadLetter(message.actor.session_id, message.what, said, tries, self._clock.time_s())
        )  # fmt: skip
        self._telemetry.turns.labels("dead_letter").inc()
        self._telemetry.log.error("dead_letter", what=message.what, tries=tries, error=said)

    async def _cancelled(self, message: Message) -> None:
        """Go on after a turn that was cut off for being stuck; end where the drain itself was cancelled."""
        if message.stuck < CUT_OFF:
            message.fail(_cut_off())
            raise asyncio.CancelledError
        task = asyncio.current_task()
        if task is not None:
            task.uncancel()
        message.fail(
            Transient(
                f"its turn took over {self.now_s - message.began_s:.0f} s and was cut off: whether it was "
                "done is unknown. Repeat it with the same turn_id"
            )
        )
        try:
            await self._recover(message.actor)
        except MangaCacheError as error:  # nothing is known of the session all the same: the next turn reads it
            self._telemetry.count_survived("recovery_failed", error)

    def expire_waiting(self, looks: int) -> None:
        """Tell senders whose message has waited too long behind a turn that takes its time, a few looks at a time."""
        now_s = self._clock.monotonic_s()
        for message in self.running:
            activity = message.actor.activity
            if activity is not None:
                for other in tuple(activity.mailbox):
                    if now_s > other.deadline_s and not other.future.done():
                        activity.mailbox.remove(other)
                        self._expire(other)
            looks -= 1
            if looks <= 0:
                return


def _cut_off() -> Closed:
    return Closed("this MangaCache was closed while the write was under way: repeat it with the same turn_id")
