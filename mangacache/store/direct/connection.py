"""One connection to DynamoDB: a request out, its answer back, one at a time."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, cast

from mangacache.store.direct.answers import AnswerReader, Malformed
from mangacache.store.transport import Unanswered

if TYPE_CHECKING:
    from collections.abc import Callable

    from mangacache.store.direct.answers import Answer

_SAID: Final = 120


class Connection(asyncio.Protocol):
    """Speaks HTTP/1.1.

    An answer belongs to the future that its request was given. A caller who leaves has the connection ended where the
    answer is still to come: nobody else is ever asked to read it.

    Args:
        free: called with the connection each time that it can take another request.
        gone: called with it when it has ended.

    Attributes:
        usable: whether another request may be sent on it.
        ended: whether it was open once, and is no more.
        since_s: when the request under way was sent, or when the last one was answered, as the pool counts.
    """

    def __init__(self, *, free: Callable[[Connection], None], gone: Callable[[Connection], None]) -> None:
        self.usable = False
        self.ended = False
        self.since_s = 0.0
        self._free = free
        self._gone = gone
        self._reader = AnswerReader()
        self._transport: asyncio.Transport | None = None
        self._answer: asyncio.Future[Answer] | None = None
        self._why = ""

    @property
    def busy(self) -> bool:
        """Whether an answer is still to come."""
        return self._answer is not None

    def send(self, request: bytes, answer: asyncio.Future[Answer]) -> None:
        """Send a request; its outcome goes to `answer`.

        That is `Unanswered` where the connection ends first, whatever of the request has gone out: the bytes are out
        of our hands.
        """
        if self._transport is None or self._answer is not None or not self.usable:
            raise AssertionError("a request on a connection that cannot take one")
        self._answer = answer
        self._transport.write(request)

    def leave(self, answer: asyncio.Future[Answer]) -> None:
        """End the connection if `answer` is still to come; nobody asks for that answer any more."""
        if self._answer is answer:
            self.abort("its caller has left")

    def abort(self, why: str) -> None:
        """End it at once; whoever waits for an answer hears why."""
        self.usable = False
        self._why = self._why or why
        if self._transport is not None:
            self._transport.abort()

    # Called by the event loop

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.Protocol`."""
        self._transport = cast("asyncio.Transport", transport)
        self.usable = True

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        future = self._answer
        if future is None:
            self.abort("it spoke unasked")
            return
        try:
            answer = self._reader.feed(data)
        except Malformed as malformed:
            self.abort(f"what came is no answer: {malformed}")
            return
        if answer is None:
            return
        self._answer = None
        if not future.done():
            future.set_result(answer)
        if not answer.keep:
            self.abort("the server closes it")
        elif self.usable:
            self._free(self)

    def eof_received(self) -> None:
        """See `asyncio.Protocol`: the transport closes itself after it."""
        self.usable = False

    def connection_lost(self, error: Exception | None) -> None:
        """See `asyncio.Protocol`."""
        self.usable = False
        self.ended = True
        future, self._answer = self._answer, None
        if future is not None and not future.done():
            why = self._why or (f"{type(error).__name__}: {error}"[:_SAID] if error else "the server closed it")
            future.set_exception(Unanswered(f"the connection ended before the answer: {why}"))
        self._gone(self)
