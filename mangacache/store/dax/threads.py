"""A few threads of our own for calls that block, and a way back to the event loop that many results share.

anyio's `to_thread` starts and bounds the threads, but each call through it costs a context, a scope, a turn of the
loop and a wake-up: as much processor time as the call to DAX that it carries (`docs/decisions/0006-dax-in-threads.md`).
So a thread that was got from it once stays, and takes one job after the other from a queue. Results gather, and one
wake-up of the event loop brings all that are there.
"""

from __future__ import annotations

import asyncio
from collections import deque
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

import anyio
import anyio.to_thread

from mangacache.errors import Closed, Rejected
from mangacache.tasks import TaskOwner

if TYPE_CHECKING:
    from collections.abc import Callable

    from mangacache.clock import Clock
    from mangacache.telemetry import Telemetry

T = TypeVar("T")

_LOOK_S: Final = 1.0
"""How often an idle thread looks whether its event loop has gone without a word."""


class _Job:
    """A call on its way to a thread and back."""

    __slots__ = ("begun_s", "call", "error", "future", "left", "orphaned", "over", "queued_s", "result", "until_s")

    def __init__(self, call: Callable[[], Any], future: asyncio.Future[Any], queued_s: float, until_s: float) -> None:
        self.call = call
        self.future = future
        self.queued_s = queued_s
        self.until_s = until_s
        self.begun_s = -1.0
        self.left = False
        self.orphaned = False
        self.over = False
        self.result: Any = None
        self.error: BaseException | None = None

    def let_go(self) -> None:
        """Drop all that is large: the job itself may stay a while among those whose time is looked after."""
        del self.call, self.future, self.result, self.error


class Threads:
    """Runs calls that block; on the event loop that first used it.

    A caller may leave at any time. A call that has not begun is not made then; one that has runs to its end, in its
    thread and with its connection, and nobody hears of it: an orphan. Orphans count as calls under way, so that a
    server that keeps them cannot make more of them than `limit`.

    Args:
        count: of threads, started when there is work for them.
        limit: calls that may be under way or wait for a thread.
        timeout_s: how long a caller waits, for a thread and for its answer; every call has the same, so one task
            looks after all of them, and only while there are some.
        clock: tells how long a call waited; read in threads.
        telemetry: hears of waits and orphans.

    Attributes:
        under_way: calls that wait or run, orphans among them.
        orphans: that run now.
    """

    def __init__(self, count: int, *, limit: int, timeout_s: float, clock: Clock, telemetry: Telemetry) -> None:
        self._limit = limit
        self._timeout_s = timeout_s
        self._limiter = anyio.CapacityLimiter(count)
        self._clock = clock
        self._telemetry = telemetry
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._done: deque[_Job] = deque()
        self._woken = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._lanes = TaskOwner(on_failure=telemetry.count_survived)
        self._watch = TaskOwner(on_failure=telemetry.count_survived)
        self._waiting: deque[_Job] = deque()
        self._looking = False
        self._closed = False
        self._empty = asyncio.Event()
        self.under_way = 0
        self.orphans = 0

    def __repr__(self) -> str:
        return f"<Threads {len(self._lanes)} running, {self.under_way} calls under way, {self.orphans} orphans>"

    async def run(self, call: Callable[[], T], *, patient: bool = False) -> T:
        """Run `call` in a thread and return what it returns.

        Args:
            call: what to run.
            patient: wait however long it takes.

        Raises:
            TimeoutError: it took too long.
            Rejected: so many calls are under way already; nothing was done.
            Closed: the threads have been told to end.
        """
        if self._closed:
            raise Closed("the threads for DAX have ended")
        if self.under_way >= self._limit:
            raise Rejected(f"{self._limit} calls are under way in DAX (dax_calls): nothing was done", retry_after_s=0.1)
        loop = self._loop = self._loop or asyncio.get_running_loop()
        now_s = self._clock.monotonic_s()
        job = _Job(call, loop.create_future(), now_s, now_s + self._timeout_s)
        self.under_way += 1
        if not patient:
            self._waiting.append(job)
            if not self._looking:
                self._looking = True
                self._watch.start(self._look(), name="look after calls to DAX")
        if len(self._lanes) < self._limiter.total_tokens and self.under_way > len(self._lanes):
            self._lanes.start(self._lane(loop), name="a thread for DAX")
        self._jobs.put(job)
        try:
            return cast("T", await job.future)
        except asyncio.CancelledError:
            self._leave(job)
            raise

    def _leave(self, job: _Job) -> None:
        if job.left or job.over:  # it has left before, by its time, or its answer was on its way
            return
        job.left = True
        if job.begun_s >= 0:
            job.orphaned = True
            self.orphans += 1
            self._telemetry.dax_orphans.inc()

    async def _look(self) -> None:
        """Have those leave whose time is up; they wait in the order in which it ends."""
        while self._waiting:
            job = self._waiting[0]
            left_s = job.until_s - self._clock.monotonic_s()
            if job.over or left_s <= 0:
                self._waiting.popleft()
                if not job.over and not job.future.done():
                    job.future.set_exception(TimeoutError(f"no answer within {self._timeout_s:g} s"))
                    self._leave(job)
            else:
                await self._clock.sleep(left_s)
        self._looking = False

    async def _lane(self, loop: asyncio.AbstractEventLoop) -> None:
        await anyio.to_thread.run_sync(self._take_jobs, loop, limiter=self._limiter, abandon_on_cancel=True)

    def _take_jobs(self, loop: asyncio.AbstractEventLoop) -> None:
        """Take one job after the other, in a thread, until told to end."""
        while True:
            try:
                job = self._jobs.get(timeout=_LOOK_S)
            except Empty:
                if loop.is_closed():
                    return
                continue
            if job is None:
                return
            # In this order: who leaves meanwhile is seen here, or sees that it has begun, and counts an orphan.
            job.begun_s = self._clock.monotonic_s()
            if not job.left:
                try:
                    job.result = job.call()
                except BaseException as error:  # noqa: BLE001 - handed to whoever waits, whatever it is
                    job.error = error
            self._done.append(job)
            del job  # an idle thread keeps no answer alive
            if not self._woken:
                self._woken = True
                try:
                    loop.call_soon_threadsafe(self._deliver)
                except RuntimeError:  # the loop has been closed, and nobody waits any more
                    return

    def _deliver(self) -> None:
        # Before the results are taken: a thread that sees it still set has put its own in already.
        self._woken = False
        while self._done:
            job = self._done.popleft()
            self.under_way -= 1
            job.over = True
            if job.begun_s >= 0:
                self._telemetry.dax_queue_seconds.observe(job.begun_s - job.queued_s)
            if job.left:
                self.orphans -= job.orphaned
            elif not job.future.done():
                if job.error is not None:
                    job.future.set_exception(job.error)
                else:
                    job.future.set_result(job.result)
            job.let_go()
        if not self.under_way:
            self._empty.set()

    async def drained(self) -> None:
        """Return when no call is under way, orphans among them."""
        while self.under_way:
            self._empty.clear()
            await self._empty.wait()

    async def close(self) -> None:
        """Take in nothing more, and return when every call and every thread has ended."""
        self._closed = True
        await self.drained()
        for _ in range(len(self._lanes)):
            self._jobs.put(None)
        await self._watch.cancel()
        await self._lanes.settle()

    async def abandon(self) -> None:
        """Take in nothing more, and leave the threads whose calls do not end to themselves."""
        self._closed = True
        for _ in range(len(self._lanes)):
            self._jobs.put(None)
        await self._watch.cancel()
        await self._lanes.cancel()
