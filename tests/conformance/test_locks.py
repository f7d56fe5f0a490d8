"""Locks of sessions: who holds, who is next, what becomes of one that loses it; on each Redis, and without."""

from __future__ import annotations

import asyncio
import contextlib
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest
from fleet import until
from instances import HurriedClock, Instances
from mangatest import HANG_GUARD_S, Interrupted
from redis import Redis
from servicehosts import MemoryHost, RealHost

from mangacache import Closed, Conflict, Consistency, Corrupt, Invalid, Rejected
from mangacache.ephemeral import scripts, seeking

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from servicehosts import Host

HOSTS = ("double", "shared_valkey", "debian_redis")
SLOW = 600
"""Times in the cases are so many times longer on the servers, whose own expiry they have no part in."""


# The scripts, at times that a test sets


@pytest.fixture(params=HOSTS)
def host(request) -> Iterator[Host]:
    """Each server in turn."""
    if request.param == "double":
        yield MemoryHost()
        return
    with Redis(port=request.getfixturevalue(request.param)) as client:
        yield TimedHost(client)


class TimedHost(RealHost):
    """A real server on which keys live as long as the scripts say, which is long (`SLOW`)."""

    def _timed(self, text: str) -> str:
        told = "{math.floor(NOW_US / 1000000), NOW_US % 1000000}"
        return "local NOW_US = tonumber(table.remove(ARGV))\n" + text.replace("redis.call('TIME')", told)


