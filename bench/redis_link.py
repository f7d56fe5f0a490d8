"""The links to Redis beside each other, and beside what the server can do at all.

EVALSHA of the script that reads a context, on a local Valkey: our multiplexed link, the pooled link over redis-py,
and redis-benchmark with one connection and 50 commands in a pipeline, where it is on PATH. Each link is a process of
its own, and they are driven in turn.
"""

from __future__ import annotations

import asyncio
import csv
import shutil
import sys
from contextlib import AsyncExitStack
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
    run,
    warn_if_busy,
    write_json,
)
from _processes import ClientFailed, ClientProcess, client_process
from _redis_client import ARGUMENTS, KEY
from _servers import open_servers

from mangacache.context import scripts
from mangacache.errors import MangaCacheError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Sequence

LINKS: Final = {"ours": "multiplexed", "redis_py": "redis-py"}
LIMIT: Final = "limit_c1_p50"
IN_FLIGHT: Final = (1, 8, 50)
_WARM_UP_S: Final = 0.2


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """How much is measured: rounds, the seconds of one, and the commands of one of redis-benchmark's."""

    rounds: int
    round_s: float
    limit_calls: int

    @classmethod
    def of(cls, given: argparse.Namespace) -> Plan:
        """Return the plan that the options amount to."""
        if given.quick:
            return cls(rounds=given.rounds or 3, round_s=given.round_s or 0.3, limit_calls=20_000)
        return cls(rounds=given.rounds or 5, round_s=given.round_s or 2.0, limit_calls=200_000)


def main() -> int:
    """Measure, print, write."""
    parser = options(str(__doc__).split("\n", maxsplit=1)[0])
    parser.add_argument("--rounds", type=int, metavar="N", help="rounds (5; with --quick 3)")
    parser.add_argument("--round-s", type=float, metavar="S", help="seconds a round (2; with --quick 0.3)")
    given = parser.parse_args()
    try:
        figures = run(_bench(given, Plan.of(given)), loop=given.loop)
    except (MangaCacheError, ClientFailed) as error:
        print(f"redis_link.py: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("redis_link.py: interrupted", file=sys.stderr)
        return 130
    _print(figures)
    write_json(given.json, figures)
    return 0


async def _bench(given: argparse.Namespace, plan: Plan) -> dict[str, Any]:
    warn_if_busy()
    binary = shutil.which("redis-benchmark")
    if binary is None:
        print("note: redis-benchmark is not on PATH, so the server's limit is left out", file=sys.stderr)
    async with open_servers(given.engine) as stack, AsyncExitStack() as opened:
        url = stack.environment()["REDIS_ENDPOINT"]
        found = environment(stack, loop=given.loop)
        configuration = {"url": url, "loop": given.loop}
        clients = {
            side: await opened.enter_async_context(
                client_process(link, BENCH / "_redis_client.py", configuration, variables={})
            )
            for side, link in LINKS.items()
        }
        await next(iter(clients.values())).ask("prepare")
        for client in clients.values():
            for what in ARGUMENTS:
                await client.ask("measure", what=what, in_flight=max(IN_FLIGHT), seconds=_WARM_UP_S)
            await client.ask("settle")
        measured: dict[str, Any] = {}
        for what in ARGUMENTS:
            for in_flight in IN_FLIGHT:
                sides = {side: _round(client, what, in_flight, plan) for side, client in clients.items()}
                if binary is not None and in_flight == max(IN_FLIGHT):
                    sides[LIMIT] = _limit(binary, url, what, plan)
                rounds = await interleave(plan.rounds, sides)
                measured.setdefault(what, {})[str(in_flight)] = _figures(rounds)
    return {
        "bench": "redis_link",
        "evalsha_get": measured,
        "load": {**msgspec.structs.asdict(plan), "in_flight": IN_FLIGHT},
        "environment": found,
    }


def _round(client: ClientProcess, what: str, in_flight: int, plan: Plan) -> Callable[[], Any]:
    async def measure() -> dict[str, Any]:
        result: dict[str, Any] = await client.ask("measure", what=what, in_flight=in_flight, seconds=plan.round_s)
        return result

    return measure


def _limit(binary: str, url: str, what: str, plan: Plan) -> Callable[[], Any]:
    async def measure() -> dict[str, Any]:
        load = ["-c", "1", "-P", "50", "-n", str(plan.limit_calls), "--csv"]
        command = ["EVALSHA", scripts.GET.sha, "1", KEY, *map(str, ARGUMENTS[what])]
        process = await asyncio.create_subprocess_exec(
            binary, "-p", str(urlsplit(url).port), *load, *command,
            stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        printed, _ = await process.communicate()
        if process.returncode != 0:
            raise ClientFailed(f"redis-benchmark ended with {process.returncode}")
        _, line = csv.reader(printed.decode().splitlines()[-2:])
        return {"calls": plan.limit_calls, "elapsed_s": plan.limit_calls / float(line[1]), "cpu_s": None}

    return measure


def _figures(rounds: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """Return what each side came to, and ours by the others'."""
    sides = {side: _of_side(results) for side, results in rounds.items()}
    rates = {side: found["rounds_calls_per_s"] for side, found in sides.items()}
    ratios = {side: median(paired_ratios(rates["ours"], rates[side])) for side in rates if side != "ours"}
    cpu = sides["redis_py"]["cpu_us_per_call"] / sides["ours"]["cpu_us_per_call"]
    return {**sides, "ours_to": ratios, "cpu_redis_py_to_ours": round(cpu, 2)}


def _of_side(rounds: Sequence[dict[str, Any]]) -> dict[str, Any]:
    rates = [round(result["calls"] / result["elapsed_s"]) for result in rounds]
    cpu_us = None
    if rounds[0]["cpu_s"] is not None:
        cpu_us = round(1e6 * sum(each["cpu_s"] for each in rounds) / sum(each["calls"] for each in rounds), 2)
    return {"calls_per_s": median(rates), "rounds_calls_per_s": rates, "cpu_us_per_call": cpu_us}


def _print(figures: dict[str, Any]) -> None:
    for what, by_in_flight in figures["evalsha_get"].items():
        lines = [
            (f"{side}, {in_flight} in flight", [found["calls_per_s"], found["cpu_us_per_call"]])
            for in_flight, sides in by_in_flight.items()
            for side, found in sides.items()
            if side in {*LINKS, LIMIT}
        ]
        print_table(f"GET of a context, {what}", ("calls/s", "CPU us/call"), lines)


if __name__ == "__main__":
    sys.exit(main())
