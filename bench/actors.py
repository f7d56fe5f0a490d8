"""The actors of a process: what they cost, and what they bear, up to a million of them.

Bytes an idle actor, turns a second, the supervisor's ticks, the event loop's lag and the collector's pauses at 50,000,
200,000 and 1,000,000 sessions; beside a task and a queue for each actor, pykka at 5,000, and xoscar where an
interpreter has it. Then the whole service on doubles that take as long as the real services: 50,000 open sessions under
a steady load, an overload, and a shutdown in the middle of writes. Each in a process of its own.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from contextlib import asynccontextmanager
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final

import msgspec
from _common import BENCH, environment, median, options, paired_ratios, print_table, warn_if_busy
from _main import report
from _processes import ClientFailed, client_process

if TYPE_CHECKING:
    import argparse
    from collections.abc import AsyncIterator, Callable

    from _processes import ClientProcess

PYKKA_ACTORS: Final = 5_000


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """How much is measured.

    Attributes:
        sizes: sessions that are activated, ascending.
        peer_actors: actors of each peer but pykka, which has at most 5,000.
        rounds, round_s: of calls.
        hot_reads: contexts that are read from memory.
        open_sessions: under the load.
        rates: chat messages a second, each for `load_s` seconds.
        in_flight: writes at the shutdown.
    """

    sizes: tuple[int, ...]
    peer_actors: int
    rounds: int
    round_s: float
    hot_reads: int
    open_sessions: int
    rates: tuple[int, ...]
    load_s: float
    in_flight: int

    @classmethod
    def of(cls, given: argparse.Namespace) -> Plan:
        """Return the plan that the options amount to."""
        if given.quick:
            return cls(
                sizes=(1_000, 5_000),
                peer_actors=500,
                rounds=given.rounds or 1,
                round_s=0.3,
                hot_reads=2_000,
                open_sessions=200,
                rates=(50,),
                load_s=1.0,
                in_flight=50,
            )
        return cls(
            sizes=(50_000, 200_000, 1_000_000),
            peer_actors=50_000,
            rounds=given.rounds or 5,
            round_s=1.0,
            hot_reads=200_000,
            open_sessions=given.sessions,
            rates=(1_000, 3_000),
            load_s=given.load_s,
            in_flight=1_000,
        )


def main() -> int:
    """Measure, print, write."""
    parser = options(str(__doc__).split("\n", maxsplit=1)[0])
    parser.add_argument("--rounds", type=int, metavar="N", help="rounds of calls (5; with --quick 1)")
    parser.add_argument("--sessions", type=int, default=50_000, metavar="N", help="open under the load (50,000)")
    parser.add_argument("--load-s", type=float, default=20.0, metavar="S", help="seconds of each rate of the load (20)")
    parser.add_argument(
        "--xoscar-python", metavar="PATH", help="an interpreter in whose environment xoscar is installed"
    )
    parser.add_argument("--part", choices=("actors", "load"), action="append", help="only this part; repeatable")
    parser.add_argument("--load", action="store_const", const=["load"], dest="part", help="the same as --part load")
    given = parser.parse_args()
    return report(_bench(given, Plan.of(given)), given, show=_print)


async def _bench(given: argparse.Namespace, plan: Plan) -> dict[str, Any]:
    warn_if_busy()
    figures: dict[str, Any] = {"bench": "actors", "environment": environment(None, loop=given.loop)}
    parts = given.part or ["actors", "load"]
    if "actors" in parts:
        figures |= await _actors(given, plan)
    if "load" in parts:
        figures |= await _load(given, plan)
    figures["load_plan"] = msgspec.structs.asdict(plan)
    return figures


# The actors alone


async def _actors(given: argparse.Namespace, plan: Plan) -> dict[str, Any]:
    async with _client(given) as client:
        shell = await client.ask("shell")
        await client.ask("settle")
        calls, peers = await _calls(given, plan, client)
        hot = await client.ask("hot_read", reads=plan.hot_reads)
    sizes = {}
    for sessions in plan.sizes:
        async with _client(given) as client:
            found = await client.ask("populate", sessions=sessions)
            await client.ask("settle")
            found |= {"idle": await client.ask("idle", seconds=min(3.0, 3 * plan.round_s))}
            sizes[str(sessions)] = found | {"eviction": await client.ask("evict")}
    largest = sizes[str(plan.sizes[-1])]
    kinds = {"idle": "rates", "waiting": "waiting"}
    ratios = {
        f"{kind}_by_{what}": median(
            paired_ratios(
                [found[kind][what] for found in calls], [peer[theirs][0][what] for peer in peers["task_queue"]]
            )
        )
        for kind, theirs in kinds.items()
        for what in ("calls_per_s", "calls_per_cpu_s")
    }
    return {
        "idle_bytes": shell["idle_bytes"],
        "resident_mib_1m": largest["resident_mib"],
        "resident_bytes_each": largest["bytes_each"],
        "calls_per_s": round(median([found["idle"]["calls_per_s"] for found in calls])),
        "calls_per_cpu_s": round(median([found["idle"]["calls_per_cpu_s"] for found in calls])),
        "turns_per_s": round(median([found["waiting"]["calls_per_s"] for found in calls])),
        "turns_per_cpu_s": round(median([found["waiting"]["calls_per_cpu_s"] for found in calls])),
        "calls_ratio_to_task_queue": ratios["idle_by_calls_per_s"],
        "ratios_to_task_queue": ratios,
        "tick_ms_1m": max(largest[what]["tick_ms"]["cpu_max"] for what in ("idle", "eviction")),
        "hot_read_us": hot,
        "sizes": sizes,
        "peers": {name: _of_peer(found) for name, found in peers.items()},
        "left_out": [] if "xoscar" in peers else ["xoscar: no interpreter was given that has it (--xoscar-python)"],
        "rounds": [{kind: _rounded(found[kind]) for kind in kinds} for found in calls],
    }


async def _calls(
    given: argparse.Namespace, plan: Plan, client: ClientProcess
) -> tuple[list[dict[str, Any]], dict[str, list[dict[str, Any]]]]:
    """Measure calls in turn: ours, a peer's, ours again, so that what the machine does besides meets all of them."""
    peers: dict[str, Callable[[], Any]] = {"task_queue": _peer("task_queue", plan.peer_actors, given, plan)}
    if given.xoscar_python:
        peers["xoscar"] = _peer("xoscar", plan.peer_actors, given, plan)
    if find_spec("pykka") is not None:
        peers["pykka"] = _peer("pykka", min(PYKKA_ACTORS, plan.peer_actors), given, plan)
    ours, theirs = [], {name: [] for name in peers}
    for number in range(plan.rounds):
        ours.append(await client.ask("calls", seconds=plan.round_s))
        for name, peer in peers.items():
            if name == "task_queue" or number == 0:  # the others are no match, and slow to set up
                theirs[name].append(await peer())
    return ours, theirs


