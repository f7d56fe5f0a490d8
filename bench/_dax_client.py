"""A client process of the DAX bench: one way of reading, and its load. Started by `dax.py`."""

from __future__ import annotations

import asyncio
import json
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from _common import percentile, run
from _processes import serve, settle_memory

from mangacache import Settings
from mangacache.clock import SystemClock, system_random
from mangacache.model import WINDOW
from mangacache.store import Store, open_transport
from mangacache.store.dax import DaxDoor, dax_transport
from mangacache.store.dax.client import connect
from mangacache.store.keys import turn_key
from mangacache.store.windows import NEWEST
from mangacache.telemetry import Telemetry

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from mangacache.store.dax import DaxTransport

SESSION: Final = "bench"
_CONTENT: Final = "The next volume of that series comes out in spring; shall I put it aside for you? " * 5
_PATIENT_S: Final = 30.0
_TICK_S: Final = 0.005


class Client:
    """Reads from so many tasks, or threads, at once.

    Args:
        name: `adapter`, `executor`, `threads` or `dynamodb`.
        settings: of the servers.
        stack: closes what is opened.
    """

    def __init__(self, name: str, settings: Settings, stack: AsyncExitStack) -> None:
        self._name = name
        self._settings = settings.replace(dax_fills="numbers" if name == "adapter" else "strong")
        self._stack = stack
        self._get = {"TableName": settings.table_name, "Key": _key(WINDOW)}
        below = [_key(number) for number in range(1, WINDOW - NEWEST + 1)]
        self._turns = {"RequestItems": {settings.table_name: {"Keys": below}}}
        self._bare: Any = None
        self._adapter: DaxTransport | None = None
        self._transport: Any = None
        self._store: Store | None = None

    async def open(self) -> None:
        """Open what this way needs."""
        clock, random, telemetry = SystemClock(), system_random(), Telemetry()
        self._transport = await self._stack.enter_async_context(open_transport(self._settings))
        door = None
        if self._name == "adapter":
            make = partial(connect, self._settings.dax, self._settings)
            self._adapter = dax_transport(make, self._settings, clock=clock, telemetry=telemetry)
            self._stack.push_async_callback(self._adapter.close)
            table = self._settings.table_name
            door = DaxDoor(self._adapter, table_name=table, clock=clock, random=random, telemetry=telemetry)
        elif self._name != "dynamodb":
            self._bare = await asyncio.to_thread(connect, self._settings.dax, self._settings)
            self._stack.callback(self._bare.close)
        self._store = Store(
            self._transport, settings=self._settings, clock=clock, random=random, telemetry=telemetry, dax=door
        )

    async def prepare(self) -> None:
        """Store a session's window."""
        meta = {"status": {"S": "active"}, "created_at": {"S": "2026-01-01T00:00:00.000Z"}}
        numbers = {"incarnation": {"N": "1"}, "revision": {"N": "1"}, "last_number": {"N": str(WINDOW)}}
        await self._put({**_place("META"), **meta, **numbers})
        for number in range(1, WINDOW + 1):
            said = {"turn_id": {"S": f"t{number}"}, "role": {"S": "user"}, "content": {"S": _CONTENT}}
            stored = {"created_at": {"S": "2026-01-01T00:00:00.000Z"}, "ttl": {"N": "4000000000"}}
            await self._put({**_key(number), **said, **stored})

    async def _put(self, item: dict[str, Any]) -> None:
        await self._transport.request("PutItem", {"TableName": self._settings.table_name, "Item": item})

    async def settle(self) -> None:
        """Be warm."""
        settle_memory()

    async def measure(self, what: str, in_flight: int, seconds: float) -> dict[str, Any]:
        """Return calls, seconds of the clock and of the processor, and how late the event loop was.

        Args:
            what: `get` one turn, the `turns` of a window below its newest by their numbers, or the whole `window`.
            in_flight: reads at once.
            seconds: how long.
        """
        lags_s: list[float] = []
        watch = asyncio.get_running_loop().create_task(_watch(lags_s))
        started_s, cpu_s = time.perf_counter(), time.process_time()
        if self._name == "threads":
            calls = await asyncio.to_thread(self._in_threads, what, in_flight, seconds)
        else:
            calls = await self._in_tasks(what, in_flight, seconds)
        elapsed_s, cpu_s = time.perf_counter() - started_s, time.process_time() - cpu_s
        watch.cancel()
        lag_ms = round(1e3 * percentile(lags_s, 0.99), 2)
        return {"calls": calls, "cpu_s": cpu_s, "elapsed_s": elapsed_s, "loop_lag_p99_ms": lag_ms}

    async def _in_tasks(self, what: str, in_flight: int, seconds: float) -> int:
        ends_s = time.perf_counter() + seconds
        with ThreadPoolExecutor(in_flight) as executor:
            read = self._read(what, executor)

            async def caller() -> int:
                calls = 0
                while not calls or time.perf_counter() < ends_s:
                    _check(what, await read())
                    calls += 1
                return calls

            return sum(await asyncio.gather(*(caller() for _ in range(in_flight))))

    def _read(self, what: str, executor: ThreadPoolExecutor) -> Callable[[], Awaitable[Any]]:
        if what == "window":
            return self._window
        operation, parameters = ("GetItem", self._get) if what == "get" else ("BatchGetItem", self._turns)
        if self._adapter is not None:
            return partial(self._adapter.request, operation, parameters)
        if self._bare is not None:
            call = self._bare.get_item if what == "get" else self._bare.batch_get_item
            loop = asyncio.get_running_loop()
            return partial(loop.run_in_executor, executor, partial(call, **parameters))
        strong = {**parameters, "ConsistentRead": True} if what == "get" else parameters
        return partial(self._transport.request, operation, strong)

    async def _window(self) -> Any:
        if self._store is None:
            raise AssertionError("read before it was opened")
        return (await self._store.windows.load(SESSION)).snapshot

    def _in_threads(self, what: str, in_flight: int, seconds: float) -> int:
        parameters = self._get if what == "get" else self._turns
        call = self._bare.get_item if what == "get" else self._bare.batch_get_item
        ends_s = time.perf_counter() + seconds
        calls = [0] * in_flight

        def caller(place: int) -> None:
            while not calls[place] or time.perf_counter() < ends_s:
                _check(what, call(**parameters))
                calls[place] += 1

        threads = [threading.Thread(target=caller, args=(place,)) for place in range(in_flight)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return sum(calls)


async def _watch(lags_s: list[float]) -> None:
    """Note by how much each short sleep is too long."""
    while True:
        asked_s = time.perf_counter()
        await asyncio.sleep(_TICK_S)
        lags_s.append(time.perf_counter() - asked_s - _TICK_S)


def _check(what: str, answer: Any) -> None:
    if what == "window":
        found, wanted = len(answer.turns), WINDOW
    elif what == "get":
        found, wanted = "Item" in answer, True
    else:
        found, wanted = sum(map(len, answer["Responses"].values())), WINDOW - NEWEST
    if found != wanted:
        raise AssertionError(f"{what}: {found} items came back, not {wanted}")


def _place(sort_key: str) -> dict[str, Any]:
    return {"PK": {"S": f"SESSION#{SESSION}"}, "SK": {"S": sort_key}}


def _key(number: int) -> dict[str, Any]:
    return _place(turn_key(1, number))


async def _main(name: str, fields: dict[str, Any]) -> None:
    settings = Settings(**fields).replace(dax_timeout_s=10.0, dax_calls=1024, max_connections=64)
    async with AsyncExitStack() as stack:
        client = Client(name, settings, stack)
        await client.open()
        await serve({"prepare": client.prepare, "settle": client.settle, "measure": client.measure})


if __name__ == "__main__":
    given = json.loads(sys.argv[2])
    run(_main(sys.argv[1], given["settings"]), loop=given["loop"])
