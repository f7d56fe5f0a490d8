"""Connections: as many as may be, given on from call to call, and never an answer to the wrong one."""

from __future__ import annotations

import asyncio
import logging
import os
import random
import socket
from contextlib import asynccontextmanager, suppress

import dynamodb_faults as faults
import pytest
from dynamodb_server import Answer, ToxicServer, echo

from mangacache import Closed, Settings
from mangacache.clock import SystemClock
from mangacache.store import open_transport
from mangacache.store.direct import pool as pools
from mangacache.store.direct.endpoint import parse_endpoint
from mangacache.store.direct.pool import Pool
from mangacache.store.direct.signing import Signer
from mangacache.store.transport import Throttled, Unanswered

CALLS = int(os.environ.get("TRANSPORT_CALLS", "6000"))
HANG_GUARD_S = 60.0
TARGET = b"DynamoDB_20120810.GetItem"


class Aged(SystemClock):
    """A clock that can be set on."""

    def __init__(self):
        self.offset_s = 0.0

    def monotonic_s(self):
        return super().monotonic_s() + self.offset_s


@asynccontextmanager
async def _pool(url, *, limit=2, timeout_s=HANG_GUARD_S, connect_timeout_s=HANG_GUARD_S, clock=None):
    """Open a pool; what fails that nobody waits for fails the test, unless it is looked for in `failures`."""
    endpoint = parse_endpoint(url, "us-east-1")
    failures = []
    made = Pool(
        endpoint,
        tls=None,
        limit=limit,
        connect_timeout_s=connect_timeout_s,
        timeout_s=timeout_s,
        clock=clock or SystemClock(),
        on_failure=lambda what, _error: failures.append(what),
    )
    made.failures = failures
    made.signer = Signer("a", "b", None, endpoint=endpoint)
    try:
        async with asyncio.timeout(HANG_GUARD_S):
            yield made
    finally:
        await made.close()
        assert (made._all, made._idle, list(made._waiting), made._dialling) == (set(), [], [], 0)


async def _ask(pool, tag):
    body = b'{"Key":{"PK":{"S":"%b"}}}' % str(tag).encode()
    answer = await pool.exchange(pool.signer.signed(TARGET, body, 0))
    assert (answer.status, answer.body) == (200, b'{"Item":{"PK":{"S":"%b"}}}' % str(tag).encode())


async def _until(true):
    while not true():  # noqa: ASYNC110 - what is waited for says nothing of itself
        await asyncio.sleep(0)


def _then_cancel(pool, hook, call):
    """Cancel a call after its future is done and before it wakes up to see it: in the hook that comes in between."""
    (connection,) = pool._all
    goes_on = getattr(connection, hook)

    def hooked(connection):
        goes_on(connection)
        call.cancel()

    setattr(connection, hook, hooked)


@asynccontextmanager
async def _held():
    """A server that holds every answer back until `go` is set."""
    go = asyncio.Event()

    async def hold(received):
        await go.wait()
        return await echo(received)

    async with ToxicServer.open(hold) as server:
        server.go = go
        yield server
        go.set()


async def test_calls_one_after_another_use_one_connection():
    async with ToxicServer.open(echo) as server, _pool(server.url) as pool:
        for tag in range(20):
            await _ask(pool, tag)
        assert server.connections == 1


async def test_calls_at_once_use_no_more_connections_than_may_be_and_all_are_answered():
    async with ToxicServer.open(echo) as server, _pool(server.url, limit=3) as pool:
        await asyncio.gather(*(_ask(pool, tag) for tag in range(100)))
        assert server.connections == 3
        assert len(pool._idle) == 3


async def test_a_call_that_waits_takes_whichever_comes_first_and_the_connection_begun_for_it_is_kept():
    async with _held() as server, _pool(server.url, limit=3) as pool:
        first = asyncio.create_task(_ask(pool, 1))
        await _until(lambda: server.received)
        second = asyncio.create_task(_ask(pool, 2))
        await _until(lambda: pool._dialling)
        second.cancel()
        await _until(lambda: pool._idle)
        assert second.cancelled() or await asyncio.wait({second})
        server.go.set()
        await first
        assert (server.connections, len(server.received)) == (2, 1)


