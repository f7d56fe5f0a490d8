"""Requests that nobody should send, by the thousand: each gets an answer or an end, and nothing stays behind."""

from __future__ import annotations

import asyncio
import json
import os
import random
from collections import Counter
from pathlib import Path
from urllib.parse import quote

import pytest
from fleet import until
from httpworlds import http_world
from instances import Instances
from mangatest import HANG_GUARD_S

from mangacache.clock import SystemClock
from mangacache.worker.app import api_routes
from mangacache.worker.asking import OPERATION
from mangacache.worker.keys import DEADLINES

REQUESTS = int(os.environ.get("BAD_HTTP_REQUESTS", "10000"))
AT_ONCE = 16
BODY_LIMIT = 4096
ROUTES = sorted({(told.method, told.path) for told in (getattr(each.handler, OPERATION) for each in api_routes())})
NAMES = [
    "role",
    "content",
    "turn_id",
    "attributes",
    "turns",
    "after",
    "rate_limit",
    "text",
    "upto",
    "fence",
    "remove",
    "status",
    "lease_s",
    "wait_s",
    "cost",
    "title",
    "weight",
    "session_ids",
]
PARAMETERS = [
    "turns",
    "at_least",
    "consistency",
    "age_s",
    "rate_limit",
    "limit",
    "cursor",
    "order",
    "before",
    "after",
    "span",
    "x",
]
WORDS = ["", "user", "x", "1.1.1", "9" * 5000, "ü漫", "\x00", "latest", "eventual", "-1", "1e999", "nan", "{}", "a/b"]
HEADERS = ["If-Match", "If-None-Match", "Idempotency-Key", "Customer-Id", "Lock-Token", "X-Request-Id", "Expect"]


class Hasty(SystemClock):
    """A clock whose sleeps of over two seconds, between the passes of a delete, end at once."""

    async def sleep(self, seconds):
        await super().sleep(0 if seconds > 2 else seconds)


def a_value(draw, depth=0):
    kind = draw.randrange(9 if depth < 4 else 7)
    if kind == 7:
        return [a_value(draw, depth + 1) for _ in range(draw.randrange(4))]
    if kind == 8:
        return {draw.choice(NAMES): a_value(draw, depth + 1) for _ in range(draw.randrange(4))}
    return draw.choice([None, True, 0, -1, 10**30, 1.5, 1e300, "user", "x" * 200, *WORDS])


BODIES = [
    lambda _: b"",
    lambda draw: draw.choice([b"[", b'{"a":']) * draw.choice([10, 33, 700]),
    lambda draw: b'{"role":"user","content":"' + some_bytes(draw, 20) + b'"}',
    lambda draw: b" " * draw.choice([BODY_LIMIT, BODY_LIMIT + 1, 3 * BODY_LIMIT]),
    lambda _: b'{"title":"a","title":"b"}',
    lambda draw: some_bytes(draw, draw.randrange(60)),
    lambda draw: draw.choice([b"NaN", b"Infinity", b'"\\ud800"', b'{"title":"\\udfff"}', b"1" * 4000, b"-", b"1e9999"]),
    lambda draw: json.dumps({"role": "user", "content": "x", "turn_id": draw.choice(WORDS[:4])}).encode(),
    *[lambda draw: json.dumps({draw.choice(NAMES): a_value(draw) for _ in range(draw.randrange(5))}).encode()] * 4,
]
"""What stands where JSON should."""


def some_bytes(draw, count):
    return bytes(draw.randrange(256) for _ in range(count))


def a_path(draw):
    method, path = draw.choice(ROUTES)
    for part in ("session_id", "customer_id", "limit"):
        given = draw.choice(["s", "%FF", "%2e%2e", "x" * 300, quote(draw.choice(WORDS) or "s", safe=""), "messages"])
        path = path.replace(f"{{{part}:[^/]+}}", given[:4000])
    if not draw.randrange(8):
        path = draw.choice(["/", "//", "/v1", "/v1/../..", "*", "/v1/%00", path + "/", path + "/x"])
    if not draw.randrange(8):
        method = draw.choice(["HEAD", "OPTIONS", "TRACE", "BREW", "get", "PUT"])
    query = "&".join(
        f"{draw.choice(PARAMETERS)}={quote(draw.choice(WORDS), safe='')[:3000]}"
        for _ in range(draw.choice([0, 0, 1, 2]))
    )
    return method, path + (f"?{query}" if query else "")


def a_head(draw, *framing):
    method, target = a_path(draw)
    lines = [f"{method} {target} HTTP/1.1", "Host: localhost", *framing]
    if draw.randrange(5):
        lines.append("Content-Type: application/json")
    for _ in range(draw.choice([0, 0, 1, 2])):
        value = draw.choice(
            ['"1.1"', 'W/"1.1.1"', "*", '"', "k", "%FF", "%2F", "x" * 300, "100-continue", "é\xff", ","]
        )
        lines.append(f"{draw.choice(HEADERS)}: {value}")
    return method, "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n"


def framed(draw, body):
    return "answered", *joined(a_head(draw, f"Content-Length: {len(body)}"), body)


def in_a_chunk(draw, body):
    chunks = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body) if body else b"0\r\n\r\n"
    return "answered", *joined(a_head(draw, "Transfer-Encoding: chunked"), chunks)


def in_bad_chunks(draw, _):
    bad = draw.choice([b"zz\r\n", b"-1\r\n", b"5\r\nab\r\n0\r\n\r\n", b"\r\n", b"ffffffffffffffffff\r\n"])
    return "half-closed", *joined(a_head(draw, "Transfer-Encoding: chunked"), bad)


def too_short(draw, body):
    return "half-closed", *joined(a_head(draw, f"Content-Length: {len(body) + 50}"), body)


