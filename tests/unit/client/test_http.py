"""Calls over HTTP against workers that fail as they are told: what is done once, what again, and where."""

from __future__ import annotations

import asyncio

import pytest
from aiohttp import web
from scripted_worker import problem

from mangacache import (
    Closed,
    Conflict,
    Consistency,
    Corrupt,
    Invalid,
    NewTurn,
    NotFound,
    Rejected,
    Transient,
    VersionGone,
)
from mangacache.client import Patience, Refused


def turns_of(workers):
    return [turn["content"] for turn in workers[0].chats.turns.get("s-1", [])]


async def test_an_append_whose_answer_was_lost_is_stored_once(workers, opened):
    for worker in workers:
        worker.script = ["drop after"]
    async with opened() as client:
        appended = await client.session("s-1").append(role="user", content="Is Berserk 1 there?")
    assert appended.number == 1
    assert appended.duplicate
    assert turns_of(workers) == ["Is Berserk 1 there?"]
    assert len({body["turn_id"] for worker in workers for *_, body in worker.heard}) == 1


async def test_a_lost_worker_is_let_be_while_another_one_answers(workers, opened, clock):
    async with opened(patience=Patience(backoff_s=1000, most_backoff_s=1000)) as client:
        session = client.session("s-1")
        await session.append(role="user", content="a")
        (first,) = [worker for worker in workers if worker.heard]
        (other,) = [worker for worker in workers if not worker.heard]
        first.script = ["drop"]
        await session.append(role="user", content="b")
        await session.append(role="user", content="c")
    assert turns_of(workers) == ["a", "b", "c"]
    assert (len(first.heard), len(other.heard)) == (2, 2)
    assert clock.slept == []


async def test_where_nobody_answers_the_client_waits_longer_each_time_and_says_so_in_the_end(opened, clock):
    async with opened(urls=["http://127.0.0.1:9"], patience=Patience(deadline_s=20)) as client:
        with pytest.raises(Transient, match="nothing was done"):
            await client.session("s-1").append(role="user", content="a")
    assert 5 < sum(clock.slept) < 20  # what the attempts themselves take comes off it
    assert all(wait_s <= 5 for wait_s in clock.slept)
    assert clock.slept[0] <= 0.1


async def test_a_worker_that_leaves_is_left_at_once(workers, opened, clock):
    for worker in workers:
        worker.script = [problem(503, "closed", retry_after_s=30)]
    workers[1].script = []
    async with opened() as client:
        for name in ("s-1", "s-2", "s-3", "s-4"):
            await client.session(name).append(role="user", content="a")
    assert [len(worker.heard) for worker in workers] == [1, 4]
    assert clock.slept == []


async def test_what_a_worker_refuses_for_now_is_waited_for_as_long_as_it_says(workers, opened, clock):
    for worker in workers:
        worker.script = [problem(503, "transient", retry_after_s=2.5), problem(429, "rejected", retry_after_s=1.25)]
    async with opened(urls=[workers[0].url]) as client:
        await client.session("s-1").append(role="user", content="a")
    assert turns_of(workers) == ["a"]
    first_s, second_s = clock.slept  # less what passed between the answer and the wait
    assert 1.5 < first_s <= 2.6
    assert 0.25 < second_s <= 1.45


async def test_what_is_refused_for_longer_than_the_deadline_is_not_waited_for(workers, opened, clock):
    for worker in workers:
        worker.script = [problem(429, "rejected", retry_after_s=45)]
    async with opened() as client:
        with pytest.raises(Rejected) as refused:
            await client.session("s-1").append(role="user", content="a", rate_limit="messages")
    assert refused.value.retry_after_s == 45
    assert clock.slept == []
    assert sum(len(worker.heard) for worker in workers) == 1


@pytest.mark.parametrize(
    ("status", "kind", "error"),
    [
        (400, "invalid", Invalid),
        (422, "invalid", Invalid),
        (404, "not-found", NotFound),
        (409, "conflict", Conflict),
        (409, "version-gone", VersionGone),
        (412, "conflict", Conflict),
        (502, "corrupt", Corrupt),
        (401, "unauthenticated", Refused),
        (403, "forbidden", Refused),
        (404, "about:blank", NotFound),
        (418, "about:blank", Invalid),
    ],
)
async def test_a_problem_is_the_librarys_error_again_and_is_not_tried_again(workers, opened, status, kind, error):
    for worker in workers:
        worker.script = [problem(status, kind, detail="what is wrong")]
    async with opened() as client:
        with pytest.raises(error, match="what is wrong") as raised:
            await client.session("s-1").context()
    assert type(raised.value) is error
    assert sum(len(worker.heard) for worker in workers) == 1


