"""What listeners hear, on the double and on real servers: messages in order, and every time that they may miss one."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from uuid import uuid4

import pytest
from fleet import GUARD_S
from redis import Redis

from mangacache import Closed, Rejected, Settings
from mangacache.clock import SystemClock, system_random
from mangacache.redis import subscriptions as module
from mangacache.redis.channels import Deaf, Hears, Said
from mangacache.redis.ears import EarDialer
from mangacache.redis.subscriptions import Subscriptions
from mangacache.telemetry import Telemetry
from mangacache.testing import MemoryRedis, Proxy

SERVERS = ("memory", "valkey", "redis")


PATIENT_S = 10.0
"""A machine that is busy with other tests is no outage."""


class Host:
    """A server, the way to it, and somebody who publishes there."""

    def __init__(self, dial, publish, cut, mend, stall):
        self.publish, self.cut, self.mend, self.stall = publish, cut, mend, stall
        self.telemetry = Telemetry()
        self.subscriptions = Subscriptions(
            dial, timeout_s=PATIENT_S, clock=SystemClock(), random=system_random(), telemetry=self.telemetry
        )


@pytest.fixture(params=SERVERS)
async def host(request):
    async with AsyncExitStack() as stack:
        if request.param == "memory":
            redis = MemoryRedis()
            link = redis.link()

            def publish(channel, payload):
                redis._primary.db.publish(channel, payload)
                redis._primary._hand_on()

            made = Host(link.dial, publish, link.faults.cut, link.faults.mend, link.faults.stall)
        else:
            made = await _real(stack, request)
        stack.push_async_callback(made.subscriptions.close)
        yield made


async def _real(stack, request):
    port = request.getfixturevalue("shared_valkey" if request.param == "valkey" else "debian_redis")
    proxy = await stack.enter_async_context(Proxy.open(port))
    client = stack.enter_context(Redis(port=port))
    settings = Settings(redis_endpoint=f"redis://127.0.0.1:{proxy.port}", connect_timeout_s=PATIENT_S)
    dialler = EarDialer(settings, clock=SystemClock())
    return Host(
        dialler, lambda channel, payload: client.execute_command("SPUBLISH", channel, payload),
        proxy.cut, proxy.restore, proxy.stall,
    )  # fmt: skip


async def _next(listener):
    async with asyncio.timeout(GUARD_S):
        return await listener.next()


def _name():
    return f"test:{uuid4().hex}"


async def test_a_listener_hears_in_order_what_is_published_once_its_subscription_stands(host):
    name = _name()
    async with host.subscriptions.listen(name) as listener:
        assert await _next(listener) == Hears()
        for number in range(50):
            host.publish(name, b"%d" % number)
        heard = [await _next(listener) for _ in range(50)]
    assert heard == [Said(b"%d" % number) for number in range(50)]


async def test_listeners_of_one_channel_share_a_subscription_which_ends_with_the_last(host):
    name = _name()
    async with host.subscriptions.listen(name) as one:
        assert await _next(one) == Hears()
        async with host.subscriptions.listen(name) as two:
            assert await _next(two) == Hears()
            host.publish(name, b"a")
            assert [await _next(one), await _next(two)] == [Said(b"a")] * 2
        host.publish(name, b"b")
        assert await _next(one) == Said(b"b")
        assert host.subscriptions.channels == 1
    assert host.subscriptions.channels == 0


async def test_a_channel_that_is_left_and_taken_again_at_once_is_heard(host):
    """Whoever left may still be subscribing: its end must not end what the next one asked for."""
    name = _name()
    for _ in range(20):
        async with host.subscriptions.listen(name):
            pass
        async with host.subscriptions.listen(name):
            await asyncio.sleep(0)
    async with host.subscriptions.listen(name) as listener:
        assert await _next(listener) == Hears()
        host.publish(name, b"a")
        assert await _next(listener) == Said(b"a")


async def test_the_loss_of_the_connection_is_told_at_once_and_so_is_its_return(host):
    names = [_name() for _ in range(3)]
    async with AsyncExitStack() as stack:
        listeners = [await stack.enter_async_context(host.subscriptions.listen(name)) for name in names]
        for listener in listeners:
            assert await _next(listener) == Hears()
        host.cut()
        for listener in listeners:
            signal = await _next(listener)
            assert isinstance(signal, Deaf)
            assert signal.lost
        host.publish(names[0], b"unheard")
        host.mend()
        for name, listener in zip(names, listeners, strict=True):
            assert await _next(listener) == Hears()
            host.publish(name, b"again")
            assert await _next(listener) == Said(b"again")
    assert host.telemetry.value("mangacache_survived_total", what="subscription_lost") == 3


async def test_who_begins_to_listen_while_redis_is_away_is_told_so_and_then_that_it_is_back(host):
    host.cut()
    async with host.subscriptions.listen(name := _name()) as listener:
        assert (await _next(listener)).lost
        async with host.subscriptions.listen(name) as other:
            assert (await _next(other)).lost
        host.mend()
        assert await _next(listener) == Hears()


async def test_a_server_that_stands_still_is_not_trusted_to_have_nothing_to_say(host):
    async with host.subscriptions.listen(_name()) as listener:
        assert await _next(listener) == Hears()
        host.stall()
        host.subscriptions._timeout_s = 0.2
        signal = await _next(listener)
        assert isinstance(signal, Deaf)
        assert signal.lost
        host.subscriptions._timeout_s = PATIENT_S
        host.mend()
        assert await _next(listener) == Hears()


async def test_what_is_taken_too_slowly_is_dropped_and_told(host):
    name = _name()
    async with host.subscriptions.listen(name, limit=4) as slow, host.subscriptions.listen(name) as quick:
        assert [await _next(slow), await _next(quick)] == [Hears()] * 2
        for number in range(10):
            host.publish(name, b"%d" % number)
        assert [await _next(quick) for _ in range(10)] == [Said(b"%d" % number) for number in range(10)]
        first = await _next(slow)
        assert isinstance(first, Deaf)
        assert not first.lost
        rest = [await _next(slow)]
        while rest[-1] != Said(b"9"):
            rest.append(await _next(slow))
        assert len(rest) <= 4


async def test_a_drop_of_every_connection_is_a_gap_and_a_new_beginning(host):
    name = _name()
    async with host.subscriptions.listen(name) as listener:
        assert await _next(listener) == Hears()
        host.subscriptions.drop("another primary")
        assert await _next(listener) == Deaf("another primary", lost=True)
        assert await _next(listener) == Hears()
        host.publish(name, b"a")
        assert await _next(listener) == Said(b"a")


async def test_a_connection_that_ends_as_it_is_opened_is_not_listened_to_for_ever(monkeypatch):
    monkeypatch.setattr(module, "_PING_EVERY_S", 0.01)
    redis, dialled = MemoryRedis(), []
    link = redis.link()

    async def dial(hearer, place):
        ear = await link.dial(hearer, place)
        dialled.append(ear)
        if len(dialled) == 1:
            ear.abort("it ended at once")
        return ear

    subscriptions = Subscriptions(
        dial, timeout_s=PATIENT_S, clock=SystemClock(), random=system_random(), telemetry=Telemetry()
    )
    async with subscriptions.listen(_name()) as listener:
        while await _next(listener) != Hears():
            pass
    await subscriptions.close()
    assert len(dialled) == 2


async def test_at_close_every_listener_ends_and_none_begins(host):
    async with host.subscriptions.listen(_name()) as listener:
        assert await _next(listener) == Hears()
        waiting = asyncio.ensure_future(listener.next())
        await asyncio.sleep(0)
        await host.subscriptions.close()
        with pytest.raises(Closed):
            await waiting
    with pytest.raises(Closed):
        async with host.subscriptions.listen(_name()):
            pass


async def test_more_channels_than_a_process_may_listen_to_are_refused(host, monkeypatch):
    monkeypatch.setattr(module, "MOST_CHANNELS", 1)
    async with host.subscriptions.listen(_name()):
        with pytest.raises(Rejected, match="channels"):
            async with host.subscriptions.listen(_name()):
                pass


async def test_a_channel_of_a_cluster_is_listened_to_where_its_slot_is_and_follows_it(cluster):
    settings = Settings(redis_endpoint=cluster.endpoint, connect_timeout_s=PATIENT_S)
    subscriptions = Subscriptions(
        EarDialer(settings, clock=SystemClock()), timeout_s=PATIENT_S, clock=SystemClock(), random=system_random(),
        telemetry=Telemetry(),
    )  # fmt: skip
    names = [_name() for _ in range(24)]
    async with AsyncExitStack() as stack:
        stack.push_async_callback(subscriptions.close)
        listeners = {name: await stack.enter_async_context(subscriptions.listen(name)) for name in names}
        for name, listener in listeners.items():
            assert await _next(listener) == Hears()
            cluster.ask(cluster.primary_of(name).port, "SPUBLISH", name, "a")
            assert await _next(listener) == Said(b"a")
        moved, listener = next(iter(listeners.items()))
        old = cluster.primary_of(moved)
        new = next(node for node in cluster.nodes if node is not old)
        cluster.move_slot(moved, new)
        try:
            assert (await _next(listener)).lost
            assert await _next(listener) == Hears()
            cluster.ask(new.port, "SPUBLISH", moved, "b")
            assert await _next(listener) == Said(b"b")
        finally:
            cluster.move_slot(moved, old)
