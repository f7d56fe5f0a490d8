"""What the ephemeral services promise: on the double, on Valkey, on Debian's Redis, and on a cluster of three nodes."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from typing import TYPE_CHECKING

import pytest
from fleet import until
from servicehosts import HandClock
from services import Host, Services, on_cluster, on_port

from mangacache import Settings
from mangacache.clock import SystemClock
from mangacache.ephemeral import Limit, scripts, trending
from mangacache.ephemeral.presence import SHARDS
from mangacache.errors import Corrupt, Invalid, Transient

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

HOSTS = ("double", "shared_valkey", "debian_redis", "cluster")
HUGE = 10**5000


@pytest.fixture(params=HOSTS)
def host(request) -> Host:
    """Each Redis in turn, with keys of the test's own."""
    if request.param == "double":
        return Host()
    found = request.getfixturevalue(request.param)
    return on_cluster(found) if request.param == "cluster" else on_port(found)


@pytest.fixture
async def services(host) -> AsyncIterator[Services]:
    async with host.services() as made:
        yield made


def ids(connections):
    return {connection.id for connection in connections}


# Connections


async def test_a_session_has_several_connections_and_each_knows_its_session(services):
    found = services.connections
    await found.connect("x", "s", customer_id="c", endpoint="worker-1")
    await found.connect("y", "s")
    await found.connect("z", "other")
    assert ids(await found.of_session("s")) == {"x", "y"}
    assert ids(await found.of_session("other")) == {"z"}
    assert await found.of_session("nobody's") == ()
    x = await found.get("x")
    assert (x.id, x.session_id, x.customer_id, x.endpoint) == ("x", "s", "c", "worker-1")
    assert (await found.get("y")).customer_id is None
    assert await found.get("q") is None


async def test_removing_an_old_connection_leaves_the_newer_one_mapped(services):
    """The seed's mistake: one entry for a session, which any connection's end removed."""
    found = services.connections
    await found.connect("old", "s", customer_id="c")
    await found.connect("new", "s", customer_id="c")
    assert await found.disconnect("old")
    assert not await found.disconnect("old")
    assert ids(await found.of_session("s")) == ids(await found.of_customer("c")) == {"new"}
    assert (await found.get("new")).session_id == "s"


async def test_a_connection_that_is_mapped_anew_leaves_its_old_session_and_customer(services):
    found = services.connections
    await found.connect("x", "s1", customer_id="c1")
    await found.connect("x", "s2", customer_id="c2")
    for kind, tag in (("session_conn", "s1"), ("customer_conn", "c1")):
        key = services.asker.key(kind, tag)
        assert await services.asker.run("connections", scripts.CONNECTIONS_LIST, key, ["read", 60_000, 0]) == []
    assert await found.of_session("s1") == await found.of_customer("c1") == ()
    assert ids(await found.of_session("s2")) == ids(await found.of_customer("c2")) == {"x"}


async def test_an_end_that_is_told_late_leaves_alone_what_the_connection_is_mapped_to_since(services):
    found = services.connections
    await found.connect("x", "s1")
    await found.connect("x", "s2")
    assert not await found.disconnect("x", session_id="s1")
    assert ids(await found.of_session("s2")) == {"x"}
    assert await found.disconnect("x", session_id="s2")
    assert await found.get("x") is None


async def test_a_customer_is_reached_over_the_connections_of_all_his_sessions(services):
    found = services.connections
    for number in range(5):
        await found.connect(f"x{number}", f"s{number % 3}", customer_id="c")
    await found.connect("another's", "s0", customer_id="d")
    assert ids(await found.of_customer("c")) == {f"x{number}" for number in range(5)}


async def test_a_list_that_is_behind_names_nobody_wrongly_and_is_put_right(services, host):
    found = services.connections
    await found.connect("gone", "s")
    await found.connect("there", "s")
    host.delete(services.asker.key("conn", "gone"))
    assert ids(await found.of_session("s")) == {"there"}
    await found.connect("gone", "elsewhere")
    assert ids(await found.of_session("s")) == {"there"}


