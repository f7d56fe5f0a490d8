"""Task creation: the only place the package makes tasks, so each has a name, an owner and a reported failure."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any, TypeVar, cast

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

T = TypeVar("T")
U = TypeVar("U")


class TaskOwner:
    """Owns background tasks: keeps them referenced, reports their failures, ends them at `close`.

    Args:
        on_failure: called with the task's name and its exception when a task nobody awaits fails.
    """

    def __init__(self, *, on_failure: Callable[[str, BaseException], None]) -> None:
        self._on_failure = on_failure
        self._tasks: dict[asyncio.Task[Any], None] = {}  # in the order of their beginning: they end in it too

    def __len__(self) -> int:
        return len(self._tasks)

    def start(self, coroutine: Coroutine[Any, Any, T], *, name: str, awaited: bool = False) -> asyncio.Task[T]:
        """Start `coroutine` as a task of this owner.

        Args:
            coroutine: what to run.
            name: what to call it in reports.
            awaited: somebody waits for the result and hears its failure, so that it is not reported.
        """
        task = asyncio.get_running_loop().create_task(coroutine, name=name)
        self._tasks[task] = None
        task.add_done_callback(self._heard if awaited else self._reported)
        return task

    def _heard(self, task: asyncio.Task[Any]) -> None:
        self._tasks.pop(task, None)
        if not task.cancelled():
            task.exception()

    def _reported(self, task: asyncio.Task[Any]) -> None:
        self._tasks.pop(task, None)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._on_failure(task.get_name(), error)

    async def settle(self) -> None:
        """Wait until no task is left; tasks started meanwhile are waited for too."""
        while self._tasks:
            await asyncio.wait(tuple(self._tasks))

    async def step(self) -> None:
        """Wait until at least one task has ended; returns at once when there is none."""
        if self._tasks:
            await asyncio.wait(tuple(self._tasks), return_when=asyncio.FIRST_COMPLETED)

    async def cancel(self) -> None:
        """Cancel every task and wait until each has ended."""
        while tasks := tuple(self._tasks):
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)


async def outlast(future: asyncio.Future[Any]) -> None:
    """Wait until `future` is done, through any number of cancellations; the caller honours them afterwards.

    A durable write must not be left half known: whoever is cancelled while waiting for it stays until the outcome is
    there. `asyncio.shield` alone lets a second cancellation through.
    """
    while not future.done():
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.wait((future,))


async def both(first: Coroutine[Any, Any, T], second: Coroutine[Any, Any, U]) -> tuple[T, U]:
    """Run two reads at once and return both results; when one fails, the other is cancelled and the error raised.

    For reads only: a durable write must never be cancelled because its neighbour failed.
    """
    loop = asyncio.get_running_loop()
    tasks = loop.create_task(first), loop.create_task(second)
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
        for task in tasks:
            if task.done():
                task.result()
        return tasks[0].result(), tasks[1].result()
    finally:
        for task in tasks:
            if not task.done():
                task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def together(*calls: Coroutine[Any, Any, T]) -> list[T]:
    """Run calls at once and return their results; the first error is raised when all of them have ended.

    What they send in one turn of the event loop leaves together. For calls that may be repeated: whoever is cancelled
    cancels them.
    """
    results = await asyncio.gather(*calls, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return cast("list[T]", results)
