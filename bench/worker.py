"""What the worker's door costs: the chat pattern by HTTP and by WebSocket, beside the embedded library.

A message is what a bot does when a customer writes: read the context, append the user's turn, append the reply. So by
HTTP it is three requests or more, by WebSocket as many frames and their answers.
"""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
import time
from contextlib import AsyncExitStack, asynccontextmanager
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
from _servers import CpuMeter, open_servers, process_cpu_s

from mangacache.local.worker import worker_process

if TYPE_CHECKING:
    import argparse
    from collections.abc import AsyncIterator, Callable, Sequence

    from mangacache.local import LocalStack

SIDES = ("embedded", "http", "websocket")
QUICK_WITHIN_S = 30.0  # of the 40 promised: the rest is for starting and closing
SHORTEST_ROUND_S = 0.3


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """How much is measured.

    Attributes:
        clients: how many bots speak at once, each one thing after the other.
        rounds: of each side in turn.
        round_s: seconds of one.
        open_sessions: for the crowd; 0 leaves it out, and with it the rest is left out.
        sockets: of the crowd.
        per_s: messages a second of the crowd.
        crowd_s: for how long they come.
    """

    clients: tuple[int, ...]
    rounds: int
    round_s: float
    open_sessions: int
    sockets: int
    per_s: tuple[float, ...]
    crowd_s: float

    @classmethod
    def of(cls, given: argparse.Namespace) -> Plan:
        """Return the plan that the options amount to."""
        if min(given.clients) < 1 or not 0 <= given.sockets <= given.open_sessions:
            raise SystemExit("--clients takes at least 1, and --sockets at most as many as --open-sessions")
        return cls(
            clients=tuple(given.clients),
            rounds=given.rounds or (1 if given.quick else 5),
            round_s=given.round_s or (1.0 if given.quick else 4.0),
            open_sessions=given.open_sessions,
            sockets=given.sockets,
            per_s=tuple(given.per_s),
            crowd_s=given.round_s or (3.0 if given.quick else 30.0),
        )

    def within(self, seconds: float) -> Plan:
        """Return a plan whose rounds end in time, where a busy machine made it late."""
        rounds_s = len(SIDES) * len(self.clients) * self.rounds * self.round_s
        share = min(1.0, max(0.0, seconds) / rounds_s)
        return msgspec.structs.replace(self, round_s=max(SHORTEST_ROUND_S, round(share * self.round_s, 2)))


class Side:
    """One way to a MangaCache, as it is measured: its rounds with the CPU of the worker and the servers beside."""

    def __init__(self, client: ClientProcess, servers: CpuMeter, worker_pid: int) -> None:
        self._client = client
        self._servers = servers
        self._pid = worker_pid

    async def prepare(self, clients: int) -> None:
        """Open the chats."""
        await self._client.ask("prepare", clients=clients)

    async def measure(self, clients: int, seconds: float) -> dict[str, Any]:
        """Run one round."""
        self._servers.start()
        before_s = process_cpu_s(self._pid) if self._pid else None
        result: dict[str, Any] = await self._client.ask("closed", clients=clients, seconds=seconds)
        after_s = process_cpu_s(self._pid) if self._pid else None
        result["worker_cpu_s"] = after_s - before_s if after_s is not None and before_s is not None else 0.0
        result["server_cpu_s"] = self._servers.stop()
        return result


def main() -> int:
    """Measure, print, write."""
    parser = options(str(__doc__).split("\n", maxsplit=1)[0])
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 64, 256], metavar="N", help="at once (1 64 256)")
    parser.add_argument("--rounds", type=int, metavar="N", help="of each side in turn (5; with --quick 1)")
    parser.add_argument("--round-s", type=float, metavar="S", help="seconds a round (4; with --quick 1)")
    parser.add_argument(
        "--profile", action="store_true", help="say where the worker's CPU goes, in rounds of their own"
    )
    parser.add_argument("--open-sessions", type=int, default=0, metavar="N", help="measure a crowd instead: 50000")
    parser.add_argument("--sockets", type=int, default=0, metavar="N", help="of the crowd that have one: 2000")
    parser.add_argument("--per-s", type=float, nargs="+", default=[100.0, 200.0], metavar="N", help="its messages/s")
    given = parser.parse_args()
    plan = Plan.of(given)
    if plan.open_sessions:
        return report(_crowd(given, plan), given, show=_print_crowd, wrong=_failed)
    return report(_bench(given, plan), given, show=_print, wrong=_wrong)


@asynccontextmanager
async def _worker(stack: LocalStack) -> AsyncIterator[tuple[str, int]]:
    """Start `mangacache serve` on a stack; yields its address and its process id."""
    os.environ.update(stack.environment())  # a server's process inherits it
    os.environ["MANGACACHE_MEMORY_SESSIONS"] = "100000"
    with tempfile.TemporaryDirectory(prefix="mangacache-") as folder:
        worker, _ = worker_process(Path(folder), name="worker")
        try:
            await worker.start()
            yield f"http://127.0.0.1:{worker.port}", worker.pid
        finally:
            await worker.stop()


