"""The rules of the context protocol, each by the interleaving that goes wrong without it."""

from __future__ import annotations

import asyncio

import pytest
from fleet import Gate, until

from mangacache import Consistency, Transient, Version, VersionGone
from mangacache.store.transport import Unanswered

STRONG, SESSION = Consistency.STRONG, Consistency.SESSION
A_MOMENT_S = 0.05


@pytest.fixture
def fleet(either_fleet):
    """What happens here happens between the workers and Redis: the double of DynamoDB will do."""
    return either_fleet


async def _still_waits(task):
    """Tell whether a task goes on waiting; who does not wait has had the time to end."""
    done, _ = await asyncio.wait({task}, timeout=A_MOMENT_S)
    return not done


async def _stored_unheard(fleet, *contents):
    """Store turns that Redis does not hear of."""
    async with fleet.source() as source:
        for content in contents:
            await source.session("s").append(role="user", content=content, turn_id=content)


# Rule 1, appends


async def test_r1_a_turn_is_found_by_its_id_in_the_window_that_redis_holds(fleet):
    async with fleet.workers() as (one, two):
        await one.say("1", "2")
        again = await two.say("1")
        assert (again.number, again.duplicate) == (1, True)
        assert (two.table.reads, two.table.writes) == (0, 0)


async def test_r1_a_turn_is_found_by_its_id_in_memory_that_is_behind(fleet):
    """w1 stores x; w0 knows the turn before; x comes again through w0, whose put of the next number collides."""
    async with fleet.workers() as (w0, w1):
        await w0.say("a")
        await w1.say("x")
        again = await w0.say("x")
        last = await w0.say("z")
        assert (again.number, again.duplicate, last.number) == (2, True, 3)
        assert await w1.heard() == ["a", "x", "z"]


async def test_r1_a_turn_that_another_worker_has_stored_twice_over_is_found_though_the_next_number_is_free(fleet):
    """w0 has read x, which w1 stored: only its id in the window keeps x from being stored again as the next number."""
    async with fleet.workers() as (w0, w1):
        await w0.say("a")
        await w1.say("x")
        await w0.heard()
        again = await w0.say("x")
        assert (again.number, again.duplicate) == (2, True)
        assert await w1.heard() == ["a", "x"]


@pytest.mark.parametrize("lost", ["request", "reply"])
async def test_r1_a_put_without_an_answer_is_sent_again_under_the_same_number(fleet, lost):
    async def lose():
        raise Unanswered("lost on purpose")

    async with fleet.workers() as (one, two):
        await one.say("1")
        (one.table.before if lost == "request" else one.table.after)("PutItem", lose)
        done = await one.say("2")
        assert (done.number, done.duplicate) == (2, False)
        assert (await two.say("3")).number == 3
        assert await two.heard() == ["1", "2", "3"]


# Rule 2, reads


async def test_r2_latest_asks_redis_however_fresh_memory_is(fleet):
    async with fleet.workers() as (one, two):
        await one.say("1")
        await two.heard()
        await one.say("2")
        assert await two.heard() == ["1", "2"]


async def test_r2_session_answers_from_memory_for_its_second_and_then_asks(fleet):
    async with fleet.workers() as (one, two):
        await one.say("1")
        await two.heard()
        two.tier._watch._memory = None  # a notice of the write would be heard before the second is over
        await one.say("2")
        within = await two.session().context()
        fleet.clock.pass_s(1.001)
        after = await two.session().context()
    assert (within.source, [turn.content for turn in within.turns]) == ("memory", ["1"])
    assert (after.source, [turn.content for turn in after.turns]) == ("redis", ["1", "2"])


async def test_r2_a_setting_bounds_what_session_may_answer_from_memory(fleet):
    async with fleet.workers(near_max_age_s=0) as (one, two):
        await one.say("1")
        await two.heard()
        await one.say("2")
        fleet.clock.pass_s(0.001)
        assert len((await two.session().context()).turns) == 2


async def test_r2_the_age_of_an_answer_counts_from_when_it_was_asked_for(fleet):
    async with fleet.workers() as (one, two):
        await one.say("1")

        async def slow():
            await one.say("2")
            fleet.clock.pass_s(0.8)

        two.link.after("get", slow)
        first = await two.session().context()
        fleet.clock.pass_s(0.3)
        second = await two.session().context()
    assert (len(first.turns), len(second.turns)) == (1, 2)


