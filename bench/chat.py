"""The chat pattern, ours beside plain cache-aside: messages a second, latency, CPU and requests a message.

A message reads the context of 20 turns (SESSION, with the client's token), appends the user's turn, appends the reply.
Both peers run on the same servers in the same run, a process each, in turn. What is measured how, and why it is
fair, stands in docs/benchmarks.md.
"""

from __future__ import annotations

import asyncio
import itertools
import sys
import time
from collections import Counter
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
from _common import (
    BENCH,
    environment,
    interleave,
    latencies_ms,
    median,
    options,
    paired_ratios,
    print_table,
    warn_if_busy,
)
from _main import report
from _processes import ClientProcess, client_process
from _servers import CpuMeter, RedisMeter, open_servers

from mangacache import Settings
from mangacache.replay import SAMPLE, read_conversations

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Sequence

    from mangacache.local import LocalStack

PEERS = ("ours", "baseline")
LEAST_SESSIONS = 256
SESSIONS_A_MESSAGE = (
    10  # so that the memory tier, a tenth of them, holds at least the sessions with a message under way
)
QUICK_SESSIONS = 640
QUICK_WITHIN_S = 36.0  # of the 40 promised: the rest is for closing
SHORTEST_ROUND_S = 0.5
READS = ("GetItem", "Query", "BatchGetItem")


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """How much is measured.

    Attributes:
        warm_up_s: each session speaks once before the measurement, or as many as can in so many seconds.
        rounds, round_s: pairs of closed-loop rounds, and the seconds of one.
        open_rounds, open_s: the same in the open loop.
        rate: messages a second that arrive in it; None takes half of what the baseline managed; 0 leaves it out.
    """

    in_flight: int
    sessions: int
    memory_sessions: int
    warm_up_s: float
    rounds: int
    round_s: float
    open_rounds: int
    open_s: float
    rate: float | None
    seed: int

    @classmethod
    def of(cls, given: argparse.Namespace) -> Plan:
        """Return the plan that the options amount to."""
        sessions = given.sessions or max(LEAST_SESSIONS, SESSIONS_A_MESSAGE * given.in_flight)
        if given.quick and not given.sessions:
            sessions = max(min(sessions, QUICK_SESSIONS), given.in_flight)
        if not 1 <= given.in_flight <= sessions:
            raise SystemExit("--in-flight takes at least 1, and --sessions at least as many")
        return cls(
            in_flight=given.in_flight,
            sessions=sessions,
            memory_sessions=sessions // 10,
            warm_up_s=2.0 if given.quick else 30.0,
            rounds=given.rounds or (3 if given.quick else 5),
            round_s=given.round_s or (2.0 if given.quick else 5.0),
            open_rounds=min(given.rounds or 3, 2 if given.quick else 3),
            open_s=given.round_s or (2.0 if given.quick else 5.0),
            rate=given.rate,
            seed=given.seed,
        )

    def within(self, seconds: float, *, besides: int) -> Plan:
        """Return a plan whose rounds, and `besides` more of them, end in time, where a busy machine made it late."""
        rounds_s = len(PEERS) * (self.rounds * self.round_s + self.open_rounds * self.open_s) + besides * self.round_s
        share = min(1.0, seconds / rounds_s)
        return msgspec.structs.replace(
            self,
            round_s=max(SHORTEST_ROUND_S, round(share * self.round_s, 2)),
            open_s=max(SHORTEST_ROUND_S, round(share * self.open_s, 2)),
        )


class Peer:
    """One of the two, as it is measured: each round with the servers' own counts beside the client's."""

    def __init__(self, client: ClientProcess, redis: RedisMeter, cpu: CpuMeter) -> None:
        self._client = client
        self._redis = redis
        self._cpu = cpu

    async def prepare(self, plan: Plan) -> None:
        """Store what the open chats have said before, then let each session speak once."""
        await self._client.ask("prepare")
        await self._client.ask("closed", in_flight=plan.in_flight, messages=plan.sessions, seconds=plan.warm_up_s)

    async def measure(self, command: str, **arguments: Any) -> dict[str, Any]:
        """Run one round."""
        await self._redis.start()
        self._cpu.start()
        result: dict[str, Any] = await self._client.ask(command, **arguments)
        result["server_cpu_s"] = self._cpu.stop()
        result["redis"] = await self._redis.stop()
        return result

    async def profile(self, plan: Plan) -> dict[str, Any]:
        """Run one round under the profiler."""
        result: dict[str, Any] = await self._client.ask("profile", in_flight=plan.in_flight, seconds=plan.round_s)
        return result

    async def idle_cpu(self, seconds: float) -> float:
        """Return the share of a core that the process takes while nothing is asked of it."""
        before: float = await self._client.ask("cpu_s")
        await asyncio.sleep(seconds)
        after: float = await self._client.ask("cpu_s")
        return round((after - before) / seconds, 4)