async def test_an_entry_of_an_old_mapping_does_not_name_the_connection_twice(services):
    found = services.connections
    await found.connect("x", "s")
    key = services.asker.key("session_conn", "s")
    await services.asker.run("connections", scripts.CONNECTIONS_LIST, key, ["enter", 60_000, 9, "left-behind x"])
    assert [connection.id for connection in await found.of_session("s")] == ["x"]


async def test_an_entry_with_nothing_behind_it_leaves_its_list_after_a_while():
    host, clock = Host(), HandClock()
    async with host.services(clock) as services:
        found = services.connections
        await found.connect("gone", "s")
        await found.connect("there", "s")
        host.delete(services.asker.key("conn", "gone"))
        key = services.asker.key("session_conn", "s")
        for passed_s, entries in ((59, 2), (1, 2), (0, 1)):
            clock.pass_s(passed_s)
            listed = await services.asker.run("connections", scripts.CONNECTIONS_LIST, key, ["read", 7_200_000, 0])
            assert len(listed) == entries
            assert ids(await found.of_session("s")) == {"there"}


async def test_a_list_that_is_read_before_its_connection_is_there_names_it_afterwards():
    """In a cluster the two are at different nodes, and either may be the slower one."""
    host = Host()
    async with host.services() as one, host.services() as two:
        one.link.faults.delay(script="connection_put")
        connecting = asyncio.create_task(one.connections.connect("x", "s", customer_id="c"))
        await until(lambda: one.link.faults.held and host.double.calls["connections_list"] == 2, "it is entered")
        assert await two.connections.of_session("s") == await two.connections.of_customer("c") == ()
        one.link.faults.deliver()
        await connecting
        assert ids(await two.connections.of_session("s")) == ids(await two.connections.of_customer("c")) == {"x"}


async def test_a_connection_that_is_put_twice_since_the_reply_was_lost_keeps_its_entries():
    host = Host()
    async with host.services() as services:
        found, faults = services.connections, services.link.faults
        faults.lose_replies(script="connection_put")
        connecting = asyncio.create_task(found.connect("x", "s", customer_id="c"))
        await until(lambda: host.double.calls["connection_put"] == 1, "it is put")
        faults.reset()
        await connecting
        assert host.double.calls["connection_put"] == 2
        assert ids(await found.of_session("s")) == ids(await found.of_customer("c")) == {"x"}


async def test_ids_of_any_script_and_any_sign_are_connections(services):
    found = services.connections
    for odd in ("a b", "{x}", "漫画", "%7B", "\n", "x" * 128):
        await found.connect(odd, f"s{odd}"[:128], customer_id=odd)
        assert ids(await found.of_customer(odd)) == {odd}
        assert (await found.get(odd)).session_id == f"s{odd}"[:128]


async def test_connections_that_come_and_go_at_once_are_found_where_they_are_mapped(services):
    found, draw = services.connections, random.Random(4)

    async def act() -> None:
        connection, session = f"x{draw.randrange(4)}", f"s{draw.randrange(3)}"
        if draw.random() < 0.6:
            await found.connect(connection, session, customer_id="c")
        else:
            await found.disconnect(connection, session_id=draw.choice([None, session]))

    for _ in range(30):
        await asyncio.gather(*(act() for _ in range(6)))
        listed = {session: ids(await found.of_session(session)) for session in ("s0", "s1", "s2")}
        for number in range(4):
            mapped = await found.get(f"x{number}")
            where = {session for session, there in listed.items() if f"x{number}" in there}
            assert where == ({mapped.session_id} if mapped is not None else set())
        assert set().union(*listed.values()) == ids(await found.of_customer("c"))


async def test_a_connection_lives_on_by_its_traffic_and_ends_without():
    host, clock = Host(), HandClock()
    async with host.services(clock) as services:
        found = services.connections
        await found.connect("busy", "s", customer_id="c")
        await found.connect("idle", "s", customer_id="c")
        for _ in range(30):
            clock.pass_s(600)
            assert (await found.refresh("busy")).session_id == "s"
        assert await found.refresh("idle") is None
        assert await found.get("idle") is None
        assert ids(await found.of_session("s")) == ids(await found.of_customer("c")) == {"busy"}
        clock.pass_s(7201)
        assert await found.of_session("s") == ()
        clock.pass_s(7201)
        assert host.double.keys() == []