async def test_more_waiting_calls_than_would_ever_be_served_are_refused_at_once_as_load(monkeypatch):
    monkeypatch.setattr(pools, "WAITING_PER_CONNECTION", 3)
    async with _held() as server, _pool(server.url, limit=1) as pool:
        first = asyncio.create_task(_ask(pool, 0))
        await _until(lambda: server.received)
        calls = [asyncio.create_task(_ask(pool, tag)) for tag in range(1, 4)]
        await _until(lambda: len(pool._waiting) == 3)
        with pytest.raises(Throttled, match="3 calls wait for one of 1 connections"):
            await _ask(pool, "one too many")
        server.go.set()
        await asyncio.gather(first, *calls)


async def test_a_call_that_is_cancelled_while_it_waits_leaves_the_queue_and_nothing_is_sent_for_it():
    async with _held() as server, _pool(server.url, limit=1) as pool:
        first = asyncio.create_task(_ask(pool, 1))
        await _until(lambda: server.received)
        second, third = asyncio.create_task(_ask(pool, 2)), asyncio.create_task(_ask(pool, 3))
        await _until(lambda: len(pool._waiting) == 2)
        second.cancel()
        await asyncio.wait({second})
        assert len(pool._waiting) == 1
        server.go.set()
        await asyncio.gather(first, third)
        assert b'"2"' not in b"".join(received.body for received in server.received)
        assert server.connections == 1


async def test_a_call_that_is_cancelled_as_it_is_given_a_connection_gives_it_on():
    async with _held() as server, _pool(server.url, limit=1) as pool:
        first = asyncio.create_task(_ask(pool, 1))
        await _until(lambda: server.received)
        second, third = asyncio.create_task(_ask(pool, 2)), asyncio.create_task(_ask(pool, 3))
        await _until(lambda: len(pool._waiting) == 2)
        _then_cancel(pool, "_free", second)
        server.go.set()
        await asyncio.gather(first, third)
        assert second.cancelled()
        assert (server.connections, len(server.received)) == (1, 2)


async def test_a_call_that_is_cancelled_ends_the_connection_on_which_its_answer_would_come():
    async with _held() as server, _pool(server.url, limit=1) as pool:
        call = asyncio.create_task(_ask(pool, 1))
        await _until(lambda: server.received)
        call.cancel()
        await asyncio.wait({call})
        server.go.set()
        await _ask(pool, 2)
        assert server.connections == 2


async def test_a_cancelled_call_that_was_answered_in_the_same_moment_leaves_a_good_connection_and_no_complaint(caplog):
    caplog.set_level(logging.ERROR, "asyncio")
    for fault in (None, faults.lost):
        async with _held() as server, _pool(server.url, limit=1) as pool:
            server.plan = lambda _received, _noise, fault=fault: fault
            call = asyncio.create_task(_ask(pool, 1))
            await _until(lambda: server.received)
            _then_cancel(pool, "_free" if fault is None else "_gone", call)
            server.go.set()
            await asyncio.wait({call})
            assert call.cancelled()
            server.plan = lambda _received, _noise: None
            await _ask(pool, 2)
            assert server.connections == (1 if fault is None else 2)
    assert [record for record in caplog.records if "never retrieved" in record.message] == []


async def test_no_answer_ever_goes_to_another_call_whatever_is_cancelled():
    """Set TRANSPORT_CALLS=100000 for the long form."""
    noise = random.Random(1)
    answered, cancelled = 0, 0

    async def slow(exchange):
        await asyncio.sleep(exchange.noise.random() * 0.002)
        await exchange.answer()

    async def in_two(exchange):
        wire = (await exchange.apply()).wire
        cut = exchange.noise.randrange(len(wire))
        await exchange.write(wire[:cut])
        await asyncio.sleep(0)
        await exchange.write(wire[cut:])

    async def ask(transport, tag):
        nonlocal answered, cancelled
        key = {"PK": {"S": f"tag-{tag}"}, "SK": {"S": "META"}}
        call = asyncio.create_task(transport.request("GetItem", {"TableName": "t", "Key": key}))
        if noise.random() < 0.4:
            for _ in range(noise.randrange(25)):
                await asyncio.sleep(0)
            if noise.random() < 0.5:
                await asyncio.sleep(noise.random() * 0.002)
            call.cancel()
        try:
            assert (await call)["Item"] == key
        except asyncio.CancelledError:
            cancelled += 1
        else:
            answered += 1

    async def caller(transport, tags):
        for tag in tags:
            await ask(transport, tag)

    async with ToxicServer.open(echo, seed=1) as server:
        server.plan = lambda _received, dice: dice.choice([None, None, slow, in_two, faults.answered_twice])
        settings = Settings(dynamodb_endpoint=server.url, dynamodb_transport="direct", max_connections=6)
        async with open_transport(settings) as transport:
            tags = iter(range(CALLS))
            outcomes = await asyncio.gather(*(_survivor(caller, transport, tags) for _ in range(24)))
        assert answered + cancelled + sum(outcomes) == CALLS
        assert answered > CALLS / 3
        assert cancelled > CALLS / 8
        asked = {received.parameters["Key"]["PK"]["S"] for received in server.received}
        assert len(asked) == len(server.received)


