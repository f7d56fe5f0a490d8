"""Redis or DynamoDB away, for one worker or for all: what is promised then, what is said, and how it comes back."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from pathlib import Path

import pytest
from fleet import GUARD_S, Gate, Proxy, until

from mangacache import Consistency, Rejected, Transient
from mangacache.local.valkey import valkey_process

LATEST, SESSION, STRONG = Consistency.LATEST, Consistency.SESSION, Consistency.STRONG
NOT_DUE_S = 60.0
QUICKLY = {"request_timeout_s": 0.5, "request_deadline_s": 0.5}


@pytest.fixture
def fleet(memory_fleet):
    """These cases are about Redis and the worker: the double of DynamoDB will do."""
    return memory_fleet


@contextlib.asynccontextmanager
async def _one_cut_off(fleet, **changes):
    """A worker behind a proxy and one that reaches Redis by itself; both know turn 1, which Redis holds."""
    async with (
        Proxy.open(fleet.port) as proxy,
        fleet.worker(port=proxy.port, commit_retry_s=0.02, **changes) as one,
        fleet.worker(commit_retry_s=0.02, **changes) as two,
    ):
        await one.say("1")
        await two.heard()
        proxy.cut()
        yield one, two, proxy


# Redis flushed, restarted, failed over


async def test_a_flush_in_the_middle_costs_a_fill_and_nothing_else(lonely_fleet):
    async with lonely_fleet.workers() as (one, two):
        await one.say("1")
        await two.heard()
        await lonely_fleet.redis.flushall()
        await one.say("2")
        for worker, source in ((two, "dynamodb"), (one, "redis"), (two, "redis")):
            context = await worker.latest()
            assert ([turn.content for turn in context.turns], context.source) == (["1", "2"], source)
            assert not context.degraded


async def test_after_a_restart_the_epoch_is_raised_and_what_was_kept_under_the_old_one_is_not_used(
    lonely_fleet, valkey
):
    async with lonely_fleet.workers() as (one, two):
        await one.say("1")
        await two.heard()
        old = await lonely_fleet.redis.dump(lonely_fleet.key())
        valkey.kill()
        await valkey.restart()
        await one.say("2")
        await lonely_fleet.redis.restore(lonely_fleet.key(), 300_000, old, replace=True)
        assert await two.heard() == ["1", "2"]
        await one.has_learned(2)
        await two.has_learned(2)
        lonely_fleet.clock.pass_s(1.5)
        await until(lambda: one.link.up and two.link.up, "both are back")
        await one.heard()
        context = await two.latest()
        assert (context.source, context.degraded) == ("redis", False)
        assert await lonely_fleet.state(epoch=2) == "full 1.2.1"
        assert one.event("epoch_raised") + two.event("epoch_raised") >= 1
        assert one.tier._keeper.epoch == two.tier._keeper.epoch == 2, "raised once for one restart"


async def test_a_failover_to_a_lagging_replica_brings_nothing_old_back(fleet):
    """The replica has turn 1 alone; turn 2 was acknowledged on the primary before it went."""
    with tempfile.TemporaryDirectory(prefix="mangacache-") as folder:
        replica = valkey_process(folder=Path(folder))
        await replica.start()
        try:
            async with Proxy.open(fleet.port) as proxy, fleet.workers(port=proxy.port) as (one, two):
                await one.say("1")
                await two.heard()
                copy = await fleet.redis.dump(fleet.key())
                await one.say("2")
                await _restored(replica.port, fleet.key(), copy)
                proxy.turn_to(replica.port)
                assert await two.heard() == ["1", "2"]
                await one.say("3")
                assert await two.heard() == ["1", "2", "3"]
        finally:
            await replica.stop()


async def _restored(port, key, copy):
    from redis.asyncio import Redis

    async with Redis(host="127.0.0.1", port=port) as redis:
        await redis.restore(key, 300_000, copy)


async def test_a_replica_is_not_written_to(lonely_fleet):
    """A worker that reaches a replica alone is one without Redis: a replica refuses writes, or loses them."""
    async with lonely_fleet.workers() as (one, two):
        await one.say("1")
        await lonely_fleet.redis.replicaof("127.0.0.1", "1")
        one.link.drop()
        await one.say("2")
        context = await one.latest()
        assert (len(context.turns), context.degraded) == (2, True)
        await lonely_fleet.redis.replicaof("NO", "ONE")
        await until(lambda: one.link.up, "the link is back")
        assert await two.heard() == ["1", "2"]


# One worker cut off: policy `available`


async def test_available_appends_are_acknowledged_and_contexts_say_that_they_are_degraded(fleet):
    async with _one_cut_off(fleet, invalidation_deadline_s=NOT_DUE_S) as (one, _two, _proxy):
        done = await one.say("2", "3")
        assert (done.number, done.degraded) == (3, True)
        context = await one.latest()
        assert ([turn.content for turn in context.turns], context.source) == (["1", "2", "3"], "dynamodb")
        assert context.degraded
        assert one.event("commit_unconfirmed") == 2


async def test_available_a_token_is_never_missed_by_whom_it_is_shown(fleet):
    async with _one_cut_off(fleet, invalidation_deadline_s=NOT_DUE_S) as (one, two, _proxy):
        token = (await one.say("2")).version
        assert await two.heard(at_least=token) == ["1", "2"]


async def test_available_what_is_owed_is_sent_before_anything_else_on_reconnection(fleet):
    async with _one_cut_off(fleet, invalidation_deadline_s=NOT_DUE_S) as (one, two, proxy):
        await one.say("2")
        await one.say("x", session_id="other")
        assert len(one.tier._debts) == 2
        assert await two.heard() == ["1"], "two has not been told, and its client has no token"
        sent = len(one.link.sent)
        proxy.heal()
        await until(lambda: one.link.up, "the link is back")
        await until(lambda: not len(one.tier._debts), "nothing is owed")
        assert [script for script, _, _ in one.link.sent[sent : sent + 2]] == ["first:commit"] * 2
        assert one.link.sent[sent][2][:7] == (300_000, 32, 1, 2, 1, b"", 3)
        assert await two.heard() == ["1", "2"]
        assert one.event("invalidated") == 2
        assert two.tier._keeper.epoch == 1
        assert not (await one.latest()).degraded
        assert not (await one.say("3")).degraded


async def test_available_a_debt_that_is_not_sent_in_time_is_paid_by_raising_the_epoch(fleet):
    async with _one_cut_off(fleet, invalidation_deadline_s=0.1) as (one, two, _proxy):
        await one.say("2")
        await two.has_learned(2)
        assert await two.heard() == ["1", "2"]
        await until(lambda: not len(one.tier._debts), "nothing is owed")
        assert one.event("epoch_raised") == 1


async def test_available_more_debts_than_can_be_remembered_raise_the_epoch_at_once(fleet):
    async with _one_cut_off(fleet, invalidation_deadline_s=NOT_DUE_S, invalidation_queue=1) as (one, two, _proxy):
        await one.say("x", session_id="other")
        await one.say("2")
        await two.has_learned(2)
        assert await two.heard() == ["1", "2"]
        await until(lambda: not one.tier._debts._queue.overflowed, "the overflow is paid")


async def test_available_a_worker_that_closes_pays_what_it_owes_by_the_epoch(fleet):
    async with fleet.worker() as two:
        async with Proxy.open(fleet.port) as proxy:
            async with fleet.worker(port=proxy.port, commit_retry_s=0, invalidation_deadline_s=NOT_DUE_S) as one:
                await one.say("1")
                await two.heard()
                proxy.cut()
                await one.say("2")
                assert await two.heard() == ["1"]
            await two.has_learned(2)
        assert await two.heard() == ["1", "2"]


async def test_available_a_worker_that_closes_sends_what_it_owes_where_it_can(fleet):
    """The link is up again, and the look that would have sent it has not come yet."""
    async with fleet.worker() as two:
        async with fleet.worker(commit_retry_s=0, invalidation_deadline_s=NOT_DUE_S) as one:
            await one.say("1")
            await two.heard()
            one.link.cut = True
            await one.say("2")
            one.link.cut = False
        assert await two.heard() == ["1", "2"]
        assert two.tier._keeper.epoch == 1


async def test_available_reads_are_limited_while_redis_is_away_and_appends_are_not(fleet):
    async with _one_cut_off(fleet, invalidation_deadline_s=NOT_DUE_S, degraded_reads_per_s=2) as (one, _two, _proxy):
        refused = []
        for i in range(20):
            try:
                await one.session(f"cold-{i}").context()
            except Rejected as error:
                refused.append(error)
        assert 10 <= len(refused) <= 18
        assert all(0 < error.retry_after_s <= 0.5 for error in refused)
        for i in range(20):
            assert (await one.say("a", session_id=f"new-{i}")).number == 1
        with pytest.raises(Rejected, match="degraded_reads_per_s"):
            await asyncio.gather(*(one.session(f"colder-{i}").context() for i in range(20)))


async def test_available_what_the_lost_connection_fed_is_asked_for_anew_and_answers_by_its_age_alone(fleet):
    changes = {"invalidation_deadline_s": NOT_DUE_S, "redis_link": "multiplexed"}  # the one that hears of others
    async with _one_cut_off(fleet, **changes) as (one, _two, _proxy):
        await one.latest()
        reads = one.table.reads
        context = await one.session().context(consistency=Consistency.EVENTUAL(30))
        assert (context.source, one.table.reads) == ("memory", reads)
        context = await one.session().context()
        assert (context.source, context.degraded) == ("dynamodb", True)


# One worker cut off: policy `hold`


async def test_hold_an_append_is_stored_and_not_acknowledged_and_its_retry_is_the_same_turn(fleet):
    async with _one_cut_off(fleet, redis_policy="hold") as (one, two, proxy):
        with pytest.raises(Transient, match=r"is stored.*same turn_id"):
            await one.say("2")
        assert await two.heard() == ["1"]
        with pytest.raises(Transient, match="is stored"):
            await one.say("2")
        proxy.heal()
        await until(lambda: one.link.up, "the link is back")
        again = await one.say("2")
        assert (again.number, again.duplicate) == (2, True)
        assert await two.heard() == ["1", "2"]
        assert len(one.tier._debts) == 0


async def test_hold_a_retry_through_another_worker_is_acknowledged_and_told(fleet):
    async with _one_cut_off(fleet, redis_policy="hold") as (one, two, _proxy):
        with pytest.raises(Transient):
            await one.say("2")
        again = await two.say("2")
        assert (again.number, again.duplicate) == (2, True)
        async with fleet.worker() as three:
            assert await three.heard() == ["1", "2"]


async def test_hold_latest_raises_and_the_other_levels_answer(fleet):
    async with _one_cut_off(fleet, redis_policy="hold") as (one, _two, _proxy):
        with pytest.raises(Transient, match="LATEST cannot be promised"):
            await one.latest()
        for level in (SESSION, Consistency.EVENTUAL(60), STRONG):
            assert len((await one.session().context(consistency=level)).turns) == 1
        fleet.clock.pass_s(2)
        context = await one.session().context()
        assert (context.source, context.degraded) == ("dynamodb", True)
        await until(lambda: not one.link.up, "the link is known to be down")
        reads = one.table.reads
        with pytest.raises(Transient, match="LATEST cannot be promised"):
            await one.latest()
        assert one.table.reads == reads, "what cannot be promised is not read"


async def test_hold_a_change_of_meta_waits_for_its_commit_too(fleet):
    async with _one_cut_off(fleet, redis_policy="hold") as (one, two, proxy):
        with pytest.raises(Transient, match="is stored"):
            await one.session().update({"k": 1})
        proxy.heal()
        await until(lambda: one.link.up, "the link is back")
        await one.session().update({"l": 2})
        assert (await two.latest()).meta.attributes == {"k": 1, "l": 2}


# Redis stalls


async def test_a_stalled_redis_holds_an_append_up_for_its_time_out_and_not_longer(lonely_fleet, valkey):
    async with lonely_fleet.workers(redis_timeout_s=0.2, commit_retry_s=0.02) as (one, two):
        await one.say("1")
        await two.heard()
        valkey.pause()
        try:
            assert (await one.say("2")).number == 2
            context = await one.latest()
            assert (len(context.turns), context.degraded) == (2, True)
        finally:
            valkey.resume()
        await until(lambda: one.link.up and not len(one.tier._debts), "what is owed is paid")
        await until(lambda: two.link.up, "the other's link is back")
        assert await two.heard() == ["1", "2"]


# DynamoDB away


async def test_without_dynamodb_session_answers_from_redis_and_says_that_it_is_stale(fleet):
    async with fleet.workers(3, **QUICKLY) as (one, two, three):
        await one.say("1")
        await two.heard()
        await one.say("2")
        for worker in (two, three):
            await worker.tier._keeper.refresh()
            worker.table.away = True
        fleet.clock.pass_s(2)
        for worker in (two, three):
            context = await worker.session().context()
            assert ([turn.content for turn in context.turns], context.source) == (["1", "2"], "redis")
            assert context.stale


async def test_without_dynamodb_latest_and_strong_and_appends_raise(fleet):
    async with fleet.workers(**QUICKLY) as (one, two):
        await one.say("1")
        await two.heard()
        two.table.away = True
        fleet.clock.pass_s(2)
        for level in (LATEST, STRONG):
            with pytest.raises(Transient):
                await two.session().context(consistency=level)
        with pytest.raises(Transient):
            await two.say("2")
        two.table.away = False
        await until(lambda: two.tier._keeper._reading is None, "no read of the epoch is under way")
        fleet.clock.pass_s(2)
        assert await two.heard() == ["1"]


async def test_without_dynamodb_no_read_but_the_first_waits_for_an_epoch_item_that_hangs(fleet):
    async with fleet.worker(**QUICKLY) as worker:
        await worker.say("1")
        await worker.heard()
        worker.table.epoch_away = True
        fleet.clock.pass_s(2)
        assert (await worker.session().context()).stale
        gate = Gate()

        async def hanging():
            await gate()
            raise Transient("no answer")

        worker.tier._keeper._epochs.read = hanging
        await gate.reached()
        context = await worker.session().context()
        assert (context.source, context.stale) == ("redis", True)
        gate.opened.set()


async def test_without_dynamodb_and_redis_memory_answers_and_says_that_it_is_stale_but_never_below_the_token(fleet):
    async with fleet.workers(**QUICKLY) as (one, two):
        await one.say("1")
        await two.heard()
        token = (await one.say("2")).version
        two.table.away = two.link.cut = True
        fleet.clock.pass_s(2)
        context = await two.session().context()
        assert (context.source, context.stale, len(context.turns)) == ("memory", True, 1)
        with pytest.raises(Transient):
            await two.session().context(at_least=token)
        with pytest.raises(Transient):
            await two.session("unknown").context()


async def test_without_the_epoch_item_nothing_is_acknowledged_under_hold_and_what_is_owed_under_available(fleet):
    async with fleet.workers(redis_policy="hold", commit_retry_s=0.02, **QUICKLY) as (one, two):
        await one.say("1")
        one.table.epoch_away = True
        fleet.clock.pass_s(2)
        with pytest.raises(Transient, match="is stored"):
            await one.say("2")
        with pytest.raises(Transient, match="epoch"):
            await one.latest()
        assert (await one.session().context()).stale
        assert await two.heard() == ["1", "2"], "Redis was told all the same"
    async with fleet.worker(commit_retry_s=0.02, invalidation_deadline_s=NOT_DUE_S, **QUICKLY) as three:
        await three.heard()
        three.table.epoch_away = True
        fleet.clock.pass_s(2)
        await three.say("3")
        assert len(three.tier._debts) == 1
        three.table.epoch_away = False
        fleet.clock.pass_s(0.5)
        await until(lambda: not len(three.tier._debts), "nothing is owed")


async def test_a_stale_answer_does_not_count_as_asked(fleet):
    """What could not be promised then is not answered from memory as fresh afterwards."""
    async with fleet.workers(**QUICKLY) as (one, two):
        await one.say("1")
        await two.heard()
        two.table.away = True
        fleet.clock.pass_s(2)
        assert (await two.session().context()).stale
        assert (await two.session().context()).source == "redis"


async def test_nothing_that_is_owed_is_paid_under_an_epoch_that_may_have_been_raised_unheard(fleet):
    async with _one_cut_off(fleet, invalidation_deadline_s=NOT_DUE_S, **QUICKLY) as (one, two, proxy):
        await one.say("2")
        one.table.epoch_away = True
        fleet.clock.pass_s(2)
        await two.tier._keeper.raise_unheard()
        proxy.heal()
        await until(lambda: one.link.up, "the link is back")
        await one.session().context()
        assert len(one.tier._debts) == 1
        one.table.epoch_away = False
        await one.has_learned(2)
        await until(lambda: not len(one.tier._debts), "nothing is owed")
        assert {key for script, key, _ in one.link.sent if script == "first:commit"} <= {fleet.key(epoch=2)}


# What stands in Redis is not what it should be


@pytest.mark.parametrize("field", ["m", "1", "2"])
@pytest.mark.parametrize("value", [b"", b"\x01\xff\xff", b"\x01\x90", b"garbage"])
async def test_bytes_that_cannot_be_read_are_a_miss_and_counted(fleet, field, value):
    async with fleet.workers() as (one, two):
        await one.say("1", "2")
        await fleet.redis.hset(fleet.key(), field, value)
        context = await two.latest()
        assert ([turn.content for turn in context.turns], context.source) == (["1", "2"], "dynamodb")
        assert not context.degraded
        assert two.survived("context_unreadable") == 1
        two.forget()
        known_format = value[:1] in (b"", b"\x01")
        assert (await fleet.state() == "absent") is known_format, "what is damaged goes"


async def test_damage_is_mended_by_the_next_reader(fleet):
    async with fleet.workers() as (one, two):
        await one.say("1", "2")
        await fleet.redis.hdel(fleet.key(), "1")
        assert await two.heard() == ["1", "2"]
        assert await one.heard() == ["1", "2"]
        two.forget()
        assert (await two.latest()).source == "redis"


async def test_a_context_of_the_next_format_is_left_for_whom_can_read_it(fleet):
    """During a rolling deployment old and new workers share a hash."""
    async with fleet.workers() as (one, two):
        await one.say("1")
        await fleet.redis.hset(fleet.key(), "m", b"\x02whatever")
        for _ in range(2):
            two.forget()
            assert await two.heard() == ["1"]
        assert await fleet.state() == "full 1.1.1"
        assert two.survived("context_unreadable") == 2


async def test_a_value_of_another_kind_under_the_key_is_an_outage_of_that_session_alone(fleet):
    async with fleet.workers(commit_retry_s=0.02, invalidation_deadline_s=NOT_DUE_S) as (one, two):
        await fleet.redis.set(fleet.key(), "somebody else's", ex=60)
        assert (await one.say("1")).number == 1
        context = await two.latest()
        assert (len(context.turns), context.degraded) == (1, True)
        await one.say("1", session_id="other")
        assert not (await two.latest("other")).degraded
        await fleet.evict()
        await until(lambda: not len(one.tier._debts), "nothing is owed")
        assert await two.heard() == ["1"]


# The holder of a lease dies


async def test_others_fill_when_the_holder_of_the_lease_never_does(fleet, monkeypatch):
    lease_ms = 60_000
    monkeypatch.setattr("mangacache.context.calls.LEASE_MS", lease_ms)
    async with fleet.workers(3, drain_timeout_s=0, request_deadline_s=GUARD_S) as (one, two, three):
        await one.say("1")
        await fleet.evict()
        for_ever = Gate()
        one.forget()
        one.table.before("Query", for_ever)
        dying = asyncio.create_task(one.heard())
        await for_ever.reached()
        reads = two.table.reads + three.table.reads
        hearing = asyncio.gather(*(worker.heard() for worker in (two, three) for _ in range(50)))
        await until(lambda: two.event("busy") and three.event("busy"), "both wait for the holder")
        await fleet.redis.hincrby(fleet.key(), "lx", -lease_ms)
        assert await hearing == [["1"]] * 100
        assert two.event("filled") + three.event("filled") == 1
        assert two.table.reads + three.table.reads == reads + 2, "META and the turns, once"
        dying.cancel()
        for_ever.opened.set()


async def test_a_reader_whose_deadline_is_near_does_not_wait_for_a_dead_holder(fleet):
    async with fleet.workers(drain_timeout_s=0, **QUICKLY) as (one, two):
        await one.say("1")
        await fleet.evict()
        for_ever = Gate()
        two.link.before("fill", for_ever)
        dying = asyncio.create_task(two.heard())
        await for_ever.reached()
        context = await one.latest()
        assert (len(context.turns), context.source, context.degraded) == (1, "dynamodb", False)
        assert one.event("busy") > 0
        for_ever.opened.set()
        await dying


@pytest.mark.parametrize("policy", ["available", "hold"])
async def test_memory_tells_nothing_as_sound_that_redis_has_not_confirmed(fleet, policy):
    """One stores turn 2 and cannot tell Redis: its next reader at SESSION must not go away with it as if all knew."""
    async with _one_cut_off(fleet, redis_policy=policy, invalidation_deadline_s=NOT_DUE_S) as (one, two, _):
        with contextlib.suppress(Transient):
            await one.say("2")
        for _ in range(2):
            context = await one.session("s").context(consistency=SESSION)
            assert context.degraded or [turn.content for turn in context.turns] == ["1"]
        assert await two.heard() == ["1"], "which is why"
