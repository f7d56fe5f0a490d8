"""Actors as others make them, beside ours: a process of its own for each kind, which answers with one line of JSON.

It imports nothing of ours, so that a peer can be measured by another interpreter, in whose environment it is installed.
"""

from __future__ import annotations

import asyncio
import gc
import json
import resource
import sys
import threading
import time
from pathlib import Path
from typing import Any

CALLED = 1_000
CALLERS = 200
CONTENDED = 20


def resident_bytes() -> int:
    """Return how much memory this process has."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * resource.getpagesize()


class QueueActor:
    """A task and a queue: what an actor is in most programs on asyncio.

    Args:
        lets_others_run: between messages.
    """

    def __init__(self, *, lets_others_run: bool = False) -> None:
        self.count = 0
        self._lets_others_run = lets_others_run
        self._queue: asyncio.Queue[asyncio.Future[int]] = asyncio.Queue()
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def _run(self) -> None:
        while True:
            future = await self._queue.get()
            if self._lets_others_run:
                await asyncio.sleep(0)
            self.count += 1
            if not future.done():
                future.set_result(self.count)

    async def call(self) -> int:
        """Have the actor count, and return how far it has come."""
        future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._queue.put_nowait(future)
        return await future

    def stop(self) -> None:
        """End its task."""
        self._task.cancel()


async def closed_loop(call: Any, actors: int, seconds: float) -> dict[str, float]:
    """Return calls a second: so many callers, each with one call at a time, over the actors in turn.

    By the clock, and by the processor time of this process, which others do not lengthen.
    """
    ends_s = time.perf_counter() + seconds

    async def caller(first: int) -> int:
        calls, place = 0, first
        while calls % 16 or time.perf_counter() < ends_s:
            await call(place)
            place = (place + CALLERS) % actors
            calls += 1
        return calls

    began_s, cpu_s = time.perf_counter(), time.process_time()
    calls = sum(await asyncio.gather(*(caller(number % actors) for number in range(CALLERS))))
    return {
        "calls_per_s": calls / (time.perf_counter() - began_s),
        "calls_per_cpu_s": calls / (time.process_time() - cpu_s),
    }


async def task_queue(actors: int, rounds: int, seconds: float) -> dict[str, Any]:
    """Measure a task and a queue for each actor."""
    before = resident_bytes()
    made = [QueueActor() for _ in range(actors)]
    await asyncio.sleep(0)  # each task begins, and waits
    idle = (resident_bytes() - before) / actors
    called = min(CALLED, actors)
    rates = [await closed_loop(lambda place: made[place].call(), called, seconds) for _ in range(rounds)]
    slower = [QueueActor(lets_others_run=True) for _ in range(CONTENDED)]
    waiting = [
        await closed_loop(lambda place: slower[place % CONTENDED].call(), called, seconds) for _ in range(rounds)
    ]  # fmt: skip
    for actor in made + slower:
        actor.stop()
    return {"actors": actors, "idle_bytes": round(idle), "rates": rates, "waiting": waiting}


async def xoscar(actors: int, rounds: int, seconds: float) -> dict[str, Any]:
    """Measure xoscar's actors, in one process."""
    import xoscar as xo  # noqa: PLC0415 - a peer that need not be there

    class Counter(xo.Actor):  # type: ignore[misc]
        def __init__(self) -> None:
            self.count = 0

        def call(self) -> int:
            self.count += 1
            return self.count

    pool = await xo.create_actor_pool("127.0.0.1", n_process=0)
    try:
        before = resident_bytes()
        address = pool.external_address
        made = [await xo.create_actor(Counter, address=address, uid=f"s{n}") for n in range(actors)]
        idle = (resident_bytes() - before) / actors
        called = min(CALLED, actors)
        rates = [await closed_loop(lambda place: made[place].call(), called, seconds) for _ in range(rounds)]
    finally:
        await pool.stop()
    return {"actors": actors, "idle_bytes": round(idle), "rates": rates, "version": xo.__version__}


def pykka(actors: int, rounds: int, seconds: float) -> dict[str, Any]:
    """Measure pykka's actors, a thread each; called from a few threads."""
    import pykka as pk  # noqa: PLC0415 - a peer that need not be there

    class Counter(pk.ThreadingActor):
        count = 0

        def on_receive(self, message: Any) -> int:
            del message
            self.count += 1
            return self.count

    before = resident_bytes()
    made = [Counter.start() for _ in range(actors)]
    try:
        idle = (resident_bytes() - before) / actors
        rates = []
        for _ in range(rounds):
            counts: list[int] = []
            ends_s = time.perf_counter() + seconds

            def caller(first: int, ends_s: float = ends_s, counts: list[int] = counts) -> None:
                calls = 0
                while time.perf_counter() < ends_s:
                    made[(first + calls) % actors].ask(None)
                    calls += 1
                counts.append(calls)

            began_s, cpu_s = time.perf_counter(), time.process_time()
            threads = [threading.Thread(target=caller, args=(number * 7,)) for number in range(8)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            calls = sum(counts)
            rates.append(
                {
                    "calls_per_s": calls / (time.perf_counter() - began_s),
                    "calls_per_cpu_s": calls / (time.process_time() - cpu_s),
                }
            )
    finally:
        for actor in made:
            actor.stop(block=False)
    return {"actors": actors, "idle_bytes": round(idle), "rates": rates}


def main() -> None:
    """Measure the peer that the arguments name."""
    given = json.loads(sys.argv[1])
    name, actors, rounds, seconds = given["peer"], given["actors"], given["rounds"], given["round_s"]
    gc.collect()
    gc.freeze()
    if name == "pykka":
        result = pykka(actors, rounds, seconds)
    else:
        peer = {"task_queue": task_queue, "xoscar": xoscar}[name]
        if given["loop"] == "uvloop" and name != "xoscar":
            import uvloop  # noqa: PLC0415 - an extra that need not be there

            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                result = runner.run(peer(actors, rounds, seconds))
        else:
            result = asyncio.run(peer(actors, rounds, seconds))
    print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