async def _survivor(caller, transport, tags):
    """Go on where a connection ended under a call, as one does on which an answer too many has come."""
    lost = 0
    while True:
        try:
            await caller(transport, tags)
        except Unanswered:
            lost += 1
        else:
            return lost


async def test_a_connection_that_the_server_has_closed_is_not_used_again():
    async with ToxicServer.open(echo) as server, _pool(server.url) as pool:
        server.once(faults.closed_after_it)
        await _ask(pool, 1)
        await _until(lambda: not pool._all)
        await _ask(pool, 2)
        assert (pool._idle != [], server.connections) == (True, 2)


async def test_a_connection_on_which_the_server_says_that_it_is_the_last_answer_is_not_used_again():
    async def last(exchange):
        answer = await exchange.apply()
        await exchange.write(answer.head(Connection="close") + answer.body)

    async with ToxicServer.open(echo) as server, _pool(server.url) as pool:
        server.once(last)
        await _ask(pool, 1)
        await _ask(pool, 2)
        assert server.connections == 2


async def test_a_connection_that_speaks_unasked_is_ended():
    async with ToxicServer.open(echo) as server, _pool(server.url) as pool:

        async def twice(exchange):
            await exchange.answer()
            await _until(lambda: pool._idle)
            await exchange.answer()

        server.once(twice)
        await _ask(pool, 1)
        await _until(lambda: not pool._all)
        await _ask(pool, 2)


async def test_a_connection_that_was_idle_for_long_is_not_trusted():
    clock = Aged()
    async with ToxicServer.open(echo) as server, _pool(server.url, clock=clock) as pool:
        await _ask(pool, 1)
        clock.offset_s += pools.IDLE_S - 1
        await _ask(pool, 2)
        assert server.connections == 1
        clock.offset_s += pools.IDLE_S + 1
        await _ask(pool, 3)
        assert server.connections == 2


@asynccontextmanager
async def _with_idle(count, *, timeout_s=HANG_GUARD_S):
    """A pool that has so many idle connections, to a server that tells old connections from new ones."""
    async with _held() as server, _pool(server.url, limit=count, timeout_s=timeout_s) as pool:
        calls = [asyncio.create_task(_ask(pool, tag)) for tag in range(count)]
        await _until(lambda: len(server.received) == count)
        server.go.set()
        await asyncio.gather(*calls)
        assert len(pool._idle) == count
        yield server, pool


def _only_old(fault, count):
    return lambda received, _noise: fault if received.connection <= count else None


@pytest.mark.parametrize("fault", [faults.lost, faults.lost_quietly, faults.done_and_reset])
async def test_where_one_connection_breaks_the_others_that_were_quiet_are_not_trusted(fault):
    async with _with_idle(5) as (server, pool):
        server.plan = _only_old(fault, 5)
        with pytest.raises(Unanswered):
            await _ask(pool, 10)
        await _ask(pool, 11)


async def test_a_network_that_has_swallowed_every_connection_costs_one_time_out():
    async def swallow(exchange):
        await exchange.impatience(HANG_GUARD_S)

    for limit_s in (HANG_GUARD_S, 0.4):  # ended by the pool, and by the caller before it
        async with _with_idle(5, timeout_s=0.4 if limit_s == HANG_GUARD_S else 0.5) as (server, pool):
            server.plan = _only_old(swallow, 5)
            with pytest.raises((Unanswered, TimeoutError)):
                async with asyncio.timeout(limit_s):
                    await _ask(pool, 10)
            await _ask(pool, 11)


