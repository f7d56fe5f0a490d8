"""Workers as they run in production: processes of `mangacache serve`, told by signals, heard by what they say."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from commands import clean_environ

from mangacache.worker.process import serve
from mangacache.worker.signals import Stop

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from mangacache import Settings

PROGRAM = (sys.executable, "-W", "error", "-m", "mangacache.cli", "serve")
START_GUARD_S = 120.0
FREE_PORTS = {"MANGACACHE_WORKER_PORT": "0", "MANGACACHE_OPERATOR_PORT": "0", "MANGACACHE_WORKER_NOTICE_S": "0"}


class WorkerProcess:
    """One worker.

    Attributes:
        process: the process.
        public, operator: where its ports are, `http://127.0.0.1:41234`.
        said: the events it printed on its standard output, oldest first.
        complaints: the lines of its standard error.
    """

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.public = ""
        self.operator = ""
        self.said: list[dict[str, Any]] = []
        self.complaints: list[str] = []
        self._said_more = asyncio.Condition()
        self._says_no_more = False
        self._listening = [asyncio.create_task(self._hear_events()), asyncio.create_task(self._hear_complaints())]

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def status(self) -> int | None:
        """Its exit status; minus the signal that ended it; None while it runs."""
        return self.process.returncode

    async def until_said(self, event: str) -> dict[str, Any]:
        """Wait until it has printed an event of this name, and return the event."""
        async with asyncio.timeout(START_GUARD_S), self._said_more:
            while (found := next((one for one in self.said if one.get("event") == event), None)) is None:
                if self._says_no_more:
                    raise AssertionError(f"it ended without {event!r}: {self.said} {''.join(self.complaints)}")
                await self._said_more.wait()
            return found

    async def start(self) -> None:
        """Wait until it can be talked to."""
        listening = await self.until_said("listening")
        self.public, self.operator = listening["public"], listening["operator"]

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal, if it still runs."""
        if self.process.returncode is None:
            os.kill(self.process.pid, number)  # asyncio's own would look whether it has ended, and so lose its status

    async def ended(self) -> int:
        """Wait until it has ended and everything it said was heard, and return its status."""
        async with asyncio.timeout(START_GUARD_S):
            await self.process.wait()
            await asyncio.gather(*self._listening)
        assert self.process.returncode is not None
        return self.process.returncode

    async def leave(self) -> int:
        """Have it leave in order, and return its status."""
        self.signal(signal.SIGTERM)
        return await self.ended()

    async def kill(self) -> None:
        """End it where it stands."""
        self.signal(signal.SIGKILL)
        await self.ended()

    async def _hear_events(self) -> None:
        assert self.process.stdout is not None
        async for line in self.process.stdout:
            async with self._said_more:
                self.said.append(json.loads(line))
                self._said_more.notify_all()
        async with self._said_more:
            self._says_no_more = True
            self._said_more.notify_all()

    async def _hear_complaints(self) -> None:
        assert self.process.stderr is not None
        async for line in self.process.stderr:
            self.complaints.append(line.decode(errors="replace"))


async def start_worker(
    variables: dict[str, str], *, program: Sequence[str] = PROGRAM, started: bool = True
) -> WorkerProcess:
    """Start a worker on free ports; whoever starts it ends it.

    Args:
        variables: its environment, beside what it needs to run at all; `variables_for` and `LocalStack.environment`
            give those of a table.
        program: what to run instead of `mangacache serve`.
        started: wait until it can be talked to.
    """
    process = await asyncio.create_subprocess_exec(
        *program,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=clean_environ(**(FREE_PORTS | variables)),
        limit=2**20,
    )
    worker = WorkerProcess(process)
    if started:
        try:
            await worker.start()
        except BaseException:
            await worker.kill()
            raise
    return worker


@asynccontextmanager
async def worker_process(
    variables: dict[str, str], *, program: Sequence[str] = PROGRAM, started: bool = True
) -> AsyncIterator[WorkerProcess]:
    """Start a worker on free ports, and end it with the block, however that ends; see `start_worker`."""
    worker = await start_worker(variables, program=program, started=started)
    try:
        yield worker
    finally:
        await worker.kill()


async def eventually(condition: Callable[[], Any], *, within_s: float = START_GUARD_S) -> Any:
    """Wait until a condition holds, and return what it returned; it may be a coroutine function."""
    async with asyncio.timeout(within_s):
        while True:
            found = condition()
            if asyncio.iscoroutine(found):
                found = await found
            if found:
                return found
            await asyncio.sleep(0.01)


class Served:
    """A worker in this process, by `serve`.

    Attributes:
        stop: who asks it to leave.
        said: what it said of itself.
        status: how it ended; None while it runs.
    """

    def __init__(self) -> None:
        self.stop = Stop()
        self.said: list[dict[str, Any]] = []
        self.status: int | None = None
        self.running: asyncio.Task[int] | None = None

    @property
    def public(self) -> str:
        return str(self.said[0]["public"])

    @property
    def operator(self) -> str:
        return str(self.said[0]["operator"])

    async def left(self) -> int:
        """Wait until it has left, and return its status."""
        assert self.running is not None
        async with asyncio.timeout(START_GUARD_S):
            self.status = await self.running
        return self.status


@asynccontextmanager
async def served(settings: Settings, **doubles: Any) -> AsyncIterator[Served]:
    """Serve in this process on free ports; at the end it is asked to leave, if nobody has asked before."""
    worker = Served()
    free = settings.replace(worker_port=0, operator_port=0)
    serving = serve(free, stop=worker.stop, say=worker.said.append, **doubles)
    worker.running = asyncio.create_task(serving)
    try:
        await eventually(lambda: worker.said or worker.running.done())
        if not worker.said:
            worker.status = worker.running.result()
        yield worker
    except BaseException:
        worker.running.cancel()  # it may hang, which may be what the test has found
        raise
    finally:
        worker.stop.ask("the test ends")
        await asyncio.wait((worker.running,))
