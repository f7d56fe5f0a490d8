"""The same answer from every tier: memory, Redis through the worker that wrote and through another, DynamoDB."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from decimal import Decimal
from typing import Any

import pytest
from fleet import fleet_on, table_in_memory
from hypothesis import given, settings
from hypothesis import strategies as st
from mangatest import LoopThread

from mangacache import Consistency, NewTurn

STRONG, LATEST = Consistency.STRONG, Consistency.LATEST
MEMORY = Consistency.EVENTUAL(3600)
RESERVED = {"PK", "SK", "turn_id", "role", "content", "content_compressed", "created_at", "ttl", "seal"} | {
    "adopted_from", "customer_id", "status", "last_active_at", "last_number", "incarnation", "revision",
    "summary_upto", "change_id", "fence", "unswept", "adopting",
}  # fmt: skip

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12) | st.sampled_from(
    ["漫画", "ベルセルク", "👩‍🚀", "e\u0301", "\x00", "שלום", "a" * 600]
)
NUMBERS = (
    st.integers(-(10**37), 10**37)
    | st.decimals(allow_nan=False, allow_infinity=False, places=4, min_value=-(10**9), max_value=10**9)
    | st.sampled_from([Decimal("6.80"), Decimal("1E-100"), Decimal("-0.0"), Decimal("3.0"), 0])
)
LEAVES = st.one_of(st.none(), st.booleans(), TEXT, NUMBERS, st.binary(max_size=12))
SETS = (
    st.sets(TEXT, min_size=1, max_size=3) | st.sets(NUMBERS, min_size=1, max_size=3) | st.sets(st.binary(), min_size=1)
)
VALUES = st.recursive(
    LEAVES | SETS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3), max_leaves=8
)
ATTRIBUTES = st.dictionaries(TEXT.filter(lambda name: 0 < len(name) < 200 and name not in RESERVED), VALUES, max_size=3)
TURNS = st.tuples(st.sampled_from(["user", "assistant", "system", "tool"]), TEXT, ATTRIBUTES).map(
    lambda parts: NewTurn(role=parts[0], content=parts[1], attributes=parts[2])
)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("append"), TURNS),
        st.tuples(st.just("many"), st.lists(TURNS, min_size=1, max_size=34).map(lambda turns: turns[:32])),
        st.tuples(st.just("update"), ATTRIBUTES),
        st.tuples(st.just("summarise"), TEXT.filter(bool)),
        st.tuples(st.just("close"), st.none()),
    ),
    min_size=1,
    max_size=6,
)


def _typed(value: Any) -> Any:
    """Return a value with its types, so that 1, True and Decimal(1) are told from each other."""
    if isinstance(value, dict):
        return {name: _typed(member) for name, member in value.items()}
    if isinstance(value, list):
        return [_typed(member) for member in value]
    if isinstance(value, set):
        return {(type(member).__name__, str(member)) for member in value}
    return type(value).__name__, str(value)


def _answer(context: Any) -> Any:
    """Return all of a context that a tier may not change."""
    turns = [(turn, _typed(turn.attributes)) for turn in context.turns]
    meta = context.meta
    return meta, _typed(meta.attributes) if meta is not None else None, turns, context.summary, context.version


async def _play(session, steps):
    for what, given_with in steps:
        match what:
            case "append":
                await session.append(role=given_with.role, content=given_with.content, attributes=given_with.attributes)
            case "many":
                await session.append_many(given_with)
            case "update" if given_with and (await session.context()).meta is not None:
                await session.update(given_with)
            case "summarise" | "close" if (context := await session.context()).meta is not None:
                if what == "close":
                    await session.close()
                elif context.summary is None or context.summary.upto < context.version.number:
                    await session.summarise(given_with)


async def _check(fleet, workers, session_id, steps):
    one, two = workers
    await _play(one.session(session_id, customer_id="c"), steps)
    written = await one.session(session_id).context(turns=32, consistency=MEMORY)
    same = await one.latest(session_id)
    delta = await two.latest(session_id)
    one.forget()
    whole = await one.latest(session_id)
    again = await one.session(session_id).context(turns=32, consistency=MEMORY)
    await fleet.redis.delete(fleet.key(session_id))
    filled = await two.latest(session_id)
    one.forget()
    from_fill = await one.latest(session_id)
    strong = await two.session(session_id).context(turns=32, consistency=STRONG)
    if written.version.number:
        sources = [context.source for context in (written, same, delta, whole, again, filled, from_fill, strong)]
        assert sources == ["memory", "redis", "redis", "redis", "memory", "dynamodb", "redis", "dynamodb"]
    for context in (written, same, delta, whole, again, filled, from_fill):
        assert _answer(context) == _answer(strong)


@asynccontextmanager
async def _opened(port):
    async with fleet_on(await table_in_memory(), port) as fleet, fleet.workers() as workers:
        yield fleet, workers


@pytest.fixture(scope="module")
def loop():
    thread = LoopThread()
    yield thread
    thread.close()


def test_a_context_is_the_same_from_memory_redis_and_dynamodb_types_included(loop, valkey_port):
    """One pair of workers for every generated session; each session has an id of its own."""
    opening = _opened(valkey_port)
    fleet, workers = loop.run(opening.__aenter__())
    count = iter(range(1_000_000))

    @settings(max_examples=60, deadline=None)
    @given(steps=STEPS)
    def hold(steps):
        loop.run(_check(fleet, workers, f"s{next(count)}", steps))

    try:
        hold()
    finally:
        loop.run(opening.__aexit__(None, None, None))


async def test_a_context_is_the_same_from_every_tier_on_each_engine(fleet):
    attributes = {
        "price": Decimal("6.80"),
        "whole": Decimal("3.0"),
        "tiny": Decimal("1E-100"),
        "cover": b"\x00\xff",
        "tags": ["seinen", {"rating": Decimal("9.47"), "none": None, "deep": [[True, b""]]}],
        "empty": {"text": "", "list": [], "map": {}, "bytes": b""},
        "languages": {"ja", "de"},
        "ids": {1, 2, Decimal("3.5")},
        "scans": {b"\x00", b"\x01"},
        "日本": "ベルセルク 🗡",
    }
    turn = NewTurn(role="tool", content="マンガ " * 200, attributes=attributes)
    steps = [("append", turn), ("update", attributes), ("many", [turn] * 32), ("summarise", "漫画")]
    async with fleet.workers() as workers:
        await _check(fleet, workers, "s", steps)


async def test_what_a_caller_does_to_an_answer_from_redis_changes_no_other_answer(fleet):
    async with fleet.workers() as (one, two):
        await one.session().append(role="user", content="a", turn_id="a", attributes={"tags": ["x"]})
        await one.session().update({"k": {"l": [1]}})
        context = await two.latest()
        context.turns[0].attributes["tags"].append("y")
        context.meta.attributes["k"]["l"].append(2)
        for again in (await two.latest(), await two.session().context(consistency=MEMORY), await one.latest()):
            assert again.turns[0].attributes == {"tags": ["x"]}
            assert again.meta.attributes == {"k": {"l": [1]}}


async def test_concurrent_readers_of_one_flight_share_nothing_that_one_could_change(fleet):
    async with fleet.workers() as (one, two):
        await one.session().append(role="user", content="a", turn_id="a", attributes={"tags": ["x"]})
        first, second = await asyncio.gather(two.latest(), two.latest())
        first.turns[0].attributes["tags"].append("y")
        assert second.turns[0].attributes == {"tags": ["x"]}
