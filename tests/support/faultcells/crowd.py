"""Clients that chat through workers, move between them with their tokens, and record all they ask and are told.

Every process but theirs may be killed: what they asked is in their files before the worker hears of it.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from typing import NamedTuple

from faultcells.talk import Late, Unreachable, Untimed
from mangacache import (
    Closed,
    Conflict,
    Consistency,
    Corrupt,
    Invalid,
    NotFound,
    Rejected,
    Transient,
    Version,
    VersionGone,
)
from mangacache.clock import SystemClock
from mangacache.testing import HistoryRecorder

LEVELS = (
    (0.55, Consistency.SESSION),
    (0.85, Consistency.LATEST),
    (0.95, Consistency.EVENTUAL(3)),
    (1.0, Consistency.STRONG),
)
STAY = 8
"""How many messages a client says to one worker, about."""
AVOID_S = 1.0
GIVE_UP_S = 60.0
LIMIT = "messages"
LIMIT_UNITS, LIMIT_WINDOW_S = 5, 5
CUSTOMERS = 3
"""Of the rate limits: few, so that they are used up."""


class Sample(NamedTuple):
    """One call of a worker."""

    invoked_s: float
    returned_s: float
    kind: str
    outcome: str
    source: str
    worker: int


def outcome_of(error: BaseException) -> str:
    """Return how a call ended that raised this."""
    for kind, word in _WORDS.items():
        if isinstance(error, kind):
            return word
    return "broken"


_WORDS = {
    Late: "late",
    Unreachable: "unreachable",
    Untimed: "untimed",
    Transient: "transient",
    Rejected: "rejected",
    VersionGone: "version gone",
    Conflict: "conflict",
    NotFound: "not found",
    Corrupt: "corrupt",
    Closed: "closed",
    Invalid: "invalid",
}
SURVIVED = tuple(_WORDS)


class Crowd:
    """All clients.

    Args:
        talks: the workers, which change while it runs: one that is started again has another address.
        folder: where the histories go, one file for each worker that was asked.
    """

    def __init__(self, talks, form, *, seed, folder):
        self.talks = talks
        self.form = form
        self.samples: list[Sample] = []
        self.takes: list[tuple[str, float, float]] = []
        self.fences = Counter()
        self.complaints: Counter[str] = Counter()
        self.stopping = False
        self.sessions = [f"s{number}" for number in range(form.sessions)]
        self.clock = SystemClock()
        self.avoid = [0.0] * len(talks)
        self._recorders = [HistoryRecorder(folder / f"w{i}.history", worker=f"w{i}") for i in range(len(talks))]
        self._clients = [Client(self, number, random.Random(seed * 1000 + number)) for number in range(form.clients)]
        self._tasks: list[asyncio.Task] = []

    def recorder(self, worker):
        return self._recorders[worker]

    async def begin(self):
        """Begin every session, so that they are there, and then the chat."""
        first = self._clients[0]
        for session in self.sessions:
            await first.say(session, "system", f"{session}: welcome")
        spread_s = self.form.message_every_s / len(self._clients)
        self._tasks = [
            asyncio.create_task(client.chat(after_s=number * spread_s)) for number, client in enumerate(self._clients)
        ]

    async def end(self):
        """Have everybody finish what he is at."""
        self.stopping = True
        done, _ = await asyncio.wait(self._tasks, timeout=GIVE_UP_S)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for recorder in self._recorders:
            recorder.close()
        for task in done:
            task.result()
        assert len(done) == len(self._tasks), "clients hang"


class Client:
    """One client: whom he asks now, and what he has seen of each session."""

    def __init__(self, crowd, number, noise):
        self._crowd = crowd
        self.name = f"c{number}"
        self.customer = f"customer-{number % CUSTOMERS}"
        self._noise = noise
        self._worker = number % len(crowd.talks)
        self._tokens: dict[str, Version] = {}
        self._said = 0
        self._sessions = noise.sample(crowd.sessions, 3)

    async def chat(self, *, after_s):
        crowd, clock = self._crowd, self._crowd.clock
        due_s = clock.monotonic_s() + after_s
        while not crowd.stopping:
            await asyncio.sleep(max(0.0, due_s - clock.monotonic_s()))
            due_s = max(due_s + crowd.form.message_every_s, clock.monotonic_s())
            if self._noise.random() < 1 / STAY:
                self._move()
            await self._message(self._noise.choice(self._sessions))

    async def _message(self, session):
        chance = self._noise.random()
        await self._read(session)
        await self.say(session, "user", f"question {self._said} of {self.name}")
        await self.say(session, "assistant", f"answer {self._said} to {self.name}")
        if chance < 0.06:
            await self._update(session)
        elif chance < 0.10:
            await self._summarise(session)
        elif chance < 0.20:
            await self._take()
        elif chance < 0.30:
            await self._read(self._noise.choice(self._crowd.sessions))

    # What it asks

    async def _read(self, session):
        chance = self._noise.random()
        level = next(level for bound, level in LEVELS if chance < bound)
        token = self._tokens.get(session)
        if level in {Consistency.LATEST, Consistency.STRONG} and self._noise.random() < 0.5:
            token = None
        recorder = self._crowd.recorder(self._worker)
        with recorder.read(session, client=self.name, consistency=level, at_least=token, turns=20) as call:
            context = await self._ask("read", lambda talk: talk.context(session, at_least=token, consistency=level))
            if context is not None:
                call.done(context)
                self._carry(session, context.version)

    async def say(self, session, role, content):
        """Append a turn, again and again until it is known to be stored."""
        crowd = self._crowd
        self._said += 1
        turn_id = f"{self.name}-{self._said}"
        before = self._tokens.get(session, Version())
        give_up_s = crowd.clock.monotonic_s() + GIVE_UP_S
        again = False
        while crowd.clock.monotonic_s() < give_up_s:
            recorder = crowd.recorder(self._worker)
            said = {"turn_id": turn_id, "role": role, "content": content}
            after = before if again else None
            with recorder.append(session, client=self.name, after=after, **said) as call:
                done = await self._ask(
                    "append", lambda talk, after=after, said=said: talk.append(session, after=after, **said)
                )
                if done is not None:
                    call.done(done)
                    self._carry(session, done.version)
                    return
            again = True

    async def _update(self, session):
        recorder = self._crowd.recorder(self._worker)
        mood = self._noise.randrange(1000)
        with recorder.update(session, client=self.name) as call:
            done = await self._ask("update", lambda talk: talk.update(session, {"mood": mood}))
            if done is not None:
                call.done(done)
                self._carry(session, done.version)

    async def _summarise(self, session):
        """Summarise under the lock; now and then with the fence of a lock that was given up, which must be refused."""
        held = await self._ask("lock", lambda talk: talk.lock(session))
        if held is None:
            return
        stale = None
        if self._noise.random() < 0.4:
            await self._ask("unlock", lambda talk: talk.unlock(session, held))
            stale = held
            held = await self._ask("lock", lambda talk: talk.lock(session))
            if held is None:
                return
            if held.fence <= stale.fence:
                self._crowd.complaints["a fence that did not grow"] += 1
        if stale is not None:
            self._crowd.fences["stale tried"] += 1
            if await self._write_summary(session, stale.fence, kind="stale fence"):
                self._crowd.fences["stale accepted"] += 1
        await self._write_summary(session, held.fence, kind="summary")
        await self._ask("unlock", lambda talk: talk.unlock(session, held))

    async def _write_summary(self, session, fence, *, kind):
        recorder = self._crowd.recorder(self._worker)
        text = f"what {self.name} makes of it, {self._noise.randrange(10**9)}"
        with recorder.update(session, client=self.name) as call:
            done = await self._ask(kind, lambda talk: talk.summarise(session, text, fence=fence))
            if done is not None:
                call.done(done)
                self._carry(session, done.version)
        return done is not None

    async def _take(self):
        crowd = self._crowd
        began_s = crowd.clock.monotonic_s()
        taken = await self._ask("take", lambda talk: talk.take(self.customer, LIMIT))
        if taken is not None and taken.allowed:
            crowd.takes.append((self.customer, began_s, crowd.clock.monotonic_s()))

    # How it asks

    async def _ask(self, kind, call):
        """Ask the worker; what goes wrong is noted, and None returned after a pause, or at another worker."""
        crowd, worker = self._crowd, self._worker
        began_s = crowd.clock.monotonic_s()
        outcome, source, result, error = "ok", "", None, None
        try:
            result = await call(crowd.talks[worker])
            source = getattr(result, "source", "")
        except SURVIVED as caught:
            error = caught
            outcome = outcome_of(caught)
        now_s = crowd.clock.monotonic_s()
        crowd.samples.append(Sample(began_s, now_s, kind, outcome, source, worker))
        if error is not None:
            await self._survive(kind, error, outcome, worker, now_s)
        return result

    async def _survive(self, kind, error, outcome, worker, now_s):
        crowd = self._crowd
        if outcome in {"unreachable", "late", "closed"}:
            crowd.avoid[worker] = now_s + AVOID_S
            self._move()
            await asyncio.sleep(0.02 + self._noise.random() * 0.1)
        elif outcome in {"transient", "rejected"}:
            await asyncio.sleep(min(error.retry_after_s, 0.5) * (0.5 + self._noise.random()))
        elif outcome == "conflict":
            if kind == "stale fence":
                crowd.fences["stale refused"] += 1
        else:
            said = str(error).partition(" (request ")[0]
            crowd.complaints[f"{kind}: {outcome}: {said:.300}"] += 1
            await asyncio.sleep(0.1)

    def _move(self):
        crowd = self._crowd
        now_s = crowd.clock.monotonic_s()
        others = [number for number in range(len(crowd.talks)) if number != self._worker]
        there = [number for number in others if crowd.avoid[number] <= now_s]
        if others:
            self._worker = self._noise.choice(there or others)

    def _carry(self, session, version):
        self._tokens[session] = version.join(self._tokens.get(session, Version()))
