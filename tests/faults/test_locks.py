"""Locks under fire: holders paused past their lease, killed, cut off; none of them writes what it may not."""

from __future__ import annotations

import json
import os
import signal

import pytest
from lockrace import LockRace, Plan, Worker, check_locks, stale_writes

LOCK_ROUNDS = int(os.environ.get("LOCK_ROUNDS", "60"))
"""How often a lock is taken in a race; a long run sets the variable: LOCK_ROUNDS=10000."""


async def test_no_write_of_a_holder_that_was_paused_killed_or_cut_off_is_accepted_after_the_next_has_the_lock(
    real_world, shared_valkey
):
    race = LockRace(real_world, rounds=LOCK_ROUNDS, redis_port=shared_valkey)
    await race.run(within_s=500.0)
    print(json.dumps(race.figures()))
    check_locks(race.reports)


async def test_nor_is_one_where_there_is_no_redis_and_the_fence_alone_is_the_lock(real_world):
    race = LockRace(real_world, rounds=LOCK_ROUNDS // 4, redis_port=None, workers=2, strands=2, sessions=2)
    await race.run(within_s=500.0)
    check_locks(race.reports)


@pytest.mark.parametrize("with_redis", [True, False], ids=["redis", "fence alone"])
async def test_a_holder_that_sleeps_past_its_lease_wakes_to_a_refusal(real_world, shared_valkey, with_redis):
    """The whole of it in one order: held, paused, another holds and writes, woken, refused."""
    async with real_world.cache() as cache:
        await cache.session("s").append(role="user", content="a")
    plan = Plan(["s"], 0, 0.2, f"redis://127.0.0.1:{shared_valkey}" if with_redis else None)
    workers = []
    try:
        for name in ("first", "second"):
            workers.append(await Worker.start(real_world, name, plan, None))
            await workers[-1].reported("held")
            if name == "first":
                workers[0].send(signal.SIGSTOP)
        first, second = workers
        second.tell()
        await second.reported("wrote")
        assert await second.ended() == 0
        first.tell()
        first.send(signal.SIGCONT)
        assert "lost: the session's fence is 2" in (await first.reported("refused"))["why"]
        assert await first.ended() == 0
    finally:
        for worker in workers:
            worker.send(signal.SIGKILL)
            await worker.ended()
    assert [report["fence"] for report in (*first.reports, *second.reports) if report["call"] == "held"] == [1, 2]
    check_locks([*first.reports, *second.reports])


@pytest.mark.parametrize("seen", [True, False])
def test_the_check_of_a_race_finds_a_write_that_a_stale_holder_was_let_make(seen):
    held = [{"call": "held", "worker": "w", "session": "s", "fence": f, "begun": f, "ended": f + 0.5} for f in (1, 2)]
    wrote = {"call": "wrote", "worker": "w", "session": "s", "fence": 1, "revision": 2, "ended": 4.0}
    assert bool(stale_writes([*held, {**wrote, "begun": 3.0 if seen else 2.0}])) == seen