async def test_r2_eventual_has_an_age_of_its_own(fleet):
    async with fleet.workers() as (one, two):
        await one.say("1")
        await two.heard()
        await one.say("2")
        fleet.clock.pass_s(50)
        old = await two.session().context(consistency=Consistency.EVENTUAL(60))
        fleet.clock.pass_s(10.001)
        new = await two.session().context(consistency=Consistency.EVENTUAL(60))
    assert (len(old.turns), len(new.turns)) == (1, 2)


@pytest.mark.parametrize("level", [SESSION, Consistency.EVENTUAL(3600), Consistency.LATEST, STRONG])
async def test_r2_memory_is_no_answer_to_a_token_that_it_does_not_reach(fleet, level):
    async with fleet.workers() as (one, two):
        await one.say("1")
        await two.heard()
        token = (await one.say("2")).version
        context = await two.session().context(at_least=token, consistency=level)
        assert [turn.content for turn in context.turns] == ["1", "2"]
        changed = (await one.session().update({"k": 1})).version
        context = await two.session().context(at_least=str(changed), consistency=level)
        assert context.meta.attributes == {"k": 1}


async def test_r2_what_a_worker_holds_is_not_sent_again(fleet):
    async with fleet.workers() as (one, two):
        await one.say("1", "2")
        await two.heard()
        await one.say("3")
        await two.heard()
        assert await two.heard() == ["1", "2", "3"]
    assert [arguments[-3:] for arguments in two.link.of("get")] == [(-1, -1, -1), (1, 2, 1), (1, 3, 1)]


async def test_r2_a_worker_whose_memory_is_ahead_of_redis_repairs_it_for_all(fleet):
    """Under `hold` an append that could not be confirmed is known to its worker alone, until it reads."""
    async with fleet.workers(3, redis_policy="hold", commit_retry_s=0) as (one, two, three):
        await one.say("1")
        await three.heard()
        one.link.cut = True
        with pytest.raises(Transient, match="is stored"):
            await one.say("2")
        one.link.cut = False
        assert await three.heard() == ["1"], "nobody was told of it yet"
        assert await one.heard() == ["1", "2"]
        assert await three.heard() == ["1", "2"]
        assert await two.heard() == ["1", "2"]
        assert await fleet.state() == "full 1.2.1"


async def test_r2_a_token_ahead_of_redis_repairs_it_for_all(fleet):
    async with fleet.workers() as (one, two):
        await one.say("1")
        await two.heard()
        await _stored_unheard(fleet, "2")
        assert await two.heard(at_least=Version(1, 2, 1)) == ["1", "2"]
        assert await one.heard() == ["1", "2"]
        assert await fleet.state() == "full 1.2.1"


# Rule 3, what was read in DynamoDB is said before it is returned


async def test_r3_who_reads_after_a_strong_read_sees_what_it_saw(fleet):
    async with fleet.workers(3) as (one, two, three):
        await one.say("1")
        await three.heard()
        gate = Gate()
        one.link.before("commit", gate)
        append = asyncio.create_task(one.say("2"))
        await gate.reached()
        strong = await two.session().context(consistency=STRONG)
        assert [turn.content for turn in strong.turns] == ["1", "2"]
        assert await three.heard() == ["1", "2"], "though the append is not acknowledged yet"
        gate.opened.set()
        await append


async def test_r3_a_strong_read_is_not_returned_before_it_is_said(fleet):
    async with fleet.workers() as (one, two):
        await one.say("1")
        gate = Gate()
        two.link.before("commit", gate)
        strong = asyncio.create_task(two.session().context(consistency=STRONG))
        await gate.reached()
        assert await _still_waits(strong)
        gate.opened.set()
        await strong


async def test_r3_a_refused_fill_says_what_it_read(fleet):
    """The lease of `two` runs out; `three` fills; `one` stores; `two` reads that, is refused, and returns it."""
    async with fleet.workers(3) as (one, two, three):
        await one.say("1")
        await fleet.evict()
        slow = Gate()
        two.table.before("Query", slow)
        reading = asyncio.create_task(two.heard())
        await slow.reached()
        await fleet.evict()
        assert await three.heard() == ["1"]
        held = Gate()
        one.link.before("commit", held)
        append = asyncio.create_task(one.say("2"))
        await held.reached()
        slow.opened.set()
        assert await reading == ["1", "2"]
        assert two.event("overtaken") == 1
        assert await three.heard() == ["1", "2"]
        held.opened.set()
        await append


