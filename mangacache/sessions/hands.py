"""Hands: the tasks by which actors run their turns. An idle actor has none; who is done waits for the next one's call.

A task costs as much as a short turn to make and to end. So a few of them are kept, parked, and belong to no actor.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from mangacache.sessions.actor import Activity

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from typing import Any

    from mangacache.sessions.actor import Actor
    from mangacache.sessions.message import Message
    from mangacache.tasks import TaskOwner

MOST_PARKED: Final = 256


class Hand:
    """A task that runs turns, or waits to be called.

    Attributes:
        task: itself, on `loop`.
        spare: an activity for an idle actor that is about to be busy.
        actor: whose mailbox it is to drain; None where it is to go home, or knows of none.
        message: whose turn has begun already; None where none has.
        due: what is to be run before the next message; None is nothing.
    """

    __slots__ = ("_call", "actor", "due", "loop", "message", "spare", "task")

    def __init__(self, actor: Actor) -> None:
        self.loop = asyncio.get_running_loop()
        self.task: asyncio.Task[None]
        self.spare = _spare()
        self.actor: Actor | None = actor
        self.message: Message | None = None
        self.due: Coroutine[Any, Any, None] | None = None
        self._call: asyncio.Future[None] | None = None

    def call(
        self, actor: Actor | None, *, message: Message | None = None, due: Coroutine[Any, Any, None] | None = None
    ) -> None:
        """Wake it."""
        self.actor, self.message, self.due = actor, message, due
        if self._call is not None and not self._call.done():
            self._call.set_result(None)

    def take_back(self, activity: Activity, *, free: bool) -> None:
        """Have a spare activity again: the one that an actor had, where it is free, is as good as new."""
        if activity is self.spare:
            if free:
                activity.draining, activity.first_version = True, None
            else:
                self.spare = _spare()

    def waits(self) -> asyncio.Future[None]:
        """Return what it waits for until it is called."""
        call = self._call = self.loop.create_future()
        return call


class Hands:
    """All of them.

    Args:
        work: does what a hand was called for, until the actor is idle.
        drop: told of an actor for whom nothing more will be done.

    Attributes:
        parked: those that wait.
    """

    def __init__(
        self,
        tasks: TaskOwner,
        *,
        work: Callable[[Hand, Actor], Coroutine[Any, Any, None]],
        drop: Callable[[Hand, Actor], None],
    ) -> None:
        self.parked: list[Hand] = []
        self._tasks = tasks
        self._work = work
        self._drop = drop
        self._closed = False

    def begin(self, actor: Actor) -> None:
        """Have an actor's mailbox drained: by a task that is parked, else by a new one."""
        if self.parked:
            self.parked.pop().call(actor)
        else:
            hand = Hand(actor)
            hand.task = self._tasks.start(self._live(hand), name="run the turns of sessions")

    def close(self) -> None:
        """Send home who is parked; who works goes home afterwards."""
        self._closed = True
        while self.parked:
            self.parked.pop().call(None)

    async def _live(self, hand: Hand) -> None:
        while hand.actor is not None:
            actor, hand.actor = hand.actor, None
            await self._work(hand, actor)
            if self._closed or len(self.parked) >= MOST_PARKED:
                return
            self.parked.append(hand)
            try:
                await hand.waits()
            except asyncio.CancelledError:
                if not self._passed_on(hand):
                    raise

    def _passed_on(self, hand: Hand) -> bool:
        """Tell whether a hand that was cancelled while it waited was called all the same, for a turn to cancel."""
        if hand in self.parked:
            self.parked.remove(hand)
        if hand.actor is None:
            return False
        if hand.message is None or hand.message.turn is None:
            self._drop(hand, hand.actor)
            return False
        hand.message.turn.cancel()
        return True


def _spare() -> Activity:
    activity = Activity()
    activity.draining = True
    return activity
