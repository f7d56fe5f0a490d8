"""The work of a simulation: clients that chat, move between workers and carry their tokens."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING, Any, Final

from mangacache.errors import Closed, Conflict, NotFound, Rejected, Transient, VersionGone
from mangacache.model import NewTurn, Version
from mangacache.testing.simulation.world import Died

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from mangacache.model import Turn
    from mangacache.service import MangaCache
    from mangacache.sessions import Session
    from mangacache.testing.history import HistoryRecorder
    from mangacache.testing.simulation.runs import Run
    from mangacache.testing.simulation.world import Worker

_TRIES: Final = 30
_LATER: Final = (Transient, Rejected, Closed, Died)
"""What a bot meets with patience: it tries again, there or elsewhere."""
_REFUSALS: Final = (NotFound, Conflict)
"""What a bot is told where others were faster; a token that is gone is none of it: nobody takes anything away here."""
_LEASE_S: Final = 0.5
_WAIT_S: Final = 2.0
_NOBODY_S: Final = 0.05
_LONG: Final = 700
_HALF: Final = 0.5
_FEW: Final = 0.05
_AGAIN: Final = 0.3


class Chats:
    """What all clients of a run share.

    Args:
        run: the run.

    Attributes:
        operations: how many were begun.
        wrong: what no history shows: answers that cannot be, errors that nobody promised.
        told: the newest version of each session that was acknowledged, or read at its source.
        degraded: whether anything was acknowledged that Redis could not be told of.
        heard: errors that clients heard, by kind.
    """

    def __init__(self, run: Run) -> None:
        self.run = run
        self.operations = 0
        self.wrong: list[str] = []
        self.told: dict[str, Version] = {}
        self.degraded = False
        self._fences: dict[str, set[int]] = {}
        self.heard: Counter[str] = Counter()
        self._said = 0

    def claimed(self, name: str, fence: int) -> None:
        """Note a claim of a session's lock."""
        fences = self._fences.setdefault(name, set())
        if fence in fences:
            self.wrong.append(f"two claims of the lock of {name} have the fence {fence}")
        fences.add(fence)

    def turn_id(self) -> str:
        """Return the next turn's id."""
        self._said += 1
        return f"t{self._said}"


