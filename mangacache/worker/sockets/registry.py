"""All sockets of one worker: how many there may be, who has fallen silent, and the end of them all."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, TypeAlias

from aiohttp import web

from mangacache.clock import SystemClock, system_random
from mangacache.errors import Closed, Invalid, Rejected
from mangacache.tasks import TaskOwner
from mangacache.worker.sockets.answers import draining
from mangacache.worker.sockets.closing import Code
from mangacache.worker.sockets.connection import Connection
from mangacache.worker.sockets.frames import frame
from mangacache.worker.sockets.means import Means
from mangacache.worker.sockets.outbox import Outbox
from mangacache.worker.sockets.rooms import Rooms
from mangacache.worker.sockets.upkeep import Upkeep
from mangacache.worker.sockets.wire import Wire

if TYPE_CHECKING:
    from collections.abc import Callable

    from mangacache import MangaCache, Settings
    from mangacache.clock import Clock, Random
    from mangacache.worker.sockets.admission import Admission

Admits: TypeAlias = "Callable[[web.Request], Admission]"

LOOK_EVERY_S: Final = 1.0
SILENT_AFTER: Final = 2.5
"""Heartbeats without a sign of life, after which a peer counts as gone."""
RECONNECT_WITHIN_S: Final = 5.0
"""Over so long those spread their return who are told that the worker leaves."""
_CLOSE_WITHIN_S: Final = 2.0
_AT_ONCE: Final = 256


def verdict(connection: Connection, *, now_s: float, time_s: float, limits: Settings) -> tuple[Code, str] | None:
    """Return how a socket is ended that has gone past a limit; None where it may stay."""
    if connection.wire.stuck_s(now_s) > limits.worker_socket_stall_s:
        return Code.TRY_LATER, "what is sent is not read"
    if not connection.opened and now_s - connection.began_s > limits.worker_socket_open_s:
        return Code.SILENT, "the first message, `open`, did not come in time"
    if not connection.busy and now_s - connection.heard_at_s > SILENT_AFTER * limits.worker_socket_heartbeat_s:
        return Code.SILENT, "no heartbeat"
    if time_s >= connection.until_s:
        return Code.UNAUTHENTICATED, "the credential's time is over: connect again with a new one"
    if not connection.stands():
        return Code.UNAUTHENTICATED, "the credential is good no longer"
    return None


class Sockets:
    """The sockets of one worker.

    Args:
        cache: the instance.
        admit: makes the admission of a request for an upgrade; raises where the request itself is refused.
        settings: the limits.
        clock, random: time and randomness.
    """

    def __init__(
        self,
        cache: MangaCache,
        *,
        admit: Admits,
        settings: Settings,
        clock: Clock | None = None,
        random: Random | None = None,
    ) -> None:
        self._admit = admit
        self._limits = settings
        self._clock = clock = clock if clock is not None else SystemClock()
        self._random = random if random is not None else system_random()
        self._tasks = TaskOwner(on_failure=cache.telemetry.count_survived)
        self._means = Means(
            cache=cache,
            rooms=Rooms(cache, clock=clock),
            upkeep=Upkeep(cache),
            clock=clock,
            random=self._random,
            tasks=self._tasks,
            heartbeat_s=settings.worker_socket_heartbeat_s,
        )
        self._connections: dict[Connection, None] = {}
        self._coming = 0
        self._looking: asyncio.Task[None] | None = None
        self._looked_at_s = float("-inf")
        self._changed = asyncio.Event()
        self._draining = False

    def __len__(self) -> int:
        return len(self._connections)

    def __repr__(self) -> str:
        return f"<Sockets {len(self)} open, {len(self._means.rooms)} sessions{', draining' if self._draining else ''}>"

    async def handle(self, request: web.Request) -> web.WebSocketResponse:
        """Serve one socket, from the request for the upgrade to its end.

        Raises:
            Invalid: the request has a query.
            Closed: the worker is leaving.
            Rejected: it has as many sockets as it may.
        """
        if request.query_string:
            raise Invalid(
                "a socket's address takes no query: say everything in the first message. A credential in an address"
                " stands in the logs of everybody who passes it on"
            )
        if self._is_draining():
            raise Closed("this worker is leaving: connect again")
        if len(self._connections) + self._coming >= self._limits.worker_sockets:
            raise Rejected(f"this worker has {self._limits.worker_sockets} sockets already (worker_sockets)")
        admission = self._admit(request)
        ws = web.WebSocketResponse(
            timeout=_CLOSE_WITHIN_S,
            autoping=False,
            compress=False,
            max_msg_size=self._limits.worker_socket_message_bytes,
        )
        self._coming += 1
        try:
            await ws.prepare(request)
        finally:
            self._coming -= 1
        connection = self._connection(ws, request, admission)
        self._connections[connection] = None
        try:
            self._look_after()
            if self._is_draining():
                connection.end(Code.LEAVING, "this worker is leaving: connect again")
            await connection.serve()
        finally:
            del self._connections[connection]
            self._changed.set()
        return ws

    def _connection(self, ws: web.WebSocketResponse, request: web.Request, admission: Admission) -> Connection:
        transport = request.transport
        if transport is None:
            raise ConnectionResetError("the peer has gone")
        outbox = Outbox(most_frames=self._limits.worker_socket_queue, most_bytes=self._limits.worker_socket_queue_bytes)
        wire = Wire(transport, request.writer.drain, outbox=outbox, tasks=self._tasks)
        host, port = (*(transport.get_extra_info("sockname") or ()), "", 0)[:2]
        return Connection(ws, wire, admission=admission, endpoint=f"{host}:{port}", means=self._means)

    def _is_draining(self) -> bool:
        return self._draining

    # Looking after them

    def _look_after(self) -> None:
        if self._looking is None or self._looking.done():
            self._looking = self._tasks.start(self._look(), name="look after the sockets")

    async def _look(self) -> None:
        while self._connections:
            await self._clock.sleep(LOOK_EVERY_S)
            await self.look()

    async def look(self) -> None:
        """End the sockets that have gone past a limit, and keep alive what belongs to the others."""
        now_s, since_s = self._clock.monotonic_s(), self._looked_at_s
        self._looked_at_s = now_s
        connections = tuple(self._connections)
        for begin in range(0, len(connections), _AT_ONCE):
            part = connections[begin : begin + _AT_ONCE]
            for connection in part:
                self._judge(connection, now_s)
            heard = [each for each in part if each.opened and not each.gone and each.heard_at_s >= since_s]
            await self._means.upkeep.refresh(heard, now_s)
            await self._clock.sleep(0)
        self._means.upkeep.forget(now_s)

    def _judge(self, connection: Connection, now_s: float) -> None:
        found = verdict(connection, now_s=now_s, time_s=self._clock.time_s(), limits=self._limits)
        if found is None:
            return
        if connection.is_leaving() and found[0] == Code.TRY_LATER:
            connection.abort()
        connection.end(*found)

    # The end

    async def drain(self, within_s: float) -> None:
        """Tell every client to connect elsewhere, answer what is under way, and close; in time, whatever hangs.

        Args:
            within_s: after so long, who has not gone is cut off.
        """
        self._draining = True
        until_s = self._clock.monotonic_s() + within_s
        for connection in tuple(self._connections):
            if connection.opened:
                connection.wire.send(frame(draining(self._random.random() * RECONNECT_WITHIN_S)))
            connection.end(Code.LEAVING, "this worker is leaving: connect again")
        while self._connections and (left_s := until_s - self._clock.monotonic_s()) > 0:
            self._changed.clear()
            try:
                async with self._clock.timeout(left_s):
                    await self._changed.wait()
            except TimeoutError:
                break
        for connection in tuple(self._connections):
            connection.abort()

    async def close(self) -> None:
        """End what is left; after the drain, and before the instance is closed."""
        self._draining = True
        for connection in tuple(self._connections):
            connection.abort()
        await self._means.rooms.close()
        await self._tasks.cancel()
