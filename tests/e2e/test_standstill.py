"""A worker that was stopped finds requests in its sockets that have been sent again to others since."""

from __future__ import annotations

import asyncio
import json
import signal
import time
from urllib.parse import urlsplit

import aiohttp
import pytest
from mangatest import HANG_GUARD_S, LoopThread
from rolling import create_table
from workers import eventually, worker_process

from mangacache.sessions.standstill import STOOD_STILL_S
from mangacache.sessions.supervisor import IDLE_TICK_S

QUESTION = {"role": "user", "content": "Is it in stock?", "turn_id": "question"}


@pytest.fixture
def variables(table, shared_valkey):
    """The environment of workers with a table of their own, and a Redis."""
    endpoint = f"redis://127.0.0.1:{shared_valkey}"
    made = table | {"REDIS_ENDPOINT": endpoint, "KEY_PREFIX": f"{table['SESSION_TABLE']}:"}
    loop = LoopThread()
    try:
        loop.run(create_table(made))
    finally:
        loop.close()
    return made


class Sent:
    """A request that is in a worker's socket, whether or not the worker reads it."""

    def __init__(self, reader, writer):
        self._reader, self._writer = reader, writer

    @classmethod
    async def to(cls, url, path, body):
        address, said = urlsplit(url), json.dumps(body).encode()
        head = f"POST {path} HTTP/1.1\r\nHost: {address.netloc}\r\nConnection: close\r\nContent-Length: {len(said)}\r\n"
        reader, writer = await asyncio.open_connection(address.hostname, address.port)
        writer.write(f"{head}Content-Type: application/json\r\n\r\n".encode() + said)
        await writer.drain()
        return cls(reader, writer)

    async def answer(self):
        async with asyncio.timeout(HANG_GUARD_S):
            head, _, body = (await self._reader.read()).partition(b"\r\n\r\n")
        self._writer.close()
        return int(head.split()[1]), json.loads(body)


async def _say(client, **turn):
    async with client.post("/v1/sessions/s/turns", json=turn) as response:
        assert response.status == 201
        return (await response.json())["turns"][0]["number"]


async def test_a_request_that_waited_out_a_standstill_and_was_sent_again_is_not_stored_twice(variables):
    async with (
        worker_process(variables) as stopped,
        worker_process(variables) as other,
        aiohttp.ClientSession(other.public) as client,
    ):
        await _say(client, role="user", content="hello")
        stopped.signal(signal.SIGSTOP)
        began_s = time.monotonic()
        sent = await Sent.to(stopped.public, "/v1/sessions/s/turns", QUESTION)
        assert await _say(client, **QUESTION) == 2
        for number in range(40):
            await _say(client, role="assistant", content=f"answer {number}")
        await eventually(lambda: time.monotonic() - began_s > 2 * (STOOD_STILL_S + IDLE_TICK_S))
        stopped.signal(signal.SIGCONT)
        status, body = await sent.answer()
        assert (status, body["turns"][0]["number"], body["turns"][0]["duplicate"]) == (200, 2, True)
