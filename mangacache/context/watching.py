"""Hears of what other workers write, and tells the memory of this one: rule R2's second is a bound, not a delay.

What a GET, FILL or COMMIT has read is watched by Redis (client tracking), on the connection that the reply came over:
whoever writes the hash next has it say so. A notice overtakes no reply, and what is lost with a connection is told as
lost. So a copy in memory is older than the moment of the notice, or has been shown to be current since.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol
from urllib.parse import unquote

if TYPE_CHECKING:
    from mangacache.telemetry import Telemetry


class Memory(Protocol):
    """What a process keeps of sessions, and believes current for a while."""

    def changed(self, session_id: str) -> None:
        """Learn that a session is not what it was: what was asked for before this moment is not current."""

    def lost(self) -> None:
        """Learn that notices may have been missed: what was asked for before this moment may not be current."""


class Watch:
    """Hands on what Redis says of the contexts' keys; see `redis.Changes`.

    Args:
        prefix: of this cache's keys.
        telemetry: counts.
    """

    def __init__(self, prefix: str, *, telemetry: Telemetry) -> None:
        self._begins = f"{prefix}session:{{"
        self._telemetry = telemetry
        self._memory: Memory | None = None

    def feed(self, memory: Memory) -> None:
        """Tell a memory from now on."""
        self._memory = memory

    def changed(self, key: str) -> None:
        """See `redis.Changes`."""
        if self._memory is None or not key.startswith(self._begins):
            return
        self._telemetry.cache_events.labels("changed_elsewhere").inc()
        self._memory.changed(unquote(key[len(self._begins) : key.index("}")]))

    def lost(self) -> None:
        """See `redis.Changes`."""
        if self._memory is not None:
            self._telemetry.cache_events.labels("notices_lost").inc()
            self._memory.lost()
