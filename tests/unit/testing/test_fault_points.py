"""Fault points: what is planned happens where and as often as it was planned, and without a plan nothing does."""

from __future__ import annotations

import subprocess
import sys
from contextlib import asynccontextmanager

import pytest

from mangacache import Consistency, Invalid, MangaCache, Settings
from mangacache.clock import SystemClock, system_random
from mangacache.store import Store
from mangacache.store.transport import AioTransport
from mangacache.telemetry import Telemetry
from mangacache.testing import FaultPoints, MemoryDynamoDB, MemoryRedis
from mangacache.testing.points import KILLED, POINTS, VARIABLE, Plan, parse_plans

SETTINGS = Settings(table_name="points", retry_base_s=0.001, redis_timeout_s=5.0, loop_lag_limit_s=60.0)


def test_plans_are_said_in_words():
    assert parse_plans("written_before_commit=kill after 3, before_read=delay 0.5 times 10,") == [
        Plan(point="written_before_commit", action="kill", after=3),
        Plan(point="before_read", action="delay", seconds=0.5, times=10),
    ]


@pytest.mark.parametrize(
    "text",
    [
        "before_write",
        "before_write=",
        "nowhere=kill",
        "before_write=explode",
        "before_write=kill after",
        "before_write=kill after x",
        "before_write=kill soon 3",
        "before_write=kill after -1",
        "before_write=raise times 0",
        "before_read=delay -1",
    ],
)
def test_what_is_no_plan_is_refused(text):
    with pytest.raises(Invalid):
        parse_plans(text)


def test_the_environment_plans_for_a_process(monkeypatch):
    monkeypatch.setenv(VARIABLE, "before_get=stop")
    assert repr(FaultPoints.from_environment()) == "<FaultPoints 1 planned, 0 happened>"
    monkeypatch.delenv(VARIABLE)
    assert repr(FaultPoints.from_environment()) == "<FaultPoints 0 planned, 0 happened>"


@asynccontextmanager
async def pointed(points):
    """Open a cache on doubles with the points on its ways."""
    clock = SystemClock()
    transport = AioTransport(MemoryDynamoDB().client())
    store = Store(transport, settings=SETTINGS, clock=clock, random=system_random(), telemetry=Telemetry())
    await store.schema.create()
    link = MemoryRedis(clock=clock).link(clock=clock, timeout_s=SETTINGS.redis_timeout_s)
    async with MangaCache.open(SETTINGS, transport=points.transport(transport), link=points.link(link)) as cache:
        yield cache


async def _chat(cache):
    session = cache.session("s")
    await session.append(role="user", content="hello", turn_id="first")
    read = await session.context(turns=32, consistency=Consistency.LATEST)
    again = await session.context(turns=32, consistency=Consistency.STRONG)
    said = await session.append(role="user", content="again", turn_id="second", after="0.0.0")
    assert not said.duplicate
    assert [turn.turn_id for turn in read.turns] == [turn.turn_id for turn in again.turns] == ["first"]
    return [turn.turn_id for turn in (await session.history()).turns]


async def test_a_chat_passes_every_point():
    points = FaultPoints()
    async with pointed(points) as cache:
        await _chat(cache)
    assert points.passed.keys() == set(POINTS)
    assert points.happened == []


@pytest.mark.parametrize("point", POINTS)
async def test_a_call_that_fails_at_a_point_is_survived_or_repeated_as_from_any_other_loss(point):
    points = FaultPoints()
    async with pointed(points) as cache:
        points.plan(Plan(point=point, action="raise"))
        assert await _chat(cache) == ["first", "second"]
    assert points.happened == [(point, "raise")]


async def test_a_plan_waits_for_its_turn_and_ends():
    points = FaultPoints(Plan(point="before_write", action="delay", seconds=0.0, after=2, times=3))
    async with pointed(points) as cache:
        for number in range(8):
            await cache.session(f"s{number}").append(role="user", content="x")
            assert len(points.happened) == min(max(0, number - 1), 3)


async def test_what_is_healed_does_not_happen():
    points = FaultPoints(Plan(point="before_write", action="raise", times=100))
    async with pointed(points) as cache:
        points.heal()
        await _chat(cache)
    assert points.happened == []


def test_a_process_ends_at_the_point_at_which_it_is_to_be_killed():
    code = (
        "import asyncio\n"
        "from mangacache.testing.points import FaultPoints, parse_plans\n"
        "points = FaultPoints(*parse_plans('before_write=kill after 1'))\n"
        "async def main():\n"
        "    for _ in range(3):\n"
        "        await points.reach('before_write', RuntimeError); print('passed', flush=True)\n"
        "asyncio.run(main())\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (KILLED, "passed\n"), done.stderr
