"""Bad input over WebSocket: whatever comes, it is answered or ends the socket, others are served, and nothing stays."""

from __future__ import annotations

import asyncio
import json
import os
import random
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

import pytest
from mangatest import HANG_GUARD_S
from sockets import connection_of, eventually, made_table, opened, raw, worker

from mangacache.worker.sockets.conversation import MOST_MISTAKES

GENERATED = int(os.environ.get("BAD_MESSAGES", "4000"))
MOST_BYTES = 65_536

FIELDS = {
    "open": ["session_id", "credential", "customer_id", "seen", "content", "own_turns"],
    "append": ["id", "role", "content", "turn_id", "attributes", "turns", "after", "rate_limit"],
    "context": ["id", "turns", "at_least", "consistency", "age_s", "rate_limit"],
    "ping": ["id"],
}


@pytest.fixture
async def one(shared_valkey):
    limits = {"worker_socket_message_bytes": MOST_BYTES, "worker_socket_open_s": 300.0}
    async with worker(
        await made_table(), redis_port=shared_valkey, key_prefix=f"t{uuid4().hex[:10]}:", **limits
    ) as made:
        async with opened(made, "warm") as warm:  # from now on no more tasks and files are needed than at rest
            await warm.append("x")
        await eventually(lambda: not len(made.sockets))
        yield made
        assert made.cache.telemetry.value("mangacache_survived_total", what="socket_failed") == 0


def files():
    return len(list(Path("/proc/self/fd").iterdir()))


async def settled(worker, tasks, descriptors, *, sockets=0):
    """Wait until nothing is left of the sockets: no task, no file, no room."""

    def is_settled():
        there = (len(worker.sockets), len(worker.rooms), len(asyncio.all_tasks()), files())
        return all(found <= most for found, most in zip(there, (sockets, sockets, tasks, descriptors), strict=True))

    await eventually(is_settled)


