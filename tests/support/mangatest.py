"""What the suites share besides fixtures: clocks that can be set, a table of several workers, a lossy network."""

from __future__ import annotations

import asyncio
import contextlib
import random
import threading
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from mangacache import MangaCache, Settings
from mangacache.clock import SystemClock, system_random
from mangacache.store import Store, Transport
from mangacache.store.transport import Throttled, Unanswered
from mangacache.telemetry import Telemetry

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Mapping

T = TypeVar("T")

HANG_GUARD_S = 120.0


class SetClock(SystemClock):
    """The machine's clocks, moved: a wall clock that is wrong, or sessions that have grown older."""

    def __init__(self) -> None:
        self.wall_offset_s = 0.0
        self.age_offset_s = 0.0

    def time_s(self) -> float:
        return super().time_s() + self.wall_offset_s

    def age_s(self) -> float:
        return super().age_s() + self.age_offset_s


class HastyClock(SetClock):
    """A clock whose long sleeps end at once, having moved the clock on."""

    def monotonic_s(self) -> float:
        return super().monotonic_s() + self.age_offset_s

    async def sleep(self, seconds: float) -> None:
        if seconds <= 1:
            return await super().sleep(seconds)
        self.age_offset_s += seconds
        self.wall_offset_s += seconds
        return await asyncio.sleep(0)


class LoopThread:
    """An event loop in a thread of its own, for what must outlive a single test's loop."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(HANG_GUARD_S)

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


class Lossy:
    """A transport that loses requests and replies, or delays a request until after its time-out, as a network does.

    Args:
        inner: what the requests that come through go on to.
        seed: of the choice.
        share: of the requests that are not answered.
        late_s: the most by which a delayed request comes late; meanwhile its sender has been told of a time-out.
    """

    def __init__(self, inner: Transport, *, seed: int, share: float = 0.3, late_s: float = 0.0) -> None:
        self._inner = inner
        self._random = random.Random(seed)
        self._share = share
        self._late_s = late_s
        self.late: list[asyncio.Task[Any]] = []
        self.lost = 0

    async def request(self, operation: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
        if operation == "DescribeTable" or self._random.random() > self._share:
            return await self._inner.request(operation, parameters)
        self.lost += 1
        kind = self._random.choice(["request", "reply", "late", "throttle"])
        if kind == "throttle":
            raise Throttled("for the test")
        if kind == "reply":
            try:
                await self._inner.request(operation, parameters)
            except Exception as error:
                raise Unanswered("the reply was lost") from error
        if kind == "late":
            self.late.append(asyncio.create_task(self._come_late(operation, parameters)))
        raise Unanswered("lost")

    async def _come_late(self, operation: str, parameters: Mapping[str, Any]) -> None:
        if self._late_s:
            await asyncio.sleep(self._random.random() * self._late_s)
        with contextlib.suppress(Exception):  # nobody is left to hear it
            await self._inner.request(operation, parameters)

    async def settle(self) -> None:
        """Wait until every late request has come."""
        await asyncio.gather(*self.late)


class Interrupted:
    """A transport that lets something else happen just before a request goes out, or loses its reply."""

    def __init__(self, inner: Transport) -> None:
        self._inner = inner
        self._meanwhile: dict[str, Callable[[], Coroutine[Any, Any, Any]]] = {}
        self._unheard: dict[str, Callable[[], Coroutine[Any, Any, Any]]] = {}

    def before(self, operation: str, meanwhile: Callable[[], Coroutine[Any, Any, Any]]) -> None:
        """Run `meanwhile` before the next request of this kind."""
        self._meanwhile[operation] = meanwhile

    async def request(self, operation: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
        if (meanwhile := self._meanwhile.pop(operation, None)) is not None:
            await meanwhile()
        answer = await self._inner.request(operation, parameters)
        if (then := self._unheard.pop(operation, None)) is not None:
            await then()
            raise Unanswered("the reply was lost")
        return answer

    def lose_reply(self, operation: str, then: Callable[[], Coroutine[Any, Any, Any]]) -> None:
        """Let the next request of this kind be done and not heard of, and run `then` before it is sent again."""
        self._unheard[operation] = then

    @property
    def waiting(self) -> bool:
        """Whether something has yet to happen; a test that expects it to have happened asks."""
        return bool(self._meanwhile or self._unheard)


class World:
    """A table on some engine, and caches that share it like workers do.

    Attributes:
        settings: of the table.
        wrap: put around each transport that is opened, for counting and faults.
    """

    def __init__(self, settings: Settings, connect: Callable[[], Any]) -> None:
        self.settings = settings
        self._connect = connect

    @asynccontextmanager
    async def cache(
        self,
        *,
        clock: SystemClock | None = None,
        wrap: Callable[[Transport], Transport] | None = None,
        **changes: Any,
    ) -> AsyncIterator[MangaCache]:
        settings = self.settings.replace(**changes) if changes else self.settings
        async with self._connect() as transport:
            wrapped = wrap(transport) if wrap is not None else transport
            try:
                async with MangaCache.open(settings, clock=clock, transport=wrapped) as cache:
                    yield cache
            finally:
                if isinstance(wrapped, Lossy):  # what was sent in closing may come late too
                    await wrapped.settle()

    @asynccontextmanager
    async def store(self) -> AsyncIterator[Store]:
        async with self._connect() as transport:
            yield Store(
                transport,
                settings=self.settings,
                clock=SystemClock(),
                random=system_random(),
                telemetry=Telemetry(),
            )

    @asynccontextmanager
    async def transport(self) -> AsyncIterator[Transport]:
        async with self._connect() as transport:
            yield transport

    async def put(self, *items: dict[str, Any]) -> None:
        """Put items as another program would."""
        async with self.transport() as transport:
            for item in items:
                await transport.request("PutItem", {"TableName": self.settings.table_name, "Item": item})

    async def items(self) -> list[dict[str, Any]]:
        """Return every item of the table."""
        found: list[dict[str, Any]] = []
        async with self.transport() as transport:
            start: dict[str, Any] | None = None
            while True:
                page = {"ExclusiveStartKey": start} if start else {}
                answer = await transport.request(
                    "Scan", {"TableName": self.settings.table_name, "ConsistentRead": True, **page}
                )
                found.extend(answer["Items"])
                if not (start := answer.get("LastEvaluatedKey")):
                    return found

    async def delete_items(self, chosen: Callable[[dict[str, Any]], bool]) -> int:
        """Delete items behind everybody's back, as DynamoDB's own expiry does."""
        doomed = [item for item in await self.items() if chosen(item)]
        async with self.transport() as transport:
            for item in doomed:
                key = {"PK": item["PK"], "SK": item["SK"]}
                await transport.request("DeleteItem", {"TableName": self.settings.table_name, "Key": key})
        return len(doomed)

    async def expire(self, *, after_s: float = 0.0) -> int:
        """Delete what has expired by the true time, or will have in a while, as DynamoDB does."""
        now_s = time.time() + after_s
        return await self.delete_items(lambda item: "ttl" in item and float(item["ttl"]["N"]) <= now_s)
