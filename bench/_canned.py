"""A canned DynamoDB, a process of its own: always the same bytes, as cheap as may be, so that the client is the limit.

Run as a program it prints its port and serves until its standard input is closed, which its parent's end does, too.
"""

from __future__ import annotations

import asyncio
import json
import random
import re
import sys
import zlib
from base64 import b64encode
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from _common import run

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

TURNS: Final = 20
SESSION: Final = "SESSION#read"
_CONTENT_BYTES: Final = 250  # what a message of 600 characters takes when it is deflated

_HEAD_END: Final = b"\r\n\r\n"
_LENGTH: Final = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_OPERATION: Final = re.compile(rb"DynamoDB_20120810\.(\w+)")


def turn(partition: str, number: int) -> dict[str, dict[str, Any]]:
    """Return a turn as the store writes it; the same number gives the same turn."""
    noise = random.Random(number)
    return {
        "PK": {"S": partition},
        "SK": {"S": f"TURN#0001-{number:010d}"},
        "turn_id": {"S": f"{noise.getrandbits(128):032x}"},
        "role": {"S": "user" if number % 2 else "assistant"},
        "content_compressed": {"B": noise.randbytes(_CONTENT_BYTES)},
        "created_at": {"S": "2026-11-24T09:58:00.123Z"},
        "ttl": {"N": "1803376680"},
    }


def _answers() -> dict[bytes, bytes]:
    turns = [_encoded(turn(SESSION, number)) for number in range(1, TURNS + 1)]
    return {
        b"PutItem": _answer({}),
        b"GetItem": _answer({"Item": turns[0]}),
        b"Query": _answer({"Items": turns[::-1], "Count": TURNS, "ScannedCount": TURNS}),
    }


def _encoded(item: dict[str, dict[str, Any]]) -> dict[str, dict[str, str]]:
    return {
        name: {kind: b64encode(held).decode() if kind == "B" else held for kind, held in value.items()}
        for name, value in item.items()
    }


def _answer(value: Any) -> bytes:
    body = json.dumps(value, separators=(",", ":")).encode()
    head = (
        "HTTP/1.1 200 OK\r\n"
        "Server: Server\r\n"
        "Date: Tue, 24 Nov 2026 09:58:00 GMT\r\n"
        "Content-Type: application/x-amz-json-1.0\r\n"
        f"Content-Length: {len(body)}\r\n"
        "Connection: keep-alive\r\n"
        "x-amzn-RequestId: 4KBNVRGD25RG1KEO9UT4V3FQDJVV4KQNSO5AEMVJF66Q9ASUAAJG\r\n"
        f"x-amz-crc32: {zlib.crc32(body)}\r\n\r\n"
    )
    return head.encode() + body


class _Canned(asyncio.Protocol):
    """One connection: finds where a request ends, answers by its operation."""

    def __init__(self, answers: dict[bytes, bytes]) -> None:
        self._answers = answers
        self._held = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        data = self._held + data if self._held else data
        while (head_end := data.find(_HEAD_END)) >= 0 and self._transport is not None:
            length, operation = _LENGTH.search(data, 0, head_end), _OPERATION.search(data, 0, head_end)
            if length is None or operation is None or operation[1] not in self._answers:
                self._transport.abort()
                return
            end = head_end + len(_HEAD_END) + int(length[1])
            if len(data) < end:
                break
            self._transport.write(self._answers[operation[1]])
            data = data[end:]
        self._held = data


class CannedServer(NamedTuple):
    """The server, as its bench sees it."""

    url: str
    pid: int


@asynccontextmanager
async def open_canned(loop: str) -> AsyncIterator[CannedServer]:
    """Start the server on a free loopback port; it ends with the block."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(Path(__file__)), loop, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    if process.stdin is None or process.stdout is None:
        raise AssertionError("a server without pipes")
    try:
        port = int(await process.stdout.readline() or 0)
        if not port:
            raise RuntimeError("the canned server did not start")
        yield CannedServer(f"http://127.0.0.1:{port}", process.pid)
    finally:
        process.stdin.close()
        await process.wait()


async def _serve() -> None:
    loop = asyncio.get_running_loop()
    answers = _answers()
    server = await loop.create_server(lambda: _Canned(answers), "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    ended = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(ended), sys.stdin)
    await ended.read()


if __name__ == "__main__":
    run(_serve(), loop=sys.argv[1])
