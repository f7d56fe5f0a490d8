"""WebSockets of one session at several workers: what one appends the others hear, once and in order, or of a gap."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from uuid import uuid4

import pytest
from mangatest import HANG_GUARD_S
from sockets import (
    Held,
    MovedClock,
    check_told,
    connected,
    connection_of,
    eventually,
    made_table,
    opened,
    raw,
    some_id,
    worker,
)

from mangacache import NewTurn
from mangacache.testing import Proxy
from mangacache.worker.sockets.admission import Admitted
from mangacache.worker.sockets.closing import Code

A_HEARTBEAT_S = 30.0


@asynccontextmanager
async def workers(port, count=2, **changes):
    """Workers on a table and keys of their own."""
    database, prefix = await made_table(), f"t{uuid4().hex[:10]}:"
    async with AsyncExitStack() as stack:
        yield [
            await stack.enter_async_context(worker(database, redis_port=port, key_prefix=prefix, **changes))
            for _ in range(count)
        ]


def has_heard(client, upto):
    own = [turn["number"] for said in client.of("appended") for turn in said["turns"]]
    return max([0, *own, *client.numbers]) == upto and len(own) + len(client.numbers) >= upto


# What others make of the session


async def test_every_turn_arrives_at_every_other_connection_once_and_in_order(shared_valkey):
    session_id = some_id()
    async with workers(shared_valkey) as both, AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(opened(both[n % 2], session_id)) for n in range(6)]

        async def chat(client):
            for number in range(12):
                await client.append(f"{number} of {id(client)}")

        await asyncio.gather(*(chat(client) for client in clients))
        for client in clients:
            await client.until(lambda client: has_heard(client, 72))
            check_told(client, 72)
            assert not client.of("error")


async def test_appends_that_do_not_wait_for_each_other_are_stored_and_answered_in_the_order_in_which_they_were_sent(
    shared_valkey,
):
    async with workers(shared_valkey) as both, AsyncExitStack() as stack:
        session_id = some_id()
        one, other = [await stack.enter_async_context(opened(each, session_id)) for each in both]
        for number in range(1, 41):
            await one.say({"type": "append", "id": number, "role": "user", "content": f"{number}"})
        await one.until(lambda client: len(client.of("appended")) == 40)
        assert [said["id"] for said in one.of("appended")] == list(range(1, 41))
        assert [said["turns"][0]["number"] for said in one.of("appended")] == list(range(1, 41))
        await other.until(lambda client: has_heard(client, 40))
        assert [said["turn"]["content"] for said in other.of("turn")] == [f"{number}" for number in range(1, 41)]


async def test_several_turns_at_once_and_a_repeated_one(shared_valkey):
    async with workers(shared_valkey) as both, opened(both[0], "s") as one, opened(both[1], "s") as other:
        turns = [{"role": "user", "content": "a", "turn_id": "q"}, {"role": "assistant", "content": "b"}]
        answer = await one.ask({"type": "append", "turns": turns})
        assert [turn["number"] for turn in answer["turns"]] == [1, 2]
        again = await one.append("a", turn_id="q")
        assert (again["turns"][0]["number"], again["turns"][0]["duplicate"]) == (1, True)
        await other.until(lambda client: has_heard(client, 2))
        check_told(other, 2)


@pytest.mark.parametrize("has_redis", [True, False])
async def test_a_batch_of_which_the_last_was_stored_before_is_told_and_acknowledged_by_its_newest(
    shared_valkey, has_redis
):
    async with (
        workers(shared_valkey if has_redis else None, 1) as [one],
        opened(one, "s") as client,
        opened(one, "s") as other,
    ):
        await client.append("a", turn_id="first")
        turns = [{"role": "user", "content": "b"}, {"role": "user", "content": "a", "turn_id": "first"}]
        answer = await client.ask({"type": "append", "turns": turns})
        assert [turn["number"] for turn in answer["turns"]] == [2, 1]
        assert answer["version"] == answer["turns"][0]["version"]
        await other.until(lambda client: has_heard(client, 2))


async def test_changes_closing_and_deleting_are_told_at_every_worker(shared_valkey):
    async with workers(shared_valkey) as both, opened(both[0], "s") as one, opened(both[1], "s") as other:
        await one.append("hello")
        session = both[1].cache.session("s")
        await session.update({"mood": "glad"})
        await one.until(lambda client: any(said["meta"]["attributes"] for said in client.of("meta")))
        await session.close()
        for client in (one, other):
            await client.until(lambda client: client.of("closed"))
        await session.delete()
        for client in (one, other):
            await client.until(lambda client: client.of("deleted"))
        again = await one.append("once more")
        assert again["turns"][0]["number"] == 1
        said = await other.until(lambda client: client.of("turn")[1:])
        assert (said[0]["number"], said[0]["version"].split(".")[0]) == (1, "2")


async def test_a_context_is_read_and_what_is_wrong_is_said_and_the_conversation_goes_on(shared_valkey):
    async with workers(shared_valkey, 1) as [one], opened(one, "s") as client:
        appended = await client.append("hello")
        read = await client.ask({"type": "context", "at_least": appended["version"], "consistency": "latest"})
        assert [turn["content"] for turn in read["turns"]] == ["hello"]
        for wrong in (
            {"type": "context", "turns": 33},
            {"type": "context", "consistency": "soon"},
            {"type": "context", "at_least": "?"},
            {"type": "append"},
            {"type": "append", "role": "nobody", "content": "x"},
            {"type": "append", "role": "user", "content": "x", "rate_limit": "messages"},
            {"type": "append", "role": "user", "content": "x", "attributes": {"PK": 1}},
            {"type": "append", "role": "user", "content": "x", "after": "?"},
            {"type": "open", "session_id": "t"},
        ):
            answer = await client.ask(dict(wrong))
            assert answer["type"] == "error", wrong
        assert (await client.append("still here"))["turns"][0]["number"] == 2


async def test_a_rate_limit_is_asked_where_a_message_names_it(shared_valkey):
    async with (
        workers(shared_valkey, 1, rate_limits="messages=2/3600") as [one],
        opened(one, "s", customer_id="ada") as client,
    ):
        kinds = [(await client.append("x", rate_limit="messages"))["type"] for _ in range(3)]
        assert kinds == ["appended", "appended", "error"]
        assert client.of("error")[0]["problem"]["retry_after_s"] > 0


async def test_a_socket_that_was_mapped_and_not_opened_any_more_leaves_no_mapping(shared_valkey):
    """The worker began to leave in between."""
    async with workers(shared_valkey, 1) as [one], connected(one.url) as client:
        upkeep = one.sockets._means.upkeep
        bind = upkeep.bind

        async def leave_meanwhile(bound, now_s):
            await bind(bound, now_s)
            assert await one.cache.connections.of_session("s")
            bound.end(Code.LEAVING, "this worker is leaving")

        upkeep.bind = leave_meanwhile
        await client.say({"type": "open", "session_id": "s"})
        assert await client.end() == Code.LEAVING
        await eventually(lambda: not len(one.sockets))
        assert not await one.cache.connections.of_session("s")


# Gaps


async def test_while_redis_is_away_a_gap_is_told_and_then_what_was_missed_in_order(shared_valkey):
    """The one worker is cut off, the other is not: both go on, and neither leaves anything out."""
    session_id, database, prefix = some_id(), await made_table(), f"t{uuid4().hex[:10]}:"
    patient = {"key_prefix": prefix, "redis_timeout_s": 2.0, "invalidation_deadline_s": 60.0}
    async with (
        Proxy.open(shared_valkey) as proxy,
        worker(database, redis_port=proxy.port, **patient) as cut,
        worker(database, redis_port=shared_valkey, **patient) as well,
        opened(cut, session_id) as one,
        opened(well, session_id) as other,
        opened(cut, session_id) as third,
    ):
        await one.append("before")
        await other.until(lambda client: has_heard(client, 1))
        proxy.cut()
        await one.until(lambda client: client.of("gap"))
        assert one.of("gap")[0]["waits"] is True
        for number in range(5):
            await other.append(f"well {number}")
            answer = await one.append(f"cut {number}")
            assert answer["turns"][0]["degraded"]
        await third.until(lambda client: has_heard(client, 11))  # at the same worker it needs no Redis
        proxy.restore()
        for client in (one, third):
            await client.until(lambda client: client.of("caught_up"))
        for client in (one, other, third):
            await client.until(lambda client: has_heard(client, 11))
            check_told(client, 11)


async def test_a_worker_dies_and_its_clients_go_on_at_the_other_one(shared_valkey):
    """Connections break while appends are under way; they are sent again, and what was missed is told by `seen`."""
    session_id = some_id()
    async with workers(shared_valkey) as [dies, lives], opened(lives, session_id) as witness:
        async with opened(dies, session_id) as one:
            await witness.append("hello")
            for number in range(20):
                await one.say(
                    {"type": "append", "id": number, "role": "user", "content": f"{number}", "turn_id": f"t{number}"}
                )
            await one.until(lambda client: len(client.of("appended")) >= 3)
            await dies.sockets.close()
            await one.end()
            known = {said["id"] for said in one.of("appended")}
            seen = one.of("ready", "turn", "meta")[-1]["version"]
        await witness.append("meanwhile")
        async with opened(lives, session_id, seen=seen) as again:
            for number in range(20):
                if number not in known:
                    await again.append(f"{number}", turn_id=f"t{number}")
            await witness.until(lambda client: has_heard(client, 22))
            check_told(witness, 22)
            contents = [said["turn"]["content"] for said in witness.of("turn")]
            assert sorted(contents, key=int) == [f"{number}" for number in range(20)]
            await again.until(lambda client: any(said["turn"]["content"] == "meanwhile" for said in client.of("turn")))
            told_or_own = {said["number"] for said in [*one.of("turn"), *again.of("turn")]}
            told_or_own |= {
                turn["number"] for said in [*one.of("appended"), *again.of("appended")] for turn in said["turns"]
            }
            assert told_or_own == set(range(1, 23))


@pytest.mark.parametrize(("missed", "first_gap"), [(0, None), (5, None), (200, None), (300, (2, 269))])
async def test_who_comes_back_is_told_what_he_missed_or_of_a_gap(shared_valkey, missed, first_gap):
    async with workers(shared_valkey) as [one, other]:
        session = other.cache.session("s")
        first = await session.append(role="user", content="hello")
        for begin in range(0, missed, 32):
            count = min(32, missed - begin)
            await session.append_many([NewTurn(role="user", content="x") for _ in range(count)])
        async with opened(one, "s", seen=str(first.version)) as client:
            last = await other.cache.session("s").append(role="user", content="last")
            await client.until(lambda client: last.number in client.numbers)
            gaps = [(said["first"], said["last"]) for said in client.of("gap") if not said["waits"]]
            assert gaps == ([first_gap] if first_gap else [])
            begins = first_gap[1] + 1 if first_gap else 2
            assert client.numbers == list(range(begins, missed + 3))


async def test_without_redis_it_is_said_that_other_workers_are_not_heard(shared_valkey):
    del shared_valkey
    async with workers(None, 1) as [one], opened(one, "s") as client, opened(one, "s") as other:
        assert (await client.until(lambda client: client.of("gap")))[0]["waits"]
        await client.append("hello")
        await other.until(lambda client: has_heard(client, 1))


async def test_who_does_not_read_is_told_a_gap_and_nothing_is_kept_for_him_beyond_a_bound(shared_valkey):
    """A peer that reads nothing while the others write much; then it reads, and has everything in order."""
    limits = {"worker_socket_queue": 8, "worker_socket_queue_bytes": 200_000}
    async with (
        workers(shared_valkey, 1, **limits) as [one],
        opened(one, "s", content=False) as other,
        raw(one, receive_bytes=4096) as slow,
    ):
        await slow.shake_hands()
        slow.say({"type": "open", "session_id": "s"})
        assert (await slow.hear())["type"] == "ready"
        connection = connection_of(one, slow)
        largest, upto = 0, 0
        while not connection._member.lagging or upto % 20:
            await other.append("x" * 60_000)
            upto += 1
            largest = max(largest, connection.wire._buffered)
            assert connection.wire.left_bytes <= 65_536 + 200_000 + 3 * 61_000
        assert largest <= 65_536 + 61_000, "what the transport itself keeps is bounded too"
        said, expected = [], 1
        while not said or said[-1]["type"] != "caught_up":
            said.append(await slow.hear())
        assert next(each for each in said if each["type"] == "gap")["waits"]
        for each in said:
            if each["type"] == "gap" and not each["waits"]:
                assert each["first"] == expected
                expected = each["last"] + 1
            elif each["type"] == "turn":
                assert each["number"] == expected
                expected += 1
        assert expected == upto + 1


async def test_who_never_reads_is_closed_and_nothing_of_him_stays(shared_valkey):
    clock = MovedClock()
    async with (
        workers(shared_valkey, 1, clock=clock, worker_socket_queue=4, worker_socket_heartbeat_s=3600.0) as [one],
        opened(one, "s", content=False) as other,
        raw(one, receive_bytes=4096) as slow,
    ):
        await slow.shake_hands()
        slow.say({"type": "open", "session_id": "s"})
        await slow.hear()
        connection = connection_of(one, slow)
        while not connection._member.lagging:
            await other.append("x" * 60_000)
        await one.sockets.look()
        clock.by_s += 21
        await one.sockets.look()
        await eventually(lambda: len(one.sockets) == 1)
        assert connection.gone
        assert connection.wire.left_bytes == 0
        assert (await one.cache.connections.get(connection.id)) is None


# Signs of life, and the end


async def test_who_says_nothing_is_closed_after_two_and_a_half_heartbeats_and_who_pings_is_not(shared_valkey):
    clock = MovedClock()
    async with (
        workers(shared_valkey, 1, clock=clock) as [one],
        opened(one, "s") as silent,
        opened(one, "s") as by_message,
        raw(one) as by_frame,
    ):
        await by_frame.shake_hands()
        by_frame.say({"type": "open", "session_id": "s"})
        assert (await by_frame.hear())["heartbeat_s"] == A_HEARTBEAT_S
        for _ in range(2):
            clock.by_s += A_HEARTBEAT_S * 1.3
            await by_message.say({"type": "ping"})
            by_frame.writer.write(by_frame.frame(b"?", first=0x89))
            await eventually(lambda: len([c for c in one.sockets._connections if _idle_s(c, clock) < 5]) == 2)
            await one.sockets.look()
        assert await silent.end() == 4408
        assert await by_frame.hear() == {"type": "PONG", "payload": b"?"}
        await eventually(lambda: len(one.sockets) == 2)
        assert by_message.closed is None


def _idle_s(connection, clock):
    return clock.monotonic_s() - connection.heard_at_s


async def test_who_does_not_open_in_time_is_closed(shared_valkey):
    clock = MovedClock()
    async with workers(shared_valkey, 1, clock=clock) as [one], connected(one.url) as client:
        await client.say({"type": "ping"})
        await client.until(lambda client: client.of("pong"))
        clock.by_s += 11
        await one.sockets.look()
        assert await client.end() == 4408


async def test_a_credential_whose_time_is_over_ends_the_socket(shared_valkey):
    clock = MovedClock()

    class Short:
        async def admitted(self, credential, customer_id):
            del credential
            return Admitted(customer_id, lambda: None, until_s=clock.time_s() + 60)

    async with workers(shared_valkey, 1, clock=clock, admit=lambda _: Short()) as [one], opened(one, "s") as client:
        await one.sockets.look()
        await client.append("hello")
        clock.by_s += 61
        await one.sockets.look()
        assert await client.end() == 4401


async def test_a_credential_that_is_taken_out_ends_the_socket(shared_valkey):
    good = [True]

    class Listed:
        async def admitted(self, credential, customer_id):
            del credential
            return Admitted(customer_id, lambda: None, stands=lambda: good[0])

    async with workers(shared_valkey, 1, admit=lambda _: Listed()) as [one], opened(one, "s") as client:
        await one.sockets.look()
        await client.append("hello")
        good[0] = False
        await one.sockets.look()
        assert await client.end() == 4401


async def test_a_connection_is_mapped_and_its_customer_present_and_its_end_unmaps_itself_alone(shared_valkey):
    async with workers(shared_valkey) as [one, other], opened(other, "s", customer_id="ada") as stays:
        async with opened(one, "s", customer_id="ada") as goes:
            found = await other.cache.connections.of_session("s")
            ids = {client.of("ready")[0]["connection_id"] for client in (goes, stays)}
            assert {connection.id for connection in found} == ids
            assert {connection.endpoint for connection in found} == {f"127.0.0.1:{w.port}" for w in (one, other)}
            assert await other.cache.presence.is_online("ada")
        await eventually(lambda: not len(one.sockets))
        found = await other.cache.connections.of_session("s")
        assert [connection.id for connection in found] == [stays.of("ready")[0]["connection_id"]]


async def test_a_connection_that_is_mapped_anew_by_others_is_left_alone_at_the_end(shared_valkey):
    """Its id may have been taken over: then what is mapped under it is not this socket's."""
    async with workers(shared_valkey, 1) as [one]:
        async with opened(one, "s") as client:
            connection_id = client.of("ready")[0]["connection_id"]
            await one.cache.connections.connect(connection_id, "another")
        await eventually(lambda: not len(one.sockets))
        found = await one.cache.connections.get(connection_id)
        assert found is not None
        assert found.session_id == "another"


