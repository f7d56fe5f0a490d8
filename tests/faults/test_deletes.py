"""Deletes race appends from other worker processes (rule R11): what a delete covers is gone, all else is kept."""

from __future__ import annotations

import asyncio
import random

import pytest
from racing import APPENDS, FAULT_SEEDS, Plan, Race, check_order, check_places, outlived

from mangacache import Consistency


def _appender(w, seed, *, loss, waits=False):
    """Append in two strands, in one and in many, while a third looks on at every level.

    Where it `waits`, the first strand stops half-way until it is told to go on.
    """
    noise = random.Random(seed * 10 + w)
    levels = ["strong", "latest", "session", "eventual"]
    single = [("append", f"w{w}-{i}") for i in range(40)]
    if waits:
        single.insert(20, ("wait", None))
    many = [("append_many", [f"w{w}-{i}-{k}" for k in range(noise.randrange(2, 9))]) for i in range(10)]
    reads = [
        ("context", noise.choice(levels)) if noise.random() < 0.7 else ("history", noise.random() < 0.5)
        for _ in range(40)
    ]
    return Plan([single, many, reads], seed=seed * 10 + w, loss=loss, late_s=0.4, after="0.0.0")


def _deleter(seed, count, *, dies=None, loss=0.0):
    """Delete so many times, each when told to."""
    strand = [call for _ in range(count) for call in (("wait", None), ("delete", None))]
    return Plan([strand], seed=seed, dies=dies, loss=loss, late_s=0.2)


def _check_deletes(done):
    """Nothing is acknowledged in a life that a delete had ended before, and no read shows anything of it."""
    check_order(done)
    check_places(done)
    ends = [(one.ended, one.version.incarnation) for one in done if one.call == "delete" and one.existed]
    for one in done:
        ended_before = max((life for at, life in ends if at < one.begun), default=0)
        if one.call in APPENDS and not one.again:
            assert one.version.incarnation >= ended_before, one
        if one.call == "history" and one.incarnation:
            assert one.incarnation >= ended_before, one
        if one.level in ("strong", "latest"):
            assert one.version.incarnation >= ended_before, one


async def _check_survivors(world, done, others):
    """What is acknowledged in the last life stands there, dense from 1; nothing of earlier ones comes back."""
    async with world.cache() as reader:
        context = await reader.session("race").context(turns=32, consistency=Consistency.STRONG)
        stored = (await reader.session("race").history(limit=1000)).turns
        last = context.version.incarnation
        assert [turn.number for turn in stored] == list(range(1, len(stored) + 1))
        places = {turn.number: turn.turn_id for turn in stored}
        acked = {(one.number, one.name) for one in done if one.call in APPENDS and one.version.incarnation == last}
        assert acked <= places.items()
        assert context.turns == stored[-32:]
        # Whoever loads it goes on with a sweep that was cut off, until no content of an earlier life is left.
        async with asyncio.timeout(60):
            while unswept := [
                item["SK"]["S"]
                for item in await world.items()
                if "unswept" in item or ("turn_id" in item and not item["SK"]["S"].startswith(f"TURN#{last:04d}"))
            ]:
                assert unswept
                await asyncio.sleep(0.05)
                async with world.cache() as other:
                    assert (await other.session("race").context()).version == context.version
    assert others <= last


@pytest.mark.parametrize("seed", FAULT_SEEDS)
async def test_three_workers_append_while_another_deletes_and_sessions_begin_again(real_world, seed):
    """One deleter is killed in the middle of its sweep; requests come up to 0.4 s after their time-out.

    Half of what is appended waits for that death, so that the session begins again; then the other deleter is told.
    """
    noise = random.Random(seed)
    appenders = [_appender(w, seed, loss=0.1, waits=True) for w in range(3)]
    dies = (("BatchWriteItem", 2, "before"), ("BatchWriteItem", 1, "after"))[seed % 2]
    plans = [*appenders, _deleter(seed, 1, dies=dies), _deleter(seed, 3, loss=0.1)]
    follows = [(lambda _, done: done.call == "die", w, "tell") for w in range(3)]
    begun_again = sorted(noise.randrange(1, 50) for _ in range(3))
    follows += [(_nth_append_of_a_later_life(nth), 4, "tell") for nth in begun_again]
    race = Race(real_world, plans, [(noise.randrange(80, 120), 3, "tell")], follows)
    done = await race.run()
    assert race.statuses[3] == -9, "the first deleter dies in its sweep"
    assert outlived(race) == [0] * 4
    deletes = [one for one in done if one.call == "delete" and one.existed]
    assert deletes, "the other deleter was told when the session had begun again"
    _check_deletes(done)
    await _check_survivors(real_world, done, max(one.version.incarnation for one in deletes))


def _nth_append_of_a_later_life(nth):
    seen = 0

    def holds(_, done):
        nonlocal seen
        seen += done.call in APPENDS and done.version.incarnation > 1
        return seen >= nth

    return holds


@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_deleter_killed_around_its_transaction_has_deleted_all_or_nothing(real_world, when):
    """Its seal and its tombstone are one: either the session goes on as it was, or it has ended."""
    plans = [_appender(w, 7, loss=0.0) for w in range(2)]
    plans.append(_deleter(7, 1, dies=("TransactWriteItems", 1, when)))
    race = Race(real_world, plans, [(60, 2, "tell")])
    done = await race.run()
    assert race.statuses == [0, 0, -9]
    _check_deletes(done)
    lives = {one.version.incarnation for one in done if one.call in APPENDS}
    assert lives == ({1} if when == "before" else {1, 2})
    await _check_survivors(real_world, done, max(lives))
