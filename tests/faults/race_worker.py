"""A worker process of the fault tests: does its strands of calls at once, reporting each result before the next call.

Started as `python race_worker.py PLAN`; PLAN is the JSON of `racing.Plan`. A strand is a list of calls done one after
the other; a call that raises `Transient` is repeated until its outcome is definite. Each report is a line of JSON,
whose times are the machine's monotonic clock, which all processes share. The parent kills it whenever it likes.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "support"))

from mangatest import Lossy, SetClock

from mangacache import Conflict, Consistency, MangaCache, NewTurn, NotFound, Rejected, Settings, Transient, Version
from mangacache.store import open_transport

LEVELS = {
    "strong": Consistency.STRONG,
    "latest": Consistency.LATEST,
    "session": Consistency.SESSION,
    "eventual": Consistency.EVENTUAL(60),
}


class Mortal:
    """A transport whose process is killed before its nth request of one kind is sent, or after the nth was done."""

    def __init__(self, inner, dies):
        self._inner = inner
        self._operation, self._left, self._when = dies or ("", 0, "")

    async def request(self, operation, parameters):
        self._pass("before", operation)
        answer = await self._inner.request(operation, parameters)
        self._pass("after", operation)
        return answer

    def _pass(self, when, operation):
        if (when, operation) == (self._when, self._operation):
            self._left -= 1
            if not self._left:
                die()


def say(**report):
    print(json.dumps(report), flush=True)


def die():
    say(call="die", begun=time.monotonic(), ended=time.monotonic())
    os.kill(os.getpid(), signal.SIGKILL)


class Worker:
    def __init__(self, cache, plan, clock):
        self._cache = cache
        self._plan = plan
        self._clock = clock
        self._session = cache.session(plan["session_id"], customer_id=plan["customer_id"])
        self._token = Version()
        self._tries = 0
        self._jumps = dict(plan["clock_jumps"])
        self._calls = 0

    async def strand(self, calls):
        for call, argument in calls:
            self._calls += 1
            self._clock.wall_offset_s = self._jumps.get(self._calls, self._clock.wall_offset_s)
            if call == "wait":
                await asyncio.to_thread(sys.stdin.readline)
                continue
            begun = time.monotonic()
            for report in await self._definite(call, argument):
                say(call=call, begun=begun, ended=time.monotonic(), **report)

    async def _definite(self, call, argument):
        while True:
            try:
                return await getattr(self, call)(argument)
            except (Transient, Rejected):
                continue
            except (Conflict, NotFound) as error:
                return [{"name": argument, "said": type(error).__name__, "why": str(error)}]

    def _seen(self, version):
        self._token = self._token.join(version)
        return [version.incarnation, version.number, version.revision]

    def _appended(self, turn_id, done):
        return {"name": turn_id, "version": self._seen(done.version), "number": done.number, "again": done.duplicate}

    async def append(self, turn_id):
        done = await self._session.append(role="user", content=turn_id, turn_id=turn_id, after=self._plan["after"])
        return [self._appended(turn_id, done)]

    async def append_many(self, turn_ids):
        turns = [NewTurn(role="user", content=turn_id, turn_id=turn_id) for turn_id in turn_ids]
        done = await self._session.append_many(turns, after=self._plan["after"])
        return [self._appended(*pair) for pair in zip(turn_ids, done, strict=True)]

    async def update(self, name):
        # A name of its own each try, so that what stands in META can be counted against its revision.
        self._tries += 1
        key = f"{name}-{self._tries}"
        return [{"name": key, "version": self._seen((await self._session.update({key: 1})).version)}]

    async def summarise(self, text):
        return [{"name": text, "version": self._seen((await self._session.summarise(text)).version)}]

    async def delete(self, _):
        done = await self._session.delete()
        return [{"version": self._seen(done.version), "existed": done.existed}]

    async def context(self, level):
        at_least = self._token
        context = await self._session.context(turns=32, at_least=at_least, consistency=LEVELS[level])
        return [
            {
                "level": level,
                "least": [at_least.incarnation, at_least.number, at_least.revision],
                "version": self._seen(context.version),
                "turns": [[turn.number, turn.turn_id] for turn in context.turns],
                "meta": sorted(context.meta.attributes) if context.meta is not None else None,
                "summary": context.summary.text if context.summary is not None else None,
            }
        ]

    async def history(self, forward):
        page = await self._session.history(after="" if forward else None, limit=1000 if forward else 10)
        incarnation = int(page.older.split("-")[0]) if page.older else 0  # a cursor names the place of its turn
        turns = [[turn.number, turn.turn_id] for turn in page.turns]
        return [{"turns": turns, "incarnation": incarnation}]

    async def sessions(self, _):
        page = await self._cache.customer(self._plan["customer_id"]).sessions()
        return [{"name": [info.session_id for info in page.sessions]}]


async def main(plan):
    clock = SetClock()
    clock.wall_offset_s = plan["clock_s"]
    settings = Settings(
        table_name=plan["table"], dynamodb_endpoint=plan["endpoint"], retry_base_s=0.002, request_deadline_s=3.0
    )
    async with open_transport(settings) as transport:
        lossy = Lossy(Mortal(transport, plan["dies"]), seed=plan["seed"], share=plan["loss"], late_s=plan["late_s"])
        async with MangaCache.open(settings, clock=clock, transport=lossy) as cache:
            worker = Worker(cache, plan, clock)
            say(call="ready")
            await asyncio.to_thread(sys.stdin.readline)  # all workers start together
            await asyncio.gather(*map(worker.strand, plan["strands"]))
        await lossy.settle()


if __name__ == "__main__":
    asyncio.run(main(json.loads(sys.argv[1])))
