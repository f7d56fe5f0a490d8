"""The benches start their own servers, measure both peers on them, and write figures under fixed names."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sys
from pathlib import Path

import pytest

BENCH = Path(__file__).parents[2] / "bench"
HANG_GUARD_S = 120


async def _run(script, *arguments):
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(BENCH / script),
        *arguments,
        env=os.environ | {"PYTHONWARNINGS": "default"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(HANG_GUARD_S):
            printed, said = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return process.returncode, printed.decode(), said.decode()


async def test_the_chat_bench_measures_ours_beside_plain_cache_aside_and_reads_back_what_was_said(tmp_path):
    out = tmp_path / "chat.json"
    bounds = ("--sessions", "24", "--in-flight", "8", "--rounds", "1", "--round-s", "0.4", "--transport", "aioboto3")
    status, printed, said = await _run("chat.py", "--quick", "--json", str(out), "--profile", *bounds)
    assert status == 0, said
    figures = json.loads(out.read_text(encoding="utf-8"))
    assert "plain cache-aside" in printed
    assert figures["ratio_messages_per_s"] > 0
    assert figures["load"]["memory_sessions"] == 2
    assert {"commit", "python", "loop", "cores", "packages", "dynamodb", "redis"} <= figures["environment"].keys()
    assert "mangacache" in figures["profile"]["percent"]
    assert figures["load"]["transport"] == "aioboto3"
    assert figures["profile"]["percent"]["botocore, aiobotocore"] > 10
    for peer in ("ours", "baseline"):
        measured = figures[peer]
        assert measured["messages"] > 0
        assert measured["messages_per_s"] > 0
        assert measured["wrong_reads"] == 0
        assert measured["cpu_ms_per_message"] > 0
        assert measured["latency_ms"]["p99"] >= measured["latency_ms"]["p50"] > 0
        assert measured["open_loop"]["messages"] > 0
        assert measured["open_loop"]["unserved"] == 0
        assert measured["open_loop"]["latency_ms"]["p50"] > 0
    _check_what_the_pattern_costs(figures["baseline"])


def _check_what_the_pattern_costs(baseline):
    """Plain cache-aside pays three reads a message and a DEL a write, by the client's count and by Redis's own."""
    assert baseline["dynamodb_per_message"]["GetItem"] == 1
    assert baseline["dynamodb_per_message"]["Query"] == 2
    calls = baseline["redis_per_message"]["calls"]
    assert calls["get"] == calls["set"] == 1
    assert calls["del"] == baseline["dynamodb_per_message"]["PutItem"]
    assert baseline["redis_per_message"]["round_trips"] == pytest.approx(sum(calls.values()), rel=0.02)


async def test_a_file_of_chats_that_is_none_ends_the_bench_with_a_message_and_no_servers(tmp_path):
    broken = tmp_path / "chats.jsonl"
    broken.write_text('{"session_id": "s"}\n', encoding="utf-8")
    status, _, said = await _run("chat.py", "--quick", "--chats", str(broken))
    assert status == 2
    assert "line 1" in said
    assert "Traceback" not in said


async def test_the_redis_link_bench_measures_commands_beside_redis_py_and_the_server(tmp_path):
    out = tmp_path / "redis_link.json"
    status, printed, said = await _run(
        "redis_link.py", "--quick", "--rounds", "1", "--round-s", "0.1", "--json", str(out)
    )
    assert status == 0, said
    assert "GET of a context" in printed
    figures = json.loads(out.read_text(encoding="utf-8"))
    sides = {"ours", "redis_py", "redis_py_pipeline"}
    if shutil.which("redis-benchmark"):
        sides |= {"limit_c1_p50", "limit_c50_p32"}
    else:
        assert "redis-benchmark is not on PATH" in said
    for what in ("get_4k", "set_4k", "get_16k", "evalsha"):
        assert figures[what].keys() == sides
        assert min(figures[what].values()) > 0
    assert figures["cpu_us_per_get"] > 0
    for what in ("same", "whole"):
        for in_flight in ("1", "8", "50"):
            measured = figures["evalsha_get"][what][in_flight]
            assert measured["cpu_redis_py_to_ours"] > 0
            for side in ("ours", "redis_py"):
                assert measured[side]["calls_per_s"] > 0
                assert measured[side]["cpu_us_per_call"] > 0


async def test_the_invalidation_bench_measures_delay_cost_and_memory(tmp_path):
    out = tmp_path / "invalidation.json"
    status, printed, said = await _run("invalidation.py", "--quick", "--json", str(out))
    assert status == 0, said
    assert "the server's memory" in printed
    figures = json.loads(out.read_text(encoding="utf-8"))
    for way in ("tracking", "pubsub"):
        assert 0 < figures["delay_ms"][way]["p50"] <= figures["delay_ms"][way]["p99"]
        assert figures["server_bytes_a_key"][way] > 0
    assert [figures["message"][way]["notices"] for way in ("neither", "tracking", "pubsub")] == [0, 0, 2]


async def test_the_dynamodb_bench_measures_each_way_on_both_servers(tmp_path):
    out = tmp_path / "dynamodb.json"
    bounds = ("--in-flight", "8", "--rounds", "1", "--round-s", "0.1")
    status, printed, said = await _run("dynamodb.py", "--quick", "--json", str(out), *bounds)
    assert status == 0, said
    assert "boto3 in threads" in printed
    figures = json.loads(out.read_text(encoding="utf-8"))
    assert ("aiodynamo is left out" in said) == ("aiodynamo" not in figures["load"]["peers"])
    assert {"direct", "aioboto3", "boto3"} <= set(figures["load"]["peers"])
    for operations in figures["servers"].values():
        assert operations.keys() == {"PutItem", "GetItem", "Query"}
        for sides in operations.values():
            assert list(sides) == figures["load"]["peers"]
            for measured in sides.values():
                assert measured["operations"] > 0
                assert measured["cpu_ms_per_operation"] > 0
                assert measured["latency_ms"]["p99"] >= measured["latency_ms"]["p50"] > 0
    assert figures["cpu_ratio_to_aioboto3"].keys() == figures["servers"].keys() == {"engine", "canned"}


async def test_the_dax_bench_measures_the_adapter_beside_the_bare_client_and_dynamodb(tmp_path):
    out = tmp_path / "dax.json"
    status, printed, said = await _run("dax.py", "--quick", "--rounds", "1", "--round-s", "0.1", "--json", str(out))
    assert status == 0, said
    assert "adapter to executor" in printed
    figures = json.loads(out.read_text(encoding="utf-8"))
    for way in ("adapter", "executor", "threads", "dynamodb"):
        for in_flight in ("1", "4", "16", "64"):
            assert figures["gets_per_s"][way][in_flight] > 0
            assert figures["cpu_us"]["get"][way][in_flight] > 0
    assert figures["adapter_to_executor_16"] > 0
    assert {way: lag.keys() for way, lag in figures["loop_lag_ms"].items()} == {"adapter": {"p99"}, "executor": {"p99"}}


async def test_the_ephemeral_bench_measures_each_service_and_its_peers(tmp_path):
    out = tmp_path / "ephemeral.json"
    bounds = ("--rounds", "1", "--round-s", "0.05", "--customers", "300", "--events", "300")
    status, printed, said = await _run("ephemeral.py", "--quick", "--json", str(out), *bounds)
    assert status == 0, said
    assert "redis-py's Lock" in printed
    figures = json.loads(out.read_text(encoding="utf-8"))
    services = figures["services"]
    assert services.keys() == {"connections", "rate limits", "presence", "trending", "locks", "events"}
    for calls in services.values():
        for measured in calls.values():
            assert measured["round_trips"] > 0
            for in_flight in ("1", "50"):
                assert measured[in_flight]["ops_per_s"] > 0
                assert measured[in_flight]["p99_ms"] >= measured[in_flight]["p50_ms"] > 0
    assert services["rate limits"].keys() >= {"rate_limits.check", "limits, moving window"}
    assert 0 < figures["bytes_per_key"]["rate limit, 60 in 60 s"] <= 310
    assert all(figures["bytes_per_key"].values())
    assert figures["scale"]["presence"]["customers"] == figures["scale"]["trending"]["events"] == 300
    for scale in figures["scale"].values():
        assert all(taken["max"] >= taken["median"] >= 0 for taken in scale["server_us"].values())


async def test_the_lock_bench_hands_locks_on_beside_redis_py(tmp_path):
    out = tmp_path / "locks.json"
    status, printed, said = await _run("locks.py", "--quick", "--seconds", "0.5", "--json", str(out))
    assert status == 0, said
    assert "passed in line" in printed
    figures = json.loads(out.read_text(encoding="utf-8"))
    for waiting in ("2 want a lock", "16 want a lock"):
        for side in ("ours", "redis_py"):
            assert figures[waiting][side]["holds"] > 0
            assert figures[waiting][side]["hand_over_ms"]["p50"] > 0


async def test_the_actors_bench_measures_actors_beside_their_peers_and_loses_no_acknowledged_write(tmp_path):
    out = tmp_path / "actors.json"
    status, printed, said = await _run("actors.py", "--quick", "--json", str(out))
    assert status == 0, said
    assert "task_queue" in printed
    figures = json.loads(out.read_text(encoding="utf-8"))
    assert 0 < figures["idle_bytes"] <= 200
    for key in ("resident_mib_1m", "turns_per_s", "calls_ratio_to_task_queue", "tick_ms_1m"):
        assert figures[key] > 0
    assert figures["hot_read_us"]["p99"] >= figures["hot_read_us"]["p50"] > 0
    assert figures["loop_lag_ms"]["p999"] >= figures["loop_lag_ms"]["p50"] >= 0
    assert figures["gc_pause_ms_max"] >= 0
    assert figures["peers"]["task_queue"]["idle_bytes"] > figures["idle_bytes"]
    assert "xoscar" in figures["peers"] or "xoscar" in figures["left_out"][0]
    assert figures["steady"]["50"]["failed"] == {}
    shutdown = figures["shutdown"]
    assert shutdown["acknowledged_lost"] == 0
    assert sum(shutdown["answers"].values()) == shutdown["in_flight"]


async def test_the_tracing_bench_measures_the_ways_beside_each_other(tmp_path):
    out = tmp_path / "tracing.json"
    status, _, said = await _run("tracing.py", "--quick", "--json", str(out))
    assert status == 0, said
    figures = json.loads(out.read_text(encoding="utf-8"))
    assert figures["cpu_us_per_message"].keys() == {"off", "not_traced", "traced"}
    assert all(value > 0 for value in figures["cpu_us_per_message"].values())
    assert figures["ratio_traced_to_off"] > 0


async def test_the_worker_bench_measures_both_doors_beside_the_embedded_library(tmp_path):
    out = tmp_path / "worker.json"
    bounds = ("--clients", "1", "4", "--rounds", "1", "--round-s", "0.4")
    status, printed, said = await _run("worker.py", "--quick", "--json", str(out), *bounds)
    assert status == 0, said
    assert "CPU of the door, ms a message" in printed
    figures = json.loads(out.read_text(encoding="utf-8"))
    assert figures["clients"].keys() == {"1", "4"}
    for sides in figures["clients"].values():
        assert list(sides) == ["embedded", "http", "websocket"]
        for side in sides.values():
            assert side["messages"] > 0
            assert side["wrong_reads"] == 0
            assert side["latency_ms"]["p99"] >= side["latency_ms"]["p50"] > 0
            assert side["cpu_ms_per_message"]["client"] > 0
        assert sides["embedded"]["cpu_ms_per_message"]["worker"] == 0


async def test_the_worker_bench_measures_a_crowd(tmp_path):
    out = tmp_path / "crowd.json"
    bounds = ("--open-sessions", "40", "--sockets", "8", "--per-s", "20", "--round-s", "1")
    status, printed, said = await _run("worker.py", "--quick", "--json", str(out), *bounds)
    assert status == 0, said
    assert "the worker's memory" in printed
    figures = json.loads(out.read_text(encoding="utf-8"))
    assert (figures["sessions"]["sessions"], figures["sockets"]["sockets"]) == (40, 8)
    assert figures["worker_resident_mib"]["with_sockets"] > 0
    assert figures["per_s"]["20"]["failed"] == 0
    assert figures["per_s"]["20"]["messages"] > 0