async def test_a_list_that_was_lost_is_whole_again_after_an_eighth_of_a_connections_life():
    host, clock = Host(), HandClock()
    async with host.services(clock) as services:
        found = services.connections
        for connection in ("x", "y"):
            await found.connect(connection, "s", customer_id="c")
        host.delete(services.asker.key("session_conn", "s"))
        host.delete(services.asker.key("customer_conn", "c"))
        clock.pass_s(899)
        await found.refresh("x")
        assert await found.of_session("s") == ()
        clock.pass_s(1)
        for connection in ("x", "y"):
            await found.refresh(connection)
        assert ids(await found.of_session("s")) == ids(await found.of_customer("c")) == {"x", "y"}


async def test_a_list_is_bounded_and_those_refreshed_longest_ago_leave_it(monkeypatch):
    monkeypatch.setattr("mangacache.ephemeral.connections.MOST_OF_A_SESSION", 3)
    host, clock = Host(), HandClock()
    async with host.services(clock) as services:
        found = services.connections
        for number in range(5):
            await found.connect(f"x{number}", "s")
            clock.pass_s(0.001)
        assert ids(await found.of_session("s")) == {"x2", "x3", "x4"}
        assert (await found.get("x0")).session_id == "s"


# Presence


async def test_who_was_not_seen_for_a_while_is_offline_and_later_forgotten():
    host, clock = Host(), HandClock()
    async with host.services(clock) as services:
        found = services.presence
        await found.heartbeat("c")
        clock.pass_s(60)
        await found.heartbeat("d")
        clock.pass_s(30)
        assert [await found.is_online(customer) for customer in "cd"] == [False, True]
        assert await found.count() == 1
        assert [sight.customer_id for sight in (await found.page()).sights] == ["d"]
        sight = await found.last_seen("c")
        assert (sight.online, sight.ago_s) == (False, 90)
        clock.pass_s(3511)
        assert await found.last_seen("c") is None
        assert (await found.last_seen("d")).ago_s == 3541
        clock.pass_s(60)
        assert host.double.keys() == []


async def test_a_heartbeat_removes_so_many_who_are_gone_and_no_more(monkeypatch):
    monkeypatch.setattr("mangacache.ephemeral.presence.SHARDS", 1)
    host, clock = Host(), HandClock()
    async with host.services(clock) as services:
        key = services.asker.key("online", "0")
        await asyncio.gather(*(services.presence.heartbeat(f"old {number}") for number in range(250)))
        clock.pass_s(3599)
        await services.presence.heartbeat("new")
        clock.pass_s(2)
        left = []
        for _ in range(4):
            await services.presence.heartbeat("new")
            left.append(host.double._primary.db.value(key).zcard())
        assert left == [151, 51, 1, 1]


async def test_who_has_left_is_not_online_until_seen_again_and_nobody_else_goes_with_it(services):
    found = services.presence
    for customer_id in ("c", "d"):
        await found.heartbeat(customer_id)
    await found.leave("c")
    await found.leave("nobody")
    assert await found.last_seen("c") is None
    assert await found.is_online("d")
    assert await found.count() == 1
    await found.heartbeat("c")
    assert await found.count() == 2


async def test_who_was_seen_is_online_and_who_was_not_is_not(services):
    found = services.presence
    await found.heartbeat("c")
    await found.heartbeat("d")
    await found.heartbeat("c")
    assert await found.is_online("c")
    assert not await found.is_online("nobody")
    assert await found.count() == 2
    sight = await found.last_seen("c")
    assert (sight.customer_id, sight.online) == ("c", True)
    assert await found.last_seen("nobody") is None


@pytest.mark.parametrize("limit", [1, 7, 40, 1000])
async def test_pages_name_everybody_once_and_hold_no_more_than_was_asked_for(services, limit):
    found, everybody = services.presence, {f"c{number}" for number in range(40)}
    await asyncio.gather(*map(found.heartbeat, everybody))
    named, cursor = Counter(), None
    while True:
        page = await found.page(limit=limit, cursor=cursor)
        assert len(page.sights) <= limit
        named.update(sight.customer_id for sight in page.sights)
        if (cursor := page.cursor) is None:
            break
    assert named == Counter(everybody)


