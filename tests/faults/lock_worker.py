"""A worker process of the locks' fault tests: takes locks, writes under them as if it could not lose them, and reports.

Started as `python lock_worker.py PLAN`; PLAN is the JSON of `lockrace.Plan`. Each report is a line of JSON, whose times
are the machine's monotonic clock, which all processes share. It writes recklessly on purpose: in a task of its own that
no loss of the lock stops, so that the fence alone stands between a paused holder and the table. The parent pauses it,
kills it and cuts it off whenever it likes.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import sys
import time

from mangacache import Conflict, MangaCache, MangaCacheError, Settings
from mangacache.store import open_transport


def say(**report):
    print(json.dumps(report), flush=True)


class Worker:
    def __init__(self, cache, plan):
        self._cache = cache
        self._plan = plan
        self._noise = random.Random(plan["seed"])
        self._stopping = asyncio.Event()

    async def run(self):
        strands = [asyncio.create_task(self._strand()) for _ in range(self._plan["strands"])]
        await asyncio.to_thread(sys.stdin.readline)
        self._stopping.set()
        await asyncio.gather(*strands)

    async def _strand(self):
        while not self._stopping.is_set():
            name = self._noise.choice(self._plan["sessions"])
            asked = time.monotonic()
            writing = None
            try:
                async with self._cache.locks.session(name, lease_s=self._plan["lease_s"], wait_s=5.0) as held:
                    say(
                        call="held", session=name, fence=held.fence, begun=asked, ended=time.monotonic(), by=held.source
                    )
                    writing = asyncio.create_task(self._write(name, held.fence))
                    await asyncio.shield(writing)
                    left = time.monotonic()
                say(call="left", session=name, fence=held.fence, begun=left, ended=time.monotonic())
            except Conflict:
                say(call="stopped", session=name, begun=asked, ended=time.monotonic())
            except MangaCacheError as error:
                say(call="failed", session=name, begun=asked, ended=time.monotonic(), why=type(error).__name__)
            if writing is not None:
                with contextlib.suppress(MangaCacheError):
                    await writing

    async def _write(self, name, fence):
        for _ in range(self._noise.randint(1, 3)):
            await asyncio.sleep(self._noise.random() * 0.01)
            begun = time.monotonic()
            try:
                done = await self._cache.session(name).update({"by": fence}, fence=fence)
            except Conflict as refused:
                say(call="refused", session=name, fence=fence, begun=begun, ended=time.monotonic(), why=str(refused))
                return
            say(
                call="wrote", session=name, fence=fence, revision=done.version.revision,
                begun=begun, ended=time.monotonic(),
            )  # fmt: skip

    async def hold_once(self):
        """Take one lock, say so, write when told to, and report what came of it."""
        name = self._plan["sessions"][0]
        try:
            async with self._cache.locks.session(name, lease_s=self._plan["lease_s"]) as held:
                say(call="held", session=name, fence=held.fence, begun=0.0, ended=time.monotonic(), by=held.source)
                told = asyncio.create_task(self._write_when_told(name, held.fence))
                await asyncio.shield(told)
        except Conflict as lost:
            say(call="stopped", session=name, begun=0.0, ended=time.monotonic(), why=str(lost))
        await told

    async def _write_when_told(self, name, fence):
        await asyncio.to_thread(sys.stdin.readline)
        await self._write(name, fence)


async def main(plan):
    settings = Settings(
        table_name=plan["table"], dynamodb_endpoint=plan["endpoint"], redis_endpoint=plan["redis"],
        retry_base_s=0.002, redis_timeout_s=0.2,
    )  # fmt: skip
    async with open_transport(settings) as transport, MangaCache.open(settings, transport=transport) as cache:
        worker = Worker(cache, plan)
        say(call="ready", begun=0.0, ended=time.monotonic())
        await (worker.hold_once() if plan["strands"] == 0 else worker.run())


if __name__ == "__main__":
    asyncio.run(main(json.loads(sys.argv[1])))
