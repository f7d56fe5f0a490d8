"""Events of sessions: what listeners are told of each write, on each Redis; and each time that they may miss one."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
from clusters import clustered
from fleet import GUARD_S, until
from instances import Instances

from mangacache import Closed, Consistency, Invalid, NewTurn, Transient, Version

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

HOSTS = ("double", "shared_valkey", "debian_redis", "cluster")


@pytest.fixture(params=HOSTS)
async def workers(request) -> AsyncIterator[Instances]:
    """Each Redis in turn."""
    if request.param == "cluster":
        found = Instances.open(endpoint=request.getfixturevalue("cluster").endpoint)
    else:
        found = Instances.open(None if request.param == "double" else request.getfixturevalue(request.param))
    async with found as made:
        yield made


@pytest.fixture
async def on_the_double() -> AsyncIterator[Instances]:
    async with Instances.open() as made:
        yield made


class Heard:
    """A stream, taken from one event at a time."""

    def __init__(self, stream: Any) -> None:
        self._events = aiter(stream)

    async def next(self) -> Any:
        async with asyncio.timeout(GUARD_S):
            return await anext(self._events)

    async def short(self, count: int) -> list[tuple[str, Any]]:
        """Return the next events in short: kind, and the turn's number or the version."""
        events = [await self.next() for _ in range(count)]
        return [(event.kind, event.number if event.kind == "turn" else str(event.version)) for event in events]


@asynccontextmanager
async def _listening(stream):
    async with stream as events:
        heard = Heard(events)
        assert (await heard.next()).kind == "subscribed"
        yield heard


async def test_every_write_of_another_worker_is_told_in_order_with_numbers_and_no_content(workers):
    async with workers.cache() as one, workers.cache() as two, _listening(two.session("s").events()) as heard:
        session = one.session("s", customer_id="c")
        await session.append(role="user", content="secret", attributes={"mood": "secret"})
        await session.append_many([NewTurn(role="user", content="secret") for _ in range(3)])
        await session.update({"title": "secret"})
        await session.summarise("secret")
        await session.close()
        await session.append(role="user", content="after the close")
        await session.delete()
        await session.append(role="user", content="again")
        told = [await heard.next() for _ in range(12)]
    assert "secret" not in repr(told)
    assert {event.session_id for event in told} == {"s"}
    assert [(event.kind, event.number or str(event.version)) for event in told] == [
        ("turn", 1), ("meta", "1.1.1"), ("turn", 2), ("turn", 3), ("turn", 4), ("meta", "1.4.2"), ("meta", "1.4.3"),
        ("closed", "1.4.4"), ("turn", 5), ("deleted", "2.0.0"), ("turn", 1), ("meta", "2.1.1"),
    ]  # fmt: skip


async def test_what_an_event_tells_is_there_for_whoever_reads_with_its_version(workers):
    async with workers.cache() as one, workers.cache() as two, _listening(two.session("s").events()) as heard:
        await one.session("s").append(role="user", content="a")
        for _ in range(3):
            await one.session("s").append(role="user", content="b")
        for number in (1, None, 2, 3, 4):
            event = await heard.next()
            context = await two.session("s").context(at_least=event.version)
            assert context.version.covers(event.version)
            assert number is None or number in [turn.number for turn in context.turns]


async def test_a_customers_stream_tells_of_all_the_customers_sessions_and_of_no_others(workers):
    async with workers.cache() as one, workers.cache() as two, _listening(two.customer("c").events()) as heard:
        for name, customer in (("s", "c"), ("other", "d"), ("nobody's", None), ("t", "c")):
            await one.session(name, customer_id=customer).append(role="user", content="a")
        await one.session("s").delete()
        told = [await heard.next() for _ in range(5)]
    assert [(event.session_id, event.kind) for event in told] == [
        ("s", "turn"), ("s", "meta"), ("t", "turn"), ("t", "meta"), ("s", "deleted"),
    ]  # fmt: skip