async def test_r3_a_fill_whose_reply_is_lost_is_said_again(fleet):
    async with fleet.workers() as (one, two):
        await one.say("1")
        await fleet.evict()
        two.link.lose_reply("fill")
        context = await two.latest()
        assert (len(context.turns), context.degraded) == (1, False)
        assert two.link.sent[-1][0] == "commit"
        assert await one.heard() == ["1"]


# Rule 4, fills


async def test_r4_a_fill_whose_lease_has_run_out_is_refused(fleet):
    """`two` reads turn 1 alone under its lease; the lease goes, and with it the floor; turn 2 is acknowledged."""
    async with fleet.workers(3) as (one, two, three):
        await one.say("1")
        await fleet.evict()
        slow = Gate()
        two.link.before("fill", slow)
        reading = asyncio.create_task(two.heard())
        await slow.reached()
        await fleet.evict()
        await one.say("2")
        slow.opened.set()
        assert await reading == ["1"]
        assert await fleet.state() == "absent"
        assert await three.heard() == ["1", "2"]


async def test_r4_a_fill_below_what_was_acknowledged_meanwhile_is_refused(fleet):
    async with fleet.workers(3) as (one, two, three):
        await one.say("1")
        await fleet.evict()
        slow = Gate()
        two.link.before("fill", slow)
        reading = asyncio.create_task(two.heard())
        await slow.reached()
        await one.say("2")
        slow.opened.set()
        assert await reading == ["1"]
        assert two.event("overtaken") == 1
        assert await three.heard() == ["1", "2"]


async def test_r4_turns_and_meta_are_each_compared_with_the_floor(fleet):
    """`two` has read a newer turn than `three` knows, and an older META than `three` has written."""
    async with fleet.workers(3) as (one, two, three):
        await one.say("1")
        await three.heard()
        await one.say("2")
        await fleet.evict()
        slow = Gate()
        two.link.before("fill", slow)
        reading = asyncio.create_task(two.latest())
        await slow.reached()
        await three.session().update({"k": 1})
        assert three.link.of("commit")[-1][2:5] == (1, 1, 2)
        slow.opened.set()
        assert (await reading).version == Version(1, 2, 1)
        after = await one.latest()
    assert (after.version, after.meta.attributes) == (Version(1, 2, 2), {"k": 1})


async def test_r4_a_fill_begins_after_its_lease_was_given(fleet):
    """A turn stored and acknowledged between the lease and the read is in the fill, which is kept."""
    async with fleet.workers() as (one, two):
        await one.say("1")
        await fleet.evict()
        slow = Gate()
        two.link.after("get", slow)
        reading = asyncio.create_task(two.heard())
        await slow.reached()
        await one.say("2")
        slow.opened.set()
        assert await reading == ["1", "2"]
        assert await fleet.state() == "full 1.2.1"


async def test_r4_a_fill_that_fails_gives_its_lease_back(fleet):
    async with fleet.workers(request_timeout_s=0.5, request_deadline_s=0.5) as (one, two):
        await one.say("1")
        await two.heard()
        await fleet.evict()
        two.table.away = True
        with pytest.raises(Transient):
            await two.heard()
        assert two.event("lease") == 1
        assert await fleet.state() == "absent"
        assert await one.heard() == ["1"]


# Rule 5, COMMIT is confirmed, then the write is acknowledged


@pytest.mark.parametrize("what", ["append", "update", "summarise", "delete"])
async def test_r5_a_write_is_acknowledged_only_when_its_commit_is_confirmed(fleet, what):
    async with fleet.workers() as (one, two):
        await one.say("1")
        await two.heard()
        writes = {
            "append": lambda: one.say("2"),
            "update": lambda: one.session().update({"k": 1}),
            "summarise": lambda: one.session().summarise("short"),
            "delete": lambda: one.session().delete(),
        }
        gate = Gate()
        one.link.after("commit", gate)
        writing = asyncio.create_task(writes[what]())
        await gate.reached()
        assert await _still_waits(writing)
        gate.opened.set()
        done = await writing
        assert (await two.latest()).version.covers(done.version)


