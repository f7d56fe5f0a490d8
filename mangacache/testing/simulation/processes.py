"""A simulated process: its own ready queue, its own events, and the ways in which it stops.

A process is what an operating system would run: one interpreter with one event loop. In the simulation all of them
live on one loop, and each keeps to itself what its own loop would keep: the callbacks that are ready, in the order in
which they were registered, and the events that have come for it and were not looked at yet.
"""

from __future__ import annotations

import gc
from collections import deque
from contextvars import Context, ContextVar
from types import AsyncGeneratorType, CoroutineType
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import asyncio
    from asyncio import Handle

    from mangacache.testing.simulation.loop import SimulatedLoop

OF: Final[ContextVar[Process]] = ContextVar("OF")
"""The process that a callback runs in; each callback's context carries it."""

_LOOK_FROM: Final = 64


class Process:
    """One process of the simulation.

    Attributes:
        name: what traces call it.
        alive: until it is killed.
        ready: callbacks in the order in which they were registered.
        inbox: events that have come, with what brought each; taken in when the process next looks.
        stands_still: whether it is stopped, or waits for the processor.
        context: what its tasks begin with.
    """

    __slots__ = (
        "_look_at", "_loop", "_started", "alive", "context", "inbox", "name", "queued", "ready",
        "resumes_at_s", "stands_still",
    )  # fmt: skip

    def __init__(self, name: str, loop: SimulatedLoop) -> None:
        self.name = name
        self.alive = True
        self.ready: deque[Handle] = deque()
        self.inbox: list[tuple[object | None, Handle]] = []
        self.stands_still = False
        self.resumes_at_s = 0.0
        self.queued = False
        self.context = Context()
        self.context.run(OF.set, self)
        self._loop = loop
        self._started: list[asyncio.Task[Any]] = []
        self._look_at = _LOOK_FROM

    def __repr__(self) -> str:
        return f"<Process {self.name}{'' if self.alive else ', killed'}>"

    def tasks(self) -> list[asyncio.Task[Any]]:
        """Return the tasks of this process that have not ended, in the order in which they were started."""
        self._started = [task for task in self._started if not task.done()]
        return list(self._started)

    def note(self, task: asyncio.Task[Any]) -> None:
        """Remember a task that was started."""
        started = self._started
        started.append(task)
        if len(started) > self._look_at:
            self._look_at = max(_LOOK_FROM, 2 * len(self.tasks()))

    def kill(self) -> None:
        """End it as SIGKILL does: at once, and nothing of it runs any more, not even what would clean up."""
        self.alive = False
        self._loop.forget(self)

    def wind_up(self, *, but: asyncio.Task[Any] | None) -> list[asyncio.Task[Any]]:
        """Cancel what has not ended but one task, now that the simulation is over and nothing can come of it.

        What was killed must end too: Python runs the clean-up of a coroutine that is thrown away, wherever that is.
        """
        self.alive = True
        self.stands_still = False
        self._loop.queue(self)
        tasks = [task for task in self.tasks() if task is not but]
        for task in tasks:
            task.cancel()
        return tasks

    def stop(self) -> None:
        """Let it stand still, as SIGSTOP does: time passes, what comes for it waits, until `go_on`."""
        self.stands_still = True
        self.resumes_at_s = float("inf")
        self._loop.forget(self)

    def stall(self, seconds: float) -> None:
        """Let it stand still for a while: it waits for the processor, or collects garbage."""
        if self.alive and not self.stands_still:
            self.stands_still = True
            self.resumes_at_s = self._loop.time() + seconds
            self._loop.forget(self)
            self._loop.wake_at(self.resumes_at_s, self)

    def go_on(self) -> None:
        """End a stop or a stall: what has come meanwhile is there at once."""
        if self.stands_still:
            self.stands_still = False
            if self.ready or self.inbox:
                self._loop.queue(self)


def awaiting(task: asyncio.Task[Any]) -> list[Any]:
    """Return the coroutines and generators of a task that wait for one another, the outermost first."""
    found: list[Any] = []
    awaited: Any = task.get_coro()
    while awaited is not None:
        if isinstance(awaited, CoroutineType):
            found.append(awaited)
            awaited = awaited.cr_await
        elif isinstance(awaited, AsyncGeneratorType):
            found.append(awaited)
            awaited = awaited.ag_await
        else:  # what drives a generator does not tell which; a future leads to none
            inner = gc.get_referents(awaited)
            awaited = next((other for other in inner if isinstance(other, AsyncGeneratorType)), None)
    return found