def _peer(name: str, actors: int, given: argparse.Namespace, plan: Plan) -> Callable[[], Any]:
    python = given.xoscar_python if name == "xoscar" else sys.executable
    what = {"peer": name, "actors": actors, "rounds": 1, "round_s": plan.round_s, "loop": given.loop}

    async def measure() -> dict[str, Any]:
        process = await asyncio.create_subprocess_exec(
            python, str(BENCH / "_actor_peers.py"), json.dumps(what),
            stdout=asyncio.subprocess.PIPE,
            env={key: value for key, value in os.environ.items() if key != "PYTHONPATH"},
        )  # fmt: skip
        printed, _ = await process.communicate()
        if process.returncode != 0:
            raise ClientFailed(f"the peer {name} ended with {process.returncode}")
        result: dict[str, Any] = json.loads(printed.decode().splitlines()[-1])
        return result

    return measure


def _of_peer(rounds: list[dict[str, Any]]) -> dict[str, Any]:
    shown = {key: value for key, value in rounds[-1].items() if key not in {"rates", "waiting"}}
    for kind in ("rates", "waiting"):
        rates = [rate for found in rounds for rate in found.get(kind, ())]
        if rates:
            name = "" if kind == "rates" else "waiting_"
            for what in ("calls_per_s", "calls_per_cpu_s"):
                shown[name + what] = round(median([rate[what] for rate in rates]))
            shown[f"{name}rounds"] = [_rounded(rate) for rate in rates]
    return shown


def _rounded(rates: dict[str, float]) -> dict[str, int]:
    return {name: round(rate) for name, rate in rates.items()}


# The service under load


