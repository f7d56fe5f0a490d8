"""The client at real workers: its page is true, and what it does holds when they go."""

from __future__ import annotations

import asyncio
import re
import signal
import sys
from pathlib import Path

import pytest
from commands import clean_environ
from mangatest import HANG_GUARD_S
from workers import worker_process

from mangacache import Conflict, Invalid, NewTurn, NotFound
from mangacache.client import WorkerClient

PAGE = (Path(__file__).parents[2] / "docs" / "client.md").read_text(encoding="utf-8")


@pytest.fixture
def variables(table, shared_valkey, mangacache):
    """The variables that name a table of this test's own, and keys in Redis of its own."""
    assert mangacache("tables", "create", **table).returncode == 0
    return table | {"REDIS_ENDPOINT": f"redis://127.0.0.1:{shared_valkey}", "KEY_PREFIX": table["SESSION_TABLE"]}


@pytest.fixture
async def workers(variables):
    async with worker_process(variables) as one, worker_process(variables) as other:
        yield [one, other]


async def test_the_example_of_its_page_runs_as_it_stands(workers, tmp_path):
    (example,) = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    program = tmp_path / "bot.py"
    program.write_text(example, encoding="utf-8")
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-W", "error", str(program), *(worker.public for worker in workers)),
        env=clean_environ(),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(HANG_GUARD_S):
        said, complaints = await process.communicate()
    assert complaints.decode() == ""
    assert said.decode().splitlines() == [
        "['Is Berserk 1 in stock?'] True",
        "told: 2 Yes: 3 copies, at 14.99.",
        "stored: 3",
    ]


async def test_every_call_does_what_the_librarys_does(workers):
    async with WorkerClient.open([worker.public for worker in workers], in_turn=True) as client:
        session = client.session("a/b ü", customer_id="Zoë")
        done = await session.append_many([NewTurn(role="user", content=str(i), attributes={"n": i}) for i in range(3)])
        assert [appended.number for appended in done] == [1, 2, 3]
        assert (await session.append(role="tool", content="x", turn_id="t", attributes={"price": 5})).number == 4
        assert (await session.append(role="tool", content="x", turn_id="t")).duplicate
        page = await session.history(limit=3)
        assert [turn.number for turn in page.turns] == [2, 3, 4]
        assert [turn.number for turn in (await session.history(before=page.older)).turns] == [1]
        updated = await session.update({"mood": "glad"})
        with pytest.raises(Conflict):
            await session.update({"mood": "sad"}, if_version=done[-1].version)
        assert (await session.update({"n": 2}, if_version=updated.version)).meta.attributes == {"mood": "glad", "n": 2}
        lock = await session.lock()
        assert (await session.renew(lock)).fence == lock.fence
        await session.summarise("Talks of numbers.", fence=lock.fence)
        await session.unlock(lock)
        assert (await session.close()).meta.status == "closed"
        context = await session.context(turns=2)
        assert (context.meta.customer_id, context.meta.status, context.summary.text) == (
            *("Zoë", "closed"),
            "Talks of numbers.",
        )
        assert [turn.attributes for turn in context.turns] == [{"n": 2}, {"price": 5}]
        with pytest.raises(Conflict):
            await client.session("a/b ü", customer_id="another").context()
        with pytest.raises(Invalid):
            await session.append(role="bot", content="x")
        assert [each.session_id for each in (await client.sessions_of("Zoë")).sessions] == ["a/b ü"]
        await client.heartbeat("Zoë")
        assert (await client.last_seen("Zoë")).online
        assert await client.last_seen("nobody") is None
        assert await client.count_online() == 1
        assert (await client.rate_limit("Zoë")).allowed
        await client.record_trending("berserk-1", weight=3)
        assert [(trend.title, trend.count) for trend in await client.trending()] == [("berserk-1", 3)]
        prefetched = await client.prefetch(["a/b ü", "nobody's"])
        assert prefetched.warm + prefetched.loaded == 2
        assert (await session.delete()).existed
        assert (await session.context()).meta is None
        with pytest.raises(NotFound):
            await session.update({"mood": "gone"})


async def test_a_client_goes_on_when_the_worker_that_it_talks_to_is_killed(workers):
    one, other = workers
    async with WorkerClient.open([worker.public for worker in workers]) as client, client.chat("s-9") as chat:
        session = client.session("s-9")
        await chat.append(role="user", content="1")
        await session.append(role="user", content="2")
        gone = one if one.public == chat.worker else other
        gone.signal(signal.SIGKILL)
        await gone.ended()
        third = await chat.append(role="user", content="3")
        fourth = await session.append(role="user", content="4")
        assert (third.number, fourth.number) == (3, 4)
        assert [turn.content for turn in (await session.context()).turns] == ["1", "2", "3", "4"]
        told = []
        async with asyncio.timeout(HANG_GUARD_S):
            while [event.number for event in told if event.kind == "turn"] != [2, 4]:
                told.append(await chat.next_event())
        assert {event.kind for event in told} <= {"turn", "meta"}
