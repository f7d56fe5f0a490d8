"""Two workers behind what stands for a load balancer, replaced one after the other while chats go on."""

from __future__ import annotations

import asyncio
import signal
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any

import aiohttp
from workers import WorkerProcess, eventually, start_worker

from mangacache import MangaCache, Settings
from mangacache.clock import SystemClock, system_random
from mangacache.replay import SAMPLE, Options, Remote, is_clean, read_conversations, replay_at_workers
from mangacache.replay.verifying import verify
from mangacache.store import Store, open_transport
from mangacache.telemetry import Telemetry
from mangacache.testing import Proxy

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

NOTICE = {"MANGACACHE_WORKER_NOTICE_S": "0.5"}


async def create_table(variables: dict[str, str]) -> None:
    """Make the table that the variables name."""
    settings = Settings.from_env(variables)
    async with open_transport(settings) as transport:
        store = Store(transport, settings=settings, clock=SystemClock(), random=system_random(), telemetry=Telemetry())
        await store.schema.create()


class Slot:
    """A place for a worker: its address stays, whoever is behind it.

    Attributes:
        worker: who is there.
        url: the address.
        replaced: exit statuses of those who were.
    """

    def __init__(self, worker: WorkerProcess, proxy: Proxy, variables: dict[str, str]) -> None:
        self.worker = worker
        self.url = f"http://127.0.0.1:{proxy.port}"
        self.replaced: list[int] = []
        self._proxy = proxy
        self._variables = variables

    @classmethod
    @asynccontextmanager
    async def open(cls, variables: dict[str, str], **options: Any) -> AsyncIterator[Slot]:
        worker = await start_worker(variables, **options)
        try:
            async with Proxy.open(_port(worker)) as proxy:
                slot = cls(worker, proxy, variables)
                try:
                    yield slot
                finally:
                    await slot.worker.kill()
        finally:
            await worker.kill()

    async def replace(self) -> None:
        """Deploy: start the next worker, tell this one to leave, and send connections to the next once it says so."""
        old, self.worker = self.worker, await start_worker(self._variables)
        old.signal(signal.SIGTERM)
        await eventually(lambda: _refuses(old))
        self._proxy.target_port = _port(self.worker)
        self.replaced.append(await old.ended())

    async def crash(self) -> None:
        """Kill the worker where it stands, and start another one in its place."""
        await self.worker.kill()
        self.replaced.append(self.worker.status or 0)
        self.worker = await start_worker(self._variables)
        self._proxy.target_port = _port(self.worker)


def _port(worker: WorkerProcess) -> int:
    return int(worker.public.rpartition(":")[2])


async def _refuses(worker: WorkerProcess) -> bool:
    """Tell whether a worker is not to be sent anything: it says so, or is gone."""
    try:
        async with aiohttp.ClientSession() as client, client.get(f"{worker.public}/readyz") as response:
            return response.status == 503
    except aiohttp.ClientError:
        return True


@asynccontextmanager
async def slots(variables: dict[str, str], count: int = 2) -> AsyncIterator[list[Slot]]:
    """Open several."""
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(Slot.open(variables)) for _ in range(count)]


class Chats:
    """Recorded chats, replayed again and again through workers, each time as other sessions.

    Attributes:
        messages: that were answered so far.
        reports: of the replays that have ended.
    """

    def __init__(self, urls: Sequence[str], *, limit: int, concurrency: int = 8) -> None:
        self._remote = Remote(urls=tuple(urls))
        self._limit = limit
        self._concurrency = concurrency
        self._more = asyncio.Event()
        self.messages = 0
        self.reports: list[dict[str, Any]] = []

    def _count(self) -> None:
        self.messages += 1
        self._more.set()

    async def replay_until(self, done: asyncio.Event) -> None:
        """Replay until it is done, and the replay that was under way then to its end; it raises what no retry mends."""
        while not (done.is_set() and self.reports):
            options = Options(limit=self._limit, concurrency=self._concurrency, prefix=self._prefix(len(self.reports)))
            report = await replay_at_workers(SAMPLE, self._remote, options, progress=lambda _: self._count)
            self.reports.append(report)

    async def go_on_for(self, messages: int) -> None:
        """Wait until so many more messages were answered."""
        until = self.messages + messages
        while self.messages < until:
            self._more.clear()
            await self._more.wait()

    async def read_back(self, settings: Settings) -> dict[str, int]:
        """Read every session in DynamoDB, by a reader that has nothing to do with the workers."""
        found = {"verified": 0, "mismatches": 0, "lost": 0, "duplicates": 0}
        async with MangaCache.open(settings.replace(redis_endpoint=None)) as reader:
            for number in range(len(self.reports)):
                prefix = self._prefix(number)
                conversations = read_conversations(
                    SAMPLE,
                    limit=self._limit,
                    need_times=False,
                    prefix=prefix,
                    max_content_bytes=settings.max_content_bytes,
                )
                verdict = await verify(reader, [(prefix + each.session_id, each) for each in conversations])
                for name in found:
                    found[name] += getattr(verdict, name)
        return found

    @property
    def clean(self) -> bool:
        return all(is_clean(report) for report in self.reports)

    @staticmethod
    def _prefix(number: int) -> str:
        return f"roll-{number}-"
