"""Chats against workers that cut, refuse and leave: appends are stored once, turns of others told once, in order."""

from __future__ import annotations

import asyncio
import json

import aiohttp
import pytest
from aiohttp import web
from scripted_worker import problem

from mangacache import Closed, Conflict, Invalid, Rejected, Transient
from mangacache.client import Patience, Refused


async def told(chat, count):
    async with asyncio.timeout(30):
        return [await chat.next_event() for _ in range(count)]


async def until(holds):
    async with asyncio.timeout(30):
        while not holds():  # noqa: ASYNC110 - looks from outside
            await asyncio.sleep(0)


async def reconnected(chat, connections):
    await until(lambda: chat.connections >= connections and chat._socket is not None)


async def test_a_chat_appends_reads_and_hears_the_others(workers, opened):
    async with opened(credential="key-1") as client, client.chat("s-1", customer_id="c-1") as chat:
        asked = await chat.append(role="user", content="Is Berserk 1 there?", turn_id="m-1")
        await client.session("s-1").append(role="assistant", content="Yes.")
        (event,) = await told(chat, 1)
        context = await chat.context()
        assert (asked.number, asked.duplicate) == (1, False)
        assert (event.kind, event.number, event.turn.content) == ("turn", 2, "Yes.")
        assert [turn.content for turn in context.turns] == ["Is Berserk 1 there?", "Yes."]
        assert str(chat.version) == "1.2.0"
    (worker,) = [worker for worker in workers if worker.frames]
    _, path, _, headers, _ = next(each for each in worker.heard if each[0] == "WS")
    assert (path, headers["Authorization"]) == ("/v1/ws", "Bearer key-1")
    assert worker.frames[0] == {"type": "open", "session_id": "s-1", "content": True, "customer_id": "c-1"}
    assert worker.frames[2]["at_least"] == "1.2.1"


async def test_a_connection_that_is_lost_is_replaced_and_what_came_meanwhile_is_told(workers, opened):
    async with opened() as client, client.chat("s-1") as chat:
        for number in range(1, 9):
            await client.session("s-1").append(role="user", content=str(number))
            if number % 3 == 0:
                at = chat.connections
                await next(worker for worker in workers if worker.url == chat.worker).cut()
                await reconnected(chat, at + 1)
        events = await told(chat, 8)
    assert [(event.kind, event.number, event.turn.content) for event in events] == [
        ("turn", number, str(number)) for number in range(1, 9)
    ]


async def test_the_next_connection_is_told_up_to_where_all_was_told(workers, opened):
    async with opened() as client, client.chat("s-1") as chat:
        await chat.append(role="user", content="a")
        missed = {"number": 2, "turn_id": "other", "role": "user", "content": "b", "created_at": ""}
        workers[0].chats.turns["s-1"].append(missed)  # stored, and nobody was told of it
        await next(worker for worker in workers if worker.url == chat.worker).cut()
        (event,) = await told(chat, 1)
        assert (event.number, event.turn.content) == (2, "b")
    opens = [frame["seen"] for worker in workers for frame in worker.frames if "seen" in frame]
    assert opens == ["1.1.0"]


async def test_an_append_whose_acknowledgement_was_lost_is_stored_once_and_acknowledged_by_the_next_worker(
    workers, opened
):
    async def store_and_cut(worker, socket, frame, own):
        await worker.chats.append("s-1", frame, by=own)
        socket._req.transport.abort()
        return True

    for worker in workers:
        worker.on_frame = [store_and_cut]
    async with opened() as client, client.chat("s-1") as chat:
        first = await chat.append(role="user", content="a")
        second = await chat.append(role="user", content="b")
        assert (first.number, first.duplicate, second.number) == (1, True, 2)
        assert chat._events == []
    assert [turn["content"] for turn in workers[0].chats.turns["s-1"]] == ["a", "b"]


async def ignore(*_):
    return True


