"""The link to Redis beside redis-py, and beside what the server can do at all.

GET and SET of 4 and 16 KB and EVALSHA from 50 tasks, on a local Valkey: our link; redis-py, plain and by pipelines that
gather what is asked for in a turn; and redis-benchmark, one connection with 50 commands in flight and 50 with 32 each,
where it is on PATH. On both event loops, where uvloop is installed. Then the script that reads a context, by the link
and by its fallback. Each client is a process of its own, and they are driven in turn.
"""

from __future__ import annotations

import asyncio
import csv
import shutil
import sys
from contextlib import AsyncExitStack
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import msgspec
from _common import (
    BENCH,
    environment,
    interleave,
    median,
    options,
    paired_ratios,
    print_table,
    warn_if_busy,
)
from _main import report
from _processes import ClientFailed, ClientProcess, client_process
from _redis_client import ARGUMENTS
from _redis_commands import COMMANDS, SIDES, TASKS
from _servers import open_servers

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Sequence

LINKS: Final = {"ours": "multiplexed", "redis_py": "redis-py"}
LIMITS: Final = {"limit_c1_p50": (1, 50), "limit_c50_p32": (50, 32)}
IN_FLIGHT: Final = (1, 8, 50)
_WARM_UP_S: Final = 0.2


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """How much is measured: rounds, the seconds of one, the commands of one of redis-benchmark's, the event loops."""

    rounds: int
    round_s: float
    limit_calls: int
    loops: tuple[str, ...]

    @classmethod
    def of(cls, given: argparse.Namespace) -> Plan:
        """Return the plan that the options amount to; what a reader looks at first is of the loop that was named."""
        loops = [given.loop]
        if not given.quick:
            loops += [loop for loop in ("asyncio", "uvloop") if loop != given.loop and find_spec(loop)]
        return cls(
            rounds=given.rounds or (3 if given.quick else 5),
            round_s=given.round_s or (0.2 if given.quick else 1.0),
            limit_calls=5_000 if given.quick else 200_000,
            loops=tuple(loops),
        )


def main() -> int:
    """Measure, print, write."""
    parser = options(str(__doc__).split("\n", maxsplit=1)[0])
    parser.add_argument("--rounds", type=int, metavar="N", help="rounds (5; with --quick 3)")
    parser.add_argument("--round-s", type=float, metavar="S", help="seconds a round (1; with --quick 0.2)")
    given = parser.parse_args()
    return report(_bench(given, Plan.of(given)), given, show=_print)


async def _bench(given: argparse.Namespace, plan: Plan) -> dict[str, Any]:
    warn_if_busy()
    binary = shutil.which("redis-benchmark")
    if binary is None:
        print(
            "note: redis-benchmark is not on PATH (Debian and Ubuntu: the package redis-tools), so what the server"
            " can do is not measured, and nothing is compared with it",
            file=sys.stderr,
        )
    async with open_servers(given.engine) as stack:
        url = stack.environment()["REDIS_ENDPOINT"]
        found = environment(stack, loop=given.loop)
        loops = {loop: await _commands(url, loop, plan, binary) for loop in plan.loops}
        evalsha_get = await _context(url, given.loop, plan)
    first = loops[given.loop]
    return {
        "bench": "redis_link",
        **{what: {side: each["calls_per_s"] for side, each in first[what]["sides"].items()} for what in COMMANDS},
        "cpu_us_per_get": first["get_4k"]["sides"]["ours"]["cpu_us_per_call"],
        "ours_to": {what: first[what]["ours_to"] for what in COMMANDS},
        "loops": loops,
        "evalsha_get": evalsha_get,
        "load": {**msgspec.structs.asdict(plan), "tasks": TASKS, "in_flight": IN_FLIGHT},
        "environment": found,
    }


# Commands from 50 tasks


async def _commands(url: str, loop: str, plan: Plan, binary: str | None) -> dict[str, Any]:
    async with AsyncExitStack() as opened:
        clients = await _clients(opened, dict.fromkeys(SIDES), "_redis_commands.py", url, loop)
        await clients["ours"].ask("prepare")
        for client in clients.values():
            for what in COMMANDS:
                await client.ask("measure", what=what, seconds=min(_WARM_UP_S, plan.round_s))
            await client.ask("settle")
        measured = {}
        for what in COMMANDS:
            sides = {side: _round(client, what=what, seconds=plan.round_s) for side, client in clients.items()}
            if binary is not None:
                sides |= {name: _limit(binary, url, what, plan, load) for name, load in LIMITS.items()}
            measured[what] = _figures(await interleave(plan.rounds, sides))
        return measured