async def test_a_stream_after_a_token_tells_what_has_been_missed_since(workers):
    async with workers.cache() as one, workers.cache() as two:
        await one.session("s").append(role="user", content="a")
        seen = (await two.session("s").context(consistency=Consistency.STRONG)).version
        await one.session("s").append(role="user", content="unheard")
        async with _listening(two.session("s").events(after=seen)) as heard:
            await one.session("s").append(role="user", content="b")
            assert await heard.short(2) == [("gap", "1.2.1"), ("turn", 3)]


async def test_whoever_has_entered_hears_what_is_written_from_then_on(workers):
    async with workers.cache() as one:
        for number in range(1, 6):
            await one.session("s").context()
            async with one.session("s").events() as events:
                await one.session("s").append(role="user", content="a")
                heard = Heard(events)
                assert (await heard.next()).kind == "subscribed"
                assert (await heard.next()).number == number


async def test_a_bare_loop_subscribes_by_itself_and_ends_when_the_instance_closes(workers):
    async with workers.cache() as one:
        told = []

        async def follow():
            async for event in one.session("s").events():
                told.append(event.kind)  # noqa: PERF401 - looked at while it grows

        following = asyncio.ensure_future(follow())
        await until(lambda: told == ["subscribed"], "it is subscribed")
        await one.session("s").append(role="user", content="a")
        await until(lambda: told == ["subscribed", "turn", "meta"], "it is told of its own worker's writes as well")
    await following
    with pytest.raises(Closed):
        one.session("s")


async def test_the_loss_of_the_subscription_is_an_event_and_its_return_another(workers):
    async with workers.cache() as one, workers.cache() as two, _listening(two.session("s").events()) as heard:
        await one.session("s").append(role="user", content="a")
        assert await heard.short(2) == [("turn", 1), ("meta", "1.1.1")]
        two._subscriptions.drop("for the test")
        gap = await heard.next()
        assert (gap.kind, gap.lost, gap.why) == ("gap", True, "for the test")
        assert (await heard.next()).kind == "subscribed"
        await one.session("s").append(role="user", content="b")
        assert await heard.short(1) == [("turn", 2)]


async def test_what_is_written_while_redis_is_away_is_no_silence(on_the_double):
    """The turn is stored; the others learn that something was, as soon as Redis is back."""
    async with on_the_double.cache() as one, on_the_double.cache() as two:
        await one.session("s").append(role="user", content="a")
        async with _listening(two.session("s").events()) as heard:
            link = on_the_double._links[0]
            link.faults.cut()
            assert (await one.session("s").append(role="user", content="unheard")).degraded
            link.faults.mend()
            gap = await heard.next()
            assert gap.kind == "gap"
            context = await two.session("s").context(at_least=gap.version)
            assert [turn.content for turn in context.turns] == ["a", "unheard"]


async def test_nor_is_it_for_who_listens_to_all_sessions_of_a_customer(on_the_double):
    async with on_the_double.cache() as one, on_the_double.cache() as two:
        await one.session("s", customer_id="c").append(role="user", content="a")
        async with _listening(two.customer("c").events()) as heard:
            link = on_the_double._links[0]
            for write, version in (("append", "1.2.1"), ("delete", "2.0.0")):
                link.faults.cut()
                session = one.session("s", customer_id="c")
                await (session.append(role="user", content="unheard") if write == "append" else session.delete())
                link.faults.mend()
                gap = await heard.next()
                assert (gap.kind, gap.session_id, str(gap.version)) == ("gap", "s", version)


async def test_who_finds_a_write_stored_tells_of_it_as_whoever_stored_it_may_have_failed_to(on_the_double):
    """Under hold its COMMIT was lost, so it was not acknowledged; a repetition finds it stored, and Redis up to date.

    Seeds 7534 and 9775 of the simulation found that nobody told of it then.
    """
    changes = {"redis_policy": "hold", "commit_retry_s": 0.02}
    async with on_the_double.cache(**changes) as one, on_the_double.cache(**changes) as two:
        await one.session("s", customer_id="c").append(role="user", content="a")
        link = on_the_double._links[0]
        for write, version in (("append", "1.2.1"), ("delete", "2.0.0")):

            async def again(cache, write=write):
                session = cache.session("s", customer_id="c")
                if write == "append":
                    return await session.append(role="user", content="b", turn_id="b")
                return await session.delete()

            async with _listening(two.session("s").events()) as heard:
                link.faults.cut()
                with pytest.raises(Transient, match="is stored, but Redis cannot be told"):
                    await again(one)
                context = await two.session("s").context(consistency=Consistency.STRONG)
                assert str(context.version) == version, "and now Redis knows that version"
                assert str((await again(two)).version) == version
                gap = await heard.next()
                assert (gap.kind, gap.session_id, str(gap.version)) == ("gap", "s", version)
            link.faults.mend()