async def test_pings_cost_no_call_to_redis_and_what_is_due_is_refreshed_in_one_batch(shared_valkey):
    clock = MovedClock()
    async with workers(shared_valkey, 1, clock=clock) as [one], AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(opened(one, "s", customer_id=f"c{n}")) for n in range(4)]

        asked, run = Counter(), one.cache.connections._asker.run

        def counted(service, script, *rest, **more):
            asked[script.name] += 1
            return run(service, script, *rest, **more)

        one.cache.connections._asker.run = counted
        await one.sockets.look()
        assert asked == {}

        async def ping_all(count):
            for client in clients:
                for _ in range(count):
                    await client.ask({"type": "ping"})

        await ping_all(25)
        await one.sockets.look()
        assert asked == {}
        clock.by_s += 31
        await ping_all(25)
        await one.sockets.look()
        assert asked == {"presence_seen": 4}
        clock.by_s += 31  # who gave no sign meanwhile is not refreshed
        await one.sockets.look()
        assert asked == {"presence_seen": 4}
        clock.by_s += 900
        await ping_all(1)
        await one.sockets.look()
        assert asked == {"presence_seen": 8, "connection_get": 4}


async def test_a_mapping_that_redis_has_lost_is_made_again(shared_valkey):
    clock = MovedClock()
    async with workers(shared_valkey, 1, clock=clock) as [one], opened(one, "s") as client:
        connection_id = client.of("ready")[0]["connection_id"]
        await one.cache.connections.disconnect(connection_id)
        clock.by_s += 901
        await client.ask({"type": "ping"})
        await one.sockets.look()
        assert (await one.cache.connections.get(connection_id)).session_id == "s"


