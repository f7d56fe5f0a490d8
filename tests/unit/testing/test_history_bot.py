"""Bots recorded and checked: ours on two workers is clean, a plain cache-aside shows what it does wrong."""

from __future__ import annotations

import asyncio

from mangacache import Consistency, NewTurn, Version
from mangacache.testing import HistoryRecorder, SeenTurn, check_history, record_state
from mangacache.testing.history import turn_digest

LEVELS = (Consistency.LATEST, Consistency.STRONG, Consistency.SESSION, Consistency.EVENTUAL(2))


async def talk(cache, recorder, client, messages):
    session = cache.session("s")
    token = Version()
    for number in range(messages):
        level = LEVELS[number % len(LEVELS)]
        with recorder.read("s", client=client, consistency=level, at_least=token, turns=5) as call:
            context = await session.context(consistency=level, at_least=token, turns=5)
            call.done(context)
        token = token.join(context.version)
        turns = [NewTurn(role="user", content=f"{client} {number} {i}", turn_id=f"{client}-{number}-{i}") for i in "ab"]
        with recorder.append_many("s", client=client, turns=turns) as call:
            done = await session.append_many(turns)
            call.done(done)
        token = token.join(done[-1].version)
        with recorder.append("s", client=client, turn_id=f"{client}-{number}-a", role="user", content="again") as call:
            call.done(
                await session.append(role="user", content="again", turn_id=f"{client}-{number}-a", after=Version())
            )
        with recorder.update("s", client=client) as call:
            updated = await session.update({"seen": number})
            call.done(updated)
        token = token.join(updated.version)


async def test_a_session_on_two_workers_breaks_no_promise(world):
    recorders = [HistoryRecorder(worker=f"w{i}") for i in range(2)]
    async with world.cache() as one, world.cache() as other:
        workers = list(zip((one, other), recorders, strict=True))
        await asyncio.gather(*(talk(*workers[i % 2], f"c{i}", 6) for i in range(4)))
        with recorders[0].delete("s", client="c0") as call:
            call.done(await one.session("s").delete())
        await talk(*workers[1], "c9", 3)
        await record_state(recorders[0], one.session("s"))
    report = check_history([operation for recorder in recorders for operation in recorder.operations()])
    assert report.clean, report.text()
    assert report.notes == ()
    assert report.outcomes == {"read ok": 27, "append ok": 54, "update ok": 27, "delete ok": 1, "state ok": 1}


class CacheAside:
    """What many bots do: read through a cache, delete the entry when something is written."""

    def __init__(self):
        self.turns = []
        self.cache = None
        self.slow_fill = asyncio.Event()

    async def read(self, *, slowly=False):
        if self.cache is not None:
            return self.cache
        turns = tuple(self.turns)
        if slowly:
            await self.slow_fill.wait()
        self.cache = turns
        return turns

    async def append(self, turn_id):
        self.turns.append(SeenTurn(len(self.turns) + 1, turn_id, turn_digest("user", turn_id)))
        self.cache = None
        return len(self.turns)


async def test_a_plain_cache_aside_is_caught_with_the_old_answer_that_it_filled_in():
    """A reader reads, a writer writes and deletes, the reader fills: the old list stays in the cache."""
    bot, recorder = CacheAside(), HistoryRecorder(worker="w")

    async def append(client, turn_id):
        with recorder.append("s", client=client, turn_id=turn_id, role="user", content=turn_id) as call:
            number = await bot.append(turn_id)
            call.wrote(Version(1, number, 1), numbers=(number,))

    async def read(client, *, slowly=False):
        with recorder.read("s", client=client, consistency=Consistency.LATEST) as call:
            turns = await bot.read(slowly=slowly)
            call.saw(Version(1, len(turns), 1), turns)

    await append("writer", "one")
    filling = asyncio.create_task(read("reader", slowly=True))
    await asyncio.sleep(0)
    await append("writer", "two")
    bot.slow_fill.set()
    await filling
    await read("writer")
    report = check_history(recorder.operations())
    assert report.counts == {"linearizability": 1, "read your writes": 1}
    for violation in report.violations:
        assert [operation.client for operation in violation.operations] == ["writer", "writer"]