async def test_who_is_seen_again_between_pages_is_not_left_out(services):
    found, everybody = services.presence, {f"c{number}" for number in range(60)}
    await asyncio.gather(*map(found.heartbeat, everybody))
    draw, named, cursor = random.Random(8), set(), None
    for _ in range(1000):
        page = await found.page(limit=3, cursor=cursor)
        named |= {sight.customer_id for sight in page.sights}
        for customer in draw.sample(sorted(everybody), 5):
            await found.heartbeat(customer)
        if (cursor := page.cursor) is None:
            break
    assert named == everybody


async def test_presence_has_no_hot_key(services):
    keys = {services.asker.key("online", str(shard)) for shard in range(SHARDS)}
    assert len(keys) == SHARDS
    from mangacache.ephemeral.presence import _shard

    spread = Counter(_shard(f"customer-{number}") for number in range(20_000))
    assert len(spread) == SHARDS
    assert max(spread.values()) < 2 * 20_000 / SHARDS


# Trending titles


async def test_the_top_of_the_hour_and_the_day_are_what_was_counted_in_them(host):
    clock = HandClock()
    async with host.services(clock) as services:
        found = services.trending
        await found.record("yesterday", weight=9)
        clock.pass_s(26 * 3600)
        await found.record("this morning", weight=5)
        clock.pass_s(66 * 60)
        for title, times in (("Berserk", 4), ("Akira", 3), ("Monster", 3)):
            for _ in range(times):
                await found.record(title)
                clock.pass_s(300)
        hour, day = await found.top(), await found.top("day")
    assert [(trend.title, trend.count) for trend in hour] == [("Berserk", 4), ("Akira", 3), ("Monster", 3)]
    assert [trend.title for trend in day] == ["this morning", "Berserk", "Akira", "Monster"]
    assert {trend.over for trend in (*hour, *day)} == {0}


@pytest.mark.parametrize(("span", "bucket_s", "whole"), [("hour", 300, 12), ("day", 3600, 24)])
async def test_a_span_ends_where_it_says(host, span, bucket_s, whole):
    clock = HandClock()
    clock.pass_s(bucket_s - clock.time_s() % bucket_s)
    async with host.services(clock) as services:
        await services.trending.record("Berserk")
        clock.pass_s(bucket_s * whole)
        assert [trend.title for trend in await services.trending.top(span)] == ["Berserk"]
        clock.pass_s(bucket_s)
        assert await services.trending.top(span) == ()


async def test_the_top_is_exact_however_little_of_each_bucket_is_looked_at_first(host, monkeypatch):
    monkeypatch.setattr(trending, "_FIRST_LOOK", 2)
    monkeypatch.setattr(trending, "_DEEPER", 2)
    clock, draw, counted = HandClock(), random.Random(6), Counter()
    async with host.services(clock) as services:
        for _ in range(12):
            for _ in range(25):
                title = f"t{int(draw.expovariate(0.2))}"
                weight = draw.randrange(1, 4)
                counted[title] += weight
                await services.trending.record(title, weight=weight)
            clock.pass_s(299)
        top = await services.trending.top(limit=8)
    best = sorted(counted.items(), key=lambda each: (-each[1], each[0]))[:8]
    assert [(trend.title, trend.count) for trend in top] == best


async def test_a_bucket_holds_so_many_titles_and_keeps_those_that_count(host, monkeypatch):
    monkeypatch.setattr(trending, "CAPACITY", 20)
    clock, draw, counted = HandClock(), random.Random(6), Counter()
    async with host.services(clock) as services:
        for number in range(400):
            title = draw.choice(["Berserk", "Akira"]) if draw.random() < 0.5 else f"now and then {number % 61}"
            counted[title] += 1
            await services.trending.record(title)
        top = await services.trending.top(limit=100)
    assert len(top) == 20
    assert {trend.title for trend in top[:2]} == {"Berserk", "Akira"}
    for trend in top:
        assert trend.count - trend.over <= counted[trend.title] <= trend.count
    assert 0 < top[0].over <= 400 / 20


# Rate limits


