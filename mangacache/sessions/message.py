"""A message to an actor: what is to be run in its turn, and who waits for it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextvars import Context, ContextVar, copy_context
from typing import Any, Final

import msgspec

from mangacache.sessions.actor import NEVER_S, Actor
from mangacache.sessions.turn import Turn

SLOW: Final = 1
CUT_OFF: Final = 2
"""What `Message.stuck` says once its turn has been logged, and once it has been cancelled."""


class Message(msgspec.Struct, eq=False):
    """An operation that waits for its turn, or has it.

    Attributes:
        operation: makes the coroutine that is run, each time it is run.
        what: what it does, in a word, for logs and dead letters.
        parent: the message in whose turn it was sent.
        repeats: tells whether it may be run once more; None where it may not.
        long: it may take as long as it takes.
        context: of its sender, in whose turn it is to be run; None when it is over.
        future: where its sender waits; None as long as he need not.
        deadline_s: `clock.monotonic_s` until which its turn must have begun.
        began_s: `Mailboxes.now_s` when its turn began; minus infinity before that.
        finished: its turn is over.
        stuck: 0, SLOW or CUT_OFF.
        turn: what is run; None before, and when it is over.
        task: which runs it; None while none does.
    """

    actor: Actor
    operation: Callable[[], Coroutine[Any, Any, Any]]
    what: str
    parent: Message | None
    repeats: Callable[[], bool] | None
    long: bool
    context: Context | None = None
    future: asyncio.Future[Any] | None = None
    deadline_s: float = NEVER_S
    began_s: float = NEVER_S
    finished: bool = False
    stuck: int = 0
    turn: Turn | None = None
    task: asyncio.Task[Any] | None = None

    def again(self) -> Turn:
        """Return a turn that has not begun: its first, or another try."""
        turn = self.turn = Turn(self.operation(), self.context if self.context is not None else copy_context())
        return turn

    @property
    def answered(self) -> bool:
        """Whether its sender has been told, or has left."""
        return self.future is not None and self.future.done()

    def succeed(self, result: Any) -> None:
        """Tell the sender, where he is still there."""
        if self.future is not None and not self.future.done():
            self.future.set_result(result)

    def fail(self, error: BaseException) -> None:
        """Tell the sender, where he is still there."""
        if self.future is not None and not self.future.done():
            self.future.set_exception(error)

    def end(self) -> None:
        """Be over. Its context holds the message: it is let go of, so that nothing is left to the collector."""
        self.finished = True
        self.context = self.turn = self.task = None

    def is_of_turn(self, actor: Actor) -> bool:
        """Tell whether this is a message to that actor, or was sent in the turn of one."""
        message: Message | None = self
        while message is not None:
            if message.actor is actor and not message.finished:
                return True
            message = message.parent
        return False


TURN: Final[ContextVar[Message | None]] = ContextVar("mangacache_turn", default=None)
"""The message in whose turn the caller is."""
