"""Metrics: their names follow Prometheus's conventions, each kind is there, and moves when the thing happens."""

from __future__ import annotations

import asyncio
import gc
import re
import threading
from contextlib import asynccontextmanager

import aiohttp
import pytest
from daxworlds import OLD_S, dax_world
from instances import Instances
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.parser import text_string_to_metric_families
from workers import eventually

from mangacache import Consistency, Settings
from mangacache.clock import SystemClock
from mangacache.store.dax import dax_transport
from mangacache.telemetry import Telemetry
from mangacache.worker.metrics import WorkerMetrics
from mangacache.worker.process import Worker

# promtool's `check metrics`, restated: https://prometheus.io/docs/practices/naming/
BASE_UNITS = {"seconds", "bytes", "ratio", "celsius", "meters", "grams", "joules", "volts", "amperes", "info"}
OTHER_UNITS = {
    *("second", "millisecond", "milliseconds", "microseconds", "nanoseconds", "minutes", "hours", "days"),
    *("byte", "kilobytes", "megabytes", "gigabytes", "kibibytes", "mebibytes", "bits", "percent", "percents"),
}
ABBREVIATIONS = {*("s", "ms", "us", "ns", "sec", "b", "kb", "mb", "gb", "tb", "kib", "mib", "m", "h", "d")}
TYPES = {"counter", "gauge", "histogram", "summary", "untyped"}
SNAKE = re.compile(r"[a-z][a-z0-9]*(?:_[a-z0-9]+)*")
FREE_PORTS = {"worker_port": 0, "operator_port": 0, "worker_notice_s": 0.0}


def complaints(family):
    """Return what is wrong with a family of metrics, by the conventions."""
    name = family.name + ("_total" if family.type == "counter" else "")
    words, wrong = name.split("_"), []
    if not family.documentation or not family.documentation.endswith("."):
        wrong.append("no help, or half a sentence")
    if not SNAKE.fullmatch(name):
        wrong.append("not snake_case")
    if OTHER_UNITS & set(words):
        wrong.append("not a base unit")
    if ABBREVIATIONS & set(words):
        wrong.append("a unit abbreviated")
    if TYPES & set(words):
        wrong.append("its type in its name")
    if family.type not in {"histogram", "summary"} and words[-1] in {"bucket", "count", "sum"}:
        wrong.append("an ending that is a histogram's")
    if family.type != "counter" and words[-1] == "total":
        wrong.append("an ending that is a counter's")
    if family.type == "histogram" and words[-1] not in BASE_UNITS:
        wrong.append("a histogram without a unit")
    if units := BASE_UNITS & set(words):
        unit = words[-2] if words[-1] == "total" else words[-1]
        if unit not in units:
            wrong.append("a unit that is not its suffix")
    if not all(SNAKE.fullmatch(label) for sample in family.samples for label in sample.labels):
        wrong.append("a label that is not snake_case")
    return wrong


@pytest.mark.parametrize(
    ("metric", "wrong"),
    [
        (Gauge("a_lag_ms", "Lag.", registry=None), "a unit abbreviated"),
        (Gauge("a_lag_milliseconds", "Lag.", registry=None), "not a base unit"),
        (Gauge("a_lagSeconds", "Lag.", registry=None), "not snake_case"),
        (Gauge("a_gauge", "Lag.", registry=None), "its type in its name"),
        (Gauge("a_request_count", "Lag.", registry=None), "an ending that is a histogram's"),
        (Gauge("a_request_total", "Lag.", registry=None), "an ending that is a counter's"),
        (Gauge("a_seconds_lag", "Lag.", registry=None), "a unit that is not its suffix"),
        (Gauge("a_lag", "", registry=None), "no help, or half a sentence"),
        (Histogram("a_request", "Lag.", registry=None), "a histogram without a unit"),
    ],
)
def test_what_breaks_a_convention_is_found(metric, wrong):
    assert complaints(next(iter(metric.collect()))) == [wrong]


