"""Workers' sockets in the process of a test, on one table and one Redis, and clients that say what they heard."""

from __future__ import annotations

import asyncio
import json
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import aiohttp
from aiohttp import web
from mangatest import HANG_GUARD_S

from mangacache import MangaCache, Settings
from mangacache.worker.sockets.admission import Admitted
from mangacache.worker.sockets.registry import Sockets

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from mangacache.testing import MemoryDynamoDB

PATIENT_S = 10.0
"""A machine that is busy with other tests is no outage."""


def anybody(request: web.Request) -> OpenAdmission:
    del request
    return OpenAdmission()


class OpenAdmission:
    """Lets everybody in, for the customer he says."""

    async def admitted(self, credential: str | None, customer_id: str | None) -> Admitted:
        del credential
        return Admitted(customer_id, lambda: None)


class Worker:
    """A worker's cache and sockets, and where they are."""

    def __init__(self, cache: MangaCache, sockets: Sockets, url: str) -> None:
        self.cache = cache
        self.sockets = sockets
        self.url = url

    @property
    def rooms(self) -> Any:
        return self.sockets._means.rooms


@asynccontextmanager
async def worker(
    database: MemoryDynamoDB,
    *,
    redis_port: int | None,
    admit: Callable[[web.Request], Any] = anybody,
    cache: MangaCache | None = None,
    clock: Any = None,
    **changes: Any,
) -> AsyncIterator[Worker]:
    """Serve sockets; `redis_port` None: without Redis."""
    from mangacache.store.transport import AioTransport

    settings = Settings(
        redis_endpoint=f"redis://127.0.0.1:{redis_port}" if redis_port is not None else None,
        **{
            "table_name": "chats",
            "redis_timeout_s": PATIENT_S,
            "connect_timeout_s": PATIENT_S,
            "loop_lag_limit_s": 60.0,
            "retry_base_s": 0.001,
        }
        | changes,
    )
    async with AsyncExitStack() as stack:
        if cache is None:
            opening = MangaCache.open(settings, transport=AioTransport(database.client()))
            cache = await stack.enter_async_context(opening)
        sockets = Sockets(cache, admit=admit, settings=settings, clock=clock)
        app = web.Application()
        app.router.add_get("/v1/ws", sockets.handle)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        host, port = runner.addresses[0][:2]
        try:
            yield Worker(cache, sockets, f"http://{host}:{port}/v1/ws")
        finally:
            await sockets.close()
            await runner.cleanup()


class Client:
    """One socket's client: what it heard, in order."""

    def __init__(self, ws: aiohttp.ClientWebSocketResponse) -> None:
        self.ws = ws
        self.heard: list[dict[str, Any]] = []
        self.closed: int | None = None
        self._news = asyncio.Event()
        self._task = asyncio.create_task(self._listen())
        self._ids = iter(range(1, 10**9))

    async def _listen(self) -> None:
        while True:
            message = await self.ws.receive()
            if message.type != aiohttp.WSMsgType.TEXT:
                self.closed = self.ws.close_code
                self._news.set()
                return
            self.heard.append(json.loads(message.data))
            self._news.set()

    async def say(self, message: dict[str, Any] | str) -> None:
        await self.ws.send_str(message if isinstance(message, str) else json.dumps(message))

    async def until(self, condition: Callable[[Client], Any]) -> Any:
        """Wait until something holds of what was heard, and return it."""
        async with asyncio.timeout(HANG_GUARD_S):
            while not (found := condition(self)):
                if self.closed is not None:
                    raise AssertionError(f"closed with {self.closed} before that: {self.heard[-5:]}")
                self._news.clear()
                await self._news.wait()
        return found

    async def end(self) -> int:
        """Wait until the server has closed it, and return the code."""
        async with asyncio.timeout(HANG_GUARD_S):
            await self._task
        assert self.closed is not None
        return self.closed

    async def ask(self, message: dict[str, Any]) -> dict[str, Any]:
        """Say something that has an answer, and return that."""
        message_id = message.setdefault("id", next(self._ids))
        await self.say(message)
        return await self.until(lambda self: next((said for said in self.heard if said.get("id") == message_id), None))

    async def append(self, content: str, **more: Any) -> dict[str, Any]:
        return await self.ask({"type": "append", "role": "user", "content": content} | more)

    def of(self, *kinds: str) -> list[dict[str, Any]]:
        return [said for said in self.heard if said["type"] in kinds]

    @property
    def numbers(self) -> list[int]:
        """The numbers of the turns it was told of."""
        return [said["number"] for said in self.of("turn")]

    async def close(self) -> None:
        with suppress(ConnectionError):
            await self.ws.close()
        self._task.cancel()
        await asyncio.wait((self._task,))


@asynccontextmanager
async def connected(url: str, **more: Any) -> AsyncIterator[Client]:
    """Connect, and say nothing yet."""
    async with aiohttp.ClientSession() as http, http.ws_connect(url, **more) as ws:
        client = Client(ws)
        try:
            yield client
        finally:
            await client.close()


@asynccontextmanager
async def opened(worker: Worker, session_id: str, **more: Any) -> AsyncIterator[Client]:
    """Connect and open a session."""
    async with connected(worker.url) as client:
        await client.say({"type": "open", "session_id": session_id} | more)
        await client.until(lambda client: client.of("ready"))
        yield client


def some_id() -> str:
    return f"s-{uuid4().hex[:12]}"
