"""The ring around requests: who is counted, measured and logged, and who is turned away while the worker leaves."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager

import aiohttp
import pytest
from aiohttp import web
from instances import Instances
from workers import eventually

from mangacache.clock import SystemClock
from mangacache.worker.metrics import WorkerMetrics
from mangacache.worker.readiness import Phase, Readiness
from mangacache.worker.requests import Requests


class Served:
    """A port behind the ring, with pages that answer, wait and fail."""

    def __init__(self, cache):
        self.cache = cache
        self.telemetry = cache.telemetry
        self.readiness = Readiness(clock=SystemClock(), retry_after_s=1.5)
        self.readiness.phase = Phase.SERVING
        metrics = WorkerMetrics(cache, clock=SystemClock())
        self.requests = Requests(
            self.readiness, metrics=metrics, telemetry=cache.telemetry, clock=SystemClock(), port="public"
        )
        self.goes_on = asyncio.Event()
        self.url = ""

    def app(self):
        async def answer(_):
            return web.json_response({})

        async def wait(_):
            await self.goes_on.wait()
            return web.json_response({"waited": True})

        async def fail(_):
            raise web.HTTPConflict

        async def break_(_):
            raise RuntimeError("broken")

        async def talk(request):
            socket = web.WebSocketResponse()
            await socket.prepare(request)
            await socket.receive()
            return socket

        app = web.Application(middlewares=[self.requests.middleware])
        app.router.add_get("/things/{thing_id}", answer)
        app.router.add_get("/wait", wait)
        app.router.add_get("/fail", fail)
        app.router.add_get("/break", break_)
        app.router.add_get("/talk", talk)
        app.router.add_get("/healthz", answer)
        return app

    def counted(self, **labels):
        return self.telemetry.value("mangacache_http_request_seconds_count", **labels)


@pytest.fixture
async def served():
    async with Instances.open(redis=False) as instances, instances.cache() as cache:
        made = Served(cache)
        async with _listening(made.app()) as made.url:
            yield made


@asynccontextmanager
async def _listening(app):
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        yield f"http://127.0.0.1:{site.port}"
    finally:
        await runner.cleanup()


@pytest.fixture
async def client():
    async with aiohttp.ClientSession() as made:
        yield made


async def _get(client, url):
    async with client.get(url) as response:
        await response.read()
        return response


async def test_a_request_is_measured_by_route_method_and_status(served, client):
    for thing in ("alice", "bob"):
        await _get(client, f"{served.url}/things/{thing}")
    await _get(client, f"{served.url}/fail")
    await _get(client, f"{served.url}/nothing/of/the/kind")
    assert served.counted(route="/things/{thing_id}", method="GET", status="200") == 2
    assert served.counted(route="/fail", method="GET", status="409") == 1
    assert served.counted(route="none", method="GET", status="404") == 1


async def test_methods_that_nobody_knows_are_one(served, client):
    async with client.request("PROPFIND", f"{served.url}/things/1") as response:
        assert response.status == 405
    assert served.counted(route="none", method="other", status="405") == 1


async def test_a_failure_is_measured_and_logged_where_the_others_are_not(served, client, caplog):
    with caplog.at_level("INFO"):
        await _get(client, f"{served.url}/break")
        await _get(client, f"{served.url}/things/alice")
    assert served.counted(route="/break", method="GET", status="500") == 1
    (line,) = [record for record in caplog.records if record.getMessage() == "request"]
    assert (line.route, line.status, line.port) == ("/break", "500", "public")


async def test_each_request_has_a_line_at_debug_that_names_nobody(served, client, caplog):
    with caplog.at_level("DEBUG", logger="mangacache"):
        await _get(client, f"{served.url}/things/alice?token=secret")
    (line,) = [record for record in caplog.records if record.getMessage() == "request"]
    assert (line.route, line.method, line.status) == ("/things/{thing_id}", "GET", "200")
    assert "alice" not in str(vars(line))
    assert "secret" not in str(vars(line))


async def test_a_socket_is_under_way_and_its_life_is_no_latency(served, client):
    async with client.ws_connect(f"{served.url}/talk"):
        await eventually(lambda: served.requests.under_way == 1)
        assert served.telemetry.value("mangacache_http_requests_under_way") == 1
    await eventually(lambda: served.requests.under_way == 0)
    assert not [sample for sample in _samples(served) if sample.labels.get("route") == "/talk"]


def _samples(served):
    families = served.telemetry.registry.collect()
    return [
        sample for family in families if family.name == "mangacache_http_request_seconds" for sample in family.samples
    ]


async def test_who_comes_in_the_drain_is_told_when_to_ask_again_and_the_connection_is_closed(served, client):
    served.readiness.phase = Phase.DRAINING
    async with client.get(f"{served.url}/things/1") as response:
        assert response.status == 503
        assert response.content_type == "application/problem+json"
        assert response.headers["Retry-After"] == "2"
        assert response.headers["Connection"] == "close"
        problem = await response.json()
    assert (problem["status"], problem["retry_after_s"]) == (503, 1.5)
    assert served.telemetry.value("mangacache_http_requests_turned_away_total") == 1
    assert (await _get(client, f"{served.url}/healthz")).status == 200


async def test_what_was_begun_before_the_drain_is_finished_in_it(served, client):
    asked = asyncio.ensure_future(_get(client, f"{served.url}/wait"))
    await eventually(lambda: served.requests.under_way == 1)
    served.readiness.phase = Phase.DRAINING
    settling = asyncio.ensure_future(served.requests.settle())
    assert (await _get(client, f"{served.url}/things/1")).status == 503
    assert not settling.done()
    served.goes_on.set()
    assert (await asked).status == 200
    await settling


async def test_who_is_served_while_the_worker_is_about_to_leave_connects_elsewhere_next(served, client):
    assert (await _get(client, f"{served.url}/things/1")).headers.get("Connection") is None
    served.readiness.phase = Phase.LEAVING
    response = await _get(client, f"{served.url}/things/1")
    assert (response.status, response.headers["Connection"]) == (200, "close")


async def test_a_client_that_leaves_is_not_under_way_for_ever(served, client):
    asked = asyncio.ensure_future(_get(client, f"{served.url}/wait"))
    await eventually(lambda: served.requests.under_way == 1)
    asked.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asked
    served.goes_on.set()
    await served.requests.settle()
    assert served.telemetry.value("mangacache_http_requests_under_way") == 0