def test_what_follows_them_is_left_alone():
    registry = CollectorRegistry()
    Counter("a_bytes_sent", "Bytes.", registry=None)
    Counter("a_sent_bytes", "Bytes.", registry=registry)
    Histogram("a_request_seconds", "Time.", registry=registry)
    assert [complaints(family) for family in registry.collect()] == [[], []]


@asynccontextmanager
async def _worker(instances, **changes):
    async with instances.cache(**changes) as cache:
        settings = instances.settings.replace(**(FREE_PORTS | changes))
        async with Worker.open(cache, settings, clock=SystemClock()) as worker:
            yield cache, worker


async def _shown(worker):
    """Return what Prometheus would read, by name."""
    async with aiohttp.ClientSession() as client, client.get(f"{worker.operator}/metrics") as response:
        assert response.status == 200
        assert response.content_type == "text/plain"
        text = await response.text()
    return {family.name: family for family in text_string_to_metric_families(text)}


def _value(shown, name, **labels):
    family = shown.get(name) or shown[name.removesuffix("_total").removesuffix("_count")]
    return sum(
        sample.value
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    )  # fmt: skip


async def test_every_name_follows_the_conventions_and_is_our_own_or_the_process_s(shared_valkey):
    async with Instances.open(shared_valkey) as instances, _worker(instances) as (cache, worker):
        await cache.session("s").append(role="user", content="hello")
        await cache.session("s").context()
        gc.collect()
        shown = await _shown(worker)
        families = [*cache.telemetry.registry.collect()]
    assert {family.name: complaints(family) for family in families if complaints(family)} == {}
    assert all(family.name.startswith(("mangacache_", "process_")) for family in families)
    assert len({family.name for family in families}) == len(families)
    assert {"process_resident_memory_bytes", "process_cpu_seconds", "process_open_fds"} <= shown.keys()


async def test_hits_misses_and_latencies_are_told_for_each_tier(shared_valkey):
    async with Instances.open(shared_valkey) as instances:
        fresh = {"near_max_age_s": 60.0}  # by notices, and not by how fast this machine is
        async with _worker(instances, **fresh) as (cache, worker), instances.cache(**fresh) as other:
            await cache.session("s").append(role="user", content="hello")
            await other.session("s").context()  # in neither: filled
            before = await _shown(worker)
            await cache.session("s").context()
            await other.session("s").append(role="user", content="more")
            await eventually(lambda: cache.telemetry.value("mangacache_context_cache_total", event="changed_elsewhere"))
            await cache.session("s").context()
            after = await _shown(worker)
            by_other = other.telemetry

        def moved(name, **labels):
            return _value(after, name, **labels) - _value(before, name, **labels)

        assert moved("mangacache_contexts_total", source="memory") == 1
        assert moved("mangacache_tier_misses_total", tier="memory") == 1
        assert moved("mangacache_tier_stale_refused_total", tier="memory") == 1
        assert moved("mangacache_contexts_total", source="redis") == 1
        assert moved("mangacache_redis_call_seconds_count", script="get") == 1
        assert by_other.value("mangacache_redis_call_seconds_count", script="commit") >= 1
        assert _value(after, "mangacache_dynamodb_request_seconds_count") >= 1


async def test_each_script_s_time_is_told_whichever_service_runs_it(shared_valkey):
    async with Instances.open(shared_valkey) as instances, instances.cache() as cache:
        await cache.session("s", customer_id="c").append(role="user", content="hello", rate_limit="messages")
        await cache.connections.connect("x", "s", customer_id="c")
        await cache.presence.heartbeat("c")
        await cache.trending.record("berserk-1")
        await cache.trending.top("hour")
        async with cache.locks.session("s"):
            pass
        telemetry = cache.telemetry
        services = ("rate_limit", "connection_put", "presence_seen", "trending_add", "trending_top", "lock_take")
        counted = {
            script: telemetry.value("mangacache_redis_call_seconds_count", script=script)
            for script in ("commit", *services)
        }
    assert {script for script, count in counted.items() if not count} == set()


