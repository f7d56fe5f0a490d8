"""A link over a bounded number of connections, each used by one command at a time; whoever opens them."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from mangacache.redis.link import LinkLost, Moved, Redirected, ScriptFailed
from mangacache.redis.reconnecting import Lent, Line, ReconnectingLink

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
    from contextlib import AbstractAsyncContextManager

    from mangacache.clock import Clock, Random
    from mangacache.redis.link import Argument, Script
    from mangacache.telemetry import Telemetry


class PooledLink(ReconnectingLink[Line]):
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
        renew_every_s: see `ReconnectingLink`.
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
        renew_every_s: float | None = None,
    ) -> None:
        super().__init__(
            address,
            connect,
            connect_timeout_s=connect_timeout_s,
            timeout_s=timeout_s,
            clock=clock,
            random=random,
            telemetry=telemetry,
            renew_every_s=renew_every_s,
        )
        self._connections = connections
        self._slots = asyncio.Semaphore(connections)
        self._idle: list[Lent[Line]] = []
        self._busy: set[Lent[Line]] = set()

    def __repr__(self) -> str:
        busy, idle = len(self._busy), len(self._idle)
        return f"<{type(self).__name__} {self._address}, {self._state()}, {busy} busy, {idle} idle>"

    async def run(
        self,
        script: Script,
        key: str,
        arguments: Sequence[Argument],
        *,
        more_keys: Sequence[str] = (),
        tag: int | None = None,
        repeatable: bool = False,
        watch: bool = False,
        asking: bool = False,
    ) -> Any:
        """See `Link` and `NodeLink`."""
        del watch  # what others change is not told on connections that wait for one reply at a time

        async def send(lent: Lent[Line]) -> Any:
            if asking:
                await lent.call("ASKING")
            return await lent.run(script, key, arguments, more_keys=more_keys)

        asked_s = self._clock.monotonic_s()
        reply = await self._ask(script.name, send, tag=tag, repeatable=repeatable)
        self._took(script.name, self._clock.monotonic_s() - asked_s)
        return reply

    async def call(
        self,
        *command: Argument,
        key: str | None = None,
        tag: int | None = None,
        repeatable: bool = False,
        asking: bool = False,
    ) -> Any:
        """See `Link` and `NodeLink`."""
        del key

        async def send(lent: Lent[Line]) -> Any:
            if asking:
                await lent.call("ASKING")
            return await lent.call(*command)

        return await self._ask(str(command[0]).lower(), send, tag=tag, repeatable=repeatable)

    async def _ask(
        self, name: str, send: Callable[[Lent[Line]], Awaitable[Any]], *, tag: int | None, repeatable: bool
    ) -> Any:
        try:
            return await self._ask_once(name, send, tag=tag)
        except LinkLost as lost:
            if not (repeatable and lost.broke) or self._closed:
                raise
        return await self._ask_once(name, send, tag=tag)

    async def _ask_once(self, name: str, send: Callable[[Lent[Line]], Awaitable[Any]], *, tag: int | None) -> Any:
        async with self._borrowed() as lent:
            if tag is not None and lent.tag != tag:
                raise Moved
            self._count(name)
            try:
                return await send(lent)
            except Redirected:
                raise
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
        for task in (self._reconnecting, self._renewing):
            if task is not None:
                task.cancel()
        for lent in self._busy:
            lent.line.abort()
        for _ in range(self._connections):
            await self._slots.acquire()
        for _ in range(self._connections):
            self._slots.release()
        await self._tasks.settle()

    @asynccontextmanager
    async def _borrowed(self) -> AsyncIterator[Lent[Line]]:
        """Lend a line; whatever does not come back sound is ended."""
        self._check_up()
        try:
            async with self._clock.timeout(self._timeout_s):
                await self._slots.acquire()
        except TimeoutError as error:
            raise LinkLost("every connection is in use (redis_connections)", sent=False) from error
        lent: Lent[Line] | None = None
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

    def _serving(self) -> bool:
        return bool(self._idle or self._busy)

    def _take_back(self, lent: Lent[Line]) -> None:
        if lent.generation == self._generation and not self._closed:
            self._idle.append(lent)
        else:
            self._end(lent)

    def _place(self) -> AbstractAsyncContextManager[Any]:
        return self._slots
