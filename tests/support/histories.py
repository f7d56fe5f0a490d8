"""A bot's sessions in miniature, correct by construction, whose operations take time and overlap: for the checker."""

from __future__ import annotations

from contextlib import suppress
from heapq import heappop, heappush
from itertools import count
from typing import TYPE_CHECKING

from mangacache.clock import SystemClock
from mangacache.errors import Rejected, Transient
from mangacache.model import Appended, Consistency, Deleted, Meta, Updated, Version
from mangacache.testing.history import HistoryRecorder, SeenTurn, turn_digest
from mangacache.testing.history.operations import meta_digest
from mangacache.testing.history.reading import read_recorded

if TYPE_CHECKING:
    from random import Random

LEVELS = (Consistency.SESSION, Consistency.LATEST, Consistency.STRONG, Consistency.EVENTUAL(5))
SESSION_AGE_S = 1.0


class TurnedClock(SystemClock):
    """A clock that a simulation turns."""

    now_s = 1000.0

    def monotonic_s(self):
        return self.now_s


class Truth:
    """One session as the source of truth holds it."""

    def __init__(self):
        self.version = Version()
        self.turns: list[SeenTurn] = []
        self.numbers: dict[str, int] = {}

    def append(self, turn_id, content):
        repeat = turn_id in self.numbers
        if not repeat:
            incarnation = self.version.incarnation or 1
            number = len(self.turns) + 1
            self.turns.append(SeenTurn(number, turn_id, turn_digest("user", content)))
            self.numbers[turn_id] = number
            self.version = Version(incarnation, number, self.version.revision or 1)
        number = self.numbers[turn_id]
        return Appended(number, Version(self.version.incarnation, number, self.version.revision), repeat)

    def update(self):
        self.version = Version(self.version.incarnation, self.version.number, self.version.revision + 1)
        return Updated(self.version, self.meta())

    def delete(self):
        existed = self.version.revision > 0
        if existed:
            self.version = Version(self.version.incarnation + 1, 0, 0)
            self.turns, self.numbers = [], {}
        return Deleted(self.version, existed, swept=True)

    def meta(self):
        return Meta("c", "active", "", "", 0, {"revision": self.version.revision})


class Client:
    """One client: the token it carries, and what it has yet to retry."""

    def __init__(self, name):
        self.name = name
        self.token = Version()
        self.retries = []


