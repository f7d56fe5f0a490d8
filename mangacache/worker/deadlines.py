"""How long a request may take: one look a second at all that are under way, and no timer for each.

A timer a request costs more than all else that the worker does for it when thousands come a second. So what is late is
found by looking, and ends up to a second late.
"""

from __future__ import annotations

import asyncio
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from mangacache.tasks import TaskOwner

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from mangacache.clock import Clock

LOOK_EVERY_S: Final = 1.0


class Deadline:
    """One request's.

    Attributes:
        at_s: when it is due, by the clock's monotonic seconds.
        passed: the task was cancelled for it.
    """

    __slots__ = ("at_s", "passed", "task")

    def __init__(self, task: asyncio.Task[object], at_s: float) -> None:
        self.task = task
        self.at_s = at_s
        self.passed = False


class Deadlines:
    """The deadlines of one application's requests.

    Args:
        clock: by which they pass.
        on_failure: hears of a look that failed.
    """

    def __init__(self, *, clock: Clock, on_failure: Callable[[str, BaseException], None]) -> None:
        self._clock = clock
        self._tasks = TaskOwner(on_failure=on_failure)
        self._under_way: dict[Deadline, None] = {}
        self._looking = False

    def __len__(self) -> int:
        return len(self._under_way)

    @contextmanager
    def within(self, seconds: float) -> Iterator[Deadline]:
        """Cancel the body where it takes longer.

        Raises:
            TimeoutError: it did.
        """
        task = asyncio.current_task()
        if task is None:
            raise AssertionError("a coroutine outside of a task")
        cancelling = task.cancelling()
        deadline = Deadline(task, self._clock.monotonic_s() + seconds)
        self._under_way[deadline] = None
        if not self._looking:
            self._looking = True
            self._tasks.start(self._look(), name="look for requests that are late")
        try:
            yield deadline
        except asyncio.CancelledError as error:
            if deadline.passed and task.uncancel() <= cancelling:
                raise TimeoutError from error
            raise
        finally:
            self._under_way.pop(deadline, None)

    async def _look(self) -> None:
        try:
            while self._under_way:
                await self._clock.sleep(LOOK_EVERY_S)
                now_s = self._clock.monotonic_s()
                for deadline in [each for each in self._under_way if each.at_s <= now_s]:
                    del self._under_way[deadline]
                    deadline.passed = True
                    deadline.task.cancel()
        finally:
            self._looking = False

    async def close(self) -> None:
        """Look no more."""
        await self._tasks.cancel()