@pytest.mark.parametrize("loss", ["lose", "lose_reply"])
async def test_r5_a_commit_that_is_lost_is_sent_again(fleet, loss):
    async with fleet.workers() as (one, two):
        await one.say("1")
        await two.heard()
        getattr(one.link, loss)("commit")
        await one.say("2")
        assert await two.heard() == ["1", "2"]
        assert two.table.reads == 0
        assert one.survived("commit_lost") == 1
        assert one.event("commit_unconfirmed") == 0
        assert len(one.link.of("commit")) == {"lose": 2, "lose_reply": 3}[loss]


async def test_r5_turns_learned_at_a_collision_travel_in_the_same_commit(fleet):
    async with fleet.workers(3) as (one, two, three):
        await one.say("1")
        await two.heard()
        held = Gate()
        one.link.before("commit", held)
        append = asyncio.create_task(one.say("2"))
        await held.reached()
        assert (await two.say("3")).number == 3
        assert await three.heard() == ["1", "2", "3"]
        assert three.table.reads == 0, "turn 2 came with the COMMIT of turn 3"
        held.opened.set()
        await append
        assert one.event("commit_known") == 1
        assert await fleet.state() == "full 1.3.1"


async def test_r5_a_commit_that_does_not_join_on_deletes_and_guesses_nothing(fleet):
    async with fleet.workers() as (one, two):
        await one.say("1")
        async with fleet.source() as source:
            await source.session("s").append(role="user", content="2", turn_id="2")
            base = source._sessions.residents.actors["s"].known
            await source.session("s").append(role="user", content="3", turn_id="3")
            after = source._sessions.residents.actors["s"].known
        done = await one.tier._wire.commit("s", base=base, after=after)
        assert done.what == "deleted"
        assert await two.heard() == ["1", "2", "3"]


async def test_r5_a_revision_is_raised_only_with_the_meta_of_that_revision(fleet):
    async with fleet.workers() as (one, two):
        await one.say("1")
        async with fleet.source() as source:
            await source.session("s").context()
            await source.session("s").update({"k": 1})
            base = source._sessions.residents.actors["s"].known
            await source.session("s").append(role="user", content="2", turn_id="2")
            after = source._sessions.residents.actors["s"].known
        assert (await one.tier._wire.commit("s", base=base, after=after)).what == "deleted"
        assert (await two.latest()).meta.attributes == {"k": 1}


# Rules 6 and 7, epochs


async def test_r6_what_began_under_an_older_epoch_begins_again_under_the_new_one(fleet):
    async with fleet.workers() as (one, two):
        await one.say("1")
        await fleet.evict()
        slow = Gate()
        two.table.before("Query", slow)
        reading = asyncio.create_task(two.heard())
        await slow.reached()
        await one.tier._keeper.raise_unheard()
        await two.has_learned(2)
        slow.opened.set()
        assert await reading == ["1"]
        assert {key for script, key, _ in two.link.sent if script in {"fill", "commit"}} == {fleet.key(epoch=2)}


async def test_r6_what_was_read_under_an_older_epoch_is_not_returned_untold(fleet):
    """`two` reads turn 2 under a lease of epoch 1; those who read under epoch 2 have a context without it."""
    async with fleet.workers(3) as (one, two, three):
        await one.say("1")
        await fleet.evict()
        slow = Gate()
        two.table.before("Query", slow)
        reading = asyncio.create_task(two.heard())
        await slow.reached()
        await one.tier._keeper.raise_unheard()
        for worker in (two, three):
            await worker.has_learned(2)
        fleet.clock.pass_s(1.5)
        assert await three.heard() == ["1"]
        held = Gate()
        one.link.before("commit", held)
        append = asyncio.create_task(one.say("2"))
        await held.reached()
        slow.opened.set()
        read = await reading
        assert (await three.heard())[: len(read)] == read
        held.opened.set()
        await append


async def test_r6_an_answer_that_comes_after_the_epoch_has_changed_does_not_count(fleet):
    async with fleet.workers() as (one, two):
        await one.say("1")
        slow = Gate()
        two.link.after("get", slow)
        reading = asyncio.create_task(two.latest())
        await slow.reached()
        await one.tier._keeper.raise_unheard()
        await two.has_learned(2)
        slow.opened.set()
        context = await reading
    assert (context.source, context.degraded) == ("dynamodb", True), "the new epoch is waited out"


