"""A worker process of the cache's load runs: clients read and write a few sessions, and everything is recorded.

Started as `python load_worker.py JSON`. Lines of JSON come in on standard input: a client that arrives with the tokens
it carries, or "stop". Lines go out: "ready", a client that moves on to another worker, "done" when the share of
operations is done, and the telemetry at the end. The parent cuts off, stops and kills whatever it likes.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "support"))

from mangacache import Consistency, MangaCache, NotFound, Rejected, Settings, Transient, Version
from mangacache.tasks import TaskOwner
from mangacache.testing import HistoryRecorder

_STAY = (10, 40)
"""How many operations a client stays at a worker."""


class Clients:
    """The clients that are at this worker."""

    def __init__(self, plan, cache, recorder):
        self._plan = plan
        self._cache = cache
        self._recorder = recorder
        self._random = random.Random(plan["seed"])
        self._left = plan["operations"]
        self._told = False
        self.failures = 0
        self.refused = 0
        self.degraded = 0
        self.tasks = TaskOwner(on_failure=self._failed)

    def _failed(self, name, error):
        self.failures += 1
        print(f"{name}: {error!r}", file=sys.stderr, flush=True)

    def arrive(self, client):
        self.tasks.start(self._stay(client), name=f"client {client['id']}")

    async def _stay(self, client):
        for _ in range(self._random.randint(*_STAY)):
            if self._left <= 0:
                break
            self._left -= 1
            await self._one(client)
        print(json.dumps({"hop": client}), flush=True)
        if self._left <= 0 and not self._told:
            self._told = True
            print(json.dumps("done"), flush=True)

    async def _one(self, client):
        session_id = self._random.choice(self._plan["sessions"])
        try:
            if self._random.random() >= self._plan["writes"]:
                await self._read(client, session_id)
            elif self._random.random() < 0.1:
                await self._update(client, session_id)
            else:
                await self._append(client, session_id)
        except (Transient, Rejected) as error:
            self.refused += 1
            await asyncio.sleep(min(error.retry_after_s, 0.05))
        except NotFound:
            return  # the session has not begun yet

    async def _read(self, client, session_id):
        level = Consistency.LATEST if self._plan["level"] == "latest" else Consistency.SESSION
        token = client["tokens"].get(session_id) if self._plan["tokens"] else None
        with self._recorder.read(session_id, client=client["id"], consistency=level, at_least=token, turns=20) as call:
            context = await self._cache.session(session_id).context(turns=20, at_least=token, consistency=level)
            call.done(context)
        self.degraded += context.degraded or context.stale
        _carry(client, session_id, context.version)

    async def _append(self, client, session_id):
        client["said"] += 1
        said = {"turn_id": f"{client['id']}-{client['said']}", "role": "user", "content": f"{client['said']:06}"}
        # A retry that comes late carries the token from before its first try.
        after = client["tokens"].get(session_id) or "0.0.0"
        for attempt in range(40):
            with self._recorder.append(session_id, client=client["id"], **said) as call:
                try:
                    done = await self._cache.session(session_id).append(**said, after=after if attempt else None)
                except Transient:
                    continue
                call.done(done)
            _carry(client, session_id, done.version)
            return

    async def _update(self, client, session_id):
        with self._recorder.update(session_id, client=client["id"]) as call:
            done = await self._cache.session(session_id).update({"mood": self._random.randint(0, 9)})
            call.done(done)
        _carry(client, session_id, done.version)


def _carry(client, session_id, version):
    held = client["tokens"].get(session_id)
    joined = version.join(Version.parse(held)) if held else version
    client["tokens"][session_id] = str(joined)


async def _lines():
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        yield json.loads(line)


async def main(plan):
    settings = Settings(**plan["settings"])
    with HistoryRecorder(plan["record"], worker=plan["worker"]) as recorder:
        async with MangaCache.open(settings) as cache:
            clients = Clients(plan, cache, recorder)
            print(json.dumps("ready"), flush=True)
            async for line in _lines():
                if line == "stop":
                    break
                clients.arrive(line)
            await clients.tasks.settle()
        events = {
            sample.labels["event"]: sample.value
            for sample in next(iter(cache.telemetry.cache_events.collect())).samples
            if sample.name.endswith("_total")
        }
    end = {"events": events, "refused": clients.refused, "degraded": clients.degraded, "failures": clients.failures}
    print(json.dumps(end), flush=True)


if __name__ == "__main__":
    try:
        import uvloop
    except ImportError:
        asyncio.run(main(json.loads(sys.argv[1])))
    else:
        uvloop.run(main(json.loads(sys.argv[1])))
