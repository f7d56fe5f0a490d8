"""A bounded number of connections, kept open; a call takes one that is free, or the next that becomes free.

A call that finds none free waits for whichever comes first: one that another call gives back, or a new one. A new
connection belongs to the pool and not to the call for which it was begun, so a cancelled call costs no handshake.
The last that became free is taken first; those left over in quieter times are ended by the server, or when they are
found too old.

Time-outs are kept by one task that looks over the calls now and then, only while there are any: a timer for each
call would cost as much as its signature.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Final

from mangacache.errors import Closed
from mangacache.store.direct.connection import Connection
from mangacache.store.transport import Throttled, Unanswered
from mangacache.tasks import TaskOwner

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable

    from mangacache.clock import Clock
    from mangacache.store.direct.answers import Answer
    from mangacache.store.direct.endpoint import Endpoint

WAITING_PER_CONNECTION: Final = 64  # calls that may wait; behind them a call would outwait its time-out anyway
IDLE_S: Final = 50.0  # other clients keep connections for 12 to 60 s; taking one that the server ends costs a retry
_LOOKS: Final = 4  # in the time that a call has


class _Waiting:
    """A call that waits for a connection."""

    __slots__ = ("future", "since_s")

    def __init__(self, future: asyncio.Future[Connection], since_s: float) -> None:
        self.future = future
        self.since_s = since_s


class Pool:
    """Exchanges requests for answers with one endpoint.

    Args:
        endpoint: whom to connect to.
        tls: the context that all connections share: making one takes long. `None`: not encrypted.
        limit: how many connections there are at most.
        connect_timeout_s: how long opening one may take.
        timeout_s: how long a call may take, the wait for a connection counted in.
        clock: for both.
        on_failure: hears of what fails that nobody waits for.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        tls: ssl.SSLContext | None,
        limit: int,
        connect_timeout_s: float,
        timeout_s: float,
        clock: Clock,
        on_failure: Callable[[str, BaseException], None],
    ) -> None:
        self._endpoint = endpoint
        self._tls = tls
        self._limit = limit
        self._connect_timeout_s = connect_timeout_s
        self._timeout_s = timeout_s
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._all: set[Connection] = set()
        self._idle: list[Connection] = []
        self._waiting: deque[_Waiting] = deque()
        self._dialling = 0
        self._on_failure = on_failure
        self._tasks = TaskOwner(on_failure=on_failure)
        self._looking = False
        self._closed = False
        self._all_gone = asyncio.Event()

    def __repr__(self) -> str:
        return (
            f"<Pool of {self._endpoint}{', closed' if self._closed else ''}, {len(self._all)} of {self._limit} open, "
            f"{len(self._idle)} idle, {self._dialling} opening, {len(self._waiting)} calls waiting>"
        )

    async def exchange(self, request: bytes) -> Answer:
        """Send a whole request and return its answer.

        Raises:
            Unanswered: no answer; `sent` is False where the request did not go out.
            Throttled: too many calls wait for a connection.
            Closed: the pool is closed.
        """
        if self._closed:
            raise Closed("the transport to DynamoDB is closed")
        if not self._looking:
            self._looking = True
            self._tasks.start(self._look(), name="end calls to DynamoDB that take too long")
        now_s = self._clock.monotonic_s()
        connection = self._take_idle(now_s) or await self._next(now_s)
        connection.since_s = now_s
        answer: asyncio.Future[Answer] = self._loop.create_future()
        connection.send(request, answer)
        try:
            return await answer
        except asyncio.CancelledError:
            connection.leave(answer)
            if self._clock.monotonic_s() - now_s >= self._timeout_s / 2:  # its caller had waited for long
                self._distrust(now_s)
            raise
        except Unanswered:
            self._distrust(now_s)
            raise

    async def close(self) -> None:
        """End every connection and whatever waits; returns when nothing is left."""
        self._closed = True
        await self._tasks.cancel()
        while self._refuse_first(Closed("the transport to DynamoDB is closed")):
            pass
        for connection in tuple(self._all):
            connection.abort("the transport is closed")
        while self._all:
            self._all_gone.clear()
            await self._all_gone.wait()

    # Connections

    def _take_idle(self, now_s: float) -> Connection | None:
        while self._idle:
            connection = self._idle.pop()
            if not connection.usable:
                continue
            if now_s - connection.since_s <= IDLE_S:
                return connection
            connection.abort("it was idle for long")
        return None

    async def _next(self, now_s: float) -> Connection:
        """Wait for a connection."""
        bound = self._limit * WAITING_PER_CONNECTION
        if len(self._waiting) >= bound:
            raise Throttled(f"{bound} calls wait for one of {self._limit} connections already (max_connections)")
        waiting = _Waiting(self._loop.create_future(), now_s)
        self._waiting.append(waiting)
        self._dial_where_needed()
        try:
            connection = await waiting.future
        except asyncio.CancelledError:
            if waiting.future.done() and not waiting.future.cancelled() and waiting.future.exception() is None:
                self._freed(waiting.future.result())
            elif waiting in self._waiting:
                self._waiting.remove(waiting)
            raise
        if not connection.usable:  # it ended in the very moment between
            raise Unanswered("the connection ended before the request went out", sent=False)
        return connection

    def _freed(self, connection: Connection) -> None:
        """Hand a connection to whoever has waited longest, or keep it."""
        if not connection.usable:
            return
        while self._waiting:
            waiting = self._waiting.popleft()
            if not waiting.future.done():
                waiting.future.set_result(connection)
                return
        connection.since_s = self._clock.monotonic_s()
        self._idle.append(connection)

    def _distrust(self, since_s: float) -> None:
        """End what has been idle since then: what broke a connection may have broken all that were quiet meanwhile.

        Else each of them would cost a call a try, and where nothing says that they are broken, a time-out.
        """
        for connection in tuple(self._idle):
            if connection.since_s <= since_s:
                connection.abort("another one broke")

    def _gone(self, connection: Connection) -> None:
        self._all.discard(connection)
        if connection in self._idle:
            self._idle.remove(connection)
        if not self._all:
            self._all_gone.set()
        self._dial_where_needed()

    def _dial_where_needed(self) -> None:
        while (
            not self._closed and self._dialling < len(self._waiting) and len(self._all) + self._dialling < self._limit
        ):
            self._dialling += 1
            self._tasks.start(self._dial(), name="connect to DynamoDB")

    async def _dial(self) -> None:
        """Open a connection for whoever needs one; a failure is told to who has waited longest."""
        endpoint = self._endpoint
        try:
            async with self._clock.timeout(self._connect_timeout_s):
                _, connection = await self._loop.create_connection(
                    self._made, endpoint.name, endpoint.port, ssl=self._tls
                )
        except (OSError, TimeoutError) as error:
            why = str(error) or f"not within {self._connect_timeout_s:g} s"
            unanswered = Unanswered(f"no connection to {endpoint}: {why}", sent=False)
            unanswered.__cause__ = error
            if not self._refuse_first(unanswered):
                self._on_failure("dynamodb_connect_failed", error)
        else:
            if not connection.ended:
                self._all.add(connection)
                self._freed(connection)
        finally:
            self._dialling -= 1
            self._dial_where_needed()

    def _made(self) -> Connection:
        return Connection(free=self._freed, gone=self._gone)

    # Refusals

    def _refuse_first(self, error: Exception) -> bool:
        """Tell an error to the call that has waited longest; False where none waits."""
        while self._waiting:
            waiting = self._waiting.popleft()
            if not waiting.future.done():
                waiting.future.set_exception(error)
                return True
        return False

    async def _look(self) -> None:
        """End what takes longer than it may, as long as there is something under way."""
        try:
            while True:
                await self._clock.sleep(self._timeout_s / _LOOKS)
                busy = [connection for connection in self._all if connection.busy]
                if not busy and not self._waiting:
                    return
                oldest_s = self._clock.monotonic_s() - self._timeout_s
                for connection in busy:
                    if connection.since_s <= oldest_s:
                        connection.abort(f"no answer within {self._timeout_s:g} s")
                while self._waiting and self._waiting[0].since_s <= oldest_s:
                    self._refuse_first(Unanswered(f"no connection was free for {self._timeout_s:g} s", sent=False))
        finally:
            self._looking = False
