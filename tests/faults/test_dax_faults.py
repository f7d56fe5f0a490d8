"""DAX breaks in every way it can, a process of its own, while chats are replayed and worker processes read and write.

Two nodes, of which one is a second behind; entries live for five minutes, so that whatever was wrongly read through
them would be read for the whole run. The runs are short here; `make suites` runs them long (FAULT_OPERATIONS).
"""

from __future__ import annotations

import asyncio
import os
import time
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path

import msgspec
import pytest
from aiohttp import ClientSession
from loadrun import Load, run_load
from redis.asyncio import Redis

from mangacache import Consistency, MangaCache
from mangacache.local.dax.process import dax_process
from mangacache.local.process import free_port
from mangacache.local.valkey import valkey_process
from mangacache.replay import SAMPLE, Options, is_clean, read_conversations, replay

OPERATIONS = int(os.environ.get("FAULT_OPERATIONS", "1200"))
LONG = "FAULT_OPERATIONS" in os.environ
TIMES = 12 if LONG else 1
GUARD_S = 120
CLUSTER = ("--nodes", "2", "--lag", "1", "--item-ttl", "300", "--query-ttl", "300")


class Cluster:
    """An emulator as a process, and what can be done to it."""

    def __init__(self, process, fault_port):
        self.process = process
        self._faults = f"http://127.0.0.1:{fault_port}"

    @classmethod
    @asynccontextmanager
    async def open(cls, dynamodb_url, folder):
        fault_port = free_port()
        process = dax_process(dynamodb_url, folder=folder, fault_port=fault_port, options=CLUSTER)
        await process.start()
        try:
            yield cls(process, fault_port)
        finally:
            await process.stop()

    @property
    def endpoint(self):
        return f"dax://127.0.0.1:{self.process.port}"

    async def tell(self, action, **query):
        """Have something go wrong, by the fault port."""
        async with ClientSession() as session, session.post(f"{self._faults}/{action}", params=query) as answer:
            assert answer.status == 200, await answer.text()

    async def status(self):
        async with ClientSession() as session, session.get(f"{self._faults}/status") as answer:
            return await answer.json()


@pytest.fixture
async def cluster(dynoxide, tmp_path):
    async with Cluster.open(dynoxide, tmp_path) as opened:
        yield opened


@pytest.fixture
async def valkey(tmp_path):
    """A Redis of the test's own, which throws contexts out."""
    folder = tmp_path / "valkey"
    folder.mkdir()
    process = valkey_process(folder=folder)
    await process.start()
    yield process
    await process.stop()


@pytest.fixture
def settings_of(real_world, cluster, valkey):
    """Return the settings of a profile: with DAX, and with or without Redis."""

    def made(profile):
        redis = f"redis://127.0.0.1:{valkey.port}" if "redis" in profile else None
        return real_world.settings.replace(
            dax_endpoint=cluster.endpoint,
            dax_fills="numbers",
            dax_timeout_s=1.0,
            redis_endpoint=redis,
            near_max_age_s=0.0,
        )

    return made


async def _calm(_cluster, _reached):
    """Let everything go well."""


async def _killed(cluster, reached):
    await reached(0.2)
    cluster.process.kill()
    await reached(0.3)
    await cluster.process.restart()


async def _slowed(cluster, reached):
    await reached(0.2)
    await cluster.tell("slow", seconds="2")
    await reached(0.6)
    await cluster.tell("heal")


async def _mute(cluster, reached):
    for share in (0.1, 0.3, 0.5, 0.7):
        await reached(share)
        await cluster.tell("lose-replies", count="40")


async def _everything(cluster, reached):
    """One thing after the other."""
    await reached(0.1)
    await cluster.tell("lose-replies", count="30")
    await reached(0.2)
    cluster.process.kill()
    await reached(0.35)
    await cluster.process.restart()
    await reached(0.5)
    await cluster.tell("slow", seconds="2")
    await reached(0.65)
    await cluster.tell("heal")
    await reached(0.75)
    await cluster.tell("throttle", count="100")
    await reached(0.85)
    cluster.process.pause()
    await reached(0.95)
    cluster.process.resume()


# Replays


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


def _chats(folder):
    """Write the chats that are replayed: the sample, or the file that DAX_CHATS names, so many times."""
    source = Path(os.environ.get("DAX_CHATS", SAMPLE))
    path = folder / "chats.jsonl"
    encoded = [
        msgspec.json.encode(msgspec.structs.replace(conversation, session_id=f"{conversation.session_id}-{turn}"))
        for turn in range(1 if "DAX_CHATS" in os.environ else TIMES)
        for conversation in read_conversations(source)
    ]
    path.write_bytes(b"\n".join(encoded) + b"\n")
    return path


async def _empty(settings, reached):
    """Throw all contexts out of Redis now and then, so that they are filled anew."""
    if settings.redis_endpoint is not None:
        async with Redis.from_url(settings.redis_endpoint) as redis:
            for share in (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9):
                await reached(share)
                await redis.flushall()


PROFILES = ("dax", "dax and redis")
SHORT = {("dax", _calm), ("dax", _killed), ("dax and redis", _calm)}
CASES = [(profile, disturb) for profile in PROFILES for disturb in (_calm, _killed, _slowed, _mute, _everything)]


