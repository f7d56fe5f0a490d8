"""A proxy that understands DynamoDB's requests: it refuses them, holds them up, or does them and says nothing."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
import zlib
from collections import Counter
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Final, TypeAlias

from mangacache.clock import SystemClock, system_random
from mangacache.errors import Invalid
from mangacache.tasks import TaskOwner

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from mangacache.clock import Clock, Random

HOST: Final = "127.0.0.1"
READS: Final = frozenset({"GetItem", "Query", "BatchGetItem", "TransactGetItems", "Scan"})
WRITES: Final = frozenset({"PutItem", "UpdateItem", "DeleteItem", "BatchWriteItem", "TransactWriteItems"})
_LIMIT: Final = 2**20
_TYPE: Final = "com.amazonaws.dynamodb.v20120810#"

_Stream: TypeAlias = "tuple[asyncio.StreamReader, asyncio.StreamWriter]"


class DynamoProxy:
    """Passes requests on to a DynamoDB over plain HTTP. Made by `open`.

    Everything stays in force until `restore`.

    Attributes:
        port: where it listens.
        requests: how many came, by operation.
        struck: how many were refused, not answered, held up or turned away, by these words.
    """

    def __init__(
        self, target_port: int, *, target_host: str = HOST, clock: Clock | None = None, random: Random | None = None
    ) -> None:
        self.port = 0
        self.requests: Counter[str] = Counter()
        self.struck: Counter[str] = Counter()
        self._target = target_host, target_port
        self._clock = clock or SystemClock()
        self._random = random or system_random()
        self._tasks = TaskOwner(on_failure=_told)
        self._writers: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None
        self._restored = asyncio.Event()
        self._clear()

    def _clear(self) -> None:
        self._throttled = 0.0
        self._unanswered = 0.0
        self._slow_s = 0.0
        self._is_stopped = False
        self._is_cut = False

    def __repr__(self) -> str:
        return f"<DynamoProxy {self.port} -> {self._target[0]}:{self._target[1]}, {self.requests.total()} requests>"

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        target_port: int,
        *,
        target_host: str = HOST,
        port: int = 0,
        clock: Clock | None = None,
        random: Random | None = None,
    ) -> AsyncIterator[DynamoProxy]:
        """Listen on loopback until the end of the `async with` block; see `Proxy.open`."""
        proxy = cls(target_port, target_host=target_host, clock=clock, random=random)
        await proxy.start(port)
        try:
            yield proxy
        finally:
            await proxy.close()

    @property
    def url(self) -> str:
        """The endpoint to give to clients."""
        return f"http://{HOST}:{self.port}"

    async def start(self, port: int = 0) -> None:
        """Listen; 0 takes a free port."""
        try:
            self._server = await asyncio.start_server(self._accept, HOST, port, limit=_LIMIT)
        except (OSError, OverflowError) as error:
            raise Invalid(f"port {port} cannot be used for a proxy ({error}): choose another") from error
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        """Listen no more, and break what is open."""
        if self._server is not None:
            self._server.close()
        await self._tasks.cancel()

    # What can go wrong

    def throttle(self, share: float) -> None:
        """Refuse so many of all requests for load; nothing of them is done."""
        self._throttled = _share(share)

    def lose_answers(self, share: float) -> None:
        """Have so many of the writes be done, and say nothing: their callers wait until they lose patience."""
        self._unanswered = _share(share)

    def slow(self, seconds: float) -> None:
        """Hold each request back so long before it is passed on."""
        if not seconds >= 0:
            raise Invalid(f"a request cannot be held back for {seconds!r} s")
        self._slow_s = seconds

    def stop(self) -> None:
        """Answer nothing. What comes meanwhile is done after `restore`, whether or not anybody still waits for it."""
        self._is_stopped = True

    def cut(self) -> None:
        """Break every connection and take in no new one."""
        self._is_cut = True
        for writer in tuple(self._writers):
            _reset(writer)

    def restore(self) -> None:
        """End all of it."""
        self._clear()
        self._restored.set()
        self._restored = asyncio.Event()

    def status(self) -> dict[str, object]:
        """Return what is in force, and what was counted."""
        return {
            "port": self.port,
            "target": f"{self._target[0]}:{self._target[1]}",
            "throttled": self._throttled,
            "unanswered": self._unanswered,
            "slow_s": self._slow_s,
            "stopped": self._is_stopped,
            "cut": self._is_cut,
            "requests": dict(self.requests),
            "struck": dict(self.struck),
        }

    # How it passes on

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._tasks.start(self._serve(reader, writer), name="serve a connection")

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._is_cut:
            self.struck["turned away"] += 1
            _reset(writer)
            return
        self._writers.add(writer)
        far: _Stream | None = None
        try:
            while (request := await _message(reader)) is not None:
                refusal = await self._struck(request)
                if refusal is not None:
                    writer.write(refusal)
                    await writer.drain()
                    continue
                far = far if far is not None and not far[1].is_closing() else await self._opened()
                far[1].write(request)
                answer = await _message(far[0])
                if answer is None:
                    _reset(writer)
                    return
                if _operation(request) in WRITES and self._unanswered and self._random.random() < self._unanswered:
                    self.struck["not answered"] += 1
                    await self._impatience(reader)
                    _reset(writer)
                    return
                writer.write(answer)
                await writer.drain()
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            _reset(writer)
        finally:
            self._writers.discard(writer)
            writer.close()
            if far is not None:
                far[1].close()

    async def _opened(self) -> _Stream:
        return await asyncio.open_connection(*self._target, limit=_LIMIT)

    async def _struck(self, request: bytes) -> bytes | None:
        """Do to a request what is in force; return the refusal of one that is not passed on."""
        operation = _operation(request)
        self.requests[operation] += 1
        if self._is_stopped:
            self.struck["held up"] += 1
            await self._restored.wait()
        if self._slow_s:
            self.struck["held up"] += 1
            await self._clock.sleep(self._slow_s)
        if self._throttled and self._random.random() < self._throttled:
            self.struck["throttled"] += 1
            return _refusal("ProvisionedThroughputExceededException")
        return None

    async def _impatience(self, reader: asyncio.StreamReader) -> None:
        """Wait until the caller has gone, or the fault is over."""
        waiting = self._tasks.start(_quietly_read(reader), name="wait for the caller to leave", awaited=True)
        restored = self._tasks.start(_passed(self._restored), name="wait for the end of the fault", awaited=True)
        await asyncio.wait((waiting, restored), return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        restored.cancel()


async def _passed(event: asyncio.Event) -> None:
    await event.wait()


async def _quietly_read(reader: asyncio.StreamReader) -> None:
    with suppress(OSError):
        await reader.read(1)


async def _message(reader: asyncio.StreamReader) -> bytes | None:
    """Return one whole message, request or answer; None where there is none any more."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError as error:
        if error.partial:
            raise
        return None
    length = 0
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            length = int(value)
    return head + await reader.readexactly(length) if length else head


def _operation(request: bytes) -> str:
    """Return what is asked for: `PutItem`."""
    head = request[: request.find(b"\r\n\r\n")].lower()
    start = head.find(b"x-amz-target:")
    if start < 0:
        return "other"
    line = request[start : request.find(b"\r\n", start)]
    return line.rpartition(b".")[2].decode("ascii", "replace").strip()


def _refusal(code: str) -> bytes:
    body = json.dumps({"__type": _TYPE + code, "message": f"{code}, by a proxy"}).encode()
    head = (
        "HTTP/1.1 400 Bad Request\r\nContent-Type: application/x-amz-json-1.0\r\n"
        f"x-amz-crc32: {zlib.crc32(body)}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def _reset(writer: asyncio.StreamWriter) -> None:
    """End a connection without a farewell."""
    with suppress(OSError):
        raw = writer.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


def _share(share: float) -> float:
    if not 0 <= share <= 1:
        raise Invalid(f"a share is from 0 to 1, not {share!r}")
    return share


def _told(name: str, error: BaseException) -> None:
    """Have the loop report what is a mistake in the proxy itself."""
    asyncio.get_running_loop().call_exception_handler({"message": f"the proxy failed to {name}", "exception": error})
