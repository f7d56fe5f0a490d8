"""The ways to DynamoDB beside each other: our two transports, aiodynamo, and boto3 in threads.

PutItem of a turn, GetItem of one and Query of the 20 newest, at 32 in flight: operations a second, the client's CPU
an operation, p50 and p99; on the local engine, and on a canned server that costs almost nothing. Each way is a
process of its own, and they are driven in turn. What is measured how stands in docs/benchmarks.md.
"""

from __future__ import annotations

import sys
import time
from contextlib import AsyncExitStack
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final

import msgspec
from _canned import open_canned
from _common import (
    BENCH,
    environment,
    interleave,
    latencies_ms,
    median,
    options,
    print_table,
    warn_if_busy,
)
from _main import report
from _processes import ClientProcess, client_process
from _servers import open_servers, process_cpu_s

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Mapping, Sequence

    from _canned import CannedServer

    from mangacache.local import LocalStack

PEERS: Final = ("direct", "aioboto3", "aiodynamo", "boto3")
OPERATIONS: Final = ("PutItem", "GetItem", "Query")
SERVERS: Final = ("engine", "canned")
QUICK_WITHIN_S: Final = 34.0  # of the 40 promised: the rest is for closing
SHORTEST_ROUND_S: Final = 0.1
LONGEST_WARM_UP_S: Final = 0.2


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """How much is measured: rounds of each peer, operation and server, and the seconds of one."""

    in_flight: int
    rounds: int
    round_s: float

    @classmethod
    def of(cls, given: argparse.Namespace) -> Plan:
        """Return the plan that the options amount to."""
        if given.in_flight < 1:
            raise SystemExit("--in-flight takes at least 1")
        return cls(
            in_flight=given.in_flight,
            rounds=given.rounds or (3 if given.quick else 7),
            round_s=given.round_s or (0.4 if given.quick else 2.0),
        )

    def within(self, seconds: float, *, cells: int) -> Plan:
        """Return a plan whose rounds end in time, where a busy machine made it late."""
        share = min(1.0, seconds / (cells * self.rounds * self.round_s))
        return msgspec.structs.replace(self, round_s=max(SHORTEST_ROUND_S, round(share * self.round_s, 2)))


def main() -> int:
    """Measure, print, write."""
    parser = options(str(__doc__).split("\n", maxsplit=1)[0])
    parser.add_argument("--in-flight", type=int, default=32, metavar="N", help="calls under way at once (32)")
    parser.add_argument("--rounds", type=int, metavar="N", help="rounds (7; with --quick 3)")
    parser.add_argument("--round-s", type=float, metavar="S", help="seconds a round (2; with --quick 0.4)")
    given = parser.parse_args()
    return report(_bench(given, Plan.of(given)), given, show=_print)


async def _bench(given: argparse.Namespace, plan: Plan) -> dict[str, Any]:
    started_s = time.perf_counter()
    warn_if_busy()
    peers = [name for name in PEERS if name != "aiodynamo" or find_spec("aiodynamo")]
    if len(peers) < len(PEERS):
        print("note: aiodynamo is left out, it is not installed: pip install 'mangacache[bench]'", file=sys.stderr)
    async with (
        open_servers(given.engine, redis=False) as stack,
        open_canned(given.loop) as canned,
        AsyncExitStack() as opened,
    ):
        found = environment(stack, loop=given.loop)
        clients = {name: await opened.enter_async_context(_client(name, given, plan, stack, canned)) for name in peers}
        await _prepare(clients, warm_up_s=min(LONGEST_WARM_UP_S, plan.round_s))
        if given.quick and not given.round_s:
            cells = len(clients) * len(SERVERS) * len(OPERATIONS)
            plan = plan.within(QUICK_WITHIN_S - (time.perf_counter() - started_s), cells=cells)
        pids = {"engine": stack.dynamodb.pid, "canned": canned.pid}
        measured: dict[str, Any] = {}
        for server in SERVERS:
            for operation in OPERATIONS:
                sides = {name: _round(client, server, operation, plan, pids) for name, client in clients.items()}
                rounds = await interleave(plan.rounds, sides)
                measured.setdefault(server, {})[operation] = {name: _figures(rounds[name]) for name in clients}
    return {
        "bench": "dynamodb",
        "servers": measured,
        "cpu_ratio_to_aioboto3": {
            server: {operation: _ratios(sides) for operation, sides in operations.items()}
            for server, operations in measured.items()
        },
        "load": {**msgspec.structs.asdict(plan), "peers": peers},
        "environment": found,
    }