async def test_units_are_taken_until_there_are_none_and_peeking_takes_none(services):
    found = services.rate_limits
    first = await found.check("c", cost=28)
    assert (first.allowed, first.limit, first.remaining, first.retry_after_s, first.source) == (True, 30, 2, 0, "redis")
    for _ in range(3):
        assert (await found.peek("c", cost=2)).allowed
    refused = await found.check("c", cost=3)
    assert (refused.allowed, refused.remaining) == (False, 2)
    assert 0 < refused.retry_after_s <= 60.1
    assert (await found.check("c", cost=2)).remaining == 0
    assert (await found.check("d")).remaining == 29


async def test_each_limit_has_a_window_of_its_own(host):
    async with host.services(rate_limits="messages=2/60, images=1/3600") as services:
        found = services.rate_limits
        assert (await found.check("c", limit="images")).allowed
        assert not (await found.check("c", limit="images")).allowed
        assert (await found.check("c")).allowed
        assert (await found.check("c", limit=Limit("messages", 3, 60))).remaining == 2
        assert (await found.check("c", limit=Limit("own", 5, 0.5), cost=5)).allowed
        for window_s in (12_345.67, 12_345.674, 60, 60.0):
            left = (await found.check("c", limit=Limit("long", 9, window_s))).remaining
            assert left == (7 if type(window_s) is float and window_s == 60 else 8), (
                "each length is a window of its own"
            )


async def test_a_limit_that_is_changed_while_workers_run_begins_a_window_of_its_own(host):
    async with host.services(rate_limits="messages=2/60") as old, host.services(rate_limits="messages=3/60") as new:
        assert [(await old.rate_limits.check("c")).allowed for _ in range(3)] == [True, True, False]
        assert [(await new.rate_limits.check("c")).allowed for _ in range(4)] == [True, True, True, False]
        assert not (await old.rate_limits.check("c")).allowed


async def test_workers_count_each_other(host):
    async with host.services() as one, host.services() as two:
        await one.rate_limits.workers.heard()
        await two.rate_limits.workers.heard()
        await one.rate_limits.workers.heard()
        assert (one.rate_limits.workers.count(), two.rate_limits.workers.count()) == (2, 2)
        await two.rate_limits.workers.heard(stays=False)
        await one.rate_limits.workers.heard()
        assert one.rate_limits.workers.count() == 1


# What cannot be meant, and what is somebody else's


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda s: s.rate_limits.check("c", cost=0), "from 1 on, not 0"),
        (lambda s: s.rate_limits.check("c", cost=-5), "from 1 on, not -5"),
        (lambda s: s.rate_limits.check("c", cost=True), "from 1 on, not True"),
        (lambda s: s.rate_limits.check("c", cost=1.5), r"from 1 on, not 1\.5"),
        (lambda s: s.rate_limits.check("c", cost=31), "31 can never be allowed"),
        (lambda s: s.rate_limits.check("c", cost=HUGE), "a huge number can never be allowed"),
        (lambda s: s.rate_limits.peek("c", cost=-HUGE), "not a huge number"),
        (lambda s: s.rate_limits.check("c", limit="mesages"), "among those of rate_limits: messages"),
        (lambda s: s.rate_limits.check("c", limit=["messages"]), "there is no limit"),
        (lambda s: s.rate_limits.check(""), "1 to 128 bytes"),
        (lambda s: s.rate_limits.check("\ud800"), "lone surrogate"),
        (lambda s: s.rate_limits.check(7), "must be text"),
        (lambda s: s.connections.connect("x" * 129, "s"), "1 to 128 bytes"),
        (lambda s: s.connections.connect("x", "s", customer_id=""), "1 to 128 bytes"),
        (lambda s: s.connections.connect("x", "s", endpoint="e" * 513), "1 to 512 bytes"),
        (lambda s: s.connections.connect("x", "s", endpoint=""), "1 to 512 bytes"),
        (lambda s: s.connections.disconnect("x", session_id=""), "1 to 128 bytes"),
        (lambda s: s.connections.of_session(None), "must be text"),
        (lambda s: s.presence.heartbeat(""), "1 to 128 bytes"),
        (lambda s: s.presence.page(limit=0), "1 to 1000"),
        (lambda s: s.presence.page(limit=HUGE), "huge number"),
        (lambda s: s.presence.page(cursor="no cursor"), "is no cursor"),
        (lambda s: s.presence.page(cursor=b"[64]".hex()), "is no cursor"),
        (lambda s: s.presence.page(cursor=17), "is no cursor"),
        (lambda s: s.trending.record(""), "1 to 128 bytes"),
        (lambda s: s.trending.record("t", weight=-1), "a weight is"),
        (lambda s: s.trending.record("t", weight=HUGE), "huge number"),
        (lambda s: s.trending.top("week"), "'hour' or a 'day'"),
        (lambda s: s.trending.top(["day"]), "'hour' or a 'day'"),
        (lambda s: s.trending.top(limit=0), "1 to 100"),
    ],
)
async def test_what_cannot_be_meant_is_said_and_nothing_is_asked(call, says):
    host = Host()
    async with host.services() as services:
        with pytest.raises(Invalid, match=says):
            await call(services)
        assert host.double.calls.total() == 0


