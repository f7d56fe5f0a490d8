"""One connection through a proxy: two ends, and what goes between them either way."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections import deque
from typing import TYPE_CHECKING, Final, cast

if TYPE_CHECKING:
    from collections.abc import Callable

    from mangacache.clock import Clock
    from mangacache.tasks import TaskOwner
    from mangacache.testing.proxy.ways import Way

_MOST_WAITING: Final = 2**20
_PIECE: Final = 2**14


class Connection:
    """A client's connection, and the one that was opened to the server for it.

    Args:
        up, down: what befalls what goes to the server, and what comes from it.
        heard: is given each piece with whether it goes up, and says whether it may go on.
        ended: is called once, when both ends are gone.
        clock, tasks: for what takes time.

    Attributes:
        marks: words of the proxy's that were said on it.
        damaged: whether bytes of it were lost, so that it cannot go on.
    """

    def __init__(
        self,
        up: Way,
        down: Way,
        *,
        heard: Callable[[Connection, bytes, bool], bool],
        ended: Callable[[Connection], None],
        clock: Clock,
        tasks: TaskOwner,
    ) -> None:
        self.marks: set[str] = set()
        self.damaged = False
        self._heard = heard
        self._ended = ended
        self._near = End(self, up=True)
        self._far = End(self, up=False)
        self._up = _Flow(self, up, self._near, self._far, clock=clock, tasks=tasks)
        self._down = _Flow(self, down, self._far, self._near, clock=clock, tasks=tasks)
        self._over = False

    @property
    def near(self) -> End:
        """The client's end."""
        return self._near

    @property
    def far(self) -> End:
        """The server's end."""
        return self._far

    def take(self, data: bytes, *, up: bool) -> None:
        """Take in what one end has said."""
        if self._over or not self._heard(self, data, up):
            return
        flow = self._up if up else self._down
        flow.take(data)

    def close(self, *, up: bool) -> None:
        """Hear that one end is gone: the other one is closed when all has arrived that was said."""
        (self._up if up else self._down).end()
        if self._near.gone and self._far.gone:
            self._finish()

    def pause(self, *, up: bool, paused: bool) -> None:
        """Have one end be read no further for the time, or again."""
        (self._near if up else self._far).pause(paused=paused)

    def reset(self) -> None:
        """Break both ends, at once."""
        self._over = True
        self._near.reset()
        self._far.reset()
        self._finish()

    def _finish(self) -> None:
        self._over = True
        ended, self._ended = self._ended, _nothing
        ended(self)


def _nothing(_connection: Connection) -> None:
    """Do nothing: the end has been told of already."""


def _nothing_yet() -> None:
    """Do nothing: nobody wants to know."""


class End(asyncio.Protocol):
    """One end of a connection.

    Attributes:
        gone: whether it has been closed or broken.
        made: called when it stands.
    """

    def __init__(self, connection: Connection, *, up: bool) -> None:
        self._connection = connection
        self._is_near = up
        self._transport: asyncio.Transport | None = None
        self._paused = 0
        self.gone = False
        self.made: Callable[[], object] = _nothing_yet

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.Protocol`."""
        self._transport = cast("asyncio.Transport", transport)
        if self._paused:
            self._transport.pause_reading()
        self.made()

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        self._connection.take(data, up=self._is_near)

    def connection_lost(self, exc: Exception | None) -> None:
        """See `asyncio.Protocol`."""
        del exc
        self.gone = True
        self._connection.close(up=self._is_near)

    def pause_writing(self) -> None:
        """See `asyncio.Protocol`: who does not read fast enough is said no more to for the time."""
        self._connection.pause(up=not self._is_near, paused=True)

    def resume_writing(self) -> None:
        """See `asyncio.Protocol`."""
        self._connection.pause(up=not self._is_near, paused=False)

    def pause(self, *, paused: bool) -> None:
        """Read no further, or again; as often again as it was paused."""
        self._paused += 1 if paused else -1
        if self._transport is None or self._transport.is_closing():
            return
        if self._paused:
            self._transport.pause_reading()
        else:
            self._transport.resume_reading()

    def write(self, data: bytes) -> None:
        """Say something to this end."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    def close(self) -> None:
        """Close it when all is written."""
        if self._transport is not None:
            self._transport.close()

    def reset(self) -> None:
        """Break it; the other side's system says `connection reset by peer`."""
        if self._transport is None or self.gone:
            return
        with contextlib.suppress(OSError):
            raw = self._transport.get_extra_info("socket")
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._transport.abort()


class _Flow:
    """What goes one way on one connection: straight on, or by a task as long as something holds it up."""

    def __init__(
        self, connection: Connection, way: Way, source: End, sink: End, *, clock: Clock, tasks: TaskOwner
    ) -> None:
        self._connection = connection
        self._way = way
        self._source = source
        self._sink = sink
        self._clock = clock
        self._tasks = tasks
        self._waiting: deque[tuple[float, bytes]] = deque()
        self._size = 0
        self._pumps = False
        self._full = False
        self._ends = False

    def take(self, data: bytes) -> None:
        way = self._way
        if way.silent:
            self._connection.damaged = True
            return
        if not self._pumps and way.plain:
            self._sink.write(data)
            return
        due_s = self._clock.monotonic_s() + way.takes_s()
        for start in range(0, len(data), _PIECE):
            self._waiting.append((due_s, data[start : start + _PIECE]))
        self._size += len(data)
        if self._size > _MOST_WAITING and not self._full:
            self._full = True
            self._source.pause(paused=True)
        if not self._pumps:
            self._pumps = True
            self._tasks.start(self._pump(), name="pass on what is held up")

    def end(self) -> None:
        self._ends = True
        if not self._pumps:
            self._sink.close()

    async def _pump(self) -> None:
        while self._waiting:
            due_s, data = self._waiting[0]
            if (left_s := due_s - self._clock.monotonic_s()) > 0:
                await self._clock.sleep(left_s)
            await self._way.flowing()
            if (pace_s := self._way.pace_s(len(data))) > 0:
                await self._clock.sleep(pace_s)
            self._waiting.popleft()
            self._size -= len(data)
            if self._way.silent:
                self._connection.damaged = True
            else:
                self._sink.write(data)
            if self._full and self._size <= _MOST_WAITING // 2:
                self._full = False
                self._source.pause(paused=False)
        self._pumps = False
        if self._ends:
            self._sink.close()