class Lock:
    """A lock's key, asked by script; leases of 1,000 ms, places in line kept for 300 ms."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.key = f"lock:{uuid4().hex}"

    def take(self, token, what="take", *, most=9):
        said, number = self.host.run(scripts.LOCK_TAKE, self.key, (token, 1000 * SLOW, 300 * SLOW, most, what))
        return said.decode(), number // SLOW if number >= SLOW else number

    def wait(self, token, *, most=9):
        return self.take(token, "wait", most=most)

    def leave(self, token):
        return self.host.run(scripts.LOCK_LEAVE, self.key, (token,))

    def extend(self, token):
        return self.host.run(scripts.LOCK_EXTEND, self.key, (token, 1000 * SLOW))

    def pass_ms(self, ms):
        self.host.now_us += ms * SLOW * 1000

    def ttl_ms(self):
        left = self.host.ttl_ms(self.key)
        return left / SLOW if left > 0 else left


@pytest.fixture
def lock(host) -> Lock:
    return Lock(host)


def test_one_holds_and_the_others_wait_for_as_long_as_its_lease(lock):
    assert lock.take("a") == ("held", 0)
    assert lock.take("b") == ("waits", 1000)
    lock.pass_ms(250)
    assert lock.take("b") == ("waits", 750)


def test_who_takes_a_lock_again_has_it_still_so_a_lost_reply_may_be_asked_for_again(lock):
    assert lock.take("a") == ("held", 0)
    lock.pass_ms(900)
    assert lock.take("a") == ("held", 0)
    assert lock.take("b") == ("waits", 1000)


def test_a_release_with_another_token_ends_nothing(lock):
    lock.take("a")
    assert lock.leave("b") == 0
    assert lock.take("b")[0] == "waits"
    assert lock.leave("a") == 1
    assert lock.leave("a") == 0
    assert lock.take("b") == ("held", 0)


def test_a_release_that_comes_after_the_lease_has_passed_on_ends_nothing_of_the_next_holder(lock):
    lock.take("a")
    lock.pass_ms(1000)
    assert lock.take("b") == ("held", 0)
    assert lock.leave("a") == 0
    assert lock.extend("b") == 1
    assert lock.take("c")[0] == "waits"


def test_a_lease_is_extended_by_its_holder_only_and_only_while_it_runs(lock):
    lock.take("a")
    assert lock.extend("b") == 0
    lock.pass_ms(900)
    assert lock.extend("a") == 1
    lock.pass_ms(900)
    assert lock.take("b") == ("waits", 100)
    lock.pass_ms(100)
    assert lock.extend("a") == 0
    assert lock.take("b")[0] == "held"


def test_a_lock_is_given_in_the_order_in_which_it_was_asked_for_whoever_asks_first_when_it_is_free(lock):
    lock.take("a")
    for token in "bcd":
        assert lock.wait(token)[0] == "waits"
    lock.leave("a")
    assert lock.take("d")[0] == lock.take("c")[0] == lock.wait("c")[0] == "waits"
    assert lock.take("e")[0] == "waits", "somebody new does not pass the line"
    assert lock.wait("b") == ("turn", 300)
    assert lock.take("b") == ("held", 3)
    lock.leave("b")
    assert lock.take("c") == ("held", 2)


def test_a_dead_waiter_keeps_its_place_no_longer_than_it_said(lock):
    lock.take("a")
    lock.wait("dead")
    lock.pass_ms(200)
    lock.wait("b")
    lock.leave("a")
    said, ms = lock.take("b")
    assert (said, ms) == ("waits", 100)
    lock.pass_ms(100)
    assert lock.take("b") == ("held", 0)


def test_a_waiter_that_asks_again_keeps_its_place(lock):
    lock.take("a")
    lock.wait("b")
    lock.wait("c")
    for _ in range(3):
        lock.pass_ms(250)
        lock.wait("b")
        lock.wait("c")
    lock.leave("a")
    assert lock.take("c")[0] == "waits"
    assert lock.take("b")[0] == "held"


def test_who_leaves_the_line_makes_room_for_the_next(lock):
    lock.take("a")
    lock.wait("b")
    lock.wait("c")
    lock.leave("a")
    assert lock.leave("b") == 0
    assert lock.take("c")[0] == "held"


def test_no_more_wait_than_may(lock):
    lock.take("a")
    for token in "bc":
        assert lock.wait(token, most=2)[0] == "waits"
    assert lock.wait("d", most=2) == ("full", 1000)
    assert lock.wait("b", most=2)[0] == "waits"
    lock.pass_ms(300)
    assert lock.wait("d", most=2)[0] == "waits"


def test_a_lock_leaves_nothing_behind_and_expires_with_its_lease_or_its_line(lock):
    lock.take("a")
    assert 0 < lock.ttl_ms() <= 1000
    lock.wait("b")
    lock.leave("a")
    assert 0 < lock.ttl_ms() <= 1000
    lock.leave("b")
    assert lock.ttl_ms() == -2


# The service


@pytest.fixture(params=HOSTS)
async def workers(request) -> AsyncIterator[Instances]:
    """Each Redis in turn."""
    port = None if request.param == "double" else request.getfixturevalue(request.param)
    async with Instances.open(port) as made:
        yield made


@pytest.fixture
async def on_the_double() -> AsyncIterator[Instances]:
    async with Instances.open() as made:
        yield made


@pytest.fixture
async def without_redis() -> AsyncIterator[Instances]:
    async with Instances.open(redis=False) as made:
        yield made


async def test_each_hold_has_a_fence_one_higher_and_one_has_the_lock_at_a_time(workers):
    inside, fences = 0, []

    async def hold(cache):
        nonlocal inside
        async with cache.locks.session("s") as held:
            inside += 1
            assert inside == 1
            assert held.source == "redis"
            fences.append(held.fence)
            await cache.session("s").update({"by": held.fence}, fence=held.fence)
            inside -= 1

    async with workers.cache() as one, workers.cache() as two:
        await one.session("s").append(role="user", content="a")
        await asyncio.gather(*(hold((one, two)[number % 2]) for number in range(8)))
        context = await one.session("s").context(consistency=Consistency.STRONG)
    assert fences == list(range(1, 9))
    assert context.meta.attributes == {"by": 8}


async def test_a_lock_is_given_in_the_order_of_the_line(workers, monkeypatch):
    monkeypatch.setattr(seeking, "_MOST_PATIENCE_S", 60.0)  # whoever stands still keeps his place
    order = []
    async with AsyncExitStack() as stack:
        caches = [await stack.enter_async_context(workers.cache()) for _ in range(3)]
        held = AsyncExitStack()
        await held.enter_async_context(caches[0].locks.session("s", lease_s=60))

        async def wait(number):
            async with caches[number % 3].locks.session("s", lease_s=60, wait_s=600):
                order.append(number)

        waiting = []
        for number in range(6):
            before = _places(workers, "s")
            waiting.append(asyncio.ensure_future(wait(number)))
            await until(lambda before=before: _places(workers, "s") > before, "it waits")
        await held.aclose()
        await asyncio.gather(*waiting)
    assert order == list(range(6))


def _hash(workers, session_id):
    key = f"{workers.settings.key_prefix}lock:session:{{{session_id}}}"
    if workers.double is not None:
        return workers.double.hash(key)
    with Redis(port=workers.proxy.target_port) as client:
        return client.hgetall(key)


def _places(workers, session_id):
    return sum(name.startswith(b"w") for name in _hash(workers, session_id))


async def test_a_lock_is_renewed_for_as_long_as_it_is_held_and_given_back_at_the_end(workers):
    clock = HurriedClock()
    async with workers.cache(clock=clock) as one, workers.cache() as two:
        async with one.locks.session("s", lease_s=60) as held:
            ends = _hash(workers, "s")[b"x"]
            clock.hurry()
            await until(lambda: int(_hash(workers, "s")[b"x"]) > int(ends), "it is renewed")
            held.check()
            with pytest.raises(Rejected, match="within 0 s") as refused:
                async with two.locks.session("s", wait_s=0):
                    pass
            assert refused.value.retry_after_s > 0
        await until(lambda: not _hash(workers, "s"), "it shows in Redis")
        async with two.locks.session("s", wait_s=0) as held:
            assert held.fence == 2


async def test_who_gives_up_waiting_leaves_the_line(workers):
    async with workers.cache() as one, workers.cache() as two, one.locks.session("s"):
        waiting = asyncio.ensure_future(two.locks.session("s").__aenter__())
        await until(lambda: _places(workers, "s") == 1, "it shows in Redis")
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        await until(lambda: not _places(workers, "s"), "it shows in Redis")


async def test_a_holder_whose_lock_was_evicted_and_taken_by_another_is_stopped_and_its_writes_are_refused(workers):
    clock = HurriedClock()
    async with workers.cache(clock=clock) as one, workers.cache() as two:
        session = one.session("s")
        await session.append(role="user", content="a")
        holds = []

        async def hold():
            async with one.locks.session("s", lease_s=60) as held:
                holds.append(held)
                _evict(workers, "s")
                async with two.locks.session("s") as other:
                    await two.session("s").update({"by": "two"}, fence=other.fence)
                    with pytest.raises(Conflict, match="fence is 2"):
                        await session.update({"by": "one"}, fence=held.fence)
                    clock.hurry()
                    await asyncio.sleep(HANG_GUARD_S)

        with pytest.raises(Conflict, match=r"was lost .*another's"):
            await hold()
        assert holds[0].lost.is_set()
        with pytest.raises(Conflict, match="was lost"):
            holds[0].check()
        context = await session.context(consistency=Consistency.STRONG)
    assert context.meta.attributes == {"by": "two"}
    assert asyncio.current_task().cancelling() == 0


def _evict(workers, session_id):
    key = f"{workers.settings.key_prefix}lock:session:{{{session_id}}}"
    if workers.double is not None:
        workers.double.evict(key)
    else:
        with Redis(port=workers.proxy.target_port) as client:
            client.delete(key)


async def test_a_holder_that_is_cut_off_stops_before_its_lease_has_ended(workers):
    async with workers.cache() as one:

        async def hold():
            async with one.locks.session("s", lease_s=1.5) as held:
                assert held.source == "redis"
                workers.cut()
                await asyncio.sleep(HANG_GUARD_S)

        with pytest.raises(Conflict, match="two thirds of its lease"):
            await hold()
        workers.mend()


async def test_while_redis_is_away_the_fence_alone_is_the_lock(workers):
    async with workers.cache() as one, workers.cache() as two:
        session = one.session("s")
        await session.append(role="user", content="a")
        workers.cut()
        async with one.locks.session("s", lease_s=30) as held, two.locks.session("s", lease_s=30) as other:
            assert (held.source, other.source) == ("fence", "fence")
            with pytest.raises(Conflict, match="fence is 2"):
                await session.update({"by": "one"}, fence=held.fence)
            await two.session("s").update({"by": "two"}, fence=other.fence)
        workers.mend()


async def test_without_redis_the_last_who_claims_has_the_lock_and_the_one_before_is_stopped(without_redis):
    clock = HurriedClock()
    async with without_redis.cache(clock=clock) as one, without_redis.cache() as two:
        await one.session("s").append(role="user", content="a")

        async def hold():
            async with one.locks.session("s", lease_s=60) as held:
                assert held.source == "fence"
                async with two.locks.session("s", lease_s=30) as other:
                    assert other.fence == held.fence + 1
                    clock.hurry()
                    await asyncio.sleep(HANG_GUARD_S)

        with pytest.raises(Conflict, match=r"was lost .*another's"):
            await hold()


async def test_a_claim_that_finds_the_fence_raised_begins_again(on_the_double):
    networks = []

    def wrap(inner):
        networks.append(Interrupted(inner))
        return networks[0]

    async with on_the_double.cache(wrap=wrap) as one, on_the_double.store() as others:
        await one.session("s").append(role="user", content="a")

        async def claim():
            found = await others.fences.read("s")
            assert await others.fences.claim("s", found, claim_id="other", stamp=others.stamp()) == 1

        networks[0].before("UpdateItem", claim)
        async with one.locks.session("s") as held:
            assert not networks[0].waiting
            assert held.fence == 2


async def test_the_body_that_fails_gives_the_lock_back_and_its_error_goes_on(workers):
    async with workers.cache() as one:
        with pytest.raises(ZeroDivisionError):
            async with one.locks.session("s"):
                _ = 1 / 0
        await until(lambda: not _hash(workers, "s"), "it shows in Redis")


async def test_a_holder_that_is_cancelled_by_somebody_else_is_cancelled(workers):
    async with workers.cache() as one:

        async def hold():
            async with one.locks.session("s"):
                entered.set()
                await asyncio.sleep(HANG_GUARD_S)

        entered = asyncio.Event()
        holding = asyncio.ensure_future(hold())
        await entered.wait()
        holding.cancel()
        with pytest.raises(asyncio.CancelledError):
            await holding
        await until(lambda: not _hash(workers, "s"), "it shows in Redis")


async def test_a_body_that_will_not_be_stopped_ends_as_it_likes(on_the_double):
    async with on_the_double.cache() as one:
        async with one.locks.session("s") as held:
            asyncio.get_running_loop().call_soon(held.lose, "for the test")
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(HANG_GUARD_S)
        assert held.lost.is_set()
    assert asyncio.current_task().cancelling() == 0


async def test_closing_stops_who_holds_a_lock_and_gives_it_back(workers):
    async with AsyncExitStack() as stack:
        one = await stack.enter_async_context(workers.cache())

        async def hold():
            async with one.locks.session("s", lease_s=300):
                entered.set()
                await asyncio.sleep(HANG_GUARD_S)

        entered = asyncio.Event()
        holding = asyncio.ensure_future(hold())
        await entered.wait()
        await one.close()
        assert not _hash(workers, "s"), "nobody has to wait for the end of its lease"
        with pytest.raises(Conflict, match="closing"):
            await holding
        with pytest.raises(Closed):
            _ = one.locks


@pytest.mark.parametrize(
    "bad",
    [
        {"lease_s": 0}, {"lease_s": -1}, {"lease_s": 301}, {"lease_s": "10"}, {"lease_s": True},
        {"lease_s": float("nan")}, {"lease_s": 10**400}, {"wait_s": -1}, {"wait_s": float("inf")}, {"wait_s": None},
    ],
)  # fmt: skip
async def test_times_that_cannot_be_meant_are_refused(on_the_double, bad):
    async with on_the_double.cache() as cache:
        with pytest.raises(Invalid, match="seconds"):
            async with cache.locks.session("s", **bad):
                pass
        assert on_the_double.double.calls["lock_take"] == 0


@pytest.mark.parametrize("name", ["{", "}{a}b", "日本\n語", "a b", "'); DROP", "%7B", "x" * 128])
async def test_odd_ids_lock_and_unlock(workers, name):
    async with workers.cache() as cache, cache.locks.session(name) as held:
        assert held.fence == 1


async def test_a_value_of_another_kind_under_a_locks_key_is_named(workers):
    key = f"{workers.settings.key_prefix}lock:session:{{s}}"
    if workers.double is not None:
        workers.double._primary.db.keep(key, b"text")
        workers.double._primary.db.pexpire(key, 60_000)
    else:
        with Redis(port=workers.proxy.target_port) as client:
            client.set(key, "text", px=60_000)
    async with workers.cache() as cache:
        with pytest.raises(Corrupt, match="lock:session"):
            async with cache.locks.session("s"):
                pass


async def test_locks_hold_on_a_cluster(cluster):
    async with Instances.open(endpoint=cluster.endpoint) as workers, AsyncExitStack() as stack:
        caches = [await stack.enter_async_context(workers.cache()) for _ in range(2)]
        fences = {f"s{number}": [] for number in range(6)}

        async def hold(cache, name):
            async with cache.locks.session(name, lease_s=60, wait_s=600) as held:
                assert held.source == "redis"
                fences[name].append(held.fence)

        await asyncio.gather(*(hold(cache, name) for cache in caches for name in fences for _ in range(2)))
    assert fences == {name: [1, 2, 3, 4] for name in fences}


# Lent: held by whoever has the token


async def test_a_lent_lock_is_prolonged_and_given_back_by_its_token_at_any_instance(workers):
    async with workers.cache() as one, workers.cache() as two:
        await one.session("s").append(role="user", content="a")
        lent = await one.locks.lend("s", lease_s=60)
        assert (lent.fence, lent.source, lent.ttl_s) == (1, "redis", 60)
        with pytest.raises(Rejected, match="within 0 s"):
            await two.locks.lend("s")
        assert await two.locks.prolong("s", lent.lock_token) == lent
        await two.session("s").update({"by": 1}, fence=lent.fence)
        assert await two.locks.give_back("s", lent.lock_token)
        assert not await one.locks.give_back("s", lent.lock_token), "it was given back already"
        with pytest.raises(Conflict, match="not held by this token"):
            await one.locks.prolong("s", lent.lock_token)
        assert (await two.locks.lend("s", lease_s=60)).fence == 2


async def test_a_lent_lock_that_was_lost_and_lent_again_is_neither_prolonged_nor_ended_nor_of_any_weight(workers):
    async with workers.cache() as one, workers.cache() as two:
        await one.session("s").append(role="user", content="a")
        lost = await one.locks.lend("s", lease_s=60)
        _evict(workers, "s")
        later = await two.locks.lend("s", lease_s=60)
        with pytest.raises(Conflict, match="not held by this token"):
            await one.locks.prolong("s", lost.lock_token)
        assert not await one.locks.give_back("s", lost.lock_token)
        assert await one.locks.prolong("s", later.lock_token) == later, "it is held still"
        with pytest.raises(Conflict, match="fence is 2"):
            await one.session("s").summarise("mine", fence=lost.fence)
        await one.session("s").summarise("theirs", fence=later.fence)


async def test_a_lent_lock_keeps_whoever_holds_one_for_a_block_out_and_the_other_way_round(workers):
    async with workers.cache() as one, workers.cache() as two:
        lent = await one.locks.lend("s", lease_s=60)
        with pytest.raises(Rejected):
            async with two.locks.session("s", wait_s=0):
                pass
        await one.locks.give_back("s", lent.lock_token)
        async with two.locks.session("s", lease_s=60):
            with pytest.raises(Rejected):
                await one.locks.lend("s")


async def test_without_redis_a_lent_lock_is_the_claim_alone_and_the_last_to_claim_has_it(without_redis):
    async with without_redis.cache() as one, without_redis.cache() as two:
        await one.session("s").append(role="user", content="a")
        first = await one.locks.lend("s")
        assert (first.fence, first.source) == (1, "fence")
        assert await two.locks.prolong("s", first.lock_token) == first
        second = await two.locks.lend("s")
        assert second.fence == 2
        with pytest.raises(Conflict, match="not held by this token"):
            await one.locks.prolong("s", first.lock_token)
        assert not await one.locks.give_back("s", second.lock_token)
        assert await one.locks.prolong("s", second.lock_token) == second


@pytest.mark.parametrize(
    "token", ["", "x", "0" * 32, f"{'0' * 32}.{'0' * 32}.0.2710.r", f"{'0' * 32}.{'0' * 32}.1.2710.x"]
)
async def test_what_is_no_lock_token_is_refused(without_redis, token):
    async with without_redis.cache() as cache:
        with pytest.raises(Invalid, match="no lock token"):
            await cache.locks.prolong("s", token)
        with pytest.raises(Invalid, match="no lock token"):
            await cache.locks.give_back("s", token)