@pytest.mark.parametrize(
    ("name", "count", "window_s"),
    [
        *(("Messages", 1, 1), ("", 1, 1), (3, 1, 1), ("m", 0, 1), ("m", -1, 1), ("m", 10_001, 1), ("m", HUGE, 1)),
        *(("m", True, 1), ("m", 1, 0), ("m", 1, -1), ("m", 1, float("nan")), ("m", 1, 86_401), ("m", 1, "60")),
    ],
    ids=lambda value: type(value).__name__,  # a huge number cannot be written
)
def test_a_limit_that_is_none_is_refused(name, count, window_s):
    with pytest.raises(Invalid, match="limit"):
        Limit(name, count, window_s)


CALLS = {
    "conn": (lambda s: s.connections.get("k"), "k"),
    "session_conn": (lambda s: s.connections.of_session("k"), "k"),
    "customer_conn": (lambda s: s.connections.of_customer("k"), "k"),
    "rate": (lambda s: s.rate_limits.check("k"), "k"),
    "online": (lambda s: s.presence.count(), "0"),
}


@pytest.mark.parametrize("kind", CALLS)
async def test_a_value_of_somebody_elses_under_a_key_is_called_that(services, host, kind):
    call, tag = CALLS[kind]
    rest = ":messages:30/60" if kind == "rate" else ""
    if host.is_double:
        await services.presence.heartbeat("c")  # it is there from the first call on
    host.plant(services.asker.key(kind, tag, rest))
    with pytest.raises(Corrupt, match=f"{kind}.*KEY_PREFIX"):
        await call(services)


async def test_a_text_under_a_bucket_of_trending_titles_is_called_that(host):
    clock = HandClock()
    async with host.services(clock) as services:
        await services.trending.record("t")
        for span, bucket_s in (("hour", 300), ("day", 3600)):
            host.plant(services.asker.key("trending", f"{span}:{int(clock.time_s() // bucket_s)}"))
        with pytest.raises(Corrupt, match="trending"):
            await services.trending.record("t")
        with pytest.raises(Corrupt, match="trending"):
            await services.trending.top()


# Without Redis, and while it is away


NEEDS = {
    "connections": lambda s: s.connections.connect("x", "s"),
    "presence": lambda s: s.presence.heartbeat("c"),
    "trending": lambda s: s.trending.record("t"),
}


@pytest.mark.parametrize("what", NEEDS)
async def test_what_needs_redis_says_so_where_none_is_configured(what):
    with pytest.raises(Invalid, match=f"{what}.* need Redis.*set REDIS_ENDPOINT"):
        await NEEDS[what](Services(None, Settings(), SystemClock()))


@pytest.mark.parametrize("what", NEEDS)
async def test_what_needs_redis_is_transient_while_it_is_away(what):
    host = Host()
    async with host.services() as services:
        await NEEDS[what](services)
        host.double.kill()
        for _ in range(3):
            with pytest.raises(Transient, match="cannot be asked"):
                await NEEDS[what](services)


async def test_without_redis_a_worker_limits_by_itself():
    clock = HandClock()
    services = Services(None, Settings(), clock)
    found = services.rate_limits
    decision = await found.check("c", cost=30)
    assert (decision.allowed, decision.source) == (True, "local")
    refused = await found.check("c")
    assert (refused.allowed, refused.remaining, refused.retry_after_s) == (False, 0, 60)
    clock.pass_s(60)
    assert (await found.check("c")).remaining == 29
    await services.close()