async def test_r7_nothing_is_acknowledged_under_a_new_epoch_while_somebody_relies_on_the_old_one(fleet):
    """`one` raises the epoch; `two` cannot hear of it, and may answer from the old one until its knowledge ends."""
    async with fleet.workers(redis_policy="hold", request_timeout_s=0.3, request_deadline_s=0.3) as (one, two):
        await one.say("1")
        await two.heard()
        two.table.epoch_away = True
        await one.tier._keeper.raise_unheard()
        append = asyncio.create_task(one.say("2"))
        answers = 0
        async with asyncio.timeout(60):
            while True:
                acknowledged = append.done()
                try:
                    heard = await two.heard()
                except Transient:
                    break
                assert not acknowledged or "2" in heard
                answers += 1
                await asyncio.sleep(0.01)
        await append
        assert answers > 0
        two.table.epoch_away = False
        await two.has_learned(2)
        assert await two.heard() == ["1", "2"]


async def test_r7_a_read_under_a_new_epoch_that_is_not_waited_out_does_not_come_from_redis(fleet):
    async with fleet.workers() as (one, two):
        await one.say("1")
        await one.tier._keeper.raise_unheard()
        await two.has_learned(2)
        for _ in range(2):
            context = await two.latest()
            assert (context.source, context.degraded) == ("dynamodb", True)
        fleet.clock.pass_s(1.5)
        assert [(await two.latest()).source for _ in range(2)] == ["dynamodb", "redis"]
        assert not (await two.latest()).degraded


async def test_r7_a_worker_that_starts_under_an_epoch_that_is_settled_need_not_wait(fleet):
    async with fleet.worker() as one:
        await one.say("1")
        await one.tier._keeper.raise_unheard()
        fleet.clock.pass_s(1.5)
        await until(lambda: one.tier._keeper.knowledge.record.settled, "somebody has waited it out")
        await one.heard()
        async with fleet.worker() as two:
            assert (await two.latest()).source == "redis"


# Rule 8, shared flights


async def test_r8_a_reader_does_not_join_a_flight_whose_get_was_sent_before_he_asked(fleet):
    async with fleet.workers() as (one, two):
        await one.say("1")
        slow = Gate()
        two.link.after("get", slow)
        first = asyncio.create_task(two.heard())
        await slow.reached()
        await one.say("2")
        later = [asyncio.create_task(two.heard()) for _ in range(10)]
        assert await _still_waits(later[0])
        slow.opened.set()
        assert await first == ["1"]
        assert await asyncio.gather(*later) == [["1", "2"]] * 10
        assert len(two.link.of("get")) == 2, "all that came later share one"


async def test_r8_a_flight_that_waits_asks_for_the_highest_token_of_its_readers(fleet):
    async with fleet.workers() as (one, two):
        await one.say("1")
        slow = Gate()
        two.link.after("get", slow)
        first = asyncio.create_task(two.heard())
        await slow.reached()
        await _stored_unheard(fleet, "2")
        readers = [two.heard(), two.heard(at_least=Version(1, 2, 1)), two.heard()]
        later = [asyncio.create_task(reader) for reader in readers]
        assert await _still_waits(later[0])
        slow.opened.set()
        await first
        assert await asyncio.gather(*later) == [["1", "2"]] * 3


async def test_r8_a_flight_survives_the_reader_who_began_it(fleet):
    async with fleet.workers() as (one, two):
        await one.say("1")
        slow = Gate()
        two.link.before("get", slow)
        first = asyncio.create_task(two.heard())
        await slow.reached()
        second = asyncio.create_task(two.heard())
        first.cancel()
        slow.opened.set()
        assert await second == ["1"]


# Rule 9, memory


async def test_r9_a_strong_read_of_a_restored_table_replaces_memory_and_redis_is_hit_again(fleet, memory_world):
    async with fleet.workers() as (one, two):
        await one.say("1", "2")
        token = (await two.latest()).version
        await memory_world.delete_items(lambda item: item["SK"]["S"].endswith("2"))
        await fleet.evict()
        assert len((await two.session().context(consistency=STRONG)).turns) == 1
        assert await two.heard() == ["1"]
        assert (await two.latest()).source == "redis"
        with pytest.raises(VersionGone, match="newer than the source"):
            await two.session().context(at_least=token)


