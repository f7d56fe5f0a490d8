"""One connection of a client: requests in, replies out, one at a time and in order.

What can be answered from a cache is answered at once, in the very call that brought the bytes. All else becomes a
task, which ends what it has begun also when the client is gone: a write that DynamoDB has done changes the caches.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final, cast

from mangacache.local.dax.failures import reply_failure, unauthorized
from mangacache.local.dax.limits import Malformed
from mangacache.local.dax.reader import Prelude, Reader
from mangacache.local.dax.requests import AuthorizeConnection

if TYPE_CHECKING:
    from mangacache.local.dax.answering import Reply
    from mangacache.local.dax.requests import Request
    from mangacache.local.dax.server import NodeServer
    from mangacache.testing.dax.door import Ask

_AT_ONCE: Final = 32
"""Requests answered in a row before others get their turn."""
_AHEAD_BYTES: Final = 1_048_576
"""What is read ahead of the request under way."""
_UNWRITTEN_BYTES: Final = 1_048_576
"""Replies that wait for a slow reader; with more, nothing is answered until they are gone."""
STALLED_S: Final = 60.0
"""How long a reader that takes nothing is waited for."""


class Connection(asyncio.Protocol):
    """Speaks DAX's protocol.

    Args:
        server: of the node that was connected to.
    """

    def __init__(self, server: NodeServer) -> None:
        self._server = server
        self._reader = Reader()
        self._transport: asyncio.Transport | None = None
        self._complaint = server.first_complaint
        self._busy = False
        self._full = False
        self._held = False
        self._stall: asyncio.Task[None] | None = None

    @property
    def transport(self) -> asyncio.Transport:
        """The open connection."""
        if self._transport is None:
            raise AssertionError("not connected yet")
        return self._transport

    @property
    def stalled(self) -> bool:
        """Whether its reader is behind: nothing is answered meanwhile."""
        return self._full

    @property
    def held_bytes(self) -> int:
        """What it holds: replies that are not taken yet, and requests not answered."""
        return self.transport.get_write_buffer_size() + self._reader.buffered

    def abort(self, reason: str | None = None) -> None:
        """End it at once; with a reason, it is logged and counted."""
        if self.transport.is_closing():
            return
        if reason is not None:
            self._server.refused(reason, self.transport.get_extra_info("peername"))
        self.transport.abort()

    # Called by the event loop

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.Protocol`."""
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(high=_UNWRITTEN_BYTES)
        self._server.opened(self)

    def connection_lost(self, _error: Exception | None) -> None:
        """See `asyncio.Protocol`."""
        if self._reader.buffered and not self._busy:
            self._server.cut_off += 1
        self._end_stall()
        self._server.closed(self)

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        self._reader.feed(data)
        if self._busy or self._full:
            if self._reader.buffered > _AHEAD_BYTES and not self._held:
                self._held = True
                self.transport.pause_reading()
            return
        self._advance()

    def pause_writing(self) -> None:
        """See `asyncio.Protocol`: a reader that is slow."""
        self._full = True
        self._stall = self._server.tasks.start(self._watch(), name="end a DAX connection that takes nothing")

    def resume_writing(self) -> None:
        """See `asyncio.Protocol`."""
        self._full = False
        self._end_stall()
        self._advance()

    async def _watch(self) -> None:
        await self._server.clock.sleep(STALLED_S)
        self.abort(f"it has taken nothing for {STALLED_S:.0f} s")

    def _end_stall(self) -> None:
        """Watch no more: else each large reply would leave a task behind for a minute."""
        if self._stall is not None:
            self._stall.cancel()
            self._stall = None

    # Requests

    def _advance(self) -> None:
        """Answer what has come, until something has to be waited for."""
        for _ in range(_AT_ONCE):
            if self._busy or self._full or self.transport.is_closing():
                return
            try:
                request = self._reader.next()
            except Malformed as malformed:
                self.abort(str(malformed))
                return
            if request is None:
                break
            if not isinstance(request, Prelude):
                self._take(request)
        else:
            self._server.loop.call_soon(self._advance)
            return
        if self._held and not self.transport.is_closing():
            self._held = False
            self.transport.resume_reading()

    def _take(self, request: Request) -> None:
        if isinstance(request, AuthorizeConnection):
            self._complaint = self._server.complaint(request)
            return
        if self._complaint is not None:
            self.transport.write(reply_failure(unauthorized(self._complaint)))
            return
        steps = self._server.answer(request, self.transport)
        try:
            ask = next(steps)
        except StopIteration as end:
            self._reply(request, end.value)
            return
        self._busy = True
        self._server.tasks.start(self._work(request, steps, ask), name=f"dax {type(request).__name__}")

    async def _work(self, request: Request, steps: Reply, ask: Ask) -> None:
        """Ask DynamoDB until there is a reply."""
        upstream = self._server.upstream
        while True:
            answer: dict[str, Any] | None = None
            error: Exception | None = None
            try:
                answer = await upstream.ask(ask.operation, ask.parameters)
            except Exception as failed:  # noqa: BLE001 - whatever it is, the generator decides about it
                error = failed
            try:
                ask = steps.throw(error) if error is not None else steps.send(cast("dict[str, Any]", answer))
            except StopIteration as end:
                reply: bytes = end.value
                break
        self._busy = False
        self._reply(request, reply)
        self._advance()

    def _reply(self, request: Request, reply: bytes) -> None:
        if self.transport.is_closing():
            return
        if self._server.loses_reply(request):
            self.abort()
            return
        delay_s = self._server.delay_s
        if delay_s > 0:
            self._busy = True
            self._server.tasks.start(self._reply_late(reply, delay_s), name="a DAX reply that is held back")
        else:
            self.transport.write(reply)

    async def _reply_late(self, reply: bytes, delay_s: float) -> None:
        await self._server.wait(delay_s)
        self._busy = False
        if not self.transport.is_closing():
            self.transport.write(reply)
            self._advance()
