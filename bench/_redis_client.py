"""A client process of the Redis link's bench: one link, and its load. Started by `redis_link.py`."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import TYPE_CHECKING, Any, Final

from _common import run
from _processes import serve, settle_memory

from mangacache import Settings
from mangacache.clock import SystemClock, system_random
from mangacache.context import scripts
from mangacache.redis import open_link
from mangacache.telemetry import Telemetry

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mangacache.redis import Argument, Link

KEY: Final = "bench:session:{link}:context:1"
_TTL_MS: Final = 3_600_000
_WINDOW: Final = 32
_VERSION: Final = (1, _WINDOW, 1)
_TURN: Final = b"t" * 400
_TOKEN: Final = "f" * 32

ARGUMENTS: Final[dict[str, list[Argument]]] = {
    "same": [_TOKEN, 2000, _TTL_MS, _TTL_MS, _WINDOW, *_VERSION, *_VERSION],
    "whole": [_TOKEN, 2000, _TTL_MS, _TTL_MS, _WINDOW, *_VERSION, -1, -1, -1],
}
"""GET of a context that the caller has, and of one that it has not: 32 turns, 12.8 KB."""


async def store(link: Link) -> None:
    """Put a context there."""
    await link.call("DEL", KEY, key=KEY)
    await link.run(scripts.GET, KEY, ARGUMENTS["whole"])
    fill: Sequence[Argument] = [_TTL_MS, _WINDOW, *_VERSION, b"head", 1, _TOKEN, *[_TURN] * _WINDOW]
    if await link.run(scripts.FILL, KEY, fill, tag=0) != b"filled":
        raise AssertionError("the context was not stored")


class Client:
    """Runs the script from so many tasks at once."""

    def __init__(self, link: Link) -> None:
        self._link = link

    async def prepare(self) -> None:
        """Store what is read."""
        await store(self._link)

    async def settle(self) -> None:
        """Be warm."""
        settle_memory()

    async def measure(self, what: str, in_flight: int, seconds: float) -> dict[str, Any]:
        """Return calls, and seconds of the clock and of the processor."""
        arguments, link = ARGUMENTS[what], self._link
        ends_s = time.perf_counter() + seconds

        async def caller() -> int:
            calls = 0
            while not calls or time.perf_counter() < ends_s:  # once at least, however busy the machine is
                reply = await link.run(scripts.GET, KEY, arguments, tag=0)
                calls += 1
            if reply[0] != (b"same" if what == "same" else b"hit"):
                raise AssertionError(f"the answer is {reply[0]!r}")
            return calls

        started_s, cpu_s = time.perf_counter(), time.process_time()
        calls = sum(await asyncio.gather(*(caller() for _ in range(in_flight))))
        return {
            "calls": calls,
            "cpu_s": time.process_time() - cpu_s,
            "elapsed_s": time.perf_counter() - started_s,
        }


async def _main(name: str, url: str) -> None:
    settings = Settings(redis_endpoint=url, redis_link=name, redis_connections=50, redis_timeout_s=10.0)
    link = open_link(settings, clock=SystemClock(), random=system_random(), telemetry=Telemetry())
    client = Client(link)
    try:
        await serve({"prepare": client.prepare, "settle": client.settle, "measure": client.measure})
    finally:
        await link.close()


if __name__ == "__main__":
    given = json.loads(sys.argv[2])
    run(_main(sys.argv[1], given["url"]), loop=given["loop"])