def _client(name: str, given: argparse.Namespace, plan: Plan, stack: LocalStack, canned: CannedServer) -> Any:
    configuration = {
        "loop": given.loop,
        "in_flight": plan.in_flight,
        "servers": {"engine": stack.dynamodb_url, "canned": canned.url},
    }
    return client_process(name, BENCH / "_dynamodb_client.py", configuration, variables=stack.environment())


async def _prepare(clients: Mapping[str, ClientProcess], *, warm_up_s: float) -> None:
    """Store what is read, through one of them; then let each open its connections and fill its caches."""
    await next(iter(clients.values())).ask("prepare", server="engine")
    for client in clients.values():
        for server in SERVERS:
            for operation in OPERATIONS:
                await client.ask("measure", server=server, operation=operation, seconds=warm_up_s)
        await client.ask("settle")


def _round(
    client: ClientProcess, server: str, operation: str, plan: Plan, pids: Mapping[str, int]
) -> Callable[[], Any]:
    async def measure() -> dict[str, Any]:
        before = process_cpu_s(pids[server])
        result: dict[str, Any] = await client.ask("measure", server=server, operation=operation, seconds=plan.round_s)
        after = process_cpu_s(pids[server])
        return {**result, "server_cpu_s": None if before is None or after is None else after - before}

    return measure


def _figures(rounds: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return what one peer came to with one operation on one server."""
    operations = sum(result["operations"] for result in rounds)
    elapsed_s = sum(result["elapsed_s"] for result in rounds)
    rates = [round(result["operations"] / result["elapsed_s"], 1) for result in rounds]
    server_cpu_s = [result["server_cpu_s"] for result in rounds]
    return {
        "operations": operations,
        "operations_per_s": round(median(rates), 1),
        "rounds_operations_per_s": rates,
        "cpu_ms_per_operation": round(1e3 * sum(result["cpu_s"] for result in rounds) / max(operations, 1), 4),
        "latency_ms": latencies_ms([latency for result in rounds for latency in result["latencies_ms"]]),
        "cores_used": round(sum(result["cpu_s"] for result in rounds) / elapsed_s, 2),
        "server_cores_used": None if None in server_cpu_s else round(sum(server_cpu_s) / elapsed_s, 2),
    }


def _ratios(sides: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    """Return by how much each peer's CPU an operation goes into aioboto3's."""
    whole = sides["aioboto3"]["cpu_ms_per_operation"]
    return {name: round(whole / side["cpu_ms_per_operation"], 2) for name, side in sides.items() if name != "aioboto3"}


def _print(figures: dict[str, Any]) -> None:
    named = {"boto3": "boto3 in threads"}
    for server, operations in figures["servers"].items():
        for operation, sides in operations.items():
            print_table(
                f"{operation}{' of 20' * (operation == 'Query')}, {figures['load']['in_flight']} in flight, {server}",
                ["ops/s", "CPU ms/op", "p50 ms", "p99 ms", "cores", "server's cores", "CPU, aioboto3 / it"],
                [
                    (
                        named.get(name, name),
                        [
                            side["operations_per_s"],
                            side["cpu_ms_per_operation"],
                            side["latency_ms"]["p50"],
                            side["latency_ms"]["p99"],
                            side["cores_used"],
                            side["server_cores_used"],
                            figures["cpu_ratio_to_aioboto3"][server][operation].get(name),
                        ],
                    )
                    for name, side in sides.items()
                ],
            )


if __name__ == "__main__":
    sys.exit(main())