async def test_a_gateway_without_problem_details_is_tried_again(workers, opened):
    for worker in workers:
        worker.script = [web.Response(status=502, text="<html>Bad Gateway</html>"), web.Response(status=504)]
    async with opened() as client:
        await client.session("s-1").append(role="user", content="a")
    assert turns_of(workers) == ["a"]


async def test_what_this_client_wrote_is_asked_for_by_its_version_on_any_worker(workers, opened):
    async with opened(in_turn=True) as client:
        session = client.session("s-1", customer_id="c-1")
        await session.append(role="user", content="a")
        context = await client.session("s-1").context()
        later = await session.context(at_least="1.5.1", consistency=Consistency.EVENTUAL(3))
    asked = [query for worker in workers for method, _, query, _, _ in worker.heard if method == "GET"]
    assert sorted(query["at_least"] for query in asked) == ["1.1.1", "1.5.1"]
    assert next(query for query in asked if "consistency" in query)["age_s"] == "3"
    assert [turn.content for turn in context.turns] == ["a"]
    assert context == later
    assert {worker.heard[0][0] for worker in workers} == {"POST", "GET"}


async def test_a_version_that_is_gone_is_not_asked_for_again(workers, opened):
    async with opened() as client:
        session = client.session("s-1")
        await session.append(role="user", content="a")
        for worker in workers:
            worker.script = [problem(409, "version-gone")]
        with pytest.raises(VersionGone):
            await session.context()
        assert session.version is None
        for worker in workers:
            worker.script = []
        await session.context()
    assert "at_least" not in [query for worker in workers for *_, query, _, _ in worker.heard][-1]


async def test_every_try_says_what_was_seen_before_the_first(workers, opened):
    """So that it is found however late a try comes, and however many turns were stored meanwhile."""
    async with opened() as client:
        session = client.session("s-1")
        await session.append(role="user", content="a")
        for worker in workers:
            worker.script = ["drop after"]
        await session.append(role="user", content="b")
    bodies = [body for worker in workers for *_, body in worker.heard if body["content"] == "b"]
    assert [body["after"] for body in bodies] == ["1.1.1"] * 3


async def test_a_retry_by_who_has_seen_nothing_says_so(workers, opened):
    for worker in workers:
        worker.script = ["drop after"]
    async with opened() as client:
        await client.session("s-1").append(role="user", content="a")
    bodies = [body for worker in workers for *_, body in worker.heard]
    assert sorted(body.get("after", "") for body in bodies) == ["", "0.0.0", "0.0.0"]


async def test_one_attempt_is_made_even_where_a_worker_has_asked_to_be_let_be_for_longer_than_a_call_may_take(
    workers, opened, clock
):
    workers[0].script = [problem(503, "closed", retry_after_s=3600)]
    async with opened(urls=[workers[0].url]) as client:
        with pytest.raises(Closed):
            await client.session("s-1").append(role="user", content="a")
        await client.session("s-1").append(role="user", content="b")
    assert turns_of(workers) == ["b"]
    assert clock.slept == []


async def test_a_rate_limit_is_not_taken_twice_for_an_answer_that_was_lost(workers, opened):
    for worker in workers:
        worker.script = ["drop after"]
    async with opened() as client:
        with pytest.raises(Transient, match="unknown"):
            await client.rate_limit("c-1", "messages")
    assert sum(len(worker.heard) for worker in workers) == 1


async def test_several_turns_go_in_one_request_and_each_has_an_id(workers, opened):
    async with opened(credential="key-1") as client:
        session = client.session("a/b ü", customer_id="Zoë")
        done = await session.append_many([NewTurn(role="user", content=str(i)) for i in range(3)])
    ((method, path, _, headers, body),) = [each for worker in workers for each in worker.heard]
    assert (method, path) == ("POST", "/v1/sessions/a%2Fb%20%C3%BC/turns")
    assert headers["Authorization"] == "Bearer key-1"
    assert headers["Customer-Id"] == "Zo%C3%AB"
    assert len({turn["turn_id"] for turn in body["turns"]}) == 3
    assert [appended.number for appended in done] == [1, 2, 3]


async def test_a_call_that_is_cancelled_leaves_the_client_usable(workers, opened):
    asked = asyncio.Event()
    hold = asyncio.Event()

    async def never(*_):
        asked.set()
        await hold.wait()
        return web.Response()

    for worker in workers:
        worker._serve, worker._kept = never, worker._serve
    async with opened() as client:
        call = asyncio.create_task(client.session("s-1").append(role="user", content="a"))
        await asked.wait()
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        hold.set()
        for worker in workers:
            worker._serve = worker._kept
        assert (await client.session("s-1").append(role="user", content="b")).number == 1


@pytest.mark.parametrize("urls", [[], ["127.0.0.1:80"], ["ftp://x"]])
async def test_a_client_needs_urls(opened, urls):
    with pytest.raises(Invalid, match="http"):
        async with opened(urls=urls):
            pass