async def test_a_session_that_redis_does_not_hold_is_a_miss_of_redis_and_read_in_dynamodb():
    async with Instances.open() as instances:
        async with instances.cache() as writer:
            await writer.session("s").append(role="user", content="hello")
        async with instances.cache(key_prefix="other:") as reader:
            await reader.session("s").context()
            assert reader.telemetry.value("mangacache_tier_misses_total", tier="redis") == 1
            assert reader.telemetry.value("mangacache_contexts_total", source="dynamodb") == 1


async def test_what_dax_answers_and_does_not_have_is_told():
    async with dax_world("threads", "") as world, world.worker() as writer, world.worker() as reader:
        await writer.say("line 1")
        reads = reader.cache._store.windows._reads
        assert await reads.turns("s", 1, range(1, 6)) != {}  # that the others are absent is kept
        await writer.say(*(f"line {number}" for number in range(2, 16)))
        telemetry = reader.cache.telemetry
        await reader.session().context(turns=32)
        assert telemetry.value("mangacache_tier_misses_total", tier="dax") == 1
        assert telemetry.value("mangacache_dax_request_seconds_count", operation="BatchGetItem") == 2

        await writer.say("line 16")
        reader.forget()
        old = Consistency.EVENTUAL(OLD_S)
        await reader.session().context(turns=32, consistency=old)  # DAX keeps the list now
        token = (await writer.say("line 17")).version
        reader.forget()
        context = await reader.session().context(turns=32, consistency=old, at_least=token)
        assert context.turns[-1].content == "line 17"
        assert telemetry.value("mangacache_tier_stale_refused_total", tier="dax") == 1


async def test_an_outage_of_redis_shows_in_its_breaker_and_its_end_as_a_reconnection(shared_valkey):
    async with Instances.open(shared_valkey) as instances, _worker(instances) as (cache, worker):
        await cache.session("s").append(role="user", content="hello")
        shown = await _shown(worker)
        assert _value(shown, "mangacache_breaker_state", service="redis", phase="closed") == 1
        assert _value(shown, "mangacache_redis_reconnections_total") == 0
        instances.cut()
        await cache.session("s").append(role="user", content="during the outage")
        shown = await _shown(worker)
        assert _value(shown, "mangacache_breaker_state", service="redis", phase="open") == 1
        assert _value(shown, "mangacache_redis_up") == 0
        instances.mend()
        await eventually(lambda: cache.telemetry.value("mangacache_redis_up"))
        shown = await _shown(worker)
        assert _value(shown, "mangacache_redis_reconnections_total") >= 1
        assert _value(shown, "mangacache_breaker_state", service="dynamodb", phase="closed") == 1


async def test_evictions_queues_the_loop_and_the_collector_are_told():
    async with Instances.open() as instances, _worker(instances, memory_sessions=2) as (cache, worker):
        for number in range(5):
            await cache.session(f"s-{number}").append(role="user", content="hello")
        gc.collect()
        shown = await _shown(worker)
        assert _value(shown, "mangacache_sessions_evicted_total", reason="number") >= 1
        assert _value(shown, "mangacache_gc_pause_seconds_count", generation="2") >= 1
        queues = {sample.labels["queue"] for sample in shown["mangacache_queue_depth"].samples}
        assert {"mailboxes", "intake"} <= queues
        assert {"mangacache_loop_lag_seconds", "mangacache_loop_lag_worst_seconds"} <= shown.keys()


async def test_the_pipeline_to_redis_is_a_queue_that_is_told(shared_valkey):
    async with Instances.open(shared_valkey) as instances, instances.cache() as cache:
        await cache.session("s").append(role="user", content="hello")
        instances.proxy.stall()
        telemetry = cache.telemetry
        asked = [cache.presence.count() for _ in range(3)]
        under_way = [asyncio.ensure_future(each) for each in asked]
        await eventually(lambda: telemetry.value("mangacache_queue_depth", queue="redis_pipeline") >= 3)
        instances.proxy.restore()
        await asyncio.gather(*under_way, return_exceptions=True)
        await eventually(lambda: telemetry.value("mangacache_queue_depth", queue="redis_pipeline") == 0)


