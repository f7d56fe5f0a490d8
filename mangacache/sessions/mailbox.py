"""Mailboxes: the messages of a session run one after the other, those of different sessions at once.

An idle actor's turn begins at once, in the step of whoever calls. Where it waits for something a task goes on with it,
and runs what comes to the mailbox meanwhile, only as long as it is not empty. That task gives way to others after so
many messages or so much time. A message that has begun is settled whatever becomes of its sender.
"""

from __future__ import annotations

import asyncio
from contextvars import copy_context
from typing import TYPE_CHECKING, Any, Final, TypeVar

from mangacache.errors import Closed, Invalid, MangaCacheError, Rejected, Transient
from mangacache.sessions.actor import NEVER_S, Actor
from mangacache.sessions.failures import Failures
from mangacache.sessions.hands import Hand, Hands
from mangacache.sessions.message import CUT_OFF, TURN, Message
from mangacache.sessions.treatment import Treatment, treatment_of
from mangacache.sessions.turn import Turn, first_stretch
from mangacache.tasks import outlast

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable

    from mangacache.clock import Clock, Random
    from mangacache.sessions.intake import Intake
    from mangacache.settings import Settings
    from mangacache.tasks import TaskOwner
    from mangacache.telemetry import Telemetry

T = TypeVar("T")

_MESSAGES_A_SLICE: Final = 32
_SLICE_S: Final = 0.002
_AT_ONCE_A_SLICE: Final = 64