def cut_off(draw, body):
    method, sent = joined(a_head(draw, f"Content-Length: {len(body)}"), body)
    return "aborted", method, sent[: draw.randrange(1, len(sent) + 1)]


def rubbish(draw, _):
    return "half-closed", "", some_bytes(draw, draw.randrange(1, 80))


def of_no_length(draw, body):
    return "half-closed", *joined(a_head(draw, f"Content-Length: {draw.choice([-1, '0x5', '5, 6', 10**20, ''])}"), body)


def joined(head, body):
    return head[0], head[1] + body


WAYS = [*[framed] * 14, in_a_chunk, in_bad_chunks, too_short, cut_off, rubbish, of_no_length]


def a_request(draw):
    """Return how a request is sent and what is done then, its method, its bytes."""
    return draw.choice(WAYS)(draw, draw.choice(BODIES)(draw))


class Sender:
    """One after the other, over one connection as long as it is kept."""

    def __init__(self, port, seen):
        self._port = port
        self._seen = seen
        self._streams = None

    async def send(self, draw):
        how, method, sent = a_request(draw)
        if how != "answered":
            self.close()
        if self._streams is None:
            self._streams = await asyncio.open_connection("127.0.0.1", self._port)
        reader, writer = self._streams
        writer.write(sent)
        if how == "aborted":
            writer.transport.abort()
            self._streams = None
            self._seen["aborted"] += 1
            return
        if how == "half-closed":
            writer.write_eof()
        try:
            status, kept = await self._answer(reader, method, sent)
        except (ConnectionError, asyncio.IncompleteReadError):
            status, kept = "ended", False
        self._seen[status] += 1
        if how != "answered" or not kept:
            self.close()

    async def _answer(self, reader, method, sent):
        head = await reader.readuntil(b"\r\n\r\n")
        if head.startswith(b"HTTP/1.1 100"):
            head = await reader.readuntil(b"\r\n\r\n")
        status = int(head.split(b" ", 2)[1])
        headers = {
            name.lower(): value.strip() for name, _, value in (line.partition(b":") for line in head.split(b"\r\n")[1:])
        }
        length = int(headers.get(b"content-length", 0))
        body = b"" if method == "HEAD" or status in {204, 304} else await reader.readexactly(length)
        assert status < 500, (status, sent[:300], body)
        assert b"x-request-id" in headers, (head, body, sent[:300])
        if status >= 400 and body:
            problem = json.loads(body)
            assert headers[b"content-type"] == b"application/problem+json"
            assert problem["status"] == status, sent[:300]
            assert problem["request_id"].encode() == headers[b"x-request-id"]
        return status, headers.get(b"connection", b"").lower() != b"close" and head.startswith(b"HTTP/1.1")

    def close(self):
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None


def files():
    return len(list(Path("/proc/self/fd").iterdir()))


async def test_whatever_is_sent_there_is_an_answer_or_an_end_and_nothing_stays_behind(caplog):
    async with (
        Instances.open() as instances,
        http_world(
            instances=instances, clock=Hasty(), worker_max_body_bytes=BODY_LIMIT, worker_receive_timeout_s=0.5
        ) as world,
    ):
        assert (await world("GET", "/v1/sessions/s/context")).status == 200
        assert (await world("POST", "/v1/customers/c/rate-limits/messages")).status == 200
        await world.http.close()
        await until(lambda: not world.runner.server.connections, "the client's connection is closed")
        tasks, opened = len(asyncio.all_tasks()), files()
        seen = Counter()

        async def send_many(number):
            draw = random.Random(number)
            sender = Sender(world.port, seen)
            try:
                for _ in range(REQUESTS // AT_ONCE):
                    async with asyncio.timeout(HANG_GUARD_S):
                        await sender.send(draw)
            finally:
                sender.close()

        async with asyncio.TaskGroup() as together:
            for number in range(AT_ONCE):
                together.create_task(send_many(number))
            for sent in STALLED * 8:
                together.create_task(stall(world.port, sent))
        assert sum(seen.values()) == REQUESTS // AT_ONCE * AT_ONCE
        assert {200, 201, 204, 400, 404, 405, 413, 415, 422, "aborted", "ended"} <= seen.keys(), seen
        await until(lambda: not world.runner.server.connections, "no connection is left")
        await until(lambda: not len(world.runner.app[DEADLINES]), "no request is under way")
        await until(lambda: len(asyncio.all_tasks()) <= tasks + 1, "no task is left, but who looks for late ones")
        await until(lambda: files() <= opened, "no file is left open")
        assert (await world.cache.session("after").append(role="user", content="x")).number == 1
    failed = [
        record
        for record in caplog.records
        if record.levelname in {"ERROR", "CRITICAL"} or "request_failed" in record.getMessage()
    ]
    assert failed == [], "nothing of it is a failure of the worker's"


STALLED = [
    b"",
    b"POST /v1/prefetch HTTP/1.1\r\nHost: localhost\r\n",
    b"POST /v1/prefetch HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 99\r\n\r\n{",
    (
        b"POST /v1/prefetch HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n5\r\nab"
    ),
]


async def stall(port, sent):
    """Send a part and nothing more, until the worker has enough of it."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(sent)
        if not sent:
            return  # who says nothing at all is idle, which is bounded elsewhere
        async with asyncio.timeout(HANG_GUARD_S):
            answer = await reader.read()
        assert answer == b"" or answer.startswith(b"HTTP/1.1 408"), answer[:200]
    finally:
        writer.close()


@pytest.mark.parametrize("seed", range(3))
def test_what_is_generated_is_of_every_kind(seed):
    draw = random.Random(seed)
    hows = Counter(a_request(draw)[0] for _ in range(300))
    assert set(hows) == {"answered", "half-closed", "aborted"}