async def test_the_calls_that_wait_for_a_thread_to_dax_are_a_queue_that_is_told():
    telemetry, goes_on = Telemetry(), threading.Event()
    settings = Settings(dax_threads=1, dax_timeout_s=10.0)
    transport = dax_transport(object, settings, clock=SystemClock(), telemetry=telemetry)
    calls = [asyncio.ensure_future(transport._threads.run(goes_on.wait)) for _ in range(3)]
    await eventually(lambda: telemetry.value("mangacache_queue_depth", queue="dax_threads") == 3)
    goes_on.set()
    await asyncio.gather(*calls)
    assert telemetry.value("mangacache_queue_depth", queue="dax_threads") == 0
    await transport._threads.close()


async def test_a_request_is_measured_by_the_pattern_of_its_path():
    async with Instances.open() as instances, _worker(instances) as (_, worker), aiohttp.ClientSession() as client:
        async with client.get(f"{worker.public}/healthz") as response:
            assert response.status == 200
        async with client.get(f"{worker.public}/v0/customers/alice-1/sessions") as response:
            assert response.status == 404
        shown = await _shown(worker)
        name = "mangacache_http_request_seconds_count"
        assert _value(shown, name, route="/healthz", method="GET", status="200") == 1
        assert _value(shown, name, route="none", method="GET", status="404") == 1
        assert not any("alice" in str(family.samples) for family in shown.values())


async def test_the_hit_ratio_rings_in_the_log_as_a_metric_and_in_the_details_and_comes_back(caplog):
    changes = {"hit_ratio_reads": 10, "hit_ratio_window_s": 3600.0}
    async with Instances.open(redis=False) as instances:
        async with instances.cache() as writer:
            for number in range(30):
                await writer.session(f"s-{number}").append(role="user", content="hello")
        with caplog.at_level("INFO", logger="mangacache"):
            async with _worker(instances, **changes) as (cache, worker), aiohttp.ClientSession() as client:

                async def details():
                    async with client.get(f"{worker.operator}/readyz") as response:
                        return response.status, await response.json()

                for number in range(30):
                    await cache.session(f"s-{number}").context()
                status, told = await details()
                assert (status, told["status"], told["reasons"]) == (200, "degraded", ["hit ratio low"])
                assert told["hit_ratio"]["low"]
                async with client.get(f"{worker.public}/readyz") as response:
                    assert (response.status, await response.json()) == (200, {"status": "degraded"})
                shown = await _shown(worker)
                assert _value(shown, "mangacache_hits_low") == 1
                assert _value(shown, "mangacache_hits_low_alarms_total") == 1
                assert _value(shown, "mangacache_hit_ratio") < 0.5

                async def back():
                    for number in range(30):
                        await cache.session(f"s-{number}").context(consistency=Consistency.EVENTUAL(60))
                    return (await details())[1]["status"] == "ready"

                await eventually(back)
    said = [record.getMessage() for record in caplog.records]
    assert said.count("hit_ratio_low") == said.count("hit_ratio_back") == 1


async def test_the_collectors_pauses_are_counted_outside_of_the_collector():
    """The collector may cut in where a metric's lock is held; whoever takes that lock in it waits for ever."""
    async with Instances.open() as instances, instances.cache() as cache:
        metrics = WorkerMetrics(cache, clock=SystemClock())
        with metrics.pauses(), metrics._pauses._lock:
            gc.collect()
        assert cache.telemetry.value("mangacache_gc_pause_seconds_count", generation="2") == 0
        metrics.refresh()
        assert cache.telemetry.value("mangacache_gc_pause_seconds_count", generation="2") == 1