_set_turn = TURN.set


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
        self.stood_still_s = 0.0
        self._failures = Failures(
            settings=settings, clock=clock, random=random, telemetry=telemetry, escalate=escalate
        )  # fmt: skip
        self.dead_letters = self._failures.dead_letters
        self._hands = Hands(tasks, work=self._work, drop=self._drop)
        self._clock = clock
        self._telemetry = telemetry
        self._intake = intake
        self._after = after
        self._recover = recover
        self._limit = settings.mailbox_size
        self._wait_s = settings.message_deadline_s
        self._closed = False
        self._at_once = 0

    @property
    def now_s(self) -> float:
        """Return the time by which turns are measured."""
        return self._clock.monotonic_s() - self.stood_still_s

    def close(self) -> None:
        """Take in nothing more; what waits is still run."""
        self._closed = True
        self._hands.close()

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
        """Run an operation when its turn comes, at once where the actor is idle, and return its result.

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
        parent = TURN.get()
        if parent is not None and parent.is_of_turn(actor):
            raise Invalid(
                "this call was made in the turn of a message to the same session, and would wait for itself for ever: "
                "make it when that call has returned"
            )
        message = Message(actor, operation, what, parent, repeats, long)
        context = copy_context()  # of the caller, and in it this message has its turn
        context.run(_set_turn, message)
        parked = self._hands.parked
        if parked and actor.activity is None:
            hand = parked.pop()
            activity = actor.activity = hand.spare
            turn = first_stretch(operation(), context, hand.task, hand.loop)
            if turn.__class__ is not Turn or _is_the_senders(turn.failure):
                message.finished = True
                due = self._after(actor)
                if due is None and not activity.mailbox and not activity.flights:
                    activity.first_version = actor.activity = None
                    parked.append(hand)
                else:  # the hand sees to it
                    hand.call(actor, due=due)
                if turn.__class__ is Turn:
                    turn.fail()
                self._at_once += 1
                if self._at_once >= _AT_ONCE_A_SLICE:  # whoever never waits lets others run all the same
                    self._at_once = 0
                    await self._clock.sleep(0)
                return turn  # type: ignore[no-any-return]  # the operation's own result
            message.context = context
            message.turn, message.task, message.began_s = turn, hand.task, self.now_s
            self.running[message] = None
            hand.call(actor, message=message)
        else:
            message.context = context
            self._enqueue(message, waits=waits, wait_s=self._wait_s if deadline_s is None else deadline_s)
        return await self._outcome(message)  # type: ignore[no-any-return]  # the operation's own result

    async def _outcome(self, message: Message) -> Any:
        """Wait for what becomes of a message, and see to it where the caller leaves."""
        loop = asyncio.get_running_loop()
        future = message.future = loop.create_future()
        try:
            return await future
        except asyncio.CancelledError:
            if message.began_s > NEVER_S and not message.finished:
                # The cancellation has gone into the future that was awaited: the outcome comes into another one.
                outcome = message.future = loop.create_future()
                await outlast(outcome)
                outcome.exception()  # retrieved: the cancellation is what the caller hears
            elif not message.finished:  # it still waits, and gives its place back
                message.actor.begin_activity().mailbox.remove(message)
                message.finished = True
            elif future.done() and not future.cancelled():
                future.exception()
            raise

    # In the mailbox

    def _enqueue(self, message: Message, *, wait_s: float, waits: bool) -> None:
        activity = message.actor.begin_activity()
        if len(activity.mailbox) >= self._limit and not waits:
            raise Rejected(
                f"{self._limit} writes are waiting in this session already (mailbox_size): nothing was done",
                retry_after_s=max(0.5, self._intake.retry_after_s()),
            )
        message.deadline_s = self._clock.monotonic_s() + wait_s
        activity.mailbox.append(message)
        if not activity.draining:
            activity.draining = True
            self._hands.begin(message.actor)

    async def _work(self, hand: Hand, actor: Actor) -> None:
        """End the turn that has begun, then run what waits; see `Hands`."""
        activity = actor.begin_activity()
        waiting, clock = activity.mailbox, self._clock
        try:
            if (message := hand.message) is not None:
                await self._end(message)
                due = self._after(actor)
            else:
                due = hand.due
            if due is not None:
                await due
            slice_began_s, ran = clock.monotonic_s() if waiting else 0.0, 0
            while waiting:
                message = waiting.popleft()
                now_s = clock.monotonic_s()
                if message.answered:
                    message.finished = True
                    continue
                if now_s > message.deadline_s:
                    self._expire(message)
                    continue
                message.began_s, message.task = now_s - self.stood_still_s, hand.task
                self.running[message] = None
                await self._end(message)
                if (due := self._after(actor)) is not None:
                    await due
                ran += 1
                if waiting and (ran >= _MESSAGES_A_SLICE or now_s - slice_began_s > _SLICE_S):
                    await clock.sleep(0)
                    slice_began_s, ran = clock.monotonic_s(), 0
        finally:
            self._drop(hand, actor)

    def _drop(self, hand: Hand, actor: Actor) -> None:
        """Leave an actor alone: nothing waits there, or nobody runs it any more."""
        if hand.due is not None:
            hand.due.close()
        hand.message = hand.due = None
        activity = actor.begin_activity()
        activity.draining = False
        actor.end_activity()
        if activity.mailbox:
            self.abandon(activity.mailbox)
        hand.take_back(activity, free=actor.activity is not activity)

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

    def expire_waiting(self, looks: int) -> None:
        """Tell senders whose message has waited too long behind a turn that takes its time, a few looks at a time."""
        now_s = self._clock.monotonic_s()
        for message in self.running:
            activity = message.actor.activity
            if activity is not None:
                for other in tuple(activity.mailbox):
                    if now_s > other.deadline_s and not other.answered:
                        activity.mailbox.remove(other)
                        self._expire(other)
            looks -= 1
            if looks <= 0:
                return

    # A turn to its end

    async def _end(self, message: Message) -> None:
        """Run a turn, or what is left of it, to its end, and tell its sender."""
        try:
            result = await (message.turn if message.turn is not None else message.again())
        except Exception as error:  # noqa: BLE001 - handed to the sender, whatever it is
            await self._failed(message, error)
        except asyncio.CancelledError:
            await self._cancelled(message)
        else:
            message.succeed(result)
        finally:
            del self.running[message]
            if not message.answered:  # whatever ended the turn: nobody waits for ever
                message.fail(_cut_off())
            message.end()

    async def _failed(self, message: Message, error: Exception) -> None:
        """Run the operation of a turn that has failed again, where its failure is treated so, or tell the sender."""
        tries = 1
        while True:
            pause_s = self._failures.treated(message, error, tries, lasts_s=self.now_s - message.began_s)
            if pause_s is None:
                message.fail(error)
                return
            tries += 1
            try:
                if pause_s:
                    await self._clock.sleep(pause_s)
                message.succeed(await message.again())
            except Exception as another:  # noqa: BLE001 - treated in its turn
                error = another
            except asyncio.CancelledError:
                await self._cancelled(message)
                return
            else:
                return

    async def _cancelled(self, message: Message) -> None:
        """Go on after a turn that was cut off for being stuck; end where the hand itself was cancelled."""
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


def _is_the_senders(failure: BaseException | None) -> bool:
    """Tell whether a turn has failed at once by an error that nobody but its sender is to hear of."""
    return isinstance(failure, Exception) and treatment_of(failure) is Treatment.SENDER


def _cut_off() -> Closed:
    return Closed("this MangaCache was closed while the write was under way: repeat it with the same turn_id")
