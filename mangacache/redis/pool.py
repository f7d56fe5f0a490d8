"""A link over a bounded number of connections, each used by one command at a time; whoever opens them."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final, Protocol

from mangacache.errors import MangaCacheError
from mangacache.redis.link import LinkLost, Moved, ScriptFailed, Server
from mangacache.tasks import TaskOwner

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

    from mangacache.clock import Clock, Random
    from mangacache.redis.link import Admission, Argument, Script
    from mangacache.telemetry import Telemetry

_RECONNECT_BASE_S: Final = 0.02
_RECONNECT_CAP_S: Final = 0.25


class Line(Server, Protocol):
    """A connection. Its commands raise `LinkLost` and `ScriptFailed`, and no other error of the server or the way."""

    def abort(self) -> None:
        """Let go of it at once; who waits for a reply on it hears `LinkLost`."""

    async def ended(self) -> None:
        """Wait until nothing is left of it, after `abort`."""


class _Lent:
    """A line with what it was admitted under; a command on it takes no longer than the time-out."""

    __slots__ = ("_clock", "_timeout_s", "generation", "line", "tag")

    def __init__(self, line: Line, generation: int, *, clock: Clock, timeout_s: float) -> None:
        self.line = line
        self.generation = generation
        self.tag = 0
        self._clock = clock
        self._timeout_s = timeout_s

    async def info(self) -> dict[str, str]:
        try:
            async with self._clock.timeout(self._timeout_s):
                return await self.line.info()
        except TimeoutError as error:
            raise LinkLost(f"info: no answer within {self._timeout_s:g} s", sent=True) from error

    async def run(self, script: Script, key: str, arguments: Sequence[Argument]) -> Any:
        try:
            async with self._clock.timeout(self._timeout_s):
                return await self.line.run(script, key, arguments)
        except TimeoutError as error:
            raise LinkLost(f"{script.name}: no answer within {self._timeout_s:g} s", sent=True) from error


class PooledLink:
    """A `Link` over as many lines as commands are under way, up to a bound.

    Args:
        address: what the lines lead to, for messages.
        connect: opens a line, or raises `LinkLost`.
        connections: how many lines there are at most.
        connect_timeout_s: how long opening may take.
        timeout_s: how long a command may take, and how long it may wait for a line.
        clock: deadlines, and the pauses between tries to reconnect.
        random: their jitter.
        telemetry: counts, and says when Redis is lost and reached again.
    """

    def __init__(
        self,
        address: object,
        connect: Callable[[], Awaitable[Line]],
        *,
        connections: int,
        connect_timeout_s: float,
        timeout_s: float,
        clock: Clock,
        random: Random,
        telemetry: Telemetry,
    ) -> None:
        self._address = address
        self._connect = connect
        self._connections = connections
        self._connect_timeout_s = connect_timeout_s
        self._timeout_s = timeout_s
        self._clock = clock
        self._random = random
        self._telemetry = telemetry
        self._slots = asyncio.Semaphore(connections)
        self._tasks = TaskOwner(on_failure=telemetry.count_survived)
        self._admission: Admission | None = None
        self._idle: list[_Lent] = []
        self._busy: set[_Lent] = set()
        self._reconnecting: asyncio.Task[None] | None = None
        self._generation = 0
        self._down = ""
        self._closed = False

    def __repr__(self) -> str:
        state = "closed" if self._closed else f"down: {self._down}" if self._down else "up"
        return f"<{type(self).__name__} {self._address}, {state}, {len(self._busy)} busy, {len(self._idle)} idle>"

    def admit_with(self, admission: Admission) -> None:
        """See `Link`."""
        self._admission = admission

    @property
    def up(self) -> bool:
        """See `Link`."""
        return not self._down and not self._closed

    async def run(self, script: Script, key: str, arguments: Sequence[Argument], *, tag: int) -> Any:
        """See `Link`."""
        async with self._borrowed() as lent:
            if lent.tag != tag:
                raise Moved
            self._telemetry.redis_calls.labels(script.name).inc()
            try:
                return await lent.run(script, key, arguments)
            except LinkLost:  # what broke one line may have broken all
                lent.generation = -1
                self.drop()
                raise
            except ScriptFailed:
                raise
            except BaseException:  # cancelled: its reply must reach nobody else
                lent.generation = -1
                raise

    def drop(self) -> None:
        """See `Link`."""
        self._generation += 1
        for lent in self._idle:
            self._end(lent)
        self._idle.clear()

    async def close(self) -> None:
        """See `Link`; returns when nothing is left of any connection."""
        self._closed = True
        self.drop()
        if self._reconnecting is not None:
            self._reconnecting.cancel()
        for lent in self._busy:
            lent.line.abort()
        for _ in range(self._connections):
            await self._slots.acquire()
        for _ in range(self._connections):
            self._slots.release()
        await self._tasks.settle()

    # Lines

    @asynccontextmanager
    async def _borrowed(self) -> AsyncIterator[_Lent]:
        """Lend a line; whatever does not come back sound is ended."""
        self._check_up()
        try:
            async with self._clock.timeout(self._timeout_s):
                await self._slots.acquire()
        except TimeoutError as error:
            raise LinkLost("every connection is in use (redis_connections)", sent=False) from error
        lent: _Lent | None = None
        try:
            self._check_up()
            lent = self._idle.pop() if self._idle else await self._opened()
            self._busy.add(lent)
            yield lent
        finally:
            self._slots.release()
            if lent is not None:
                self._busy.discard(lent)
                self._take_back(lent)

    def _check_up(self) -> None:
        if not self.up:
            raise LinkLost("closed" if self._closed else self._down, sent=False)

    def _take_back(self, lent: _Lent) -> None:
        if lent.generation == self._generation and not self._closed:
            self._idle.append(lent)
        else:
            self._end(lent)

    def _end(self, lent: _Lent) -> None:
        lent.line.abort()
        self._tasks.start(lent.line.ended(), name="see a connection to Redis end")

    async def _opened(self) -> _Lent:
        try:
            return await self._open()
        except _Refused:
            if not (self._idle or self._busy):  # the server may be well: lines that were admitted go on
                self._fell("a connection was refused")
            raise
        except LinkLost as lost:
            self._fell(str(lost))
            raise

    async def _open(self) -> _Lent:
        """Open a line and have it admitted.

        Raises:
            LinkLost: it does not open, or does not answer.
            _Refused: it is not admitted.
        """
        generation = self._generation
        try:
            async with self._clock.timeout(self._connect_timeout_s):
                line = await self._connect()
        except (TimeoutError, LinkLost) as error:
            raise LinkLost(f"no connection to {self._address}: {said(error)}", sent=False) from error
        lent = _Lent(line, generation, clock=self._clock, timeout_s=self._timeout_s)
        try:
            if self._admission is not None:
                async with self._clock.timeout(self._connect_timeout_s + self._timeout_s):
                    lent.tag = await self._admission(lent)
        except LinkLost as error:
            self._end(lent)
            raise LinkLost(f"no connection to {self._address}: {said(error)}", sent=False) from error
        except (TimeoutError, MangaCacheError, ScriptFailed) as error:
            self._end(lent)
            raise _Refused(f"no connection to {self._address}: {said(error)}", sent=False) from error
        except BaseException:
            self._end(lent)
            raise
        return lent

    # Being down

    def _fell(self, why: str) -> None:
        if self._down or self._closed:
            return
        self._down = why
        self._telemetry.redis_up.set(0)
        self._telemetry.log.warning("redis_down", why=why)
        self.drop()
        self._reconnecting = self._tasks.start(self._reconnect(), name="reconnect to Redis")

    async def _reconnect(self) -> None:
        """Try until a connection is admitted: exponential back-off with full jitter, one probe at a time."""
        tries = 0
        while self._down:
            ceiling_s = min(_RECONNECT_CAP_S, _RECONNECT_BASE_S * 2 ** min(tries, 10))
            await self._clock.sleep(self._random.random() * ceiling_s)
            tries += 1
            async with self._slots:
                await self._probe(tries)

    async def _probe(self, tries: int) -> None:
        try:
            lent = await self._open()
        except LinkLost as lost:
            self._down = str(lost)
            return
        except Exception as error:  # noqa: BLE001 - whatever it is, giving up would end the cache for good
            self._telemetry.count_survived("redis_reconnect_failed", error)
            return
        if lent.generation == self._generation and not self._closed:
            self._down = ""
            self._telemetry.redis_up.set(1)
            self._telemetry.log.info("redis_up", tries=tries)
        self._take_back(lent)


class _Refused(LinkLost):
    """The server answers, and its connection may not be used."""


def said(error: BaseException) -> str:
    """Return an error in words, its kind where it has none."""
    return str(error) or type(error).__name__