async def _clients(
    opened: AsyncExitStack, sides: dict[str, Any], program: str, url: str, loop: str
) -> dict[str, ClientProcess]:
    configuration = {"url": url, "loop": loop}
    return {
        side: await opened.enter_async_context(
            client_process(name or side, BENCH / program, configuration, variables={})
        )
        for side, name in sides.items()
    }


def _round(client: ClientProcess, **load: Any) -> Callable[[], Any]:
    async def measure() -> dict[str, Any]:
        result: dict[str, Any] = await client.ask("measure", **load)
        return result

    return measure


def _limit(binary: str, url: str, what: str, plan: Plan, load: tuple[int, int]) -> Callable[[], Any]:
    async def measure() -> dict[str, Any]:
        amount = ["-c", str(load[0]), "-P", str(load[1]), "-n", str(plan.limit_calls), "--csv"]
        command = [part.decode() if isinstance(part, bytes) else str(part) for part in COMMANDS[what]]
        process = await asyncio.create_subprocess_exec(
            binary, "-p", str(urlsplit(url).port), *amount, *command,
            stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        printed, _ = await process.communicate()
        if process.returncode != 0:
            raise ClientFailed(f"redis-benchmark ended with {process.returncode}")
        _, line = csv.reader(printed.decode().splitlines()[-2:])
        return {"calls": plan.limit_calls, "elapsed_s": plan.limit_calls / float(line[1]), "cpu_s": None}

    return measure


# The script that reads a context


async def _context(url: str, loop: str, plan: Plan) -> dict[str, Any]:
    async with AsyncExitStack() as opened:
        clients = await _clients(opened, dict(LINKS), "_redis_client.py", url, loop)
        await clients["ours"].ask("prepare")
        for client in clients.values():
            for what in ARGUMENTS:
                await client.ask("measure", what=what, in_flight=max(IN_FLIGHT), seconds=min(_WARM_UP_S, plan.round_s))
            await client.ask("settle")
        measured: dict[str, Any] = {}
        for what in ARGUMENTS:
            for in_flight in IN_FLIGHT:
                sides = {
                    side: _round(client, what=what, in_flight=in_flight, seconds=plan.round_s)
                    for side, client in clients.items()
                }
                found = _figures(await interleave(plan.rounds, sides))
                cpu = found["sides"]["redis_py"]["cpu_us_per_call"] / found["sides"]["ours"]["cpu_us_per_call"]
                measured.setdefault(what, {})[str(in_flight)] = {
                    **found["sides"],
                    "ours_to": found["ours_to"],
                    "cpu_redis_py_to_ours": round(cpu, 2),
                }
        return measured


# Figures


def _figures(rounds: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """Return what each side came to, and ours by the others', each round by its neighbour."""
    sides = {side: _of_side(results) for side, results in rounds.items()}
    rates = {side: found["rounds_calls_per_s"] for side, found in sides.items()}
    ratios = {side: median(paired_ratios(rates["ours"], rates[side])) for side in rates if side != "ours"}
    return {"sides": sides, "ours_to": ratios}


def _of_side(rounds: Sequence[dict[str, Any]]) -> dict[str, Any]:
    rates = [round(result["calls"] / result["elapsed_s"]) for result in rounds]
    cpu_us = None
    if rounds[0]["cpu_s"] is not None:
        cpu_us = round(1e6 * sum(each["cpu_s"] for each in rounds) / sum(each["calls"] for each in rounds), 2)
    return {"calls_per_s": median(rates), "rounds_calls_per_s": rates, "cpu_us_per_call": cpu_us}


def _print(figures: dict[str, Any]) -> None:
    columns = ("calls/s", "ours to it", "CPU us/call")
    for loop, commands in figures["loops"].items():
        for what, found in commands.items():
            lines = [
                (side, [each["calls_per_s"], found["ours_to"].get(side), each["cpu_us_per_call"]])
                for side, each in found["sides"].items()
            ]
            print_table(f"{what}, {loop}", columns, lines)
    for what, by_in_flight in figures["evalsha_get"].items():
        lines = [
            (f"{side}, {in_flight} in flight", [sides[side]["calls_per_s"], sides[side]["cpu_us_per_call"]])
            for in_flight, sides in by_in_flight.items()
            for side in LINKS
        ]
        print_table(f"GET of a context, {what}", ("calls/s", "CPU us/call"), lines)


if __name__ == "__main__":
    sys.exit(main())
