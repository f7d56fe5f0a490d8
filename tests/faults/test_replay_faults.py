"""Redis breaks in the middle of a replay: nothing is lost, doubled or changed, and it is said that it was degraded."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

import msgspec
import pytest
from redis.asyncio import Redis

from mangacache.local.valkey import valkey_process
from mangacache.replay import SAMPLE, Options, is_clean, read_conversations, replay
from mangacache.testing import Proxy

TIMES = 3
"""The sample is replayed so often, so that a replay lasts through an outage."""


@pytest.fixture
def chats(tmp_path):
    path = tmp_path / "chats.jsonl"
    encoded = [
        msgspec.json.encode(msgspec.structs.replace(conversation, session_id=f"{conversation.session_id}-{time}"))
        for time in range(TIMES)
        for conversation in read_conversations(SAMPLE)
    ]
    path.write_bytes(b"\n".join(encoded) + b"\n")
    return path


class Progress:
    """Counts a replay's messages, and lets others wait for a share of them."""

    def __init__(self):
        self._done = self._total = 0
        self._moved = asyncio.Event()

    def begin(self, total):
        self._total = total
        return self._advance

    def _advance(self):
        self._done += 1
        self._moved.set()

    async def reached(self, share):
        while not self._total or self._done < share * self._total:
            self._moved.clear()
            await self._moved.wait()


class Redises:
    """A primary behind a proxy, and what can be done to it."""

    def __init__(self, stack, folder):
        self._stack = stack
        self._folder = folder

    async def start(self, name, *, options=()):
        folder = self._folder / name
        folder.mkdir()
        process = valkey_process(folder=folder, options=options)
        await process.start()
        self._stack.push_async_callback(process.stop)
        return process

    async def open(self):
        self.primary = await self.start("primary")
        self.proxy = await self._stack.enter_async_context(Proxy.open(self.primary.port))

    def lead_to(self, process):
        self.proxy.target_port = process.port
        self.proxy.sever()


async def _killed(redises, progress):
    await progress.reached(0.2)
    redises.primary.kill()
    await progress.reached(0.25)
    redises.lead_to(await redises.start("again"))


async def _flushed(redises, progress):
    async with Redis(port=redises.primary.port) as redis:
        for share in (0.2, 0.4, 0.6):
            await progress.reached(share)
            await redis.flushall()


async def _failed_over(redises, progress):
    replica = await redises.start("replica", options=["--replicaof", f"127.0.0.1 {redises.primary.port}"])
    async with Redis(port=replica.port) as redis:
        await progress.reached(0.15)
        await redis.replicaof("NO", "ONE")
    await progress.reached(0.25)
    redises.lead_to(replica)
    redises.primary.kill()


async def _cut(redises, progress):
    await progress.reached(0.2)
    redises.proxy.cut()
    await progress.reached(0.3)
    redises.proxy.restore()


@pytest.mark.parametrize(
    ("disturb", "workers"), [(_killed, 2), (_failed_over, 2), (_flushed, 1), (_cut, 1), (_killed, 1)]
)
async def test_a_replay_ends_clean_whatever_befalls_redis(real_world, tmp_path, chats, disturb, workers):
    progress = Progress()
    async with AsyncExitStack() as stack:
        redises = Redises(stack, tmp_path)
        await redises.open()
        settings = real_world.settings.replace(
            redis_endpoint=f"redis://127.0.0.1:{redises.proxy.port}",
            near_max_age_s=0.0,  # a replay is over so soon that memory alone would answer it
        )
        disturbing = asyncio.ensure_future(disturb(redises, progress))
        figures = await replay(chats, settings, Options(workers=workers), progress=progress.begin)
        await disturbing
    assert is_clean(figures), figures
    assert figures["turns_verified"] == figures["turns_written"]
    assert (figures["degraded_messages"] == 0) == (disturb is _flushed), "it is said, where it is so"
    assert figures["hit_ratio"]["redis"] > 0