class Nonsense:
    """Makes messages that are wrong in some way, by a seed."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def value(self, depth: int = 0):
        choice = self._random.choice
        kinds = [
            lambda: None,
            lambda: choice([True, False]),
            lambda: choice([0, -1, 1, 2**31, -(2**63), 10**40, 10**400]),
            lambda: choice([0.5, -1e308, 1e-320]),
            lambda: choice(
                ["", "x", "user", "s", "1.1.1", "\x00", "漫" * 50, "x" * 200, "../..", "{}", "session", "messages"]
            ),
        ]
        if depth < 3:
            kinds += [
                lambda: [self.value(depth + 1) for _ in range(self._random.randrange(4))],
                lambda: {str(self.value(3))[:40]: self.value(depth + 1) for _ in range(self._random.randrange(4))},
            ]
        return choice(kinds)()

    def message(self) -> str:
        pick = self._random.random()
        kind = self._random.choice([*FIELDS, "turn", "ready", "", "OPEN"])
        fields = FIELDS.get(kind, ["id", "x"])
        chosen = {name: self.value() for name in fields if self._random.random() < 0.6}
        if self._random.random() < 0.2:
            chosen[self._random.choice(["type", "token", "__proto__", "é", "Id"])] = self.value()
        text = json.dumps({"type": kind} | chosen)
        if pick < 0.5:
            return text
        if pick < 0.6:
            return text[: self._random.randrange(len(text))]
        if pick < 0.7:
            place = self._random.randrange(len(text))
            return (
                text[:place] + chr(self._random.choice([0, 9, 34, 92, 0x7F, 0xE9, 0x2028, 0x1F600])) + text[place + 1 :]
            )
        if pick < 0.8:
            depth = self._random.choice([33, 100, 5000])
            opening, closing = self._random.choice([("[", "]"), ('{"a":', "}")])
            return (
                '{"type":"append","id":1,"role":"user","content":"","attributes":{"a":'
                + opening * depth
                + "1"
                + closing * depth
                + "}}"
            )
        if pick < 0.9:
            return self._random.choice(["", " ", "null", "true", "[]", "0", '"x"', "NaN", "{} {}", "\ufeff{}", "-"])
        return text.replace("}", ',"id":1,"id":2}', 1)

    def right(self, number: int) -> str:
        return json.dumps({"type": "append", "id": number, "role": "user", "content": f"right {number}"})


async def test_thousands_of_wrong_messages_are_answered_and_leave_nothing(one):
    """Connections send nonsense until they are closed for it, and right messages now and then, which are done."""
    nonsense = Nonsense(2026)
    async with opened(one, "calm") as calm:
        await calm.append("before")
        tasks, descriptors = len(asyncio.all_tasks()), files()
        sent = answered = connections = 0
        codes = set()
        while sent < GENERATED:
            connections += 1
            async with raw(one) as client:
                await client.shake_hands()
                if connections % 4:
                    client.say({"type": "open", "session_id": f"s{connections % 7}"})
                batch = [nonsense.message() for _ in range(60)]
                if connections % 2:
                    batch = [each for wrong in batch for each in (wrong, nonsense.right(1), '{"type":"ping"}')]
                for message in batch:
                    client.say(message)
                sent += len(batch)
                client.writer.write(client.frame(b"\x03\xe8", first=0x88))
                said = 0
                with suppress(asyncio.IncompleteReadError, ConnectionError):
                    async with asyncio.timeout(HANG_GUARD_S):
                        while isinstance(heard := await client.hear(), dict):
                            said += 1
                        codes.add(heard)
                answered += said
        assert answered > sent / 4
        assert 1008 in codes
        assert codes <= {1000, 1008, 4400, 4404, 4409, 4422}, codes
        await settled(one, tasks, descriptors, sockets=1)
        assert (await calm.append("after"))["turns"][0]["number"] == 2


def _frames(nonsense, client):
    """Return byte sequences that break the WebSocket protocol itself, each with the codes that may answer it."""
    text = b'{"type":"ping"}'
    return {
        "no UTF-8": (client.frame(b'{"type":"\xff\xfe"}'), {1007}),
        "not masked": (client.frame(text, mask=None), None),
        "reserved bits": (client.frame(text, first=0xF1), {1002}),
        "an unknown opcode": (client.frame(text, first=0x83), {1002, 1003}),
        "a long ping": (client.frame(b"x" * 126, first=0x89), {1002}),
        "a ping in pieces": (client.frame(b"x", first=0x09), {1002}),
        "a close frame of one byte": (client.frame(b"\x03", first=0x88), {1002}),
        "a close frame with a code that is none": (client.frame(b"\x00\x01", first=0x88), {1002}),
        "a binary frame": (client.frame(text, first=0x82), {1003}),
        "a message that is too long": (client.frame(b"x" * (MOST_BYTES + 1)), {1009}),
        "a length that is too long": (client.frame(b"", length=2**40), {1009}),
        "a negative length": (client.frame(b"", length=2**64 - 1), {1002, 1009}),
        "pieces that are too long together": (
            client.frame(b"x" * MOST_BYTES, first=0x01) + client.frame(b"x" * 10, first=0x80),
            {1009},
        ),
        "a continuation of nothing": (client.frame(text, first=0x80), {1002}),
        "a message within another": (client.frame(text, first=0x01) + client.frame(text), {1002}),
        "HTTP again": (b"GET / HTTP/1.1\r\nHost: worker\r\n\r\n", None),
        "noise": (nonsense._random.randbytes(2_000), None),
    }


@pytest.mark.parametrize("is_open", [False, True])
async def test_what_breaks_the_protocol_itself_ends_the_socket(one, is_open):
    tasks, descriptors = len(asyncio.all_tasks()), files()
    nonsense = Nonsense(7)
    for name in _frames(nonsense, _Never()):
        async with raw(one) as client:
            await client.shake_hands()
            if is_open:
                client.say({"type": "open", "session_id": "s"})
                await client.hear()
            data, codes = _frames(nonsense, client)[name]
            client.writer.write(data)
            client.writer.write_eof()
            code = await client.end()
            assert codes is None or code in codes, (name, code)
    await settled(one, tasks, descriptors)


class _Never:
    """Stands for a client of which only the names of its frames are wanted."""

    def frame(self, *_, **__):
        return b""


async def test_a_message_in_many_pieces_with_pings_between_them_is_one_message(one):
    async with raw(one) as client:
        await client.shake_hands()
        text = b'{"type":"open","session_id":"s"}'
        for place, byte in enumerate(text):
            last = place == len(text) - 1
            client.writer.write(client.frame(bytes([byte]), first=(0 if place else 1) | (0x80 if last else 0)))
            client.writer.write(client.frame(b"?", first=0x89))
            await client.writer.drain()
        said = [await client.hear() for _ in range(len(text) + 1)]
        assert sum(each["type"] == "PONG" for each in said) == len(text)
        assert [each["type"] for each in said if each["type"] != "PONG"] == ["ready"]


async def test_half_closed_and_broken_sockets_leave_nothing(one):
    tasks, descriptors = len(asyncio.all_tasks()), files()
    for end in ("half", "reset", "in a frame", "in the handshake", "before open", "pipelined"):
        async with raw(one) as client:
            if end == "in the handshake":
                client.writer.write(b"GET /v1/ws HTTP/1.1\r\nHost: w")
                await client.writer.drain()
                continue
            await client.shake_hands()
            if end == "before open":
                continue
            client.say({"type": "open", "session_id": "s"})
            await client.hear()
            if end == "in a frame":
                client.writer.write(client.frame(b"x" * 100)[:50])
            elif end == "pipelined":
                for number in range(50):
                    client.say({"type": "append", "id": number, "role": "user", "content": "x"})
            if end == "half":
                client.writer.write_eof()
                await client.end()
            await client.writer.drain()
    await settled(one, tasks, descriptors)


async def test_what_a_flood_of_questions_can_have_waiting_is_bounded_where_the_answers_are_not_read(one):
    """A peer that asks and asks, and reads nothing: soon nothing more is read of it."""
    async with opened(one, "s") as writes:
        for _ in range(4):
            await writes.append("x" * 50_000)
        async with raw(one, receive_bytes=4096) as client:
            await client.shake_hands()
            client.say({"type": "open", "session_id": "s"})
            await client.hear()
            connection = connection_of(one, client)
            sent = 0
            with suppress(TimeoutError):
                while sent < 5_000:
                    for _ in range(50):
                        client.say({"type": "context", "id": sent, "turns": 4})
                        sent += 1
                    async with asyncio.timeout(1.0):
                        await client.writer.drain()
            await eventually(lambda: connection.wire.outbox.is_full)
            one_answer = 210_000
            assert connection.wire.left_bytes <= 65_536 + 1_048_576 + 2 * one_answer
            assert connection.wire._buffered <= 65_536 + one_answer
            assert (await writes.append("y"))["type"] == "appended"


async def test_mistakes_before_open_end_a_socket_too(one):
    async with raw(one) as client:
        await client.shake_hands()
        for _ in range(MOST_MISTAKES):
            client.say("?")
        assert await client.end() == 1008