def _client(name: str, given: argparse.Namespace, stack: LocalStack, url: str) -> Any:
    configuration = {"loop": given.loop, "seed": given.seed, "urls": [url]}
    return client_process(name, BENCH / "_worker_client.py", configuration, variables=stack.environment())


# The door


async def _bench(given: argparse.Namespace, plan: Plan) -> dict[str, Any]:
    started_s = time.perf_counter()
    warn_if_busy()
    async with open_servers(given.engine) as stack, AsyncExitStack() as opened:
        found = environment(stack, loop=given.loop)
        url, pid = await opened.enter_async_context(_worker(stack))
        cpu = CpuMeter(stack)
        sides = {}
        for name in SIDES:
            client = await opened.enter_async_context(_client(name, given, stack, url))
            sides[name] = Side(client, cpu, pid if name != "embedded" else 0)
        for clients in plan.clients:
            for side in sides.values():
                await side.prepare(clients)
        if given.quick and not given.round_s:
            plan = plan.within(QUICK_WITHIN_S - (time.perf_counter() - started_s))
        measured: dict[str, Any] = {}
        for clients in plan.clients:
            driven = {name: _rounds(side, clients, plan) for name, side in sides.items()}
            measured[str(clients)] = _side_by_side(await interleave(plan.rounds, driven))
        profile = await _profiled(given, plan, stack) if given.profile else None
    return {
        "bench": "worker",
        "clients": measured,
        "load": msgspec.structs.asdict(plan),
        "environment": found,
        **({"profile": profile} if profile is not None else {}),
    }


def _rounds(side: Side, clients: int, plan: Plan) -> Callable[[], Any]:
    return lambda: side.measure(clients, plan.round_s)


