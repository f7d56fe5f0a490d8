"""META's touches: writes outside the version, by which META follows the turns and outlives them."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

import msgspec

from mangacache.store.effects import Done, Touch

if TYPE_CHECKING:
    from mangacache.clock import Clock
    from mangacache.sessions.actor import Actor
    from mangacache.store import Store
    from mangacache.store.items import MetaRecord
    from mangacache.telemetry import Telemetry


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

    async def touch_if_due(self, actor: Actor) -> None:
        """Touch META if that is due."""
        if self.is_due(actor):
            await self.touch(actor)

    async def touch(self, actor: Actor) -> None:
        """Raise META to what the actor knows, if it lags behind; what goes wrong is counted, and META lags on."""
        known = actor.known
        if known is None or known.foreign or known.meta is None or known.version.number <= known.meta.last_number:
            return
        stamp = self._store.stamp()
        if known.must_begin(stamp.now_s) or not known.turns:
            return
        touch = Touch(
            known.version.incarnation, known.version.number, known.turns[-1].created_at, stamp.meta_expires_at
        )
        try:
            outcome = await self._store.perform(actor.session_id, touch)
        except Exception as error:  # noqa: BLE001 - whatever it is, neither writes nor evictions may end for it
            self._telemetry.count_survived("touch_failed", error)
            return
        actor.touched_at_s = stamp.now_s
        # Where another META was learned meanwhile, it may be another life's.
        if isinstance(outcome, Done) and actor.known is not None and actor.known.meta is known.meta:
            meta = msgspec.structs.replace(
                known.meta,
                last_number=touch.number,
                last_active_at=touch.last_active_at,
                expires_at=touch.expires_at,
            )
            actor.known = msgspec.structs.replace(actor.known, meta=meta)


def _seconds(at: str) -> float:
    try:
        return datetime.fromisoformat(at).timestamp()
    except ValueError:
        return 0.0
