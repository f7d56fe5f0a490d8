"""Machines whose wall clocks are wrong, or jump, change nothing about numbers, order and what is stored."""

from __future__ import annotations

import random
from datetime import datetime

import pytest
from mangatest import SetClock
from racing import APPENDS, CHANGES, FAULT_SEEDS, Plan, Race, check_numbers, check_order, check_places, outlived

from mangacache import Consistency, Version

DAY_S = 86_400
FAR_S = 200 * DAY_S  # by such a clock everything that the others store has expired
LEVELS = ("strong", "latest", "session", "eventual")


def _calls(w, *, changes=True):
    """Return strands of every kind of call; the last ones are reads that come when all else of the worker is done."""
    appends = [("append", f"w{w}-{i}") for i in range(12)]
    many = [("append_many", [f"w{w}-many{i}-{k}" for k in range(3)]) for i in range(3)]
    meta = [("update", f"w{w}-{i}") for i in range(4)] + [("summarise", f"by w{w}, {i}") for i in range(2)]
    reads = [("context", level) for level in LEVELS]
    begin = ("append", "first")
    return [[begin, *appends, *reads], [begin, *many, *reads], [begin, *(meta if changes else []), *reads]]


@pytest.mark.parametrize("seed", FAULT_SEEDS)
async def test_clocks_that_are_days_off_and_jump_change_no_number_no_order_and_nothing_that_is_stored(real_world, seed):
    """One three days behind, one three days ahead, one that jumps about; a worker with a right one is killed."""
    noise = random.Random(seed)
    jumps = [(n, noise.choice([-3, -1, 1, 3]) * DAY_S) for n in range(5, 40, 6)]
    clocks = [{}, {"clock_s": -3 * DAY_S}, {"clock_s": 3 * DAY_S}, {"clock_jumps": jumps}]
    plans = [
        Plan(_calls(w), seed=seed * 10 + w, loss=0.1, late_s=0.1, after="0.0.0", **clock)
        for w, clock in enumerate(clocks)
    ]
    race = Race(real_world, plans, [(noise.randrange(10, 60), 0, "kill")])
    done = await race.run()
    assert outlived(race) == [0, 0, 0]
    check_order(done)
    check_places(done)
    right, behind, ahead = SetClock(), SetClock(), SetClock()
    behind.wall_offset_s, ahead.wall_offset_s = -3 * DAY_S, 3 * DAY_S
    seen = []
    for clock in (right, behind, ahead):
        async with real_world.cache(clock=clock) as cache:
            stored = (await cache.session("race").history(limit=1000)).turns
            context = await cache.session("race").context(turns=32, consistency=Consistency.STRONG)
            check_numbers(stored, done)
            seen.append((stored, context))
    assert seen[0] == seen[1] == seen[2]
    changed = {one.name for one in done if one.call == "update" and not one.said}
    assert changed <= context.meta.attributes.keys()
    revisions = [one.version.revision for one in done if one.call in CHANGES and not one.said]
    assert len(set(revisions)) == len(revisions) > 5
    days = {datetime.fromisoformat(turn.created_at).date() for turn in stored}
    assert len(days) >= 3, "the clocks were as wrong as they were meant to be"


async def test_a_clock_by_which_all_has_expired_takes_no_number_twice_and_hides_no_turn_from_the_others(real_world):
    """To it the session has ended, so it begins META anew with its first turn; numbers and turns go on as they are."""
    plans = [Plan(_calls(w, changes=False), seed=w, loss=0.1, late_s=0.1, after="0.0.0") for w in range(2)]
    plans.append(Plan(_calls(2, changes=False), seed=2, loss=0.1, late_s=0.1, after="0.0.0", clock_s=FAR_S))
    race = Race(real_world, plans)
    done = await race.run()
    assert race.statuses == [0, 0, 0]
    check_order(done)
    async with real_world.cache() as cache:
        stored = (await cache.session("race").history(limit=1000)).turns
        context = await cache.session("race").context(turns=32, consistency=Consistency.STRONG)
    places = check_numbers(stored, done)
    assert len(places) == 1 + 3 * (12 + 9)
    assert context.turns == stored[-32:]
    assert {one.version.incarnation for one in done if one.call in APPENDS} == {1}


async def test_a_deleter_whose_clock_is_wrong_ends_a_life_for_everybody(real_world):
    """Its tombstone and seals hold whatever its clock said, also once DynamoDB has deleted what its ttl calls old."""
    for life, offset_s in enumerate((-3 * DAY_S, 3 * DAY_S, FAR_S), start=1):
        plans = [Plan([[("append", f"{life}-{w}-{i}") for i in range(6)]], seed=w) for w in range(2)]
        await Race(real_world, plans).run()
        clock = SetClock()
        clock.wall_offset_s = offset_s
        async with real_world.cache() as sleeper, real_world.cache(clock=clock) as deleter:
            before = await sleeper.session("race").context()
            assert (await deleter.session("race").delete()).existed
            await real_world.expire()
            done = await sleeper.session("race").append(role="user", content="x", turn_id=f"x{life}")
            context = await deleter.session("race").context(consistency=Consistency.STRONG)
        assert before.version.incarnation == life
        assert done.version == context.version == Version(life + 1, 1, 1)
