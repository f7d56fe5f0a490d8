"""A worker hears at once what another one writes: on Valkey, on Debian's Redis, and on a cluster.

Memory may answer for a minute here, so that whatever is seen sooner was seen because of a notice.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from fleet import Fleet, Gate, fleet_on, table_in_memory, until

from mangacache import Consistency

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from fleet import Worker

FAR_S = {"near_max_age_s": 60.0, "redis_link": "multiplexed"}


@pytest.fixture(params=["shared_valkey", "debian_redis", "cluster"])
async def fleet(request: pytest.FixtureRequest) -> AsyncIterator[Fleet]:
    server = request.getfixturevalue(request.param)
    async with fleet_on(await table_in_memory(), server if isinstance(server, int) else server.ports[0]) as made:
        yield made


async def read(worker: Worker, session_id: str = "s", **options) -> tuple[list[str], str]:
    """Return what a SESSION read finds, and where."""
    context = await worker.session(session_id).context(turns=32, **options)
    return [turn.content for turn in context.turns], context.source


async def notices(worker: Worker, count: int) -> None:
    await until(lambda: worker.event("changed_elsewhere") >= count, f"{count} notices are heard")


async def test_what_another_worker_appends_is_in_the_next_read(fleet):
    async with fleet.workers(2, **FAR_S) as (one, two):
        await one.say("1")
        assert (await read(two))[0] == ["1"]
        for n in range(2, 6):
            assert (await read(two))[1] == "memory"
            await one.say(str(n))
            await notices(two, n - 1)
            assert await read(two) == ([str(k) for k in range(1, n + 1)], "redis")
        assert two.event("changed_elsewhere") == 4


async def test_ones_own_writes_and_what_others_read_are_no_news(fleet):
    async with fleet.workers(2, **FAR_S) as (one, two):
        await one.say("1")
        await read(two)
        await one.latest()
        for n in range(2, 6):
            await one.say(str(n))
            assert (await read(one))[1] == "memory"
            await two.heard()
            assert (await read(one))[1] == "memory"
        assert one.event("changed_elsewhere") == 0
        await two.say("6")
        await notices(one, 1)  # it still hears of others, whatever it has written itself
        assert (await read(one))[0][-1] == "6"


async def test_a_change_that_is_heard_before_the_answer_makes_the_answer_count_as_old(fleet):
    async with fleet.workers(2, **FAR_S) as (one, two):
        await one.say("1")
        await two.heard()
        answered = Gate()
        two.link.after("get", answered)
        two.forget()
        reading = asyncio.create_task(read(two))
        await answered.reached()
        await one.say("2")
        await notices(two, 1)
        answered.opened.set()
        assert (await reading)[0] == ["1"], "it is what was so when it was asked for"
        assert await read(two) == (["1", "2"], "redis")


async def test_when_the_connection_is_gone_nothing_it_told_counts_any_more(fleet):
    async with fleet.workers(2, **FAR_S) as (one, two):
        await one.say("1")
        await read(two)
        assert (await read(two))[1] == "memory"
        two.link.drop()
        assert two.event("notices_lost") > 0
        assert (await read(two))[1] == "redis"
        assert (await read(two))[1] == "memory"
        await one.say("2")
        await notices(two, 1)
        assert (await read(two))[0] == ["1", "2"]


async def test_a_level_that_takes_an_age_is_answered_by_age(fleet):
    async with fleet.workers(2, **FAR_S) as (one, two):
        await one.say("1")
        await read(two)
        await one.say("2")
        await notices(two, 1)
        assert await read(two, consistency=Consistency.EVENTUAL(60)) == (["1"], "memory")
        assert (await read(two))[0] == ["1", "2"]


async def test_what_redis_forgets_is_told_too(fleet):
    async with fleet.workers(2, **FAR_S) as (one, two):
        await one.say("1")
        await read(two)
        await one.cache.session("s").delete()
        await notices(two, 1)
        assert (await read(two))[0] == []
