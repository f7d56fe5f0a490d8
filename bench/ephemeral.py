"""The ephemeral services: how many a second, how long, how many round trips, how many bytes; and at scale.

Each call of each service on a local Valkey, by one process; the rate limiter beside the library `limits`, the lock
beside redis-py's. Then presence with 100,000 customers and trending titles with 1,000,000 events: the memory they
take, and how long the server is busy with each script.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import sys
from contextlib import AsyncExitStack
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final

import msgspec
from _common import (
    BENCH,
    environment,
    interleave,
    median,
    options,
    paired_ratios,
    percentile,
    print_table,
    warn_if_busy,
)
from _main import report
from _processes import client_process
from _servers import RedisMeter, open_servers
from redis.asyncio import Redis

from mangacache.ephemeral import scripts
from mangacache.redis import Script

if TYPE_CHECKING:
    import argparse
    from collections.abc import Awaitable, Callable, Mapping

    from _processes import ClientProcess

    from mangacache.local import LocalStack

GROUPS: Final[Mapping[str, tuple[tuple[str, str], ...]]] = {
    "connections": (
        ("ours", "connections.connect"),
        ("ours", "connections.refresh"),
        ("ours", "connections.of_session"),
        ("ours", "connections.disconnect"),
    ),
    "rate limits": (
        ("ours", "rate_limits.check"),
        ("ours", "rate_limits.check, refused"),
        ("peers", "limits, moving window"),
        ("peers", "limits, sliding counter"),
    ),
    "presence": (
        ("ours", "presence.heartbeat"),
        ("ours", "presence.is_online"),
        ("ours", "presence.count"),
        ("ours", "presence.page"),
    ),
    "trending": (("ours", "trending.record"), ("ours", "trending.top")),
    "locks": (("ours", "locks.session"), ("peers", "redis-py's Lock")),
    "events": (("ours", "events.append"), ("ours", "events.append_and_hear")),
}
"""What is measured side by side: (process, call)."""
RATIOS: Final = {
    "limiter_to_limits_moving_window": ("rate limits", "rate_limits.check", "limits, moving window"),
    "lock_to_redis_py_lock": ("locks", "locks.session", "redis-py's Lock"),
}
BYTES: Final = {
    "connection": "mc:conn:{connection-full}",
    "connection, in its session's list": "mc:session_conn:{session-full}",
    "connection, in its customer's list": "mc:customer_conn:{customer-full}",
    "rate limit, 60 in 60 s": "mc:rate:{customer-full}*",
    "lock, held": "*session-held*",
    "limits, moving window": "LIMITS:LIMITER/customer-full/*/minute",
    "limits, sliding counter": "LIMITS:{LIMITER/customer-full/*",
    "redis-py's Lock, held": "held",
}
IN_FLIGHT: Final = (1, 50)
_TRIPS: Final = 200
_BUSY_US: Final = 5000
_SAMPLES: Final = 200


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """How much is measured: rounds, the seconds of one; customers and events at scale."""

    rounds: int
    round_s: float
    customers: int
    events: int

    @classmethod
    def of(cls, given: argparse.Namespace) -> Plan:
        """Return the plan that the options amount to."""
        rounds, round_s, customers, events = (1, 0.15, 5_000, 5_000) if given.quick else (3, 1.0, 100_000, 1_000_000)
        return cls(
            rounds=given.rounds or rounds,
            round_s=given.round_s or round_s,
            customers=given.customers or customers,
            events=given.events or events,
        )


def main() -> int:
    """Measure, print, write."""
    parser = options(str(__doc__).split("\n", maxsplit=1)[0])
    parser.add_argument("--rounds", type=int, metavar="N", help="rounds (3; with --quick 1)")
    parser.add_argument("--round-s", type=float, metavar="S", help="seconds a round (1; with --quick 0.15)")
    parser.add_argument("--customers", type=int, metavar="N", help="presence at scale (100,000; with --quick 5,000)")
    parser.add_argument("--events", type=int, metavar="N", help="trending at scale (1,000,000; with --quick 5,000)")
    given = parser.parse_args()
    return report(_bench(given, Plan.of(given)), given, show=_print)


async def _bench(given: argparse.Namespace, plan: Plan) -> dict[str, Any]:
    warn_if_busy()
    async with open_servers(given.engine) as stack, AsyncExitStack() as opened:
        variables = stack.environment()
        url = variables["REDIS_ENDPOINT"]
        meter = await opened.enter_async_context(RedisMeter.open(url))
        redis = await opened.enter_async_context(Redis.from_url(url, decode_responses=True))
        found = environment(stack, loop=given.loop)
        clients = {
            side: await opened.enter_async_context(
                client_process(
                    side, BENCH / "_ephemeral_client.py", {"url": url, "loop": given.loop}, variables=variables
                )
            )
            for side in ("ours", "peers")
        }
        services = {group: await _group(clients, meter, calls, plan) for group, calls in GROUPS.items()}
        for client in clients.values():
            await client.ask("leave_keys")
        sizes = {what: await _bytes(redis, pattern) for what, pattern in BYTES.items()}
        return {
            "bench": "ephemeral",
            "services": services,
            "ratio_ops_per_s": {name: _ratio(services[group], *sides) for name, (group, *sides) in RATIOS.items()},
            "bytes_per_key": sizes,
            "scale": await _scale(clients["ours"], redis, stack, plan),
            "load": {**msgspec.structs.asdict(plan), "in_flight": IN_FLIGHT},
            "environment": found,
        }


# Each call


async def _group(
    clients: Mapping[str, ClientProcess], meter: RedisMeter, calls: tuple[tuple[str, str], ...], plan: Plan
) -> dict[str, Any]:
    """Measure calls in turn: each with one caller and with many, then the round trips of each."""
    if any(call.startswith("events.") for _, call in calls):
        await clients["ours"].ask("listen")
    figures: dict[str, Any] = {}
    for in_flight in IN_FLIGHT:
        for side, call in calls:
            await clients[side].ask("repeat", what=call, times=2 * max(IN_FLIGHT), in_flight=max(IN_FLIGHT))
        for client in clients.values():
            await client.ask("again")
            await client.ask("settle")
        sides = {call: _round(clients[side], call, in_flight, plan) for side, call in calls}
        for call, rounds in (await interleave(plan.rounds, sides)).items():
            figures.setdefault(call, {})[str(in_flight)] = _of_call(rounds)
    for client in clients.values():
        await client.ask("again")
    for side, call in calls:
        figures[call]["round_trips"] = await _round_trips(clients[side], meter, call)
    return figures


def _round(client: ClientProcess, call: str, in_flight: int, plan: Plan) -> Callable[[], Awaitable[dict[str, Any]]]:
    async def measure() -> dict[str, Any]:
        result: dict[str, Any] = await client.ask("measure", what=call, in_flight=in_flight, seconds=plan.round_s)
        return result

    return measure


def _of_call(rounds: list[dict[str, Any]]) -> dict[str, Any]:
    took_ms = [took for each in rounds for took in each["took_ms"]]
    calls = sum(each["calls"] for each in rounds)
    rates = [round(each["calls"] / each["elapsed_s"]) for each in rounds]
    return {
        "ops_per_s": median(rates),
        "rounds_ops_per_s": rates,
        "p50_ms": round(percentile(took_ms, 0.50), 3),
        "p99_ms": round(percentile(took_ms, 0.99), 3),
        "cpu_us_per_op": round(1e6 * sum(each["cpu_s"] for each in rounds) / calls, 1),
    }


async def _round_trips(client: ClientProcess, meter: RedisMeter, call: str) -> float:
    """Return how often the server was read from for one call, by one caller; by the server's books."""
    await client.ask("repeat", what=call, times=1)
    await meter.start()
    await client.ask("repeat", what=call, times=_TRIPS)
    return round((await meter.stop())["round_trips"] / _TRIPS, 2)


