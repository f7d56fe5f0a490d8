"""A client process of the Redis link's bench: one side, and commands from 50 tasks. Started by `redis_link.py`."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import TYPE_CHECKING, Any, Final

from _common import run
from _processes import serve, settle_memory
from _redis_client import ARGUMENTS, KEY, store
from redis.asyncio import BlockingConnectionPool, Redis

from mangacache import Settings
from mangacache.clock import SystemClock, system_random
from mangacache.context import scripts
from mangacache.redis import open_link
from mangacache.telemetry import Telemetry

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

TASKS: Final = 50
PIPELINES: Final = 2
"""Under way at once, of redis-py's: with one, the client waits for the server; with more, it gathers less."""

VALUE_4K: Final = b"v" * 4096
VALUE_16K: Final = b"v" * 16384
TTL_MS: Final = 3_600_000

COMMANDS: Final[dict[str, tuple[bytes | str | int | float, ...]]] = {
    "get_4k": ("GET", "bench:4k"),
    "set_4k": ("SET", "bench:set", VALUE_4K, "PX", TTL_MS),
    "get_16k": ("GET", "bench:16k"),
    "evalsha": ("EVALSHA", scripts.GET.sha, 1, KEY, *ARGUMENTS["same"]),
}
SIDES: Final = ("ours", "redis_py", "redis_py_pipeline")


class Gathering:
    """redis-py's pipelines: what is asked for while two are under way leaves with the next."""

    def __init__(self, client: Redis) -> None:
        self._client = client
        self._waiting: list[tuple[str, asyncio.Future[Any]]] = []
        self._under_way = 0
        self._tasks: set[asyncio.Task[None]] = set()

    def call(self, what: str) -> Awaitable[Any]:
        loop = asyncio.get_running_loop()
        outcome = loop.create_future()
        self._waiting.append((what, outcome))
        if len(self._waiting) == 1:
            loop.call_soon(self._send)
        return outcome

    def _send(self) -> None:
        if self._waiting and self._under_way < PIPELINES:
            self._under_way += 1
            gathered, self._waiting = self._waiting, []
            task = asyncio.create_task(self._execute(gathered))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _execute(self, gathered: list[tuple[str, asyncio.Future[Any]]]) -> None:
        pipeline = self._client.pipeline(transaction=False)
        for what, _ in gathered:
            pipeline.execute_command(*COMMANDS[what])
        for (_, outcome), reply in zip(gathered, await pipeline.execute(), strict=True):
            outcome.set_result(reply)
        self._under_way -= 1
        self._send()


class Client:
    """Sends a command from 50 tasks at once, each waiting for its reply."""

    def __init__(self, call: Callable[[str], Awaitable[Any]], prepare: Callable[[], Awaitable[None]]) -> None:
        self._call = call
        self.prepare = prepare

    async def settle(self) -> None:
        """Be warm."""
        settle_memory()

    async def measure(self, what: str, seconds: float) -> dict[str, Any]:
        """Return calls, and seconds of the clock and of the processor."""
        call = self._call
        ends_s = time.perf_counter() + seconds

        async def caller() -> int:
            calls, reply = 1, await call(what)  # once at least, however busy the machine is
            while time.perf_counter() < ends_s:
                reply = await call(what)
                calls += 1
            _check(what, reply)
            return calls

        started_s, cpu_s = time.perf_counter(), time.process_time()
        calls = sum(await asyncio.gather(*(caller() for _ in range(TASKS))))
        return {
            "calls": calls,
            "cpu_s": time.process_time() - cpu_s,
            "elapsed_s": time.perf_counter() - started_s,
        }


def _check(what: str, reply: Any) -> None:
    """Say so where the answer is another one."""
    right = {
        "get_4k": reply == VALUE_4K,
        "get_16k": reply == VALUE_16K,
        "set_4k": reply in (b"OK", True),
        "evalsha": isinstance(reply, list) and reply[0] == b"same",
    }
    if not right[what]:
        raise AssertionError(f"{what} answers {str(reply)[:80]}")


async def _main(side: str, url: str) -> None:
    settings = Settings(redis_endpoint=url, redis_timeout_s=10.0)
    link = open_link(settings, clock=SystemClock(), random=system_random(), telemetry=Telemetry())
    pool = BlockingConnectionPool.from_url(url, max_connections=TASKS, timeout=10)

    async def prepare() -> None:
        await store(link)
        for key, value in (("bench:4k", VALUE_4K), ("bench:16k", VALUE_16K)):
            await link.call("SET", key, value, "PX", TTL_MS, key=key)

    async with Redis(connection_pool=pool) as client:
        calls: dict[str, Callable[[str], Awaitable[Any]]] = {
            "ours": lambda what: (
                link.run(scripts.GET, KEY, ARGUMENTS["same"]) if what == "evalsha" else link.call(*COMMANDS[what])
            ),
            "redis_py": lambda what: client.execute_command(*COMMANDS[what]),
            "redis_py_pipeline": Gathering(client).call,
        }
        asked = Client(calls[side], prepare)
        try:
            await serve({"prepare": asked.prepare, "settle": asked.settle, "measure": asked.measure})
        finally:
            await link.close()


if __name__ == "__main__":
    given = json.loads(sys.argv[2])
    run(_main(sys.argv[1], given["url"]), loop=given["loop"])
