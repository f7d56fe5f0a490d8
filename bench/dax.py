"""Reading through DAX: our adapter beside the bare client in threads and in an executor, and beside DynamoDB.

Three things are read: one turn (GetItem), the turns of a window below its newest by their numbers (BatchGetItem of
24), and a whole window (32 turns and META) as the service reads it: by the adapter the newest turns strongly and the
others by number, in DynamoDB all of it by a strong query. Every entry is in DAX's item cache. Each way is a process of
its own, and they are driven in turn.
"""

from __future__ import annotations

import sys
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any, Final

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
from _processes import ClientProcess, client_process
from _servers import open_servers

from mangacache.settings import Settings

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Sequence

WAYS: Final = ("adapter", "executor", "threads", "dynamodb")
IN_FLIGHT: Final = (1, 4, 16, 64)
COMPARED: Final = 16
_READ_BY: Final = {"get": WAYS, "turns": WAYS, "window": ("adapter", "dynamodb")}
_WARM_UP_S: Final = 0.2


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """How much is measured: rounds, the seconds of one, and the rounds of the two ways that are compared."""

    rounds: int
    round_s: float
    compared_rounds: int

    @classmethod
    def of(cls, given: argparse.Namespace) -> Plan:
        """Return the plan that the options amount to."""
        if given.quick:
            return cls(rounds=given.rounds or 2, round_s=given.round_s or 0.15, compared_rounds=given.rounds or 11)
        return cls(rounds=given.rounds or 7, round_s=given.round_s or 0.5, compared_rounds=given.rounds or 41)


def main() -> int:
    """Measure, print, write."""
    parser = options(str(__doc__).split("\n", maxsplit=1)[0])
    parser.add_argument("--rounds", type=int, metavar="N", help="rounds of each (7 and 41; with --quick 2 and 11)")
    parser.add_argument("--round-s", type=float, metavar="S", help="seconds a round (0.5; with --quick 0.15)")
    given = parser.parse_args()
    return report(_bench(given, Plan.of(given)), given, show=_print)


async def _bench(given: argparse.Namespace, plan: Plan) -> dict[str, Any]:
    warn_if_busy()
    async with open_servers(given.engine, redis=False, dax=True) as stack, AsyncExitStack() as opened:
        found = environment(stack, loop=given.loop)
        variables = stack.environment()
        settings = Settings.from_env(variables)
        fields = {
            name: getattr(settings, name) for name in ("table_name", "region", "dynamodb_endpoint", "dax_endpoint")
        }
        configuration = {"settings": fields, "loop": given.loop}
        clients = {
            way: await opened.enter_async_context(
                client_process(way, BENCH / "_dax_client.py", configuration, variables=variables)
            )
            for way in WAYS
        }
        await clients["dynamodb"].ask("prepare")
        for what, ways in _READ_BY.items():
            for way in ways:
                if (way, what) != ("threads", "window"):
                    await clients[way].ask("measure", what=what, in_flight=COMPARED, seconds=_WARM_UP_S)
        for client in clients.values():
            await client.ask("settle")
        measured: dict[str, Any] = {}
        for what, ways in _READ_BY.items():
            for in_flight in IN_FLIGHT if what == "get" else (1, COMPARED):
                sides = {way: _round(clients[way], what, in_flight, plan) for way in ways}
                measured.setdefault(what, {})[in_flight] = await interleave(plan.rounds, sides)
        pair = {way: _round(clients[way], "get", COMPARED, plan) for way in ("adapter", "executor")}
        compared = await interleave(plan.compared_rounds, pair)
    return {
        "bench": "dax",
        **_figures(measured, compared),
        "load": {**msgspec.structs.asdict(plan)},
        "environment": found,
    }


def _round(client: ClientProcess, what: str, in_flight: int, plan: Plan) -> Callable[[], Any]:
    async def measure() -> dict[str, Any]:
        result: dict[str, Any] = await client.ask("measure", what=what, in_flight=in_flight, seconds=plan.round_s)
        return result

    return measure


def _figures(
    measured: dict[str, dict[int, dict[str, list[dict[str, Any]]]]], compared: dict[str, list[dict[str, Any]]]
) -> dict[str, Any]:
    ratios = paired_ratios(_rates(compared["adapter"]), _rates(compared["executor"]))
    names = {"get": "gets_per_s", "turns": "turns_per_s", "window": "windows_per_s"}
    return {
        **{names[what]: _by_way(rounds, lambda found: median(_rates(found))) for what, rounds in measured.items()},
        "adapter_to_executor_16": median(ratios),
        "loop_lag_ms": {
            way: {"p99": median([each["loop_lag_p99_ms"] for each in compared[way]])} for way in ("adapter", "executor")
        },
        "cpu_us": {what: _by_way(rounds, _cpu_us) for what, rounds in measured.items()},
        "rounds": {"adapter_to_executor_16": ratios},
    }


def _by_way(
    rounds: dict[int, dict[str, list[dict[str, Any]]]], figure: Callable[[list[dict[str, Any]]], float]
) -> dict[str, dict[str, float]]:
    ways = next(iter(rounds.values()))
    return {way: {str(in_flight): figure(found[way]) for in_flight, found in rounds.items()} for way in ways}


def _rates(rounds: Sequence[dict[str, Any]]) -> list[float]:
    return [round(each["calls"] / each["elapsed_s"], 1) for each in rounds]


def _cpu_us(rounds: Sequence[dict[str, Any]]) -> float:
    return round(1e6 * sum(each["cpu_s"] for each in rounds) / max(1, sum(each["calls"] for each in rounds)), 1)


def _print(figures: dict[str, Any]) -> None:
    titles = {"gets_per_s": "one turn", "turns_per_s": "24 turns by number", "windows_per_s": "a whole window"}
    for (name, title), what in zip(titles.items(), ("get", "turns", "window"), strict=True):
        lines = [
            (f"{way}, {in_flight} in flight", [rate, figures["cpu_us"][what][way][in_flight]])
            for way, rates in figures[name].items()
            for in_flight, rate in rates.items()
        ]
        print_table(title, ("reads/s", "CPU us/read"), lines)
    lag = figures["loop_lag_ms"]
    print(f"\nadapter to executor, 16 in flight: {figures['adapter_to_executor_16']}")
    print(f"loop lag p99, ms: adapter {lag['adapter']['p99']}, executor {lag['executor']['p99']}")


if __name__ == "__main__":
    sys.exit(main())
