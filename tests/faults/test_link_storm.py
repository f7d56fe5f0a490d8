"""Tagged calls over the link to a real server, through a slow and hostile way: whose reply is it, and how often done?

`LINK_CALLS` sets how many (3,000; a million takes a quarter of an hour).
"""

from __future__ import annotations

import asyncio
import os
import random
from collections import Counter
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING
from uuid import uuid4

from mangatest import HANG_GUARD_S
from redis.asyncio import Redis

from mangacache import Settings
from mangacache.clock import SystemClock, system_random
from mangacache.redis import LinkLost, MultiplexedLink, Script
from mangacache.telemetry import Telemetry

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

CALLS = int(os.environ.get("LINK_CALLS", "3000"))
TIMEOUT_S = 0.15
ONCE = Script.of(
    "once",
    "redis.call('HINCRBY', KEYS[1], ARGV[1], 1) redis.call('PEXPIRE', KEYS[1], 3600000)"
    " return ARGV[1] .. ':' .. ARGV[2]",
)
FIELDS = 2_000
"""Calls whose counts one key keeps."""


class SlowProxy:
    """Passes bytes on in pieces, late, and now and then breaks a connection in the middle of one."""

    def __init__(self, target: int, chance: random.Random) -> None:
        self._target = target
        self._chance = chance
        self._writers: set[asyncio.StreamWriter] = set()
        self.port = 0
        self.seen: Counter[str] = Counter()

    @classmethod
    @asynccontextmanager
    async def open(cls, target: int, chance: random.Random) -> AsyncIterator[SlowProxy]:
        proxy = cls(target, chance)
        server = await asyncio.start_server(proxy._serve, "127.0.0.1", 0)
        proxy.port = server.sockets[0].getsockname()[1]
        try:
            yield proxy
        finally:
            server.close()
            for writer in tuple(proxy._writers):
                writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._target)
        self._writers |= {writer, far_writer}
        await asyncio.gather(self._pass(reader, far_writer, writer), self._pass(far_reader, writer, far_writer))
        self._writers -= {writer, far_writer}

    async def _pass(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, back: asyncio.StreamWriter
    ) -> None:
        chance = self._chance
        try:
            while data := await reader.read(1 << chance.randrange(6, 16)):
                what = chance.choices(("at once", "late", "stalls", "breaks"), weights=(900, 90, 4, 6))[0]
                self.seen[what] += 1
                if what == "breaks":
                    writer.write(data[: len(data) // 2])
                    break
                if what != "at once":
                    await asyncio.sleep(chance.random() * (0.01 if what == "late" else 2 * TIMEOUT_S))
                writer.write(data)
                await writer.drain()
        except OSError:
            pass  # it was broken at the other end
        writer.transport.abort() if self._chance.random() < 0.5 else writer.close()
        back.transport.abort()


async def test_each_caller_hears_its_own_reply_and_nothing_is_done_twice_through_a_slow_proxy(shared_valkey):
    chance = random.Random(17)
    name, kinds, unsent = uuid4().hex, Counter(), []
    numbers = iter(range(CALLS))
    async with SlowProxy.open(shared_valkey, chance) as proxy:
        settings = Settings(redis_endpoint=f"redis://127.0.0.1:{proxy.port}", redis_timeout_s=TIMEOUT_S)
        link = MultiplexedLink(settings, clock=SystemClock(), random=system_random(), telemetry=Telemetry())

        async def ask(number: int) -> None:
            padding = "z" * chance.choice((0, 10, 3000))
            try:
                heard = await link.run(ONCE, f"{name}:{number // FIELDS}", [number, padding])
            except LinkLost as lost:
                kinds[f"lost, sent {lost.sent}"] += 1
                if not lost.sent:
                    unsent.append(number)
            else:
                kinds["right" if heard == f"{number}:{padding}".encode() else "WRONG"] += 1

        async def caller() -> None:
            for number in numbers:
                task = asyncio.create_task(ask(number))
                if chance.random() < 0.1:
                    for _ in range(chance.randrange(8)):
                        await asyncio.sleep(0)
                    task.cancel()
                try:
                    await task
                except asyncio.CancelledError:
                    kinds["cancelled"] += 1
                if not link.up:
                    await asyncio.sleep(chance.random() * 0.01)

        async with asyncio.timeout(HANG_GUARD_S + CALLS / 200):
            await asyncio.gather(*(caller() for _ in range(64)))
            await link.close()

    done: Counter[int] = Counter()
    async with Redis(port=shared_valkey) as client:
        for key in {f"{name}:{number // FIELDS}" for number in range(CALLS)}:
            done.update({int(field): int(count) for field, count in (await client.hgetall(key)).items()})
    print(dict(kinds), dict(proxy.seen), "done", len(done))
    assert kinds.pop("WRONG", 0) == 0
    assert kinds.total() == CALLS
    assert max(done.values()) == 1
    assert [number for number in unsent if done[number]] == []
    assert kinds["right"] <= len(done) <= CALLS - len(unsent)
    assert min(kinds[kind] for kind in ("right", "cancelled", "lost, sent True")) > 0