def _ratio(group: Mapping[str, Any], ours: str, other: str) -> dict[str, float]:
    return {
        in_flight: median(
            paired_ratios(group[ours][in_flight]["rounds_ops_per_s"], group[other][in_flight]["rounds_ops_per_s"])
        )
        for in_flight in map(str, IN_FLIGHT)
    }


async def _bytes(redis: Redis, pattern: str) -> int | None:
    """Return what the server says that the keys of a pattern take."""
    found = [key async for key in redis.scan_iter(match=pattern.replace("{", "[{]"), count=10_000)]
    return sum([await redis.memory_usage(key, samples=0) or 0 for key in found]) if found else None


# At scale


async def _scale(client: ClientProcess, redis: Redis, stack: LocalStack, plan: Plan) -> dict[str, Any]:
    await client.ask("close")
    await redis.flushall()
    if stack.valkey is not None:
        _put_first(stack.valkey.pid)
    await client.ask("again")
    presence = await _loaded(client, redis, "presence.heartbeat", plan.customers)
    presence["bytes_per_customer"] = round(await _total(redis, "mc:online:*") / plan.customers, 1)
    looks = ("presence.heartbeat", "presence.is_online", "presence.count", "presence.page")
    presence["server_us"] = await _server_us(client, redis, looks)
    presence["server_cpu_us"] = await _server_cpu_us(client, redis, looks)
    trending = await _loaded(client, redis, "trending.record", plan.events)
    trending["bytes"] = await _total(redis, "mc:trending:*")
    trending["keys"] = len([key async for key in redis.scan_iter(match="mc:trending:*", count=10_000)])
    counts = ("trending.record", "trending.top")
    trending["server_us"] = await _server_us(client, redis, counts)
    trending["server_cpu_us"] = await _server_cpu_us(client, redis, counts)
    return {"presence": {"customers": plan.customers, **presence}, "trending": {"events": plan.events, **trending}}


