"""Metrics of an instance's own, and logs for whoever wants them."""

from __future__ import annotations

import logging

import prometheus_client
import pytest
import structlog

from mangacache.telemetry import _BUCKETS_S, Telemetry, Times, logger


def test_each_instance_counts_in_a_registry_of_its_own():
    one, other = Telemetry(), Telemetry()
    one.requests.labels("PutItem").inc(3)
    assert one.value("mangacache_dynamodb_requests_total", operation="PutItem") == 3
    assert other.value("mangacache_dynamodb_requests_total", operation="PutItem") == 0
    assert [m.name for m in prometheus_client.REGISTRY.collect() if "mangacache" in m.name] == []


def test_a_registry_can_be_shown_as_prometheus_reads_it():
    telemetry = Telemetry()
    telemetry.contexts.labels("memory").inc()
    assert b'mangacache_contexts_total{source="memory"} 1.0' in prometheus_client.generate_latest(telemetry.registry)


def test_times_are_shown_as_prometheus_s_own_histogram_shows_them():
    seconds = [0.0, *_BUCKETS_S, *(1.001 * bound for bound in _BUCKETS_S), 11.0, 600.0]
    ours, theirs = prometheus_client.CollectorRegistry(), prometheus_client.CollectorRegistry()
    times = Times("a_call_seconds", "Time of a call.", "script", registry=ours)
    histogram = prometheus_client.Histogram(
        "a_call_seconds", "Time of a call.", ["script"], buckets=_BUCKETS_S, registry=theirs
    )
    for number, each in enumerate(seconds):
        times.observe(f"script {number % 2}", each)
        histogram.labels(f"script {number % 2}").observe(each)
    text = prometheus_client.generate_latest(theirs).decode().splitlines()
    assert prometheus_client.generate_latest(ours).decode().splitlines() == [
        line for line in text if "_created" not in line
    ]


def test_a_registry_refuses_a_second_metric_of_the_name_of_one_of_times():
    registry = prometheus_client.CollectorRegistry()
    Times("a_call_seconds", "Time of a call.", "script", registry=registry)
    with pytest.raises(ValueError, match="Duplicated"):
        prometheus_client.Histogram("a_call_seconds", "Time of a call.", registry=registry)


def test_what_was_never_counted_is_0():
    telemetry = Telemetry()
    assert telemetry.value("mangacache_survived_total", what="nothing") == 0
    assert telemetry.value("no_such_metric") == 0


def test_a_failure_that_is_survived_is_counted_and_logged_with_its_kind(caplog):
    telemetry = Telemetry()
    with caplog.at_level(logging.WARNING, logger="mangacache"):
        telemetry.count_survived("touch_failed", ValueError("no room"), table="t")
    assert telemetry.value("mangacache_survived_total", what="touch_failed") == 1
    (record,) = caplog.records
    assert (record.name, record.levelname, record.getMessage()) == ("mangacache", "WARNING", "touch_failed")
    assert (record.error, record.table) == ("ValueError: no room", "t")


def test_logs_go_through_the_standard_library_at_its_level_and_need_no_configuration(caplog):
    with caplog.at_level(logging.ERROR, logger="mangacache"):
        logger().warning("unheard")
        logger().error("heard", number=1)
    assert [record.getMessage() for record in caplog.records] == ["heard"]
    assert not structlog.is_configured()


def test_without_a_handler_nothing_is_printed(capfd):
    """The library brings a handler that does nothing: else the standard library's last resort would print warnings."""
    heard = logging.getLogger("mangacache")
    assert any(isinstance(handler, logging.NullHandler) for handler in heard.handlers)
    assert heard.level == logging.NOTSET
    assert heard.propagate
    root, handlers = logging.getLogger(), logging.getLogger().handlers[:]
    root.handlers.clear()
    try:
        logger().warning("quiet")
    finally:
        root.handlers.extend(handlers)
    assert capfd.readouterr() == ("", "")
