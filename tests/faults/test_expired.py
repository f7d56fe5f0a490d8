"""What has expired and is still in the table: shown to nobody, by any call; its numbers are taken by nobody."""

from __future__ import annotations

import pytest
from mangatest import SetClock
from racing import APPENDS, Plan, Race, check_order, check_places

from mangacache import Consistency, NewTurn

DAY_S = 86_400
LEVELS = ("strong", "latest", "session", "eventual")


async def _past(world, *, days_ago, count):
    """Leave a session of `count` turns, with attributes and a summary, as it was so many days ago."""
    clock = SetClock()
    clock.wall_offset_s = -days_ago * DAY_S
    async with world.cache(clock=clock) as cache:
        session = cache.session("race", customer_id="c")
        for start in range(0, count, 8):
            turns = [NewTurn(role="user", content="old", turn_id=f"old{start + i}") for i in range(8)]
            await session.append_many(turns)
        await session.update({"old": 1})
        return (await session.summarise("old")).version


def _calls(w):
    """Look at an expired session in every way, then append to it, then look again."""
    looks = [("context", level) for level in LEVELS] + [("history", True), ("history", False)]
    changes = [("update", "new"), ("summarise", "new")]
    appends = [("append", f"w{w}-{i}") for i in range(6)] + [("append_many", [f"w{w}-many{i}" for i in range(3)])]
    return [[("wait", None), *looks, *changes, ("sessions", None), ("wait", None), *appends, *looks]]


@pytest.mark.parametrize(
    ("days_ago", "gone"),
    [(100, ""), (90.5, ""), (90.5, "newest"), (90.5, "all")],
    ids=lambda value: str(value) or "none",
)
async def test_of_an_expired_session_no_process_is_shown_anything_and_none_takes_its_numbers(
    real_world, days_ago, gone
):
    """After 90 days the turns expire, a day later META; DynamoDB deletes them when it likes, in any order."""
    token = await _past(real_world, days_ago=days_ago, count=40)
    if gone:
        doomed = {f"TURN#0001-{number:010d}" for number in (range(1, 41) if gone == "all" else (38, 40))}
        assert await real_world.delete_items(lambda item: item["SK"]["S"] in doomed) == len(doomed)
    race = Race(
        real_world,
        [Plan(_calls(w), seed=w, after=str(token) if not gone else None, customer_id="c") for w in range(3)],
        [(0, w, "tell") for w in range(3)] + [(3 * 9, w, "tell") for w in range(3)],
    )
    done = await race.run()
    assert race.statuses == [0, 0, 0]
    begun = min(one.begun for one in done if one.call in APPENDS)
    before = [one for one in done if one.ended < begun]
    shown = [one for one in before if one.call in ("context", "history")]
    assert len(shown) == 3 * 6
    assert [one for one in shown if one.turns or one.summary == "old"] == []
    if days_ago > 91:
        assert [one for one in shown if one.meta is not None] == []
        assert [one.said for one in before if one.call in ("update", "summarise")] == ["NotFound"] * 6
        assert [one.name for one in before if one.call == "sessions"] == [[]] * 3
    check_order(done)
    check_places(done)
    appended = [one for one in done if one.call in APPENDS]
    numbers = sorted(one.number for one in appended)
    assert numbers == list(range(numbers[0], numbers[0] + 27))
    assert numbers[0] > 40
    async with real_world.cache() as cache:
        context = await cache.session("race").context(turns=32, consistency=Consistency.STRONG)
        page = await cache.session("race").history(after="")
    assert page.turns == context.turns
    assert {turn.turn_id: turn.number for turn in context.turns} == {one.name: one.number for one in appended}
