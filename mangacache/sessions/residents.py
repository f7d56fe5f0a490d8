"""The actors that are in memory: activation, and leaving again by idleness, by number, or by bytes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from mangacache.errors import Closed
from mangacache.sessions.actor import Actor
from mangacache.sessions.sizes import size_kib
from mangacache.sessions.wheel import Wheel

if TYPE_CHECKING:
    from mangacache.clock import Clock
    from mangacache.sessions.touches import Farewells, Touches
    from mangacache.settings import Settings

_LOOKS: Final = 64
"""Actors that one activation or one lesson looks at, at most, to make room for itself."""
_LOOKS_BETWEEN_CLOCKS: Final = 16
_STAMPS_AN_IDLE_TIME: Final = 256
_KIB: Final = 1_024


class Residents:
    """The memory tier's actors.

    Attributes:
        actors: by session id.
        kib: what all of them know, about.
        owed_kib: how much more is to leave, because memory is short.
        evicted: how many have left, by why.
    """

    def __init__(self, *, settings: Settings, clock: Clock, touches: Touches, farewells: Farewells) -> None:
        self.actors: dict[str, Actor] = {}
        self.kib = 0
        self.owed_kib = 0
        self.evicted = {"idle": 0, "number": 0, "bytes": 0, "memory": 0}
        self._most = max(settings.memory_sessions, 1)
        self._most_kib = settings.memory_bytes // _KIB
        self._idle_s = settings.idle_s
        self._stamp_s = settings.idle_s / _STAMPS_AN_IDLE_TIME
        self._clock = clock
        self._touches = touches
        self._farewells = farewells
        self._wheel = Wheel(clock.age_s())
        self._closed = False

    def __len__(self) -> int:
        return len(self.actors)

    def actor(self, session_id: str) -> Actor:
        """Return the session's actor, activated if need be; never awaits."""
        actor = self.actors.get(session_id)
        if actor is None:
            if self._closed:
                raise Closed("this MangaCache is closed")
            actor = self.actors[session_id] = Actor(session_id)
            self._wheel.add(actor)
            if len(self.actors) > self._most:
                self._make_room(actor)
        if self._wheel.use(actor, len(self.actors)):
            self._wheel.advance(self._clock.age_s())
        return actor

    def weigh(self, actor: Actor) -> None:
        """Count what an actor knows by now, and make room for it."""
        kib = size_kib(actor.known)
        if not actor.gone:
            self.kib += kib - actor.size_kib
        actor.size_kib = kib
        if self.kib > self._most_kib:
            self._make_room(actor)

    def _make_room(self, newest: Actor) -> None:
        """Keep the memory tier within its bounds: who was used longest ago leaves, never the busy or the newest."""
        for _ in range(_LOOKS):
            number = len(self.actors) > self._most
            if not number and self.kib <= self._most_kib:
                return
            oldest = self._wheel.take()
            if oldest is None:
                continue
            if oldest.busy or oldest is newest:
                self._wheel.add(oldest)
            else:
                self._leave(oldest, "number" if number else "bytes", hurried=True)

    def _leave(self, actor: Actor, why: str, *, hurried: bool) -> None:
        """Let an idle actor go; META catches up, at once or where it is due anyway."""
        if actor.gone or self.actors.get(actor.session_id) is not actor:
            return
        touch = self._touches.lacking(actor) if not hurried or self._touches.is_due(actor) else None
        del self.actors[actor.session_id]
        self.kib -= actor.size_kib
        self.evicted[why] += 1
        actor.gone = True
        actor.forget()
        if touch is not None:
            self._farewells.say(actor.session_id, touch)

    def tick(self, until_s: float) -> bool:
        """Let go who has been idle too long, and who must go because memory is short, until a time.

        Args:
            until_s: `clock.monotonic_s` at which to stop, though more is to be done.

        Returns:
            Whether more is to be done at once.
        """
        now_s = self._clock.age_s()
        if now_s - self._wheel.stamp >= self._stamp_s:
            self._wheel.advance(now_s)
        idle_since_s = now_s - self._idle_s - self._stamp_s  # a stamp is that of its beginning
        looks = 0
        while True:
            if looks % _LOOKS_BETWEEN_CLOCKS == 0 and self._clock.monotonic_s() >= until_s:
                return True
            looks += 1
            short = self.owed_kib > 0
            if self._wheel.oldest_s > idle_since_s and not (short and looks <= len(self.actors)):
                self.owed_kib = 0  # what is left is busy: there is no more to be had now
                return False
            if self._farewells.crowded and not short:
                return False
            actor = self._wheel.take()
            if actor is None:
                continue
            if actor.busy:
                self._wheel.add(actor)
                continue
            self.owed_kib -= actor.size_kib
            self._leave(actor, "memory" if short else "idle", hurried=short)

    def close(self) -> None:
        """Take nobody in any more."""
        self._closed = True

    def clear(self) -> None:
        """Let everybody go, at the end."""
        for actor in self.actors.values():
            actor.gone = True
        self.actors.clear()
        self.kib = 0
