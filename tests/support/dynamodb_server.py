"""A DynamoDB that does to each request what a plan says, in front of an engine or with answers of its own.

It reads whole requests and keeps what it read, so that a test can count what reached it. What goes wrong is a `Fault`:
a function that is given the exchange and decides what happens to it.
"""

from __future__ import annotations

import asyncio
import json
import random
import socket
import struct
import zlib
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

_JSON = "application/x-amz-json-1.0"
_TYPE = "com.amazonaws.dynamodb.v20120810#"
_HEAD_LIMIT = 2**20
LATE_S = 2.0
"""The most that a fault waits for a client to lose patience."""


@dataclass(frozen=True)
class Received:
    """A request that came whole.

    Attributes:
        connection: which of the server's connections it came on, counted from 1.
    """

    operation: str
    headers: dict[str, str]
    body: bytes
    connection: int

    @property
    def parameters(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.body)
        return found

    @property
    def access_key(self) -> str:
        """Whose signature it carries."""
        return self.headers.get("authorization", "").partition("Credential=")[2].partition("/")[0]


class Answer(NamedTuple):
    status: int
    body: bytes

    @classmethod
    def of(cls, value: Any, status: int = 200) -> Answer:
        return cls(status, json.dumps(value, separators=(",", ":")).encode())

    @classmethod
    def error(cls, code: str, *, status: int = 400, prefix: str = _TYPE, **more: Any) -> Answer:
        return cls.of({"__type": prefix + code, "message": f"{code}, for the test", **more}, status)

    def head(self, **changes: str) -> bytes:
        """Return the head as the service writes it; a change of `None` leaves a header out."""
        headers = {
            "x-amzn-RequestId": "4KBNVRGD25RG1KEO9UT4V3FQDJVV4KQNSO5AEMVJF66Q9ASUAAJG",
            "x-amz-crc32": str(zlib.crc32(self.body)),
            "Content-Type": _JSON,
            "Content-Length": str(len(self.body)),
        } | {name.replace("_", "-"): value for name, value in changes.items()}
        lines = [f"HTTP/1.1 {self.status} Said", *(f"{name}: {value}" for name, value in headers.items() if value)]
        return "\r\n".join([*lines, "", ""]).encode()

    @property
    def wire(self) -> bytes:
        return self.head() + self.body


class Exchange:
    """One request, and all that can be done about it.

    Attributes:
        received: the request.
        noise: seeded, for what a fault draws at random.
    """

    def __init__(self, received: Received, served: _Served, noise: random.Random) -> None:
        self.received = received
        self.noise = noise
        self._served = served

    async def apply(self) -> Answer:
        """Have the request done and return the right answer, without sending it."""
        return await self._served.apply(self.received)

    async def write(self, data: bytes) -> None:
        """Send bytes to the client, who may have gone."""
        with suppress(OSError):
            self._served.writer.write(data)
            await self._served.writer.drain()

    async def answer(self) -> None:
        """Do what is asked and answer it, as a server does that is well."""
        await self.write((await self.apply()).wire)

    def close(self) -> None:
        """Close the connection when what was written has gone out."""
        self._served.going = False
        self._served.writer.close()

    def reset(self) -> None:
        """Break the connection at once; the client's system says `connection reset by peer`."""
        self._served.going = False
        reset(self._served.writer)

    def reset_on_next(self) -> None:
        """Break the connection when the next request comes on it, unread."""
        self._served.breaks = True

    async def impatience(self, limit_s: float = LATE_S) -> None:
        """Wait until the client has closed the connection, or for so long."""
        with suppress(TimeoutError, OSError):
            await asyncio.wait_for(self._served.reader.read(1), limit_s)


Fault: TypeAlias = "Callable[[Exchange], Awaitable[None]]"


def reset(writer: asyncio.StreamWriter) -> None:
    """End a connection without a farewell."""
    raw = writer.get_extra_info("socket")
    with suppress(OSError):
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


