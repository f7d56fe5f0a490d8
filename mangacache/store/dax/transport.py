"""The adapter: DAX's client, which blocks, behind the coroutine that every transport is."""

from __future__ import annotations

import asyncio
import os
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from mangacache.errors import Closed
from mangacache.store.dax.failures import failure_of
from mangacache.store.transport import Unanswered, method_of
from mangacache.tasks import TaskOwner

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from mangacache.clock import Clock
    from mangacache.store.dax.threads import Threads

_CLOSING_S: Final = 10.0
"""How long calls and the client may take to end: a node that sends a byte now and then keeps a call for ever."""


class Stalled(Unanswered):
    """No answer within the time a call may take: it cost its caller all of it."""


class DaxTransport:
    """One request to DAX and back; see `store.Transport`. It never tries again.

    The client is made at the first request, in a thread and after any fork: its start waits for the cluster. While
    it is being made requests wait, within their own time; when that has failed, the next request begins anew.

    Args:
        connect: makes the client; called in a thread.
        threads: that its calls block.
        clock: for deadlines.
        timeout_s: of one call, waiting for the client included.
    """

    def __init__(self, connect: Callable[[], Any], *, threads: Threads, clock: Clock, timeout_s: float) -> None:
        self._connect = connect
        self._threads = threads
        self._clock = clock
        self._timeout_s = timeout_s
        self._client: Any = None
        self._calls: dict[str, Any] = {}
        self._tasks = TaskOwner(on_failure=lambda _name, _error: None)
        self._connecting: asyncio.Task[Any] | None = None
        self._process_id = os.getpid()
        self._closed = False

    def __repr__(self) -> str:
        state = "closed" if self._closed else "connected" if self._client is not None else "not connected"
        return f"<DaxTransport {state}, {self._threads}>"

    async def request(self, operation: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
        """Send one request; see `Transport`.

        Raises:
            Rejected: too many calls are under way; nothing was done.
            Stalled: there was no answer in time.
        """
        if self._closed or self._process_id != os.getpid():
            raise Closed("this way to DAX is closed, or belongs to the process that this one was forked from")
        try:
            call = self._calls.get(operation)
            if call is None:
                async with self._clock.timeout(self._timeout_s):
                    call = self._calls[operation] = getattr(await self.connected(), method_of(operation))
            answer: dict[str, Any] = await self._threads.run(partial(call, **parameters))
        except TimeoutError as error:
            raise Stalled(f"DAX gave no answer to {operation} within {self._timeout_s:g} s") from error
        except Exception as error:
            failure = failure_of(operation, error)
            if failure is error:
                raise
            raise failure from error
        return answer

    async def connected(self) -> Any:
        """Return the client, made if there is none yet; whoever leaves meanwhile leaves it to the others.

        Raises:
            Invalid: the configuration cannot do.
            Unanswered: the cluster cannot be reached.
        """
        if self._client is not None:
            return self._client
        task = self._connecting
        if task is None or task.done():  # one that has failed stands for its own time only
            task = self._connecting = self._tasks.start(self._make_client(), name="connect to DAX", awaited=True)
        await asyncio.wait((task,))
        return task.result()

    async def _make_client(self) -> Any:
        self._client = await self._threads.run(self._connected_in_time, patient=True)
        return self._client

    def _connected_in_time(self) -> Any:
        """Make the client, in a thread; one that is there only after the end is closed again: it has threads too."""
        client = self._connect()
        if self._closed:
            client.close()
            raise Closed("this way to DAX was closed while its client was made")
        return client

    async def close(self) -> None:
        """Let calls that run end, and then the client's own threads; nobody is kept waiting for long."""
        self._closed = True
        try:
            async with self._clock.timeout(_CLOSING_S):
                await self._tasks.settle()
                if self._client is not None:
                    await self._threads.drained()
                    await self._threads.run(self._client.close, patient=True)
                await self._threads.close()
        except TimeoutError:
            await self._threads.abandon()
        finally:
            self._client = None
            self._calls.clear()


class AioDaxTransport:
    """Drives a DAX client with coroutine methods, as `mangacache.testing.MemoryDax` has one; no threads are needed.

    Args:
        client: with `get_item` and the like.
        clock: for the deadline of a call.
        timeout_s: of one call.
    """

    def __init__(self, client: Any, *, clock: Clock, timeout_s: float) -> None:
        self._client = client
        self._clock = clock
        self._timeout_s = timeout_s

    async def request(self, operation: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
        """Send one request; see `Transport`."""
        try:
            async with self._clock.timeout(self._timeout_s):
                answer: dict[str, Any] = await getattr(self._client, method_of(operation))(**parameters)
        except TimeoutError as error:
            raise Stalled(f"DAX gave no answer to {operation} within {self._timeout_s:g} s") from error
        except Exception as error:
            raise failure_of(operation, error) from error
        return answer