async def test_what_is_said_while_a_connection_catches_up_is_sent_after_it(workers, opened, monkeypatch):
    """A peer that reads slowly holds up what is sent again; what is new does not overtake it."""
    send, room = aiohttp.ClientWebSocketResponse.send_str, asyncio.Event()
    room.set()

    async def send_slowly(socket, text):
        await send(socket, text)
        if json.loads(text)["type"] == "append":
            await room.wait()

    monkeypatch.setattr(aiohttp.ClientWebSocketResponse, "send_str", send_slowly)
    for worker in workers:
        worker.on_frame = [ignore] * 2

    def sent():
        return [frame["content"] for worker in workers for frame in worker.frames if frame["type"] == "append"]

    async with opened() as client, client.chat("s-1") as chat:
        worker = next(worker for worker in workers if worker.url == chat.worker)
        appends = [asyncio.create_task(chat.append(role="user", content=content)) for content in "ab"]
        await until(lambda: len(sent()) == 2)
        room.clear()
        for each in workers:
            each.frames.clear()
            each.on_frame = []
        await worker.cut()
        await until(lambda: sent() == ["a"])
        appends.append(asyncio.create_task(chat.append(role="user", content="c")))
        await until(lambda: len(chat._talk.unanswered()) >= 2)
        room.set()
        assert [(await append).number for append in appends] == [1, 2, 3]
        assert sent() == ["a", "b", "c"]


async def test_every_try_says_what_was_known_before_the_first(workers, opened):
    """So that it is found however late a try comes, and however many turns were stored meanwhile."""
    async with opened() as client, client.chat("s-1") as chat:
        await chat.append(role="user", content="a")
        worker = next(worker for worker in workers if worker.url == chat.worker)
        worker.on_frame = [ignore]
        second = asyncio.create_task(chat.append(role="user", content="b"))
        await until(lambda: not worker.on_frame)
        await worker.cut()
        await second
        await chat.append(role="user", content="c", after="1.1.0")
    appends = [frame for worker in workers for frame in worker.frames if frame["type"] == "append"]
    said = sorted((frame["content"], frame.get("after")) for frame in appends if frame["content"] != "b")
    assert said == [("a", "0.0.0"), ("c", "1.1.0")]
    assert [frame["after"] for frame in appends if frame["content"] == "b"] == ["1.1.0", "1.1.0"]


async def test_what_has_to_wait_is_not_sent_before_its_time_by_the_next_connection(workers, opened, clock, monkeypatch):
    async def refuse(_, socket, frame, __):
        details = {"type": "transient", "status": 503, "detail": "DynamoDB is away", "retry_after_s": 17}
        await socket.send_json({"type": "error", "id": frame["id"], "problem": details})
        return True

    time, waits, sleep = asyncio.Event(), asyncio.Event(), clock.sleep

    async def wait(seconds):
        if 17 <= seconds < 18:
            waits.set()
            await time.wait()
        else:
            await sleep(seconds)

    monkeypatch.setattr(clock, "sleep", wait)

    def sent():
        return [frame["content"] for worker in workers for frame in worker.frames if frame["type"] == "append"]

    async with opened() as client, client.chat("s-1") as chat:
        worker = next(worker for worker in workers if worker.url == chat.worker)
        worker.on_frame = [refuse]
        append = asyncio.create_task(chat.append(role="user", content="a"))
        await waits.wait()
        await worker.cut()
        await reconnected(chat, 2)
        assert (await chat.append(role="user", content="b")).number == 1
        assert sent() == ["a", "b"]
        time.set()
        done = await append
        assert (done.number, done.duplicate) == (2, False)


async def test_a_worker_that_leaves_is_obeyed(workers, opened):
    async with opened() as client, client.chat("s-1") as chat:
        left = next(worker for worker in workers if worker.url == chat.worker)
        await left.leave()
        await reconnected(chat, 2)
        assert chat.worker != left.url
        await chat.append(role="user", content="a")
        (first,) = [frame for worker in workers for frame in worker.frames if frame["type"] == "append"]
        assert first["content"] == "a"