class Client:
    """One user of the bot.

    Attributes:
        name: the user's.
        tokens: what the client has seen, for each session.
    """

    def __init__(self, name: str, chats: Chats) -> None:
        self.name = name
        self.tokens: dict[str, Version] = {}
        self._chats = chats
        self._run = chats.run
        self._random = chats.run.world.random_for(name)
        self._worker: Worker | None = None
        self._leaves = chats.run.shape.leaves

    async def chat(self, operations: int) -> None:
        """Do so many things, with pauses."""
        shape, random, clock = self._run.shape, self._random, self._run.world.clock
        sessions = shape.session_names
        favourite = random.choice(sessions)
        for _ in range(operations):
            name = favourite if random.random() < shape.loyalty else random.choice(sessions)
            act = random.choices(self._acts, self._weights)[0]
            await act(self, name)
            if random.random() < shape.rests:
                await clock.sleep(random.random() * shape.rest_s)

    # What a client does

    async def _read(self, name: str) -> None:
        random = self._random
        level = random.choice(self._run.shape.levels)
        token = self.tokens.get(name) if random.random() < self._run.shape.token_share else None
        turns = random.choice((1, 5, 20, 32))

        async def read(session: Session, recorder: HistoryRecorder) -> Version:
            with recorder.read(name, client=self.name, consistency=level, at_least=token, turns=turns) as call:
                context = await session.context(turns=turns, at_least=token, consistency=level)
                call.done(context)
            return context.version

        await self._patiently(name, f"context {level.name} {token or ''}", read, tries=3, leaves=self._leaves / 2)

    async def _append(self, name: str) -> None:
        turn_id = self._chats.turn_id()
        content = self._words(turn_id)
        before = self.tokens.get(name, Version())
        tried = False

        async def append(session: Session, recorder: HistoryRecorder) -> Version:
            nonlocal tried
            after, tried = (before if tried else None), True
            with recorder.append(
                name, client=self.name, turn_id=turn_id, role="user", content=content, after=after
            ) as call:
                done = await session.append(role="user", content=content, turn_id=turn_id, after=after)
                call.done(done)
            self._told(name, done.version, degraded=done.degraded)
            return done.version

        await self._patiently(name, f"append {turn_id}", append, leaves=self._leaves)

    async def _append_many(self, name: str) -> None:
        ids = [self._chats.turn_id() for _ in range(self._random.randint(2, 4))]
        turns = [NewTurn(role="assistant", content=self._words(turn_id), turn_id=turn_id) for turn_id in ids]
        before = self.tokens.get(name, Version())
        tried = False

        async def append(session: Session, recorder: HistoryRecorder) -> Version:
            nonlocal tried
            after, tried = (before if tried else None), True
            with recorder.append_many(name, client=self.name, turns=turns, after=after) as call:
                done = await session.append_many(turns, after=after)
                call.done(done)
            self._told(name, done[-1].version, degraded=done[-1].degraded)
            return done[-1].version

        await self._patiently(name, f"append_many {ids}", append, leaves=self._leaves)

    async def _change(self, name: str) -> None:
        mood = self._random.randint(0, 9)
        status = self._random.choice((None, None, "active", "closed"))

        async def change(session: Session, recorder: HistoryRecorder) -> Version:
            with recorder.update(name, client=self.name) as call:
                done = await session.update({"mood": mood}, status=status)
                call.done(done)
            self._told(name, done.version, degraded=done.degraded)
            return done.version

        await self._patiently(name, f"update {mood} {status}", change, leaves=self._leaves)

    async def _summarise(self, name: str) -> None:
        text = self._words(f"summary {self._chats.turn_id()}")

        async def summarise(session: Session, recorder: HistoryRecorder) -> Version:
            with recorder.update(name, client=self.name) as call:
                done = await session.summarise(text)
                call.done(done)
            self._told(name, done.version, degraded=done.degraded)
            return done.version

        await self._patiently(name, "summarise", summarise)

    async def _summarise_alone(self, name: str) -> None:
        """Summarise under the session's lock, as the bot's workers do; each claim must have a fence of its own."""
        text = self._words(f"summary {self._chats.turn_id()}")

        async def summarise(cache: MangaCache, recorder: HistoryRecorder) -> Version:
            async with cache.locks.session(name, lease_s=_LEASE_S, wait_s=_WAIT_S) as held:
                self._chats.claimed(name, held.fence)
                with recorder.update(name, client=self.name) as call:
                    done = await cache.session(name).summarise(text, fence=held.fence)
                    call.done(done)
                # It has heard so much, even where it leaves before the lock is given back.
                self.tokens[name] = done.version.join(self.tokens.get(name, Version()))
            self._told(name, done.version, degraded=done.degraded)
            return done.version

        await self._patiently(name, "summarise under the lock", summarise, tries=3, leaves=self._leaves, whole=True)

    async def _history(self, name: str) -> None:
        backwards = self._random.random() < _HALF

        async def history(session: Session, recorder: HistoryRecorder) -> Version | None:
            del recorder
            page = await session.history(limit=7, **({} if backwards else {"after": ""}))
            self._look_at(name, page.turns)
            return None

        await self._patiently(name, "history", history, tries=2)

    async def _delete(self, name: str) -> None:
        async def delete(session: Session, recorder: HistoryRecorder) -> Version:
            with recorder.delete(name, client=self.name) as call:
                done = await session.delete()
                call.done(done)
            self._told(name, done.version, degraded=done.degraded)
            return done.version

        await self._patiently(name, "delete", delete)

    _acts: Final = (_read, _append, _append_many, _change, _summarise, _summarise_alone, _history, _delete)
    _weights: Final = (42, 38, 5, 6, 2, 2, 4, 1.5)

    # How

    def _told(self, name: str, version: Version, *, degraded: bool) -> None:
        chats = self._chats
        chats.told[name] = version.join(chats.told.get(name, Version()))
        chats.degraded = chats.degraded or degraded

    async def _patiently(
        self,
        name: str,
        what: str,
        act: Callable[[Any, HistoryRecorder], Awaitable[Version | None]],
        *,
        tries: int = _TRIES,
        leaves: float = 0.0,
        whole: bool = False,
    ) -> None:
        """Try until it is done, there or elsewhere; now and then the caller leaves in the middle, and comes back."""
        run = self._run
        for tried in range(tries):
            worker = self._at(moves=tried > 0)
            if worker is None:
                await run.world.clock.sleep(_NOBODY_S)
                continue
            self._chats.operations += 1
            if run.world.trace is not None:
                run.world.note(self.name, f"asks {worker.name}: {name} {what}")
            try:
                version = await self._asked(worker, name, act, leaves=leaves, whole=whole)
            except (asyncio.CancelledError, *_LATER) as error:
                self._hears(error, worker)
                await run.world.clock.sleep(self._random.random() * min(getattr(error, "retry_after_s", 0.1), 0.3))
                continue
            except Exception as error:  # noqa: BLE001 - whatever nobody promised is a finding
                self._hears(error, worker)
                if not isinstance(error, _REFUSALS) or isinstance(error, VersionGone):
                    self._chats.wrong.append(f"{self.name}: {what} of {name} at {worker.name}: {error!r}")
                return
            if run.world.trace is not None:
                run.world.note(self.name, f"hears {version}")
            if version is not None:
                self.tokens[name] = version.join(self.tokens.get(name, Version()))
            return

    def _hears(self, error: BaseException, worker: Worker) -> None:
        self._chats.heard[type(error).__name__] += 1
        if isinstance(error, Closed) and worker.alive:
            self._chats.wrong.append(f"{self.name} hears at {worker.name}, which is open: {error!r}")
        if self._run.world.trace is not None:
            self._run.world.note(self.name, f"hears {type(error).__name__}: {error}")

    async def _asked(
        self,
        worker: Worker,
        name: str,
        act: Callable[[Any, HistoryRecorder], Awaitable[Version | None]],
        *,
        leaves: float,
        whole: bool,
    ) -> Version | None:
        recorder = self._run.recorder(worker)

        async def asked(cache: MangaCache) -> Version | None:
            return await act(cache if whole else cache.session(name), recorder)

        call = worker.begin(asked)
        if leaves and self._random.random() < leaves:
            await self._run.world.clock.sleep(self._random.random() * self._random.choice((0.003, 0.03, 0.3)))
            call.cancel()
            while self._random.random() < _AGAIN:
                await self._run.world.clock.sleep(self._random.random() * 0.003)
                call.cancel()
        return await call.ended

    def _at(self, *, moves: bool) -> Worker | None:
        """Return the worker where the client is now."""
        alive = [worker for worker in self._run.world.workers if worker.alive and worker.is_open]
        if not alive:
            return None
        stays = self._worker is not None and self._worker in alive and not moves
        if not stays or self._random.random() < self._run.shape.moves:
            self._worker = self._random.choice(alive)
        return self._worker

    def _words(self, turn_id: str) -> str:
        return f"the words of {turn_id}" + " and more" * (_LONG if self._random.random() < _FEW else 0)

    def _look_at(self, name: str, turns: tuple[Turn, ...]) -> None:
        """Hold a page of a history to what every page is."""
        numbers = [turn.number for turn in turns]
        if numbers and numbers != list(range(numbers[0], numbers[0] + len(numbers))):
            self._chats.wrong.append(f"a page of {name}'s history has the numbers {numbers}")
        if len({turn.turn_id for turn in turns}) != len(turns):
            self._chats.wrong.append(f"a page of {name}'s history has a turn twice: {turns}")
        wrong = [turn for turn in turns if not turn.content.startswith(f"the words of {turn.turn_id}")]
        if wrong:
            self._chats.wrong.append(f"a page of {name}'s history has other words: {wrong}")
