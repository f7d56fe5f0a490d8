"""A turn under way: a coroutine whose first stretch runs in its sender's step, and what follows in a task of its own.

Most of what a turn takes is the way to it: a task to be made, or woken, and a turn of the event loop. None of that is
needed before the operation waits for something, so an idle actor's turn begins at once, in the step of whoever calls.
To whatever runs in it the stretch looks like one of the task that would go on with it: `asyncio.timeout` and the like
hold on to that one. A caller that is cancelled meanwhile does not reach it: he waits for a future.
"""

from __future__ import annotations

import asyncio
import sys
from asyncio import tasks
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Generator
    from contextvars import Context


class CurrentTasks:
    """Which task each loop runs now, where asyncio has no dict of it any more (Python 3.14)."""

    def get(self, loop: asyncio.AbstractEventLoop) -> asyncio.Task[Any] | None:
        """Return the task that a loop runs; None where it runs none."""
        return asyncio.current_task(loop)

    def __setitem__(self, loop: asyncio.AbstractEventLoop, task: asyncio.Task[Any]) -> None:
        tasks._swap_current_task(loop, task)  # type: ignore[attr-defined]  # noqa: SLF001 - for those who extend asyncio

    def __delitem__(self, loop: asyncio.AbstractEventLoop) -> None:
        tasks._swap_current_task(loop, None)  # type: ignore[attr-defined]  # noqa: SLF001


if sys.version_info >= (3, 14):
    _CURRENT = CurrentTasks()
else:  # a dict costs half of what asyncio's functions do, and each turn that begins goes four times through it
    _CURRENT = cast("CurrentTasks", tasks._current_tasks)  # type: ignore[attr-defined]  # noqa: SLF001


class Turn:
    """What is left of a coroutine that runs in a context: awaited, it goes on to its end.

    Args:
        begun: its first stretch has been run already.
        waits: for what it waits since; None where it only lets others run.
        failure: by what it has failed.

    Attributes:
        coroutine: shows where it stands.
        failure: raised when the rest is awaited, and kept until then.
    """

    __slots__ = ("_begun", "_cancelled", "_context", "_waits", "coroutine", "failure")

    def __init__(
        self,
        coroutine: Coroutine[Any, Any, Any],
        context: Context,
        *,
        begun: bool = False,
        waits: asyncio.Future[Any] | None = None,
        failure: BaseException | None = None,
    ) -> None:
        self.coroutine = coroutine
        self.failure = failure
        self._context = context
        self._begun = begun
        self._waits = waits
        self._cancelled = False

    def fail(self) -> None:
        """Raise what it has failed by, where it has; nothing holds on to it then."""
        failure, self.failure = self.failure, None
        if failure is not None:
            try:
                raise failure
            finally:
                del failure

    def cancel(self) -> None:
        """Cancel what it waits for, as a task that is cancelled does, before the rest is awaited."""
        self._cancelled = self._waits is None or not self._waits.cancel()

    def __await__(self) -> Generator[Any, None, Any]:
        """Run what is left, each stretch in the context, and return the coroutine's result."""
        run, send = self._context.run, self.coroutine.send
        throw: Callable[[BaseException], Any] = self.coroutine.throw
        self.fail()
        try:
            if not self._begun:
                waits = run(send, None)
            elif self._cancelled:
                waits = run(throw, asyncio.CancelledError())
            else:
                waits = self._waits
                if waits is not None:
                    waits._asyncio_future_blocking = True  # noqa: SLF001 - how a future is awaited
            while True:
                try:
                    yield waits
                except BaseException as error:  # noqa: BLE001 - whatever it is, it is the coroutine's to hear
                    waits = run(throw, error)
                else:
                    waits = run(send, None)
        except StopIteration as end:
            return end.value


def first_stretch(
    coroutine: Coroutine[Any, Any, Any], context: Context, task: asyncio.Task[Any], loop: asyncio.AbstractEventLoop
) -> Any:
    """Run a coroutine until it waits for something, in the present step, as if `task` ran it.

    Returns:
        Its result where it has come to its end; else what is left, a `Turn`, for `task` to await.
    """
    current = _CURRENT
    caller = current.get(loop)
    current[loop] = task
    try:
        waits = context.run(coroutine.send, None)
    except StopIteration as end:
        return end.value
    except BaseException as error:  # noqa: BLE001 - whatever it is, it is raised where the rest is awaited
        return Turn(coroutine, context, begun=True, failure=error)
    finally:
        if caller is not None:
            current[loop] = caller
        else:
            del current[loop]
    if waits is not None:
        waits._asyncio_future_blocking = False  # noqa: SLF001 - others may await it before the rest does
    return Turn(coroutine, context, begun=True, waits=waits)