class Simulation:
    """Runs clients against sessions on a clock of its own; workers answer SESSION reads from their memory.

    Args:
        random: decides everything.
        directory: where the workers' files go; None keeps them in memory.
        deletes, lost: shares of the operations.
    """

    def __init__(
        self, random: Random, *, workers=3, sessions=2, clients=4, writes=0.4, deletes=0.02, lost=0.1, directory=None
    ):
        self.random = random
        self.clock = TurnedClock()
        self.writes, self.deletes, self.lost = writes, deletes, lost
        self.sessions = {f"s{i}": Truth() for i in range(sessions)}
        self.clients = [{name: Client(f"c{i}") for name in self.sessions} for i in range(clients)]
        self.paths = [directory / f"w{i}.history" for i in range(workers)] if directory else [None] * workers
        self.recorders = [HistoryRecorder(path, worker=f"w{i}", clock=self.clock) for i, path in enumerate(self.paths)]
        self.memories = [{} for _ in range(workers)]
        self._turn_ids = count(1)
        self._events = []
        self._order = count()

    def run(self, operations):
        """Begin so many operations, let all end, and read every session's state."""
        left = operations
        for client in self.clients:
            self._at(self._soon(0.02), self._begin, client)
        while self._events:
            at_s, _, action, arguments = heappop(self._events)
            self.clock.now_s = at_s
            if action == self._begin:
                left -= 1
                if left < 0:
                    continue
            action(*arguments)
        for name, truth in self.sessions.items():
            self.clock.now_s += 0.001
            call = self.recorders[0].state(name)
            self.clock.now_s += 0.001
            call.saw(truth.version, tuple(truth.turns))
        return self

    def recorded(self):
        """Return the history, which the workers kept in memory."""
        return read_recorded([(recorder.worker, bytes(recorder._memory)) for recorder in self.recorders])

    def _at(self, at_s, action, *arguments):
        heappush(self._events, (at_s, next(self._order), action, arguments))

    def _soon(self, within_s):
        return self.clock.now_s + self.random.random() * within_s + 1e-6

    def _begin(self, clients):
        random = self.random
        name = random.choice(list(self.sessions))
        client, worker = clients[name], random.randrange(len(self.recorders))
        chosen = random.random()
        if chosen >= self.writes or (chosen < self.deletes + 0.1 and not self.sessions[name].version.revision):
            steps = self._read(name, client, worker)
        elif chosen < self.deletes:
            call = self.recorders[worker].delete(name, client=client.name)
            steps = self._write(call, client, self.sessions[name].delete)
        elif chosen < self.deletes + 0.1:
            call = self.recorders[worker].update(name, client=client.name)
            steps = self._write(call, client, self._update(name))
        else:
            steps = self._append(name, client, worker)
        self._step(steps)
        point_s = self._soon(0.05)
        self._at(point_s, self._step, steps)
        end_s = point_s + random.random() * 0.02 + 1e-6
        self._at(end_s, self._step, steps)
        self._at(end_s + random.random() * 0.02 + 1e-6, self._begin, clients)

    def _step(self, steps):
        """Go on with an operation; its error is its client's."""
        with suppress(Rejected, Transient):
            next(steps, None)

    def _update(self, name):
        truth = self.sessions[name]

        def update():
            if not truth.version.revision:
                raise Rejected("there is no session")
            return truth.update()

        return update

    def _append(self, name, client, worker):
        if client.retries and self.random.random() < 0.5:
            turn_id, content = client.retries.pop()
        else:
            turn_id = f"t{next(self._turn_ids)}"
            content = f"the words of {turn_id}"
        call = self.recorders[worker].append(name, client=client.name, turn_id=turn_id, role="user", content=content)
        return self._write(call, client, lambda: self.sessions[name].append(turn_id, content), (turn_id, content))

    def _write(self, call, client, effect, retry=None):
        """Begin, take effect, end: a part for each step. A lost answer may have been a lost request."""
        with call:
            yield
            fate = self.random.random()
            lost = fate < self.lost
            result = effect() if not lost or fate < self.lost / 2 else None
            if lost and result is None and self.random.random() < 0.5:
                self._at(self._soon(0.2), self._late, effect)
            yield
            if lost:
                if retry:
                    client.retries.append(retry)
            else:
                client.token = client.token.join(result.version)
                call.done(result)

    def _late(self, effect):
        """A request that arrives after its sender has given up."""
        with suppress(Rejected):
            effect()

    def _read(self, name, client, worker):
        level = self.random.choice(LEVELS)
        asked = self.random.choice((1, 5, 20))
        tokenless = level.name in ("latest", "strong") and self.random.random() < 0.5
        token = None if tokenless else client.token
        sent_s = self.clock.now_s
        with self.recorders[worker].read(
            name, client=client.name, consistency=level, at_least=token, turns=asked
        ) as call:
            yield
            if self.random.random() < self.lost / 2:
                yield
                raise Transient("for the test")
            version, turns, meta, known_s = self.memories[worker].get(name, (Version(), [], None, -1.0))
            age_s = {"session": SESSION_AGE_S, "eventual": level.max_age_s}.get(level.name, 0)
            if not (known_s >= self.clock.now_s - age_s and version.covers(client.token)) or age_s == 0:
                truth = self.sessions[name]
                version, turns, meta = truth.version, truth.turns, truth.meta()
                self.memories[worker][name] = version, turns, meta, sent_s
            window = tuple(turns[: version.number][-asked:])
            yield
            client.token = client.token.join(version)
            call.saw(version, window, source="memory", meta=meta_digest(meta) if version.revision else None)