async def test_while_a_worker_is_leaving_what_is_under_way_is_answered_and_what_is_new_goes_elsewhere(workers, opened):
    held = []

    async def hold(_, socket, frame, __):
        held.append((socket, frame))
        await socket.send_json({"type": "draining", "reconnect_after_s": 3600})
        return True

    async with opened() as client, client.chat("s-1") as chat:
        left = next(worker for worker in workers if worker.url == chat.worker)
        left.on_frame = [hold]
        first = asyncio.create_task(chat.append(role="user", content="a"))
        await until(lambda: chat._socket is None)
        second = asyncio.create_task(chat.append(role="user", content="b"))
        ((socket, frame),) = held
        await socket.send_json({"type": "appended", "id": frame["id"], "turns": [{"number": 1, "version": "1.1.1"}]})
        assert (await first).number == 1
        await socket.close()
        await second
        assert chat.worker != left.url
        assert [each["content"] for worker in workers for each in worker.frames if each["type"] == "append"] == [
            "a",
            "b",
        ]


async def test_what_is_refused_for_now_is_sent_again_with_the_same_turn_id(workers, opened, clock):
    async def refuse(_, socket, frame, __):
        details = {"type": "transient", "status": 503, "detail": "DynamoDB is away", "retry_after_s": 1.5}
        await socket.send_json({"type": "error", "id": frame["id"], "problem": details})
        return True

    async with opened() as client, client.chat("s-1") as chat:
        for worker in workers:
            worker.on_frame = [refuse]
        assert (await chat.append(role="user", content="a")).number == 1
    appends = [frame for worker in workers for frame in worker.frames if frame["type"] == "append"]
    assert len(appends) == 2
    assert len({frame["turn_id"] for frame in appends}) == 1
    assert 1.5 <= sum(clock.slept) < 2


async def test_what_is_wrong_is_raised_and_the_chat_goes_on(workers, opened):
    async def refuse(_, socket, frame, __):
        details = {"type": "conflict", "status": 409, "detail": "the session is foreign"}
        await socket.send_json({"type": "error", "id": frame["id"], "problem": details})
        return True

    async with opened() as client, client.chat("s-1") as chat:
        for worker in workers:
            worker.on_frame = [refuse]
        with pytest.raises(Conflict, match="foreign"):
            await chat.append(role="user", content="a")
        assert (await chat.append(role="user", content="b")).number == 1


async def test_a_refused_credential_is_raised_on_entering(workers, opened):
    for worker in workers:
        worker.opening = [problem(401, "unauthenticated")]
    async with opened() as client:
        with pytest.raises(Refused):
            async with client.chat("s-1"):
                pass
    assert sum(len(worker.heard) for worker in workers) == 1


async def test_a_worker_that_is_not_ready_is_passed_over(workers, opened):
    for worker in workers:
        worker.opening = [web.Response(status=503, headers={"Retry-After": "2"}), "drop"]
    async with opened() as client, client.chat("s-1") as chat:
        await chat.append(role="user", content="a")


@pytest.mark.parametrize("status", [429, 503])
async def test_a_worker_that_takes_no_socket_in_is_passed_over_at_once(workers, opened, clock, status):
    async with opened() as client:
        async with client.chat("s-1") as chat:
            first = next(worker for worker in workers if worker.url == chat.worker)
        first.opening = [web.Response(status=status, headers={"Retry-After": "60"})] * 2
        async with client.chat("s-1") as chat:
            assert chat.worker != first.url
    assert clock.slept == []
    assert len(first.opening) == 1


async def test_who_has_nothing_to_say_comes_back_when_the_worker_that_left_has_asked_for_it(workers, opened):
    async with opened() as client, client.chat("s-1") as chat:
        left = next(worker for worker in workers if worker.url == chat.worker)
        await left.leave(reconnect_after_s=3600)
        await until(lambda: not left._open)
        for _ in range(1_000):
            await asyncio.sleep(0)
        assert chat.connections == 1
        await chat.append(role="user", content="a")
        assert (chat.connections, chat.worker != left.url) == (2, True)


async def test_a_load_balancer_is_asked_at_once_when_a_worker_behind_it_leaves(workers, opened, clock):
    async with opened(urls=[workers[0].url]) as client, client.chat("s-1") as chat:
        await workers[0].leave(reconnect_after_s=3600)
        await until(lambda: not workers[0]._open)
        await client.session("s-1").append(role="user", content="a")
        await chat.append(role="user", content="b")
    assert clock.slept == []


