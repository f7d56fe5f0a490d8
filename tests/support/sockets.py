"""Workers' sockets in the process of a test, on one table and one Redis, and clients that say what they heard."""

from __future__ import annotations

import asyncio
import base64
import json
import socket
import struct
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import aiohttp
from aiohttp import web
from mangatest import HANG_GUARD_S
from yarl import URL

from mangacache import MangaCache, Settings
from mangacache.clock import SystemClock, system_random
from mangacache.store import Store
from mangacache.store.transport import AioTransport
from mangacache.telemetry import Telemetry
from mangacache.testing import MemoryDynamoDB
from mangacache.worker.sockets.admission import Admitted
from mangacache.worker.sockets.registry import Sockets

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

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
        self.port = URL(url).port

    @property
    def rooms(self) -> Any:
        return self.sockets._means.rooms


@asynccontextmanager
async def worker(
    database: MemoryDynamoDB,
    *,
    redis_port: int | None,
    admit: Callable[[web.Request], Any] = anybody,
    clock: Any = None,
    wrap: Callable[[Any], Any] = lambda transport: transport,
    **changes: Any,
) -> AsyncIterator[Worker]:
    """Serve sockets; `redis_port` None: without Redis."""
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
        opening = MangaCache.open(settings, transport=wrap(AioTransport(database.client())))
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


async def eventually(condition: Callable[[], Any]) -> Any:
    """Wait until something holds that is not told by a message."""
    async with asyncio.timeout(HANG_GUARD_S):
        while not (found := condition()):  # noqa: ASYNC110 - nothing tells of it
            await asyncio.sleep(0.005)
    return found


def some_id() -> str:
    return f"s-{uuid4().hex[:12]}"


class MovedClock(SystemClock):
    """A clock whose deadlines can be moved on."""

    def __init__(self) -> None:
        self.by_s = 0.0

    def monotonic_s(self) -> float:
        return super().monotonic_s() + self.by_s

    def time_s(self) -> float:
        return super().time_s() + self.by_s


class Held:
    """A transport that keeps one kind of request waiting for as long as a test wants.

    Args:
        inner: what the requests go on to.
        operation: the kind.
    """

    def __init__(self, inner: Any, operation: str) -> None:
        self._inner = inner
        self._operation = operation
        self._open = asyncio.Event()
        self._open.set()
        self.waiting = asyncio.Event()

    def hold(self) -> None:
        self._open.clear()

    def release(self) -> None:
        self._open.set()

    async def request(self, operation: str, parameters: Any) -> Any:
        if operation == self._operation and not self._open.is_set():
            self.waiting.set()
            await self._open.wait()
        return await self._inner.request(operation, parameters)


async def made_table() -> MemoryDynamoDB:
    """Return a database that has the table."""
    database = MemoryDynamoDB()
    settings = Settings(table_name="chats")
    transport = AioTransport(database.client())
    store = Store(transport, settings=settings, clock=SystemClock(), random=system_random(), telemetry=Telemetry())
    await store.schema.create()
    return database


def check_told(client: Client, upto: int) -> None:
    """Hold what a client heard: each turn of others once, in order, none left out but in a gap that was told."""
    own = {turn["number"] for said in client.of("appended") for turn in said["turns"]}
    numbers = client.numbers
    assert numbers == sorted(set(numbers)), f"not in order, or twice: {numbers}"
    gaps = {
        number for said in client.of("gap") if not said["waits"] for number in range(said["first"], said["last"] + 1)
    }
    ready = int(client.of("ready")[0]["version"].split(".")[1], 16)
    missing = set(range(ready + 1, upto + 1)) - own - set(numbers) - gaps
    assert not missing, f"neither told nor in a gap: {sorted(missing)}"
    assert not own & set(numbers), "its own turns were told to it"


class RawClient:
    """A client that speaks the protocol byte by byte: it may send what no library would, and read when it likes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def shake_hands(self, path: str = "/v1/ws", *, headers: str = "") -> bytes:
        """Ask for the upgrade and return the answer's head."""
        request = (
            f"GET {path} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: {base64.b64encode(bytes(16)).decode()}\r\nSec-WebSocket-Version: 13\r\n{headers}\r\n"
        )
        self.writer.write(request.encode())
        return await self.reader.readuntil(b"\r\n\r\n")

    def frame(
        self, payload: bytes, *, first: int = 0x81, mask: bytes | None = b"mask", length: int | None = None
    ) -> bytes:
        """Return a frame, maybe one that lies about itself."""
        size = len(payload) if length is None else length
        bit = 0x80 if mask is not None else 0
        if size < 126:
            head = bytes([first, bit | size])
        elif size < 65_536:
            head = struct.pack("!BBH", first, bit | 126, size)
        else:
            head = struct.pack("!BBQ", first, bit | 127, size)
        if mask is None:
            return head + payload
        return head + mask + bytes(byte ^ mask[place % 4] for place, byte in enumerate(payload))

    def say(self, message: dict[str, Any] | str) -> None:
        text = message if isinstance(message, str) else json.dumps(message)
        self.writer.write(self.frame(text.encode()))

    async def hear(self) -> dict[str, Any] | int:
        """Return the next message, or the code of the close frame."""
        first, length = await self.reader.readexactly(2)
        if length == 126:
            length = int.from_bytes(await self.reader.readexactly(2), "big")
        elif length == 127:
            length = int.from_bytes(await self.reader.readexactly(8), "big")
        payload = await self.reader.readexactly(length)
        if first == 0x88:
            return int.from_bytes(payload[:2], "big")
        if first == 0x8A:
            return {"type": "PONG", "payload": payload}
        assert first == 0x81
        said: dict[str, Any] = json.loads(payload)
        return said

    async def end(self) -> int | None:
        """Read until the server ends it, and return the code of its close frame, None where there was none."""
        try:
            async with asyncio.timeout(HANG_GUARD_S):
                while not isinstance(said := await self.hear(), int):
                    pass
        except (asyncio.IncompleteReadError, ConnectionError):
            return None
        return said

    @property
    def port(self) -> int:
        port: int = self.writer.get_extra_info("sockname")[1]
        return port


@asynccontextmanager
async def raw(worker: Worker, *, receive_bytes: int | None = None) -> AsyncIterator[RawClient]:
    """Connect, and say nothing."""
    sock = socket.socket()
    if receive_bytes is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
    sock.setblocking(False)
    await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", worker.port))
    reader, writer = await asyncio.open_connection(sock=sock)
    try:
        yield RawClient(reader, writer)
    finally:
        writer.transport.abort()


def connection_of(worker: Worker, client: RawClient) -> Any:
    """Return the server's side of a client."""
    found = [
        each for each in worker.sockets._connections if each._ws.get_extra_info("peername", ("", 0))[1] == client.port
    ]
    return found[0]
