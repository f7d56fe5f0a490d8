"""Worker processes race on one session of a real engine; what is stored is compared with what they were told."""

from __future__ import annotations

import random

import pytest
from racing import FAULT_SEEDS, Plan, Race, check_numbers, check_order, check_places, outlived

from mangacache import Consistency

BEFORE_ALL = "0.0.0"  # the token from before the first try, for turns that may be retried after more than a window


async def _stored(world):
    async with world.cache() as cache:
        return (await cache.session("race").history(limit=1000)).turns


def _appends(turn_ids):
    return [[("append", turn_id)] for turn_id in turn_ids]


def _twice(turn_ids, noise):
    """Give each turn to two of four workers, each in an order of its own."""
    shares = [[t for i, t in enumerate(turn_ids) if w in (i % 4, (i + 1) % 4)] for w in range(4)]
    for share in shares:
        noise.shuffle(share)
    return shares


async def test_four_workers_append_32_turns_to_one_session_at_once(real_world):
    race = Race(real_world, [Plan(_appends([f"w{w}-{i}" for i in range(8)])) for w in range(4)])
    done = await race.run()
    stored = await _stored(real_world)
    assert race.statuses == [0] * 4
    assert len(stored) == len(done) == 32
    check_numbers(stored, done)
    check_order(done)
    assert not any(one.again for one in done)


@pytest.mark.parametrize("seed", FAULT_SEEDS)
async def test_every_append_sent_twice_through_different_workers_in_random_order_is_stored_once(real_world, seed):
    shares = _twice([f"t{i}" for i in range(32)], random.Random(seed))
    race = Race(real_world, [Plan(_appends(share)) for share in shares])
    done = await race.run()
    stored = await _stored(real_world)
    assert race.statuses == [0] * 4
    assert len(stored) == 32
    assert len(done) == 64
    check_numbers(stored, done)
    check_order(done)


@pytest.mark.parametrize("seed", FAULT_SEEDS)
async def test_replies_lost_and_workers_killed_and_paused_leave_no_hole_no_double_and_nothing_acknowledged_missing(
    real_world, seed
):
    """Of four workers two are killed and one is paused; then the turns of all are sent again, as clients would."""
    noise = random.Random(seed)
    turn_ids = [f"t{i}" for i in range(40)]
    plans = []
    for w, share in enumerate(_twice(turn_ids, noise)):
        strands = [*_appends(share[:12]), [("append_many", share[12:16])], [("append_many", share[16:])]]
        plans.append(Plan(strands, seed=seed * 10 + w, loss=0.25, late_s=0.3, after=BEFORE_ALL))
    paused_at = noise.randrange(2, 20)
    faults = [(noise.randrange(1, 25), 0, "kill"), (noise.randrange(1, 25), 1, "kill")]
    faults += [(paused_at, 2, "pause"), (paused_at + noise.randrange(5, 20), 2, "resume")]
    race = Race(real_world, plans, faults)
    done = await race.run()
    assert outlived(race) == [0, 0]
    check_numbers(await _stored(real_world), done)
    again = Race(real_world, [Plan(_appends(turn_ids), seed=seed, loss=0.25, after=BEFORE_ALL)])
    done += await again.run()
    assert again.statuses == [0]
    places = check_numbers(await _stored(real_world), done)
    assert set(places) == set(turn_ids)
    check_order(done)


@pytest.mark.parametrize("seed", FAULT_SEEDS)
async def test_changes_of_meta_and_summaries_among_appends_have_a_revision_each_and_none_is_lost(real_world, seed):
    """As many attributes and summaries as revisions, however often a reply was lost and a worker killed or paused."""
    noise = random.Random(seed)

    def plan(w):
        appends = [("append", f"w{w}-{i}") for i in range(8)]
        changes = [("update", f"w{w}-{i}") for i in range(10)] + [("summarise", f"by w{w}, {i}") for i in range(3)]
        reads = [("context", level) for level in ("strong", "latest", "session", "eventual")]
        strands = [appends, changes + reads, [("append_many", [f"w{w}-many{i}" for i in range(5)]), *reads]]
        for strand in strands[1:]:
            noise.shuffle(strand)
        return Plan(
            [[("append", f"w{w}"), *strand] for strand in strands],
            seed=seed * 10 + w,
            loss=0.2,
            late_s=0.2,
            after=BEFORE_ALL,
        )

    faults = [(noise.randrange(20, 40), 0, "kill"), (15, 1, "pause"), (noise.randrange(30, 60), 1, "resume")]
    race = Race(real_world, [plan(w) for w in range(4)], faults)
    done = await race.run()
    assert outlived(race) == [0, 0, 0]
    async with real_world.cache() as cache:
        context = await cache.session("race").context(consistency=Consistency.STRONG)
    check_numbers(await _stored(real_world), done)
    check_order(done)
    check_places(done)
    summaries = {
        item["summary_text"]["S"]: int(item["upto"]["N"])
        for item in await real_world.items()
        if item["SK"]["S"].startswith("SUMMARY#")
    }
    assert context.version.revision - 1 == len(context.meta.attributes) + len(summaries)
    changes = [one for one in done if one.call in ("update", "summarise") and not one.said]
    assert len({one.version.revision for one in changes}) == len(changes) > 10
    assert {one.name for one in changes} <= context.meta.attributes.keys() | summaries.keys()
    assert summaries[context.summary.text] == max(summaries.values())