def _side_by_side(results: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    figures = {name: _figures(rounds) for name, rounds in results.items()}
    embedded = figures["embedded"]
    for name in SIDES[1:]:
        side = figures[name]
        ratios = paired_ratios(side["rounds_messages_per_s"], embedded["rounds_messages_per_s"])
        side["ratio_messages_per_s"] = round(median(ratios), 3)
        side["door_cpu_ms_per_message"] = round(
            side["cpu_ms_per_message"]["client"]
            + side["cpu_ms_per_message"]["worker"]
            - embedded["cpu_ms_per_message"]["client"],
            3,
        )
    return figures


def _figures(rounds: Sequence[dict[str, Any]]) -> dict[str, Any]:
    messages = sum(result["messages"] for result in rounds)
    rates = [round(result["messages"] / result["elapsed_s"], 1) for result in rounds]

    def a_message(seconds: float) -> float:
        return round(1e3 * seconds / max(messages, 1), 3)

    return {
        "messages_per_s": round(median(rates), 1),
        "rounds_messages_per_s": rates,
        "messages": messages,
        "turns": sum(result["turns"] for result in rounds),
        "wrong_reads": sum(result["wrong_reads"] for result in rounds),
        "latency_ms": latencies_ms([latency for result in rounds for latency in result["latencies_ms"]]),
        "cpu_ms_per_message": {
            "client": a_message(sum(result["cpu_s"] for result in rounds)),
            "worker": a_message(sum(result["worker_cpu_s"] for result in rounds)),
            **{
                name: a_message(sum(result["server_cpu_s"][name] or 0.0 for result in rounds))
                for name in ("dynamodb", "redis")
            },
        },
    }


async def _profiled(given: argparse.Namespace, plan: Plan, stack: LocalStack) -> dict[str, Any]:
    """Return where the CPU of a worker goes, by each of its doors."""
    clients = sorted(plan.clients)[len(plan.clients) // 2]
    found: dict[str, Any] = {"clients": clients}
    configuration = {"loop": given.loop}
    script = BENCH / "_worker_server.py"
    async with client_process("worker", script, configuration, variables=stack.environment()) as server:
        where = await server.ask("where")
        for name in SIDES[1:]:
            async with _client(name, given, stack, where["public"]) as client:
                await client.ask("prepare", clients=clients)
                await server.ask("begin")
                result = await client.ask("closed", clients=clients, seconds=plan.round_s)
                found[name] = {"messages": result["messages"], **await server.ask("end")}
    return found


def _wrong(figures: dict[str, Any]) -> int:
    wrong: int = sum(side["wrong_reads"] for sides in figures["clients"].values() for side in sides.values())
    if wrong:
        print(f"\n{wrong} contexts were not what had been said: the figures are worth nothing.", file=sys.stderr)
    return wrong


def _print(figures: dict[str, Any]) -> None:
    for clients, sides in figures["clients"].items():
        lines = [
            ("messages/s (median round)", [side["messages_per_s"] for side in sides.values()]),
            ("to the embedded library", [None, *(sides[name]["ratio_messages_per_s"] for name in SIDES[1:])]),
            ("latency p50, ms", [side["latency_ms"]["p50"] for side in sides.values()]),
            ("latency p99, ms", [side["latency_ms"]["p99"] for side in sides.values()]),
            *(
                (f"CPU of the {what}, ms a message", [side["cpu_ms_per_message"][what] for side in sides.values()])
                for what in ("client", "worker", "dynamodb", "redis")
            ),
            ("CPU of the door, ms a message", [None, *(sides[n]["door_cpu_ms_per_message"] for n in SIDES[1:])]),
        ]
        print_table(f"{clients} clients", SIDES, lines)
    for name in SIDES[1:]:
        if (profile := figures.get("profile", {}).get(name)) is not None:
            shares = [(package, [share]) for package, share in profile["percent"].items()]
            print_table(f"the worker's CPU by {name}, by package", ["percent"], shares)
            print("\nlargest functions: " + "; ".join(profile["largest_functions"][:12]))


# The crowd


async def _crowd(given: argparse.Namespace, plan: Plan) -> dict[str, Any]:
    warn_if_busy()
    async with open_servers(given.engine) as stack, AsyncExitStack() as opened:
        found = environment(stack, loop=given.loop)
        url, pid = await opened.enter_async_context(_worker(stack))
        client = await opened.enter_async_context(_client("crowd", given, stack, url))
        memory = {"at_start": resident_mib(pid)}
        sessions = await client.ask("open", sessions=plan.open_sessions)
        memory["with_sessions"] = resident_mib(pid)
        sockets = await client.ask("connect", sockets=plan.sockets)
        memory["with_sockets"] = resident_mib(pid)
        idle = await _idle_cores(pid, 2.0 if given.quick else 10.0)
        runs = {}
        for per_s in plan.per_s:
            before_s = process_cpu_s(pid) or 0.0
            result = await client.ask("run", per_s=per_s, seconds=plan.crowd_s)
            result["worker_cores"] = round(((process_cpu_s(pid) or 0.0) - before_s) / result["elapsed_s"], 3)
            result["client_cores"] = round(result.pop("cpu_s") / result["elapsed_s"], 3)
            runs[f"{per_s:g}"] = result
        memory["after_load"] = resident_mib(pid)
    return {
        "bench": "worker-crowd",
        "sessions": sessions,
        "sockets": sockets,
        "worker_resident_mib": memory,
        "kib_a_session": round(1024 * (memory["with_sessions"] - memory["at_start"]) / plan.open_sessions, 2),
        "kib_a_socket": round(1024 * (memory["with_sockets"] - memory["with_sessions"]) / max(plan.sockets, 1), 2),
        "worker_cores_when_idle": idle,
        "per_s": runs,
        "load": msgspec.structs.asdict(plan),
        "environment": found,
    }


async def _idle_cores(pid: int, seconds: float) -> float:
    """Return the share of a core that the worker takes while nobody says anything, heartbeats apart."""
    before_s = process_cpu_s(pid) or 0.0
    await asyncio.sleep(seconds)
    return round(((process_cpu_s(pid) or 0.0) - before_s) / seconds, 4)


def resident_mib(pid: int) -> float:
    """Return how much memory a process has resident; 0 where that is not known."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
    except OSError:
        return 0.0
    found = next((line for line in lines if line.startswith("VmRSS:")), "VmRSS: 0 kB")
    return round(int(found.split()[1]) / 1024, 1)


def _failed(figures: dict[str, Any]) -> int:
    failed: int = sum(run["failed"] for run in figures["per_s"].values())
    if failed:
        print(f"\n{failed} messages failed: see first_failures.", file=sys.stderr)
    return failed


def _print_crowd(figures: dict[str, Any]) -> None:
    sessions, sockets = figures["sessions"], figures["sockets"]
    print(
        f"\n{sessions['sessions']:,} sessions opened in {sessions['seconds']} s, "
        f"{sockets['sockets']:,} sockets in {sockets['seconds']} s"
    )
    memory = [(name, [mib]) for name, mib in figures["worker_resident_mib"].items()]
    print_table("the worker's memory", ["MiB"], memory)
    lines = [
        (
            f"{per_s} a second",
            [
                run["messages_per_s"],
                *(run["latency_ms"][by][share] for by in ("http", "websocket") for share in ("p50", "p99")),
                run["worker_cores"],
                run["client_cores"],
                run["failed"],
            ],
        )
        for per_s, run in figures["per_s"].items()
    ]
    columns = ("came/s", "http p50", "http p99", "ws p50", "ws p99", "worker cores", "client cores", "failed")
    print_table("messages", columns, lines)
    print(f"\nidle, the worker takes {figures['worker_cores_when_idle']} of a core")


if __name__ == "__main__":
    sys.exit(main())
