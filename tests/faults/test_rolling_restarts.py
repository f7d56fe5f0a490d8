"""Workers are replaced, or killed, one after the other while chats go on through them: nothing is lost or twice."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest
from commands import variables_for
from rolling import NOTICE, Chats, create_table, slots

from mangacache import Settings

ROUNDS = int(os.environ.get("ROLLING_ROUNDS", "1"))
CONVERSATIONS = int(os.environ.get("ROLLING_CONVERSATIONS", "12"))
BETWEEN = 10  # messages


@pytest.fixture
async def variables(dynoxide, shared_valkey):
    """A table of its own, and a Redis; a machine that is busy with other tests is no outage."""
    made = variables_for(dynoxide) | NOTICE | {"REDIS_ENDPOINT": f"redis://127.0.0.1:{shared_valkey}"}
    made |= {"KEY_PREFIX": f"{made['SESSION_TABLE']}:", "MANGACACHE_LOOP_LAG_LIMIT_S": "60"}
    await create_table(made)
    return made


@pytest.mark.parametrize("way", ["replaced", "killed"])
async def test_workers_go_one_after_the_other_while_chats_go_on_through_them(way, variables):
    async with slots(variables) as places:
        chats, done = Chats([place.url for place in places], limit=CONVERSATIONS), asyncio.Event()
        replaying = asyncio.create_task(chats.replay_until(done))

        async def roll():
            for _ in range(ROUNDS):
                for place in places:
                    await chats.go_on_for(BETWEEN)
                    await (place.replace() if way == "replaced" else place.crash())
            await chats.go_on_for(BETWEEN)
            done.set()

        rolling = asyncio.create_task(roll())
        await asyncio.wait((replaying, rolling), return_when=asyncio.FIRST_EXCEPTION)
        rolling.cancel()
        await replaying
        assert done.is_set()
        left = [place.replaced for place in places]
        complaints = [place.worker.complaints for place in places]

    expected = 0 if way == "replaced" else -signal.SIGKILL
    assert left == [[expected] * ROUNDS] * len(places), complaints
    assert chats.clean, chats.reports
    found = await chats.read_back(Settings.from_env(variables))
    turns = sum(report["turns_written"] for report in chats.reports)
    assert found == {"verified": turns, "mismatches": 0, "lost": 0, "duplicates": 0}