async def test_what_is_told_late_is_told_at_the_customers_node_of_a_cluster_too(workers):
    async with workers.cache() as one, workers.cache() as two:
        for number in range(6):
            await one.session(f"s{number}", customer_id="c").append(role="user", content="a")
        async with _listening(two.customer("c").events()) as heard:
            debts = one._sessions._tier._debts
            for number in range(6):
                debts.owe(f"s{number}", Version(1, 2, 1), "c")
            told = [await heard.next() for _ in range(6)]
    assert {(event.kind, event.session_id, str(event.version)) for event in told} == {
        ("gap", f"s{number}", "1.2.1") for number in range(6)
    }


async def test_another_epoch_is_a_gap_since_others_may_publish_elsewhere(on_the_double):
    async with on_the_double.cache() as one, _listening(one.session("s").events()) as heard:
        on_the_double.double.restart()
        assert (await heard.next()).kind == "gap"
        while (event := await heard.next()).kind != "subscribed":
            assert event.kind == "gap"


async def test_who_takes_events_too_slowly_is_told_that_some_were_dropped(on_the_double):
    async with (
        on_the_double.cache() as one,
        on_the_double.cache() as two,
        _listening(two.session("s").events(limit=4)) as heard,
    ):
        for _ in range(12):
            await one.session("s").append(role="user", content="a")
        kinds, event = [], None
        while event is None or event.number < 12:
            event = await heard.next()
            kinds.append(event.kind)
        assert "gap" in kinds
        assert kinds.count("turn") <= 5


async def test_a_write_that_is_repeated_is_told_once(on_the_double):
    async with (
        on_the_double.cache(redis_timeout_s=1.0) as one,
        on_the_double.cache() as two,
        _listening(two.session("s").events()) as heard,
    ):
        await one.session("s").append(role="user", content="a", turn_id="a")
        on_the_double._links[0].faults.lose_replies(script="commit")
        await one.session("s").append(role="user", content="b", turn_id="b")
        await two.session("s").append(role="user", content="b", turn_id="b")
        await one.session("s").append(role="user", content="c", turn_id="c")
        assert await heard.short(4) == [("turn", 1), ("meta", "1.1.1"), ("turn", 2), ("turn", 3)]


async def test_publishing_takes_no_round_trip_and_keeps_no_key(on_the_double):
    async with on_the_double.cache() as one:
        session, calls = one.session("s", customer_id="c"), on_the_double.double.calls
        await session.append(role="user", content="a")
        before = dict(calls)
        await session.append(role="user", content="b")
        assert {name: calls[name] - before.get(name, 0) for name in calls} == {**dict.fromkeys(calls, 0), "commit": 1}
        assert [key for key in on_the_double.double.keys() if "events" in key] == []  # noqa: SIM118 - it is no mapping


async def test_a_stream_that_has_ended_is_ended(on_the_double):
    async with on_the_double.cache() as one:
        stream = one.session("s").events()
        async with stream:
            assert one._subscriptions.channels == 1
        assert one._subscriptions.channels == 0
        with pytest.raises(Closed, match="ended"):
            async with stream:
                pass
        assert "ended" in repr(stream)


async def test_a_loop_that_is_left_gives_its_subscription_back(on_the_double):
    async with on_the_double.cache() as one:
        async with AsyncExitStack() as stack:
            events = await stack.enter_async_context(one.session("s").events())
            async for event in events:
                assert event.kind == "subscribed"
                break
        assert one._subscriptions.channels == 0


async def test_without_redis_events_say_what_is_missing():
    async with Instances.open(redis=False) as workers, workers.cache() as one:
        for stream in (one.session("s").events, one.customer("c").events, lambda: one.events.session("s")):
            with pytest.raises(Invalid, match="REDIS_ENDPOINT"):
                stream()


