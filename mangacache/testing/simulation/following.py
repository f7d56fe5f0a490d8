"""Who follows a session by its events, as a bot's other connections do: reads where it may have missed something."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from mangacache.errors import Closed, Rejected, Transient
from mangacache.model import Consistency, Version
from mangacache.testing.simulation.world import Died

if TYPE_CHECKING:
    from mangacache.ephemeral import Event
    from mangacache.service import MangaCache
    from mangacache.sessions import Session
    from mangacache.testing.simulation.workload import Chats

_LATER: Final = (Transient, Rejected)
_NOBODY_S: Final = 0.05
_MOST_TRIES: Final = 600


class Listener:
    """One that listens to a session's events at some worker, and goes to another one where that ends.

    What it holds the events to: in the order of the versions, nothing twice, nothing left out without a `gap`; and
    whoever reads at each `subscribed` and `gap`, and believes the events between, knows everything in the end.

    Args:
        name: the listener's.
        session: whose events.
        chats: what it shares with the clients.

    Attributes:
        name, session: as given.
        seen: the newest version that it knows of.
        heard: how many events it was told.
    """

    def __init__(self, name: str, session: str, chats: Chats) -> None:
        self.name = name
        self.session = session
        self.seen = Version()
        self.heard = 0
        self._chats = chats
        self._world = chats.run.world
        self._random = self._world.random_for(name)
        self._over = False

    async def listen(self) -> None:
        """Listen until it is over, wherever there is a worker."""
        while not self._over:
            alive = [worker for worker in self._world.workers if worker.alive and worker.is_open]
            if alive:
                try:
                    await self._random.choice(alive).call(self._at)
                except (Closed, Died):
                    pass  # it is told nothing more there
                except Exception as error:  # noqa: BLE001 - whatever nobody promised is a finding
                    self._wrong(f"heard {error!r}")
            await self._world.clock.sleep(_NOBODY_S)

    def leave(self) -> None:
        """Go to no other worker."""
        self._over = True

    async def _at(self, cache: MangaCache) -> None:
        session = cache.session(self.session)
        place: Version | None = None
        async with session.events(limit=self._random.choice((2, 256))) as events:
            async for event in events:
                if event.kind in {"subscribed", "gap"}:
                    place = None
                    await self._read(session, event)
                else:
                    self._hold(event, place)
                    place = event.version
                    self.seen = self.seen.join(event.version or Version())
                self.heard += 1
                if self._world.trace is not None:
                    self._world.note(self.name, f"is told {event.kind} {event.version or ''} {event.why}")

    async def _read(self, session: Session, event: Event) -> None:
        for tried in range(_MOST_TRIES):
            try:
                context = await session.context(turns=1, at_least=event.version, consistency=Consistency.LATEST)
            except _LATER:
                if tried == _MOST_TRIES - 1:
                    raise
                await self._world.clock.sleep(_NOBODY_S)
            else:
                self.seen = self.seen.join(context.version)
                return

    def _hold(self, event: Event, place: Version | None) -> None:
        """Hold an event to what must come after the one before it."""
        version = event.version
        if version is None:
            self._wrong(f"was told {event.kind} without a version")
            return
        if place is None:
            return
        if place.covers(version):
            self._wrong(f"was told {event.kind} {version} after {place}")
        elif event.kind == "deleted":
            if version.incarnation != place.incarnation + 1:
                self._wrong(f"was told that it was deleted at {version} after {place}")
        elif version.incarnation != place.incarnation:
            self._wrong(f"was told {event.kind} {version} after {place}, and of no delete between")
        elif event.kind == "turn":
            if (event.number, version.number) != (place.number + 1, place.number + 1):
                self._wrong(f"was told turn {event.number} at {version} after {place}")
        elif version.number != place.number or version.revision != place.revision + 1:
            self._wrong(f"was told {event.kind} {version} after {place}")

    def _wrong(self, sentence: str) -> None:
        self._chats.wrong.append(f"{self.name}, who listens to {self.session}, {sentence}")