async def test_r9_a_strong_read_that_was_sent_before_memory_grew_does_not_replace_it(fleet):
    async with fleet.workers() as (one, two):
        await one.say("1")
        await two.heard()
        slow = Gate()
        two.table.after("Query", slow)
        strong = asyncio.create_task(two.session().context(consistency=STRONG))
        await slow.reached()
        await two.say("2")
        slow.opened.set()
        assert len((await strong).turns) == 2
        assert len((await two.session().context()).turns) == 2


async def test_r9_a_token_of_an_older_life_is_satisfied(fleet):
    async with fleet.workers() as (one, two):
        token = (await one.say("1", "2", "3")).version
        await one.session().delete()
        await one.say("4")
        assert await two.heard(at_least=token) == ["4"]


async def test_r9_a_window_that_redis_gives_from_further_on_replaces_what_was_held(fleet):
    async with fleet.workers() as (one, two):
        await one.say("0")
        await two.heard()
        await one.say(*map(str, range(1, 41)))
        assert await two.heard() == [str(number) for number in range(9, 41)]
        assert two.table.reads == 0


# Rule 10, absolute age


async def test_r10_a_context_past_its_maximum_age_is_loaded_anew(fleet):
    async with fleet.workers() as (one, two):
        await one.say("1")
        await _stored_unheard(fleet, "2")
        await fleet.redis.hincrby(fleet.key(), "at", -3_600_000 + 60_000)
        assert await two.heard() == ["1"]
        await fleet.redis.hincrby(fleet.key(), "at", -60_001)
        assert await two.heard() == ["1", "2"]


async def test_r10_neither_reads_nor_writes_make_a_context_younger(fleet):
    async with fleet.workers() as (one, two):
        await one.say("1")
        filled_at = await fleet.redis.hget(fleet.key(), "at")
        await two.heard()
        await two.say("2")
        await one.session().update({"k": 1})
        assert await fleet.redis.hget(fleet.key(), "at") == filled_at
        await one.session().delete()
        await one.say("3")
        await two.heard()
        assert await fleet.redis.hget(fleet.key(), "at") > filled_at


# Rule 11, deletes


async def test_r11_a_delete_is_seen_at_once_by_workers_that_hold_the_session(fleet):
    async with fleet.workers() as (one, two):
        await one.say("1", "2")
        await two.heard()
        await one.session().delete()
        context = await two.latest()
    assert (context.meta, context.turns, context.version) == (None, (), Version(2, 0, 0))


async def test_r11_a_put_that_meets_a_seal_begins_again_in_the_new_life(fleet):
    async with fleet.workers() as (one, two):
        await one.say("1", "2")
        await two.heard()
        await one.session().delete()
        done = await two.say("3")
        assert (done.version.incarnation, done.number) == (2, 1)
        assert await one.heard() == ["3"]


async def test_r11_a_late_commit_of_a_dead_life_does_nothing(fleet):
    async with fleet.workers() as (one, two):
        await one.say("1")
        await two.heard()
        held = Gate()
        one.link.before("commit", held)
        append = asyncio.create_task(one.say("2"))
        await held.reached()
        await two.session().delete()
        await two.say("a")
        assert await two.heard() == ["a"]
        held.opened.set()
        await append
        assert await fleet.state() == "full 2.1.1"
        assert await one.heard() == ["a"]


async def test_r11_a_late_fill_of_a_dead_life_is_refused(fleet):
    async with fleet.workers(3) as (one, two, three):
        await one.say("1")
        await fleet.evict()
        slow = Gate()
        two.link.before("fill", slow)
        reading = asyncio.create_task(two.heard())
        await slow.reached()
        await one.session().delete()
        slow.opened.set()
        assert await reading == ["1"]
        assert await three.heard() == []


async def test_r11_a_window_that_is_old_is_read_again_before_a_put(fleet):
    async with fleet.workers(window_age_s=60) as (one, two):
        await one.say("1")
        await two.heard()
        fleet.clock.pass_s(61)
        await two.say("2")
        assert two.table.reads > 0
        reads = two.table.reads
        await two.say("3")
        assert two.table.reads == reads