def main() -> int:
    """Measure, print, write."""
    parser = options(str(__doc__).split("\n", maxsplit=1)[0])
    parser.add_argument("--in-flight", type=int, default=64, metavar="N", help="messages under way at once (64)")
    parser.add_argument("--sessions", type=int, metavar="N", help="sessions open at once (at least 256, 10 a message)")
    parser.add_argument("--rounds", type=int, metavar="N", help="pairs of rounds (5; with --quick 3)")
    parser.add_argument("--round-s", type=float, metavar="S", help="seconds a round (5; with --quick 2)")
    parser.add_argument(
        "--rate", type=float, metavar="N",
        help="messages a second that arrive in the open loop (half of the baseline's; 0 leaves it out)",
    )  # fmt: skip
    parser.add_argument("--chats", type=Path, default=SAMPLE, metavar="FILE", help="recorded chats; else a sample")
    parser.add_argument("--long-sessions", action="store_true", help="sessions never end, and every context is full")
    parser.add_argument(
        "--transport", choices=("aioboto3", "direct"), help="ours goes to DynamoDB by it (DYNAMODB_TRANSPORT)"
    )
    parser.add_argument("--tuned-baseline", action="store_true", help="give the baseline our AWS client's options")
    parser.add_argument("--profile", action="store_true", help="say where our CPU goes, in a round of its own")
    given = parser.parse_args()
    return report(_bench(given, Plan.of(given)), given, show=_print, wrong=_wrong)


def _wrong(figures: dict[str, Any]) -> int:
    wrong: int = sum(figures[name]["wrong_reads"] for name in PEERS)
    if wrong:
        print(f"\n{wrong} contexts were not what had been said: the figures are worth nothing.", file=sys.stderr)
    return wrong


async def _bench(given: argparse.Namespace, plan: Plan) -> dict[str, Any]:
    started_s = time.perf_counter()
    read_conversations(given.chats)  # a malformed file is reported here, and once
    warn_if_busy()
    async with open_servers(given.engine) as stack, AsyncExitStack() as opened:
        found = environment(stack, loop=given.loop)
        redis, cpu = await opened.enter_async_context(RedisMeter.open(str(stack.redis_url))), CpuMeter(stack)
        peers = {
            name: Peer(await opened.enter_async_context(_client(name, given, plan, stack)), redis, cpu)
            for name in PEERS
        }
        for peer in peers.values():
            await peer.prepare(plan)
        if given.quick and not given.round_s:
            plan = plan.within(QUICK_WITHIN_S - (time.perf_counter() - started_s), besides=2 * given.profile)
        closed = await interleave(plan.rounds, {name: _closed(peer, plan) for name, peer in peers.items()})
        rates = {name: _rates(rounds) for name, rounds in closed.items()}
        rate = plan.rate if plan.rate is not None else round(median(rates["baseline"]) / 2, 1)
        driven = {name: _open(peer, plan, rate) for name, peer in peers.items()}
        arrived = await interleave(plan.open_rounds if rate > 0 else 0, driven)
        profile = await peers["ours"].profile(plan) if given.profile else None
        idle = {name: await peer.idle_cpu(0.5) for name, peer in peers.items()}
    ratios = paired_ratios(rates["ours"], rates["baseline"])
    figures: dict[str, Any] = {
        "bench": "chat",
        **{name: _figures(closed[name], arrived[name], idle[name]) for name in PEERS},
        "ratio_messages_per_s": round(median(ratios), 3),
        "ratios": ratios,
        "load": {
            **msgspec.structs.asdict(plan),
            "rate": rate,
            "chats": given.chats.name,
            "long_sessions": given.long_sessions,
            "transport": given.transport or Settings.from_env().dynamodb_transport,
            "baseline_client": "tuned" if given.tuned_baseline else "as it comes",
        },
        "environment": found,
    }
    figures["ratio_cpu_per_message"] = round(
        figures["baseline"]["cpu_ms_per_message"] / figures["ours"]["cpu_ms_per_message"], 3
    )
    return figures | ({"profile": profile} if profile is not None else {})


def _client(name: str, given: argparse.Namespace, plan: Plan, stack: LocalStack) -> Any:
    configuration = {
        "loop": given.loop,
        "chats": str(given.chats.resolve()),
        "sessions": plan.sessions,
        "memory_sessions": plan.memory_sessions,
        "connections": max(plan.in_flight, 16),
        "transport": given.transport,
        "tuned_baseline": given.tuned_baseline,
        "long_sessions": given.long_sessions,
        "seed": plan.seed,
    }
    return client_process(name, BENCH / "_chat_client.py", configuration, variables=stack.environment())


def _closed(peer: Peer, plan: Plan) -> Callable[[], Any]:
    return lambda: peer.measure("closed", in_flight=plan.in_flight, seconds=plan.round_s)


def _open(peer: Peer, plan: Plan, rate: float) -> Callable[[], Any]:
    seeds = itertools.count(plan.seed)
    return lambda: peer.measure("open", rate=rate, seconds=plan.open_s, seed=next(seeds))


def _rates(rounds: Sequence[dict[str, Any]]) -> list[float]:
    return [round(result["messages"] / result["elapsed_s"], 1) for result in rounds]


