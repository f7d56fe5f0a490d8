"""META's touches: writes outside the version, by which META follows the turns and outlives them."""

from __future__ import annotations

from collections import OrderedDict
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

import msgspec

from mangacache.store.effects import Done, Touch

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from mangacache.clock import Clock
    from mangacache.sessions.actor import Actor
    from mangacache.store import Store
    from mangacache.store.items import MetaRecord
    from mangacache.tasks import TaskOwner
    from mangacache.telemetry import Telemetry

_AT_ONCE: Final = 64


class Touches:
    """Writes META's last_number, last_active_at and ttl where they lag behind.

    Args:
        every_s: how far META may lag behind while a session is active.
    """

    def __init__(self, store: Store, *, every_s: float, clock: Clock, telemetry: Telemetry) -> None:
        self._store = store
        self._every_s = every_s
        self._clock = clock
        self._telemetry = telemetry

    def learned(self, actor: Actor, meta: MetaRecord) -> None:
        """Note when META was last written, by what was read of it."""
        actor.touched_at_s = max(actor.touched_at_s, _seconds(meta.last_active_at))

    def is_due(self, actor: Actor) -> bool:
        """Tell whether META was last written too long ago."""
        # Far in the future is due as well: the clock was there, and has been set back.
        return abs(self._clock.time_s() - actor.touched_at_s) >= self._every_s

    def due(self, actor: Actor) -> Coroutine[Any, Any, None] | None:
        """Return what touches META, where that is due."""
        if actor.known is None or not self.is_due(actor):
            return None
        return self.touch(actor)

    def lacking(self, actor: Actor) -> Touch | None:
        """Return the touch by which META would catch up with what the actor knows; None where it does not lag."""
        known = actor.known
        if known is None or known.foreign or known.meta is None or known.version.number <= known.meta.last_number:
            return None
        stamp = self._store.stamp()
        if known.must_begin(stamp.now_s) or not known.turns:
            return None
        return Touch(known.version.incarnation, known.version.number, known.turns[-1].created_at, stamp.meta_expires_at)

    async def send(self, session_id: str, touch: Touch) -> bool:
        """Write a touch; what goes wrong is counted, and META lags on."""
        try:
            return isinstance(await self._store.perform(session_id, touch), Done)
        except Exception as error:  # noqa: BLE001 - whatever it is, neither writes nor evictions may end for it
            self._telemetry.count_survived("touch_failed", error)
            return False

    async def touch(self, actor: Actor) -> None:
        """Raise META to what the actor knows, if it lags behind."""
        known, touch = actor.known, self.lacking(actor)
        if known is None or known.meta is None or touch is None:
            return
        now_s = self._clock.time_s()
        done = await self.send(actor.session_id, touch)
        actor.touched_at_s = now_s
        # Where another META was learned meanwhile, it may be another life's.
        if done and actor.known is not None and actor.known.meta is known.meta:
            meta = msgspec.structs.replace(
                known.meta,
                last_number=touch.number,
                last_active_at=touch.last_active_at,
                expires_at=touch.expires_at,
            )
            actor.known, actor.answer = msgspec.structs.replace(actor.known, meta=meta), None


class Farewells:
    """Touches of sessions that have left memory: sent a few at a time, the newest of a session; bounded.

    A session that comes back meanwhile is another activation, which waits for nothing: a touch never takes META back,
    and is refused where the session has begun another life.

    Args:
        limit: beyond it the oldest is dropped, and META lags on.
    """

    def __init__(self, touches: Touches, *, tasks: TaskOwner, telemetry: Telemetry, limit: int = 10_000) -> None:
        self._touches = touches
        self._tasks = tasks
        self._telemetry = telemetry
        self._limit = limit
        self._waiting: OrderedDict[str, Touch] = OrderedDict()
        self._senders = 0
        self.sent = 0
        self.dropped = 0

    def __len__(self) -> int:
        return len(self._waiting) + self._senders

    @property
    def crowded(self) -> bool:
        """Whether who is in no hurry had better wait."""
        return len(self._waiting) * 2 > self._limit

    def say(self, session_id: str, touch: Touch) -> None:
        """Send a touch as soon as there is room."""
        self._waiting[session_id] = touch
        if len(self._waiting) > self._limit:
            self._waiting.popitem(last=False)
            self.dropped += 1
            self._telemetry.survived.labels("touch_dropped").inc()
        if self._senders < _AT_ONCE:
            self._senders += 1
            self._tasks.start(self._send(), name="touch sessions that have left memory")

    async def _send(self) -> None:
        try:
            while self._waiting:
                session_id, touch = self._waiting.popitem(last=False)
                await self._touches.send(session_id, touch)
                self.sent += 1
        finally:
            self._senders -= 1


def _seconds(at: str) -> float:
    try:
        return datetime.fromisoformat(at).timestamp()
    except ValueError:
        return 0.0