async def _load(given: argparse.Namespace, plan: Plan) -> dict[str, Any]:
    async with _client(given, script="_actor_load.py") as client:
        opened = await client.ask("open", sessions=plan.open_sessions)
        capacity = await client.ask("capacity", seconds=plan.load_s / 4)
        steady = {str(rate): await client.ask("run", per_s=rate, seconds=plan.load_s) for rate in plan.rates}
        await client.ask("back_to_normal")
        calm = {"per_s": capacity["per_s"] / 2, "seconds": plan.load_s / 4}
        before = await client.ask("run", **calm)
        over = await client.ask("run", per_s=3 * capacity["per_s"], seconds=plan.load_s / 2)
        back = await client.ask("back_to_normal")
        after = await client.ask("run", **calm)
        shutdown = await client.ask("close", in_flight=plan.in_flight)
    first = steady[str(plan.rates[0])]
    return {
        "opened": opened,
        "loop_lag_ms": first["loop_lag_ms"],
        "own_loop_lag_ms": first["own_loop_lag_ms"],
        "gc_pause_ms_max": first["gc_pause_ms_max"],
        "message_ms": first["latency_ms"],
        "capacity_per_s": capacity["per_s"],
        "steady": steady,
        "overload": {"calm_before": before, "over": over, "back_to_normal_s": back["seconds"], "calm_after": after},
        "shutdown": shutdown,
    }


@asynccontextmanager
async def _client(given: argparse.Namespace, *, script: str = "_actor_client.py") -> AsyncIterator[ClientProcess]:
    configuration = {"loop": given.loop, "seed": given.seed}
    async with client_process("ours", BENCH / script, configuration, variables={}) as client:
        yield client


def _print(figures: dict[str, Any]) -> None:
    if "sizes" in figures:
        lines = [
            (
                f"{int(sessions):,} sessions",
                [
                    found["resident_mib"],
                    found["bytes_each"],
                    found["idle"]["tick_ms"]["cpu_max"],
                    found["eviction"]["tick_ms"]["cpu_max"],
                    found["eviction"]["tick_ms"]["p99"],
                    found["idle"]["loop_lag_ms"]["p999"],
                    found["gc_full_collection_ms"],
                ],
            )
            for sessions, found in figures["sizes"].items()
        ]
        columns = ("MiB", "bytes each", "tick cpu ms", "evicting cpu ms", "evicting p99", "lag p99.9", "full gc ms")
        print_table("idle sessions", columns, lines)
        peers = [
            ("ours, idle actors", [figures["idle_bytes"], figures["calls_per_s"], figures["calls_per_cpu_s"]]),
            ("ours, all wait for turns", [figures["idle_bytes"], figures["turns_per_s"], figures["turns_per_cpu_s"]]),
        ]
        peers += [
            (f"{name}, {found['actors']:,}", [found["idle_bytes"], found["calls_per_s"], found["calls_per_cpu_s"]])
            for name, found in figures["peers"].items()
        ]
        print_table("an actor", ("idle bytes", "calls/s", "by cpu time"), peers)
        for line in figures["left_out"]:
            print(f"left out: {line}")
        print(f"\nours to a task and a queue: {figures['ratios_to_task_queue']}; hot read {figures['hot_read_us']} us")
    if "steady" in figures:
        runs = {f"{rate} a second": found for rate, found in figures["steady"].items()}
        runs |= {f"overload, {what}": figures["overload"][what] for what in ("calm_before", "over", "calm_after")}
        lines = [
            (
                name,
                [
                    found["answered_per_s"],
                    found["latency_ms"]["p50"],
                    found["latency_ms"]["p99"],
                    found["refused"],
                    found["loop_lag_ms"]["p999"],
                    found["own_loop_lag_ms"]["p999"],
                    found["cpu_ms_per_message"],
                    found["gc_pause_ms_max"],
                    found["grown_mib"],
                ],
            )
            for name, found in runs.items()
        ]
        columns = ("answered/s", "p50 ms", "p99 ms", "refused", "lag p99.9", "own", "cpu ms each", "gc ms", "MiB more")
        print_table("chat messages", columns, lines)
        shutdown = figures["shutdown"]
        print(
            f"\nback to normal {figures['overload']['back_to_normal_s']} s after the overload; shutdown of "
            f"{shutdown['resident']:,} sessions with {shutdown['in_flight']:,} writes under way: {shutdown['seconds']} "
            f"s, {shutdown['acknowledged_lost']} acknowledged writes lost"
        )


if __name__ == "__main__":
    sys.exit(main())
