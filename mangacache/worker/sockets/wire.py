"""The way out of one socket: written at once while the peer reads, kept in a bounded outbox while it does not.

A socket whose peer keeps up needs no task for writing: a frame goes to the transport, which hands it to the kernel.
Only when the transport holds more than `HIGH_BYTES` that the kernel would not take do frames wait, and a task for them,
which ends when they are gone. So the transport's own buffer is bounded by that and one frame.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from mangacache.tasks import TaskOwner
    from mangacache.worker.sockets.outbox import Outbox

HIGH_BYTES: Final = 65_536


class Transport(Protocol):
    """What is needed of an asyncio transport."""

    def write(self, data: bytes) -> None:
        """Send, or keep until it can be sent."""

    def get_write_buffer_size(self) -> int:
        """Return how many bytes are kept."""

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Set from how many bytes on whoever drains has to wait, and down to how many."""

    def is_closing(self) -> bool:
        """Tell whether nothing can be sent any more."""

    def abort(self) -> None:
        """End the connection, and drop what is kept."""


class Wire:
    """Sends frames to one socket.

    Args:
        transport: of the socket.
        drain: waits until the transport has room; raises `ConnectionError` where it is gone.
        outbox: what waits meanwhile.
        tasks: owner of the task that writes what waits.

    Attributes:
        outbox: as given.
        emptied: called when everything that waited has gone out.
        closed: nothing is sent any more.
    """

    __slots__ = (
        "_drain",
        "_progress_s",
        "_room",
        "_taken",
        "_tasks",
        "_transport",
        "_written",
        "closed",
        "emptied",
        "outbox",
    )

    def __init__(
        self,
        transport: Transport,
        drain: Callable[[], Awaitable[None]],
        *,
        outbox: Outbox,
        tasks: TaskOwner,
    ) -> None:
        transport.set_write_buffer_limits(high=HIGH_BYTES)
        self._transport = transport
        self._drain = drain
        self._tasks = tasks
        self._room: asyncio.Future[None] | None = None
        self._written = 0
        self._taken = 0
        self._progress_s: float | None = None
        self.outbox = outbox
        self.emptied: Callable[[], None] | None = None
        self.closed = False

    @property
    def left_bytes(self) -> int:
        """How many bytes the peer has yet to take, of which the kernel's are not known."""
        return self.outbox.waiting_bytes + (0 if self._transport.is_closing() else self._buffered)

    @property
    def _buffered(self) -> int:
        return self._transport.get_write_buffer_size()

    def send(self, frame: bytes) -> None:
        """Send an answer; it is never refused."""
        if self.closed or self._transport.is_closing():
            return
        if not self.outbox and self._buffered <= HIGH_BYTES:
            self._write(frame)
            return
        first = not self.outbox
        self.outbox.put(frame)
        if first:
            self._tasks.start(self._flush(), name="write to a slow socket")

    def offer(self, frame: bytes) -> bool:
        """Send news, unless as much waits already as may; tell whether it was taken."""
        if self.outbox.is_full:
            return False
        self.send(frame)
        return True

    async def room(self) -> None:
        """Wait until the outbox is not full, or the socket is gone: who does not read is not read either."""
        while self.outbox.is_full and not self.closed:
            if self._room is None:
                self._room = asyncio.get_running_loop().create_future()
            await asyncio.wait((self._room,))

    def stuck_s(self, now_s: float) -> float:
        """Return for how long the peer has taken nothing of what waits; to be asked at intervals."""
        taken = self._written - self._buffered
        if not self.left_bytes or taken > self._taken or self._progress_s is None:
            self._progress_s = now_s
        self._taken = taken
        return now_s - self._progress_s

    def close(self) -> None:
        """Send nothing more; what is in the transport goes on its way."""
        self.closed = True
        self.outbox.clear()
        self._make_room()

    def abort(self) -> None:
        """End the connection at once."""
        self.close()
        self._transport.abort()

    def _write(self, frame: bytes) -> None:
        self._written += len(frame)
        self._transport.write(frame)

    def _make_room(self) -> None:
        if self._room is not None:
            self._room.set_result(None)
            self._room = None

    async def _flush(self) -> None:
        while self.outbox and not self.closed:
            try:
                await self._drain()
            except ConnectionError:
                self.close()
                return
            if self._transport.is_closing():
                self.close()
                return
            for frame in self.outbox.taken():
                self._write(frame)
                if self._buffered > HIGH_BYTES:
                    break
            if not self.outbox.is_full:
                self._make_room()
        if not self.closed and self.emptied is not None:
            self.emptied()