def _figures(rounds: Sequence[dict[str, Any]], arrived: Sequence[dict[str, Any]], idle_cores: float) -> dict[str, Any]:
    """Return what one peer came to over its closed-loop rounds, and its latencies in the open loop."""
    messages = sum(result["messages"] for result in rounds)
    dynamodb = Counter[str]()
    sources = Counter[str]()
    calls = Counter[str]()
    for result in rounds:
        dynamodb.update(result["dynamodb"])
        sources.update(result["sources"])
        calls.update(result["redis"]["calls"])
    steady = max(sources.total(), 1)
    reads = sum(dynamodb[name] for name in READS)
    redis = {name: sum(result["redis"][name] for result in rounds) for name in ("round_trips", "bytes_in", "bytes_out")}
    return {
        "messages_per_s": round(median(_rates(rounds)), 1),
        "rounds_messages_per_s": _rates(rounds),
        "messages": messages,
        "first_messages": sum(result["first_messages"] for result in rounds),
        "turns": sum(result["turns"] for result in rounds),
        "wrong_reads": sum(result["wrong_reads"] for result in [*rounds, *arrived]),
        "latency_ms": latencies_ms([latency for result in rounds for latency in result["latencies_ms"]]),
        "open_loop": _arrived(arrived) if arrived else None,
        "cpu_ms_per_message": _a_message(1e3 * sum(result["cpu_s"] for result in rounds), messages),
        "server_cpu_ms_per_message": {
            name: _a_message(1e3 * sum(result["server_cpu_s"][name] or 0.0 for result in rounds), messages)
            for name in ("dynamodb", "redis")
        },
        "cores_used": round(sum(r["cpu_s"] for r in rounds) / sum(r["elapsed_s"] for r in rounds), 2),
        "cores_used_when_idle": idle_cores,
        "hit_ratio": round(1 - sources["dynamodb"] / steady, 4),
        "sources": dict(sorted(sources.items())),
        "dynamodb_per_message": {
            "reads": _a_message(reads, messages),
            "writes": _a_message(dynamodb.total() - reads, messages),
            **{name: _a_message(count, messages) for name, count in sorted(dynamodb.items())},
        },
        "redis_per_message": {
            **{name: _a_message(count, messages) for name, count in redis.items()},
            "calls": {name: _a_message(count, messages) for name, count in sorted(calls.items())},
        },
    }


def _arrived(rounds: Sequence[dict[str, Any]]) -> dict[str, Any]:
    messages = sum(result["messages"] for result in rounds)
    return {
        "messages": messages,
        "unserved": sum(result["unserved"] for result in rounds),
        "latency_ms": latencies_ms([latency for result in rounds for latency in result["latencies_ms"]]),
        "cpu_ms_per_message": _a_message(1e3 * sum(result["cpu_s"] for result in rounds), messages),
    }


def _a_message(total: float, messages: int) -> float:
    return round(total / max(messages, 1), 3)


def _print(figures: dict[str, Any]) -> None:
    ours, baseline, load = figures["ours"], figures["baseline"], figures["load"]

    def line(name: str, *path: str) -> tuple[str, list[Any]]:
        values = []
        for side in (ours, baseline):
            value: Any = side
            for step in path:
                value = None if value is None else value.get(step)
            values.append(value)
        return name, values

    print_table(
        f"chat, {load['in_flight']} in flight, {load['sessions']} {'long ' * load['long_sessions']}sessions, "
        f"{load['transport']}",
        ["ours", "plain cache-aside", "ratio"],
        [
            ("messages/s (median round)", [*line("", "messages_per_s")[1], figures["ratio_messages_per_s"]]),
            ("client CPU, ms a message", [*line("", "cpu_ms_per_message")[1], figures["ratio_cpu_per_message"]]),
            line("CPU of the DynamoDB engine, ms a message", "server_cpu_ms_per_message", "dynamodb"),
            line("CPU of Redis, ms a message", "server_cpu_ms_per_message", "redis"),
            line("latency p50, ms, closed loop", "latency_ms", "p50"),
            line("latency p99, ms, closed loop", "latency_ms", "p99"),
            line(f"latency p50, ms, {load['rate']:g}/s arriving", "open_loop", "latency_ms", "p50"),
            line(f"latency p99, ms, {load['rate']:g}/s arriving", "open_loop", "latency_ms", "p99"),
            ("turns stored a message", [_a_message(side["turns"], side["messages"]) for side in (ours, baseline)]),
            line("contexts not read in DynamoDB, share", "hit_ratio"),
            line("DynamoDB reads a message", "dynamodb_per_message", "reads"),
            line("DynamoDB writes a message", "dynamodb_per_message", "writes"),
            line("Redis round trips a message", "redis_per_message", "round_trips"),
            line("bytes to Redis a message", "redis_per_message", "bytes_in"),
            line("bytes from Redis a message", "redis_per_message", "bytes_out"),
        ],
    )
    if (profile := figures.get("profile")) is not None:
        print_table("our CPU, by package", ["percent"], [(name, [share]) for name, share in profile["percent"].items()])
        print("\nlargest functions: " + "; ".join(profile["largest_functions"][:8]))


if __name__ == "__main__":
    sys.exit(main())