async def test_a_worker_that_leaves_tells_all_and_answers_what_is_under_way(shared_valkey):
    database, prefix = await made_table(), f"t{uuid4().hex[:10]}:"
    held = []

    def hold(transport):
        held.append(Held(transport, "PutItem"))
        return held[-1]

    async with (
        worker(database, redis_port=shared_valkey, key_prefix=prefix, wrap=hold) as leaves,
        worker(database, redis_port=shared_valkey, key_prefix=prefix) as stays,
        opened(leaves, "s") as busy,
        opened(leaves, "s") as idle,
        connected(leaves.url) as unopened,
        opened(stays, "s") as witness,
    ):
        await busy.append("first")
        held[0].hold()
        await busy.say({"type": "append", "id": 99, "role": "user", "content": "under way", "turn_id": "q"})
        await held[0].waiting.wait()
        leaving = asyncio.create_task(leaves.sockets.drain(HANG_GUARD_S))
        for client in (busy, idle):
            said = (await eventually(partial(client.of, "draining")))[0]
            assert 0 <= said["reconnect_after_s"] <= 5
        assert await idle.end() == 1012
        assert await unopened.end() == 1012
        assert busy.closed is None
        held[0].release()
        assert await busy.end() == 1012
        assert busy.of("appended")[-1]["id"] == 99
        await leaving
        assert len(leaves.sockets) == 0
        await witness.until(lambda client: has_heard(client, 2))
        async with raw(leaves) as late:
            assert b" 101 " not in await late.shake_hands()