async def test_where_no_worker_answers_entering_says_so(opened, clock):
    async with opened(urls=["http://127.0.0.1:9"], patience=Patience(deadline_s=9)) as client:
        with pytest.raises(Transient, match="no answer"):
            async with client.chat("s-1"):
                pass
    assert 1 < sum(clock.slept) < 9


async def test_whoever_waits_hears_that_the_chat_was_closed(workers, opened):
    heard = asyncio.Event()

    async def ignore(*_):
        heard.set()
        return True

    for worker in workers:
        worker.on_frame = [ignore]
    async with opened() as client:
        async with client.chat("s-1") as chat:
            waiting = asyncio.create_task(chat.append(role="user", content="a"))
            listening = asyncio.create_task(chat.next_event())
            await heard.wait()
        with pytest.raises(Closed):
            await waiting
        assert await listening is None
        with pytest.raises(Closed):
            await chat.append(role="user", content="b")


async def test_a_consumer_that_takes_nothing_is_told_so_and_memory_is_bounded(opened):
    async with opened() as client, client.chat("s-1") as chat:
        session = client.session("s-1")
        for number in range(1, 1027):
            await session.append(role="user", content=str(number))
        await until(lambda: chat.version.number == 1026)
        assert len(chat._events) < 10
        (event, *_) = await told(chat, 1)
        assert event.kind == "gap"


async def test_a_connection_that_gives_no_sign_of_life_is_replaced(workers, opened):
    async def swallow(*_):
        return True

    for worker in workers:
        worker.heartbeat_s = 0.05
        worker.on_frame = [swallow] * 100
    async with opened() as client, client.chat("s-1") as chat:
        await reconnected(chat, 2)
    assert {frame["type"] for worker in workers for frame in worker.frames} == {"open", "ping"}


async def test_a_limit_that_is_used_up_for_long_is_raised(workers, opened):
    async def refuse(_, socket, frame, __):
        details = {"type": "rejected", "status": 429, "detail": "30 in 60 s", "retry_after_s": 44}
        await socket.send_json({"type": "error", "id": frame["id"], "problem": details})
        return True

    async with opened() as client, client.chat("s-1") as chat:
        for worker in workers:
            worker.on_frame = [refuse]
        with pytest.raises(Rejected):
            await chat.append(role="user", content="a", rate_limit="messages")


async def test_a_session_id_that_is_none_is_refused_before_anything_is_sent(workers, opened):
    async with opened() as client:
        with pytest.raises(Invalid):
            client.chat("")
    assert [worker.heard for worker in workers] == [[], []]


async def test_chats_take_no_connections_from_calls(opened):
    async with opened(connections=1) as client, client.chat("s-1") as first, client.chat("s-1") as second:
        await first.append(role="user", content="a")
        await client.session("s-1").append(role="user", content="b")
        await second.append(role="user", content="c")
        assert [event.number for event in await told(first, 2)] == [2, 3]
        assert [event.number for event in await told(second, 2)] == [1, 2]


def appends_of(workers):
    return [frame["content"] for worker in workers for frame in worker.frames if frame["type"] == "append"]


def hold_sends(monkeypatch, kind):
    """Have the sending of messages of a kind wait, as behind a peer that reads nothing; returns what lets it go on."""
    send, room = aiohttp.ClientWebSocketResponse.send_str, asyncio.Event()

    async def send_slowly(socket, text):
        await send(socket, text)
        if json.loads(text)["type"] == kind:
            await room.wait()

    monkeypatch.setattr(aiohttp.ClientWebSocketResponse, "send_str", send_slowly)
    return room