def _put_first(pid: int) -> None:
    """Have the server preempted as little as may be: the time that its log gives a script includes that."""
    try:
        os.setpriority(os.PRIO_PROCESS, pid, -20)
    except OSError:
        print("note: the server cannot be put first: its log includes what others took from it", file=sys.stderr)


async def _loaded(client: ClientProcess, redis: Redis, call: str, times: int) -> dict[str, Any]:
    """Call so often, and say how often the server was busy for more than 5 ms with one script."""
    await redis.config_set("slowlog-log-slower-than", _BUSY_US)
    await redis.slowlog_reset()
    spent_us = await _cpu_us(redis)
    await client.ask("repeat", what=call, times=times, in_flight=max(IN_FLIGHT))
    spent_us = await _cpu_us(redis) - spent_us
    return {
        "over_5_ms_while_loading": await redis.slowlog_len(),
        "server_cpu_us_per_call_while_loading": round(spent_us / times, 1),
    }


async def _server_us(client: ClientProcess, redis: Redis, calls: tuple[str, ...]) -> dict[str, Any]:
    """Return how long each script of some calls took the server, by its own log."""
    names = {script.sha: script.name for script in vars(scripts).values() if isinstance(script, Script)}
    await redis.config_set("slowlog-max-len", 100_000)
    await redis.config_set("slowlog-log-slower-than", 0)
    took: dict[str, list[int]] = {}
    for call in calls:
        await redis.slowlog_reset()
        await client.ask("repeat", what=call, times=_SAMPLES)
        for entry in await redis.slowlog_get(100_000):
            words = str(entry["command"], "utf-8", "replace").split()
            if words[0].upper() == "EVALSHA" and words[1] in names:
                took.setdefault(f"{call}: {names[words[1]]}", []).append(entry["duration"])
    await redis.config_set("slowlog-log-slower-than", _BUSY_US)
    return {
        name: {
            "scripts": len(each),
            "median": statistics.median(each),
            "p99": percentile(each, 0.99),
            "max": max(each),
        }
        for name, each in took.items()
    }


async def _server_cpu_us(client: ClientProcess, redis: Redis, calls: tuple[str, ...]) -> dict[str, Any]:
    """Return how much of the processor each call took the server, all of its scripts together.

    The log's times include what other processes took from the server meanwhile; these do not.
    """
    await redis.config_set("slowlog-log-slower-than", -1)
    looks = [await _cpu_us(redis) for _ in range(_SAMPLES)]
    look_us = statistics.median(after - before for before, after in pairwise(looks))
    took: dict[str, Any] = {}
    for call in calls:
        spent_us = []
        for _ in range(_SAMPLES):
            before_us = await _cpu_us(redis)
            await client.ask("repeat", what=call, times=1)
            spent_us.append(max(0.0, await _cpu_us(redis) - before_us - look_us))
        took[call] = {"median": round(statistics.median(spent_us)), "max": round(max(spent_us))}
    return took


async def _cpu_us(redis: Redis) -> float:
    spent = await redis.info("cpu")
    return 1e6 * (spent["used_cpu_user_main_thread"] + spent["used_cpu_sys_main_thread"])


async def _total(redis: Redis, pattern: str) -> int:
    keys = [key async for key in redis.scan_iter(match=pattern, count=10_000)]
    return sum(await asyncio.gather(*(redis.memory_usage(key, samples=0) for key in keys)))


def _print(figures: dict[str, Any]) -> None:
    columns = ("ops/s", "p50 ms", "p99 ms", "ops/s x50", "p99 ms x50", "CPU us x50", "trips")
    for group, calls in figures["services"].items():
        lines = []
        for call, found in calls.items():
            one, many = (found[str(in_flight)] for in_flight in IN_FLIGHT)
            shown = [one["ops_per_s"], one["p50_ms"], one["p99_ms"]]
            shown += [many["ops_per_s"], many["p99_ms"], many["cpu_us_per_op"], found["round_trips"]]
            lines.append((call, shown))
        print_table(group, columns, lines)
    print_table("bytes a key", ("bytes",), [(what, [size]) for what, size in figures["bytes_per_key"].items()])
    for what, found in figures["scale"].items():
        rows = [(name, [each["median"], each["p99"], each["max"]]) for name, each in found["server_us"].items()]
        print_table(f"{what} at scale, at the server", ("median us", "p99 us", "max us"), rows)
        rows = [(name, [each["median"], each["max"]]) for name, each in found["server_cpu_us"].items()]
        print_table(f"{what} at scale, processor of the server a call", ("median us", "max us"), rows)
        print(", ".join(f"{name} {value:,}" for name, value in found.items() if not isinstance(value, dict)))
    for name, by_in_flight in figures["ratio_ops_per_s"].items():
        print(f"{name}: {by_in_flight}")


if __name__ == "__main__":
    sys.exit(main())