async def test_a_caller_who_leaves_early_says_nothing_about_the_other_connections():
    async with _with_idle(5) as (server, pool):
        server.go.clear()
        call = asyncio.create_task(_ask(pool, 10))
        await _until(lambda: len(server.received) == 6)
        call.cancel()
        await asyncio.wait({call})
        await _until(lambda: len(pool._all) == 4)
        assert len(pool._idle) == 4


async def test_a_call_ends_when_its_time_is_over_though_nobody_else_looks_at_a_clock():
    async with _held() as server, _pool(server.url, limit=1, timeout_s=0.2) as pool:
        sent, waiting = asyncio.create_task(_ask(pool, 1)), asyncio.create_task(_ask(pool, 2))
        with pytest.raises(Unanswered, match=r"no answer within 0\.2 s") as raised:
            await sent
        assert raised.value.sent
        with suppress(Unanswered):
            await waiting
        await _until(lambda: not pool._looking)


async def test_a_call_that_gets_no_connection_in_its_time_was_not_sent():
    async with _held() as server, _pool(server.url, limit=1, timeout_s=0.4) as pool:
        held = asyncio.create_task(_ask(pool, 1))
        await _until(lambda: server.received)
        (connection,) = pool._all
        waiting = asyncio.create_task(_ask(pool, 2))
        while not waiting.done():
            connection.since_s = pool._clock.monotonic_s()  # the first one may go on
            await asyncio.sleep(0)
        assert str(waiting.exception()) == "no connection was free for 0.4 s"
        assert not waiting.exception().sent
        server.go.set()
        await held


async def test_each_call_hears_why_no_connection_opens_and_that_it_was_not_sent():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        async with _pool(f"http://127.0.0.1:{probe.getsockname()[1]}") as pool:
            heard = await asyncio.gather(*(_ask(pool, tag) for tag in range(10)), return_exceptions=True)
            assert all(isinstance(error, Unanswered) and not error.sent for error in heard), heard
            assert all("no connection to 127.0.0.1:" in str(error) for error in heard), heard
            assert pool.failures == []


async def test_a_name_that_is_not_known_is_no_connection():
    async with _pool("http://no-such-name.invalid") as pool:
        with pytest.raises(Unanswered, match=r"no connection to no-such-name\.invalid:80") as raised:
            await _ask(pool, 1)
        assert not raised.value.sent


async def test_a_connection_that_fails_to_open_for_nobody_is_told_to_who_counts():
    async with _held() as server, _pool(server.url) as pool:
        first = asyncio.create_task(_ask(pool, 1))
        await _until(lambda: server.received)
        pool._endpoint = parse_endpoint("http://127.0.0.1:1", "us-east-1")
        second = asyncio.create_task(_ask(pool, 2))
        await _until(lambda: pool._dialling)
        second.cancel()
        await _until(lambda: pool.failures)
        assert pool.failures == ["dynamodb_connect_failed"]
        server.go.set()
        await first


async def test_when_it_is_closed_whoever_is_under_way_hears_it_and_nothing_is_left():
    async with _held() as server, _pool(server.url, limit=1) as pool:
        sent = asyncio.create_task(_ask(pool, 1))
        await _until(lambda: server.received)
        waiting = asyncio.create_task(_ask(pool, 2))
        await _until(lambda: pool._waiting)
        await pool.close()
        with pytest.raises(Unanswered, match="the transport is closed"):
            await sent
        with pytest.raises(Closed):
            await waiting
        with pytest.raises(Closed):
            await _ask(pool, 3)
        assert "closed, 0 of 1 open" in repr(pool)


async def test_a_refusal_is_an_answer_and_its_connection_is_kept():
    async def refuse(_received):
        return Answer.error("ValidationException")

    async with ToxicServer.open(refuse) as server, _pool(server.url) as pool:
        for _ in range(3):
            assert (await pool.exchange(pool.signer.signed(TARGET, b"{}", 0))).status == 400
        assert server.connections == 1