async def test_what_was_refused_while_a_connection_catches_up_is_sent_again_by_it(workers, opened, monkeypatch):
    """Its pause may be over before everything else has been sent: then it is still to be sent once more."""

    async def refuse(_, socket, frame, __):
        details = {"type": "transient", "status": 503, "detail": "DynamoDB is away", "retry_after_s": 0}
        await socket.send_json({"type": "error", "id": frame["id"], "problem": details})
        return True

    async with opened() as client, client.chat("s-1") as chat:
        worker = next(worker for worker in workers if worker.url == chat.worker)
        worker.on_frame = [ignore] * 2
        appends = [asyncio.create_task(chat.append(role="user", content=content)) for content in "ab"]
        await until(lambda: appends_of(workers) == ["a", "b"])
        for each in workers:
            each.frames.clear()
            each.on_frame = [refuse]
        room = hold_sends(monkeypatch, "append")
        await worker.cut()
        await until(lambda: appends_of(workers) == ["a"] and chat._talk._asked[1].rests)
        await until(lambda: not chat._talk._asked[1].rests)
        assert chat._socket is None
        room.set()
        async with asyncio.timeout(30):
            assert [(await append).number for append in appends] == [2, 1]
        assert appends_of(workers) == ["a", "b", "a"]


async def test_an_append_ends_at_its_deadline_even_where_the_worker_reads_nothing(opened, monkeypatch):
    async with opened(patience=Patience(deadline_s=0.2)) as client, client.chat("s-1") as chat:
        hold_sends(monkeypatch, "append")
        async with asyncio.timeout(30):
            with pytest.raises(Transient, match="unknown"):
                await chat.append(role="user", content="a")


async def test_a_connection_that_reads_nothing_and_says_nothing_is_replaced(workers, opened, monkeypatch):
    for worker in workers:
        worker.heartbeat_s = 0.05
        worker.on_frame = [ignore] * 100
    hold_sends(monkeypatch, "ping")
    async with opened() as client, client.chat("s-1") as chat:
        await reconnected(chat, 2)


async def test_whoever_waits_to_send_again_hears_that_the_chat_was_closed(workers, opened, clock, monkeypatch):
    async def refuse(_, socket, frame, __):
        details = {"type": "transient", "status": 503, "detail": "DynamoDB is away", "retry_after_s": 17}
        await socket.send_json({"type": "error", "id": frame["id"], "problem": details})
        return True

    waits, sleep = asyncio.Event(), clock.sleep

    async def wait(seconds):
        if 17 <= seconds < 18:
            waits.set()
            await asyncio.get_running_loop().create_future()
        await sleep(seconds)

    monkeypatch.setattr(clock, "sleep", wait)
    async with opened() as client:
        async with client.chat("s-1") as chat:
            next(worker for worker in workers if worker.url == chat.worker).on_frame = [refuse]
            append = asyncio.create_task(chat.append(role="user", content="a"))
            await waits.wait()
        async with asyncio.timeout(30):
            with pytest.raises(Closed):
                await append


async def test_a_turn_that_json_cannot_say_is_refused_and_the_chat_goes_on(workers, opened):
    """Also one that waits for the next connection, which would end by it."""
    async with opened() as client, client.chat("s-1") as chat:
        left = next(worker for worker in workers if worker.url == chat.worker)
        await left.leave(reconnect_after_s=3600)
        await until(lambda: not left._open)
        with pytest.raises(Invalid):
            await chat.append(role="user", content="a", attributes={"x": object()})
        with pytest.raises(Invalid):
            await chat.append(role="user", content="\ud800")
        assert (await chat.append(role="user", content="b")).number == 1


async def test_a_connection_that_breaks_with_an_error_long_after_it_was_made_is_made_again(opened, clock, monkeypatch):
    """The time that it stood is none of the time in which another one is to be found."""
    receive, breaks = aiohttp.ClientWebSocketResponse.receive, asyncio.Event()

    async def receive_or_break(socket):
        message = await receive(socket)
        if breaks.is_set():
            breaks.clear()
            clock.slept.append(3600)
            raise ConnectionResetError("the peer has gone")
        return message

    monkeypatch.setattr(aiohttp.ClientWebSocketResponse, "receive", receive_or_break)
    async with opened() as client, client.chat("s-1") as chat:
        breaks.set()
        await client.session("s-1").append(role="user", content="a")
        (event,) = await told(chat, 1)
        assert (event.number, chat.connections) == (1, 2)
