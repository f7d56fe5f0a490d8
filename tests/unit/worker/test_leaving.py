"""A worker that is told to leave: it says so first, finishes what it has begun, and says what it could not."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from math import inf

import aiohttp
import pytest
from instances import HurriedClock, Instances
from workers import Served, eventually, served

from mangacache import Consistency, Invalid
from mangacache.client import WorkerClient
from mangacache.client.attempts import Patience
from mangacache.clock import SystemClock
from mangacache.store.transport import AioTransport
from mangacache.worker.process import Worker, serve

TURN = {"role": "user", "content": "hello", "turn_id": "t1"}


class Held:
    """A door to DynamoDB that lets writes through when the test says so."""

    def __init__(self, inner):
        self._inner = inner
        self.opens = asyncio.Event()
        self.opens.set()
        self.waiting = self.writes = 0
        self.closed_after = inf

    async def request(self, operation, parameters):
        if operation not in {"GetItem", "Query", "DescribeTable"}:
            self.waiting += 1
            self.writes += 1
            if self.writes > self.closed_after:
                self.opens.clear()
            try:
                await self.opens.wait()
            finally:
                self.waiting -= 1
        return await self._inner.request(operation, parameters)


@asynccontextmanager
async def _worker(*, redis=True, **options):
    """A worker on doubles: its table, its door, and itself."""
    clock = options.pop("clock", None)
    async with Instances.open(redis=redis) as instances:
        door = Held(AioTransport(instances.table.client()))
        link = instances.link() if redis else None
        settings = instances.settings.replace(
            **({"worker_notice_s": 0.0, "request_timeout_s": 60.0, "request_deadline_s": 60.0} | options)
        )
        async with served(settings, transport=door, link=link, clock=clock) as worker:
            yield instances, door, worker


@pytest.fixture
async def client():
    async with aiohttp.ClientSession() as made:
        yield made


async def _status(client, url):
    async with client.get(url) as response:
        return response.status


async def _drains(client, worker):
    async with client.get(f"{worker.operator}/readyz") as response:
        return (await response.json())["phase"] == "draining"


async def _append(client, worker, session_id="s", turn=TURN):
    async with client.post(f"{worker.public}/v1/sessions/{session_id}/turns", json=turn) as response:
        return response.status, response.headers, await response.json()


async def test_it_says_that_it_is_not_ready_before_it_turns_anybody_away(client):
    clock = HurriedClock()
    async with _worker(clock=clock, worker_notice_s=3.0) as (_, _, worker):
        assert await _status(client, f"{worker.public}/readyz") == 200
        worker.stop.ask("SIGTERM")

        async def not_ready():
            return await _status(client, f"{worker.public}/readyz") == 503

        await eventually(not_ready)
        for port in (worker.public, worker.operator):
            assert await _status(client, f"{port}/readyz") == 503
            assert await _status(client, f"{port}/healthz") == 200
        assert (await _append(client, worker))[0] == 201
        clock.hurry()
        assert await worker.left() == 0
    assert worker.said[-1] == {"event": "left", "undone": []}


async def test_what_is_under_way_is_finished_and_what_comes_then_is_sent_elsewhere(client):
    async with _worker() as (instances, door, worker):
        door.opens.clear()
        asked = asyncio.create_task(_append(client, worker))
        await eventually(lambda: door.waiting == 1)
        worker.stop.ask("SIGTERM")
        await eventually(lambda: _drains(client, worker))
        status, headers, problem = await _append(client, worker, "other")
        assert (status, headers["Retry-After"], headers["Connection"]) == (503, "1", "close")
        assert (problem["type"], problem["retry_after_s"]) == ("urn:mangacache:problem:closed", 1.0)
        assert await _status(client, f"{worker.operator}/state") == 200
        door.opens.set()
        assert (await asked)[0] == 201
        assert await worker.left() == 0
        async with instances.cache() as reader:
            assert (await reader.session("s").context()).turns[0].turn_id == "t1"
            assert (await reader.session("other").context()).turns == ()


async def test_a_socket_s_client_is_told_and_goes_on_at_another_worker():
    async with Instances.open() as instances:
        doors = [AioTransport(instances.table.client()) for _ in range(2)]
        links = [instances.link() for _ in range(2)]
        settings = instances.settings.replace(worker_notice_s=0.0)
        async with (
            served(settings, transport=doors[0], link=links[0]) as leaving,
            served(settings, transport=doors[1], link=links[1]) as staying,
            WorkerClient.open([leaving.public, staying.public], patience=Patience(deadline_s=60.0)) as client,
            client.chat("s") as chat,
        ):
            places = {leaving.public: leaving, staying.public: staying}
            await chat.append(role="user", content="one")
            first = places[chat.worker]
            first.stop.ask("SIGTERM")
            assert await first.left() == 0
            await chat.append(role="user", content="two")
            assert places[chat.worker] is not first
            context = await chat.context()
    assert [turn.content for turn in context.turns] == ["one", "two"]


async def test_what_hangs_is_cut_off_and_told(client):
    async with _worker(drain_timeout_s=0.2) as (_, door, worker):
        door.opens.clear()
        asked = asyncio.create_task(_append(client, worker))
        await eventually(lambda: door.waiting == 1)
        worker.stop.ask("SIGTERM")
        assert await worker.left() == 1
        undone = worker.said[-1]["undone"]
        assert any("finish requests" in each for each in undone), undone
        outcome = (await asyncio.gather(asked, return_exceptions=True))[0]
        assert isinstance(outcome, aiohttp.ClientError) or outcome[0] != 201, "nothing was acknowledged"


async def test_while_redis_is_away_the_others_are_told_by_way_of_dynamodb(client):
    async with _worker() as (instances, _, worker):
        assert (await _append(client, worker))[0] == 201
        instances.cut()
        status, _, answer = await _append(client, worker, turn=TURN | {"turn_id": "t2"})
        assert (status, answer["turns"][0]["degraded"]) == (201, True)
        worker.stop.ask("SIGTERM")
        assert await worker.left() == 0
        instances.mend()
        async with instances.cache() as other:
            context = await other.session("s").context(consistency=Consistency.LATEST)
            assert [turn.turn_id for turn in context.turns] == ["t1", "t2"]


async def test_whom_nobody_could_tell_of_is_told_at_the_end(client):
    clock = HurriedClock()
    clock.hurry()  # the notice passes at once, and is left to the steps that follow: the end has all the time it needs
    async with _worker(drain_timeout_s=0.5, worker_notice_s=10.0, clock=clock) as (instances, door, worker):
        assert (await _append(client, worker))[0] == 201
        instances.cut()
        door.closed_after = door.writes + 1
        status, _, answer = await _append(client, worker, turn=TURN | {"turn_id": "t2"})
        assert (status, answer["turns"][0]["degraded"]) == (201, True)
        worker.stop.ask("SIGTERM")
        assert await worker.left() == 1
        assert any('"untold":1' in each for each in worker.said[-1]["undone"]), worker.said


async def test_who_is_told_to_leave_before_all_is_open_leaves_at_once():
    class Silent:
        """DynamoDB that never answers."""

        async def request(self, operation, parameters):
            del operation, parameters
            await asyncio.Event().wait()

    async with Instances.open(redis=False) as instances:
        settings = instances.settings.replace(request_timeout_s=60.0, request_deadline_s=300.0)
        worker = Served()
        running = asyncio.create_task(serve(settings, stop=worker.stop, say=worker.said.append, transport=Silent()))
        await asyncio.sleep(0)
        worker.stop.ask("SIGTERM")
        async with asyncio.timeout(60):
            assert await running == 0
        assert worker.said == []


async def test_a_port_that_is_taken_is_a_mistake_that_is_named():
    async with _worker() as (instances, _, worker):
        port = int(worker.public.rpartition(":")[2])
        async with instances.cache() as cache:
            settings = instances.settings.replace(worker_port=port, operator_port=0)
            with pytest.raises(Invalid, match=f"cannot listen at 127.0.0.1 port {port}"):
                async with Worker.open(cache, settings, clock=SystemClock()):
                    pass