@pytest.mark.parametrize("limit", [0, -1, 70_000, 1.5, "8", True, None])
async def test_a_limit_that_cannot_be_meant_is_refused(on_the_double, limit):
    async with on_the_double.cache() as one:
        with pytest.raises(Invalid, match="limit"):
            one.session("s").events(limit=limit)
        with pytest.raises(Invalid):
            one.session("s").events(after="no token")


@pytest.mark.parametrize("name", ["{", "}{a}b", "日本\n語", "a b  c", "'); DROP", "%7B", "x" * 128])
async def test_odd_ids_are_told_of_as_they_are(workers, name):
    async with (
        workers.cache() as one,
        _listening(one.session(name).events()) as heard,
        _listening(one.customer(name).events()) as of_customer,
    ):
        await one.session(name, customer_id=name).append(role="user", content="a")
        assert (await heard.next()).session_id == (await of_customer.next()).session_id == name


async def test_a_stream_goes_on_where_a_replica_takes_over_and_says_what_it_may_have_missed():
    """The node that dies is the one that the settings name: the others have to be known."""
    with clustered(replicas=1, node_timeout_ms=2_000) as failing:
        async with Instances.open(endpoint=failing.endpoint) as workers, workers.cache() as one, workers.cache() as two:
            channel = workers.settings.key_prefix + "session:{%s}:events"
            name = next(f"s{n}" for n in range(1000) if failing.primary_of(channel % f"s{n}") is failing.nodes[0])
            async with two.session(name).events() as events:
                heard = Heard(events)
                await _heard_after_an_append(one.session(name), heard)
                failing.nodes[0].kill()
                while (gap := await heard.next()).kind != "gap":
                    assert gap.kind in ("turn", "meta")
                assert gap.lost
                await _heard_after_an_append(one.session(name), heard)
            async with one.locks.session(name, lease_s=60) as held:
                assert held.fence == 1


async def _heard_after_an_append(session, heard):
    """Append until a turn is heard of: a busy machine is a failing node, too, and what is said then may be missed."""
    event = await heard.next()
    while event.kind != "turn":
        if event.kind == "subscribed" or (event.kind == "gap" and not event.lost):
            await session.append(role="user", content="a")
        event = await heard.next()


# Warm-up


async def test_a_warm_up_puts_contexts_where_the_first_message_finds_them(workers):
    async with workers.cache() as one, workers.cache() as two:
        names = [f"s{number}" for number in range(5)]
        for name in names[:3]:
            await one.session(name, customer_id="c").append(role="user", content="a")
        done = await two.prefetch([*names, *names])
        assert (done.loaded + done.warm, done.left) == (5, 0)
        done = await one.prefetch(names)
        assert (done.loaded, done.warm) == (0, 5)
        for name in names:
            context = await two.session(name).context()
            assert context.source in ("memory", "redis")
            assert context.version == (Version(1, 1, 1) if name in names[:3] else Version())
        done = await two.customer("c").prefetch()
        assert (done.loaded, done.warm, done.left) == (0, 3, 0)


async def test_a_warm_up_stops_where_the_limit_of_reads_without_redis_is_reached(on_the_double):
    async with on_the_double.cache(degraded_reads_per_s=3) as one:
        await one.session("warm").append(role="user", content="a")
        on_the_double.cut()
        done = await one.prefetch([f"s{number}" for number in range(50)], concurrency=1)
        assert done.loaded >= 3
        assert done.left > 0
        assert one.telemetry.value("mangacache_survived_total", what="prefetch_rejected") == 1
        on_the_double.mend()


@pytest.mark.parametrize(
    ("ids", "options"),
    [("s", {}), (b"s", {}), (["s", ""], {}), ([1], {}), (map(str, range(1001)), {}), (["s"], {"concurrency": 0}),
     (["s"], {"concurrency": 65}), (["s"], {"concurrency": True})],
)  # fmt: skip
async def test_a_warm_up_that_cannot_be_meant_does_nothing(on_the_double, ids, options):
    async with on_the_double.cache() as one:
        with pytest.raises(Invalid):
            await one.prefetch(ids, **options)
        assert on_the_double.double.calls["get"] == 0