@pytest.mark.parametrize(("profile", "disturb"), [case for case in CASES if LONG or case in SHORT])
async def test_a_replay_ends_clean_and_without_an_error_whatever_befalls_dax(
    cluster, settings_of, tmp_path, profile, disturb
):
    progress = Progress()
    settings = settings_of(profile)
    emptying = asyncio.ensure_future(_empty(settings, progress.reached))
    disturbing = asyncio.ensure_future(disturb(cluster, progress.reached))
    started_s = time.monotonic()
    figures = await replay(_chats(tmp_path), settings, Options(workers=2), progress=progress.begin)
    await disturbing
    await emptying
    print(
        f"\n{profile}, {disturb.__name__[1:]}: {figures['messages']} messages in {time.monotonic() - started_s:.1f} s; "
        f"DAX {figures['dax']}; mismatches {figures['mismatches']}, lost {figures['lost']}, duplicates "
        f"{figures['duplicates']}, calls repeated {figures['repeated_calls']}"
    )
    assert is_clean(figures), figures
    assert figures["turns_verified"] == figures["turns_written"]
    assert figures["repeated_calls"] == 0, "a caller heard of an error"
    if disturb is _calm and profile == "dax":
        assert figures["dax"]["answered"] > 0


# Histories


LEVELS = [(level, profile) for level in ("session", "latest") for profile in PROFILES]


@pytest.mark.parametrize(("level", "profile"), LEVELS if LONG else [("session", "dax"), ("latest", "dax and redis")])
async def test_no_read_is_older_than_its_level_allows_whatever_befalls_dax(
    cluster, settings_of, tmp_path, level, profile
):
    async def disturb(run):
        await _everything(cluster, run.reached)

    load = Load(level=level, operations=OPERATIONS, workers=2, clients=16, sessions=6, seed=3)
    folder = tmp_path / "histories"
    folder.mkdir()
    outcome = await run_load(load, settings=settings_of(profile), folder=folder, disturb=disturb, hang_guard_s=GUARD_S)
    print(f"\n{level}, {profile}: {outcome.summary()}")
    assert outcome.report.counts == {}, outcome.report
    assert outcome.refused == 0
    assert [end["failures"] for end in outcome.ends] == [0, 0]


# How long it is felt


class Readers:
    """Tasks that read contexts again and again, each time as a worker that does not have them yet."""

    def __init__(self, cache, names, expected):
        self._cache = cache
        self._names = names
        self._expected = expected
        self.sources = []
        self.slow = 0
        self.longest_s = 0.0
        self.over = False

    async def read(self, lane):
        number = lane
        while not self.over:
            number += 1
            name = self._names[number % len(self._names)]
            self._cache._sessions._actors.pop(name, None)
            started_s = time.monotonic()
            context = await self._cache.session(name).context(turns=32, consistency=Consistency.SESSION)
            took_s = time.monotonic() - started_s
            assert [turn.content for turn in context.turns] == self._expected
            self.sources.append(context.source)
            self.longest_s = max(self.longest_s, took_s)
            self.slow += took_s >= self._cache.settings.dax_timeout_s

    async def reached(self, condition):
        async with asyncio.timeout(GUARD_S):
            while not condition():  # noqa: ASYNC110 - looks from outside
                await asyncio.sleep(0.005)

    async def more(self, count):
        so_far = len(self.sources)
        await self.reached(lambda: len(self.sources) >= so_far + count)

    async def again_by_dax(self):
        so_far = len(self.sources)
        await self.reached(lambda: "dax" in self.sources[so_far:])


OUTAGES = ["killed", "slow by 2 s", "stands still", "loses replies"]


@pytest.mark.parametrize("fault", OUTAGES if LONG else OUTAGES[:2])
async def test_it_is_reported_how_long_an_outage_of_dax_is_felt_and_no_reader_hears_of_it(real_world, cluster, fault):
    settings = real_world.settings.replace(dax_endpoint=cluster.endpoint)
    expected = [f"line {number}" for number in range(20)]
    names = [f"s{number}" for number in range(4)]
    async with MangaCache.open(settings) as cache, AsyncExitStack() as stack:
        for name in names:
            for line in expected:
                await cache.session(name).append(role="user", content=line)
        readers = Readers(cache, names, expected)
        lanes = [asyncio.ensure_future(readers.read(lane)) for lane in range(4)]
        stack.push_async_callback(_end, readers, lanes)
        await readers.again_by_dax()
        await readers.more(40)
        readers.slow, readers.longest_s = 0, 0.0
        if fault == "killed":
            cluster.process.kill()
        elif fault == "stands still":
            cluster.process.pause()
        elif fault == "slow by 2 s":
            await cluster.tell("slow", seconds="2")
        else:
            await cluster.tell("lose-replies", count="100000")
        await readers.reached(lambda: cache.telemetry.value("mangacache_dax_up") == 0)
        await readers.more(40)
        slow, longest_s = readers.slow, readers.longest_s
        if fault == "killed":
            await cluster.process.restart()
        elif fault == "stands still":
            cluster.process.resume()
        else:
            await cluster.tell("heal")
        back_s = time.monotonic()
        await readers.again_by_dax()
        print(
            f"\n{fault}: {slow} reads of 4 at a time took a time-out or more, the longest {longest_s:.2f} s; reads come"
            f" by DAX again {time.monotonic() - back_s:.2f} s after it was well"
        )


async def _end(readers, lanes):
    readers.over = True
    try:
        await asyncio.gather(*lanes)
    finally:
        for lane in lanes:
            lane.cancel()
            with suppress(asyncio.CancelledError, Exception):
                await lane