@dataclass
class _Served:
    """One connection."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    apply: Callable[[Received], Awaitable[Answer]]
    going: bool = True
    breaks: bool = False


class ToxicServer:
    """Listens on a free loopback port.

    Attributes:
        plan: given the request and a seeded generator, returns its fault; `None`: answer it well.
        refuses: given a seeded generator, tells whether a new connection is broken before anything is read.
        received: the requests that came whole, in order.
        connections: how many were taken in.
        url: where it listens.
    """

    def __init__(self, apply: Callable[[Received], Awaitable[Answer]], *, seed: int = 0) -> None:
        self._apply = apply
        self._noise = random.Random(seed)
        self._tasks: set[asyncio.Task[None]] = set()
        self.plan: Callable[[Received, random.Random], Fault | None] = lambda _received, _noise: None
        self.refuses: Callable[[random.Random], bool] = lambda _noise: False
        self.received: list[Received] = []
        self.connections = 0
        self.url = ""

    @classmethod
    @asynccontextmanager
    async def open(cls, apply: Callable[[Received], Awaitable[Answer]], *, seed: int = 0) -> AsyncIterator[ToxicServer]:
        made = cls(apply, seed=seed)
        server = await asyncio.start_server(made._accept, "127.0.0.1", 0, limit=_HEAD_LIMIT)
        made.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        try:
            yield made
        finally:
            server.close()
            await made.settle()

    async def settle(self) -> None:
        """End what is under way; what is being done to the engine is done first."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def once(self, fault: Fault) -> None:
        """Do this to the next request, and nothing to those after it."""
        faults = [fault]
        self.plan = lambda _received, _noise: faults.pop() if faults else None

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        number = self.connections
        if self.refuses(self._noise):
            reset(writer)
            return
        served = _Served(reader, writer, self._shielded)
        try:
            while served.going and (received := await self._read(served, number)) is not None:
                self.received.append(received)
                exchange = Exchange(received, served, self._noise)
                await (self.plan(received, self._noise) or Exchange.answer)(exchange)
        finally:
            writer.close()

    async def _read(self, served: _Served, number: int) -> Received | None:
        """Read a request; None where there is no more."""
        try:
            head = (await served.reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
            if served.breaks:
                reset(served.writer)
                return None
            headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:-2])}
            body = await served.reader.readexactly(int(headers["content-length"]))
        except (asyncio.IncompleteReadError, OSError):
            return None
        return Received(headers["x-amz-target"].partition(".")[2], headers, body, number)

    async def _shielded(self, received: Received) -> Answer:
        """Do it, even when the server is ended meanwhile: a request half done is no fault of a network."""
        doing = asyncio.ensure_future(self._apply(received))
        try:
            return await asyncio.shield(doing)
        except asyncio.CancelledError:
            await asyncio.wait((doing,))
            raise


def upstream(url: str) -> Callable[[Received], Awaitable[Answer]]:
    """Return a way to have requests done by the engine at `url`."""
    host, _, port = url.removeprefix("http://").partition(":")

    async def apply(received: Received) -> Answer:
        reader, writer = await asyncio.open_connection(host, int(port), limit=_HEAD_LIMIT)
        try:
            passed_on = received.headers | {"connection": "close"}
            head = "\r\n".join(["POST / HTTP/1.1", *(f"{name}: {value}" for name, value in passed_on.items()), "", ""])
            writer.write(head.encode("latin-1") + received.body)
            answer = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
            lengths = [line for line in answer if line.lower().startswith("content-length:")]
            return Answer(int(answer[0].split(" ")[1]), await reader.readexactly(int(lengths[0].partition(":")[2])))
        finally:
            writer.close()

    return apply


async def echo(received: Received) -> Answer:
    """Answer a read with its own key, and a write with nothing."""
    if received.operation == "GetItem":
        return Answer.of({"Item": received.parameters["Key"]})
    return Answer.of({"Items": [], "Count": 0} if received.operation == "Query" else {})