async def test_the_end_takes_no_longer_than_it_may_whatever_hangs(shared_valkey):
    made = []
    async with workers(shared_valkey, 1, wrap=lambda inner: made.append(Held(inner, "PutItem")) or made[0]) as [one]:
        async with opened(one, "s") as client:
            await client.append("first")
            [held] = made
            held.hold()
            await client.say({"type": "append", "id": 9, "role": "user", "content": "hangs"})
            await held.waiting.wait()
            await one.sockets.drain(0.05)
            await client.end()
            assert not client.of("appended")[1:]
            held.release()
        await eventually(lambda: not len(one.sockets))


# Who may


async def test_a_session_that_begins_again_for_another_customer_is_not_told_to_the_first_one(shared_valkey):
    async with workers(shared_valkey) as both, opened(both[0], "s", customer_id="ada") as ada:
        await ada.append("my secret")
        session = both[1].cache.session("s", customer_id="ada")
        await session.delete()
        await both[1].cache.session("s", customer_id="eve").append(role="user", content="another secret")
        assert await ada.end() == 4404
        assert not ada.of("turn")


async def test_another_customers_session_cannot_be_opened(shared_valkey):
    async with workers(shared_valkey, 1) as [one]:
        await one.cache.session("s", customer_id="ada").append(role="user", content="secret")
        async with connected(one.url) as client:
            await client.say({"type": "open", "session_id": "s", "customer_id": "eve"})
            assert await client.end() == 4409
            assert [said["type"] for said in client.heard] == ["error"]
        assert await one.cache.connections.of_session("s") == ()
        assert len(one.rooms) == 0


async def test_an_address_with_a_query_and_a_worker_that_is_full_are_refused_before_the_upgrade(shared_valkey):
    async with workers(shared_valkey, 1, worker_sockets=1) as [one]:
        async with raw(one) as client:
            assert b" 101 " not in await client.shake_hands("/v1/ws?token=secret")
        async with opened(one, "s"), raw(one) as second:
            assert b" 101 " not in await second.shake_hands()


async def test_seen_that_is_newer_than_the_session_is_said(shared_valkey):
    async with workers(shared_valkey, 1) as [one], connected(one.url) as client:
        await client.say({"type": "open", "session_id": "s", "seen": "1.5.1"})
        assert await client.end() == 4409
