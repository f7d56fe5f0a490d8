"""Traces: a span for each request and each call it makes, in the caller's own trace, and nothing that is personal."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager

import aiohttp
import pytest
from aiohttp import web
from daxworlds import dax_world
from instances import Instances
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from mangacache import Invalid, Settings
from mangacache.worker import tracing as module
from mangacache.worker.tracing import Tracing, open_tracing

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
GIVEN = {"traceparent": f"00-{TRACE}-{PARENT}-01"}


class Traced:
    """A port whose requests are traced, before an instance whose calls are."""

    def __init__(self, cache, *, share):
        self.exporter = InMemorySpanExporter()
        self.tracing = Tracing(SimpleSpanProcessor(self.exporter), share=share)
        self.cache = cache
        cache.telemetry.tracer = self.tracing
        self.url = ""

    @property
    def spans(self):
        return {span.name: span for span in self.exporter.get_finished_spans()}

    def app(self):
        async def say(request):
            session = self.cache.session(request.match_info["session_id"])
            await session.append(role="user", content="a secret of alice's")
            return web.json_response({}, status=201)

        async def read(request):
            await self.cache.session(request.match_info["session_id"]).context(turns=32)
            return web.json_response({})

        async def break_(_):
            raise RuntimeError("alice's")

        app = web.Application(middlewares=[self.tracing.middleware])
        app.router.add_post("/sessions/{session_id}/turns", say)
        app.router.add_get("/sessions/{session_id}", read)
        app.router.add_get("/break", break_)
        app.router.add_get("/healthz", break_)
        return app


@asynccontextmanager
async def _traced(cache, *, share=0.0):
    made = Traced(cache, share=share)
    runner = web.AppRunner(made.app(), access_log=None)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        made.url = f"http://127.0.0.1:{site.port}"
        yield made
    finally:
        await runner.cleanup()
        made.tracing.close()


@pytest.fixture
async def client():
    async with aiohttp.ClientSession() as made:
        yield made


def _parent(span):
    return f"{span.parent.span_id:016x}"


def _own(span):
    return f"{span.context.span_id:016x}"


async def test_a_request_with_a_trace_of_its_own_is_in_it_and_so_are_its_calls(client):
    async with Instances.open() as instances, instances.cache() as cache, _traced(cache) as traced:
        async with client.post(f"{traced.url}/sessions/alice/turns", headers=GIVEN) as response:
            assert response.status == 201
        spans = traced.spans
    request = spans["POST /sessions/{session_id}/turns"]
    assert {f"{span.context.trace_id:032x}" for span in spans.values()} == {TRACE}
    assert (_parent(request), request.kind) == (PARENT, SpanKind.SERVER)
    assert request.attributes["http.response.status_code"] == 201
    for name in ("dynamodb TransactWriteItems", "redis commit"):
        assert (_parent(spans[name]), spans[name].kind) == (_own(request), SpanKind.CLIENT)
    assert spans["redis commit"].attributes["db.system.name"] == "redis"


async def test_reads_through_dax_are_seen(client):
    async with dax_world("threads", "") as world, world.worker() as writer, world.worker() as reader:
        await writer.say(*(f"line {number}" for number in range(12)))
        async with _traced(reader.cache) as traced:
            async with client.get(f"{traced.url}/sessions/s", headers=GIVEN) as response:
                assert response.status == 200
            assert {"dax BatchGetItem", "dynamodb Query"} <= traced.spans.keys()


async def test_each_of_several_requests_to_one_session_has_its_own_calls(client):
    """They wait in one mailbox, and one task runs them all."""
    async with Instances.open() as instances, instances.cache() as cache, _traced(cache) as traced:

        async def say(number):
            given = {"traceparent": f"00-{number:032x}-{number:016x}-01"}
            async with client.post(f"{traced.url}/sessions/alice/turns", headers=given) as response:
                assert response.status == 201

        await asyncio.gather(*(say(number) for number in range(1, 9)))
        spans = traced.exporter.get_finished_spans()
    for number in range(1, 9):
        names = {span.name for span in spans if span.context.trace_id == number}
        assert any(name.startswith("dynamodb ") for name in names), (number, names)


@pytest.mark.parametrize(("share", "traced_requests"), [(0.0, 0), (1.0, 1)])
async def test_a_share_of_those_without_a_trace_is_traced(client, share, traced_requests):
    async with Instances.open() as instances, instances.cache() as cache, _traced(cache, share=share) as traced:
        async with client.get(f"{traced.url}/sessions/alice"):
            pass
        assert len([span for span in traced.spans.values() if span.kind is SpanKind.SERVER]) == traced_requests
        assert bool(traced.spans) is bool(traced_requests)


async def test_nothing_personal_is_in_a_span_and_a_failure_shows_by_its_kind(client):
    async with Instances.open() as instances, instances.cache() as cache, _traced(cache) as traced:
        async with client.post(f"{traced.url}/sessions/alice/turns?of=alice", headers=GIVEN):
            pass
        async with client.get(f"{traced.url}/break", headers=GIVEN) as response:
            assert response.status == 500
        told = "".join(span.to_json() for span in traced.spans.values())
        assert "alice" not in told
        assert "secret" not in told
        broken = traced.spans["GET /break"]
        assert broken.status.status_code is StatusCode.ERROR
        assert broken.attributes["error.type"] == "RuntimeError"


async def test_what_belongs_to_no_request_and_what_load_balancers_ask_is_not_traced(client):
    async with Instances.open() as instances, instances.cache() as cache, _traced(cache, share=1.0) as traced:
        await cache.session("s").append(role="user", content="hello")
        async with client.get(f"{traced.url}/healthz", headers=GIVEN):
            pass
        assert traced.spans == {}


def test_without_an_endpoint_there_are_no_traces_and_with_one_they_are_sent_there(monkeypatch):
    assert open_tracing(Settings()) is None
    sent_to = []

    class Exporter:
        def __init__(self, endpoint):
            sent_to.append(endpoint)

        def shutdown(self):
            pass

    monkeypatch.setattr("opentelemetry.exporter.otlp.proto.http.trace_exporter.OTLPSpanExporter", Exporter)
    tracing = open_tracing(Settings(traces_endpoint="http://127.0.0.1:4318"))
    tracing.close()
    assert sent_to == ["http://127.0.0.1:4318/v1/traces"]


def test_an_endpoint_without_the_extra_says_what_to_install(monkeypatch):
    monkeypatch.setattr(module, "find_spec", lambda _: None)
    with pytest.raises(Invalid, match=r"pip install 'mangacache\[otel\]'"):
        open_tracing(Settings(traces_endpoint="http://127.0.0.1:4318"))
