"""What Redis knows of this worker's sockets, kept alive: in one batch for all that gave a sign of life.

A connection's mapping lives two hours, a customer's presence a minute and a half. So a ping needs no call to Redis: it
is noted in the process, and now and then all that are due are refreshed together, which is one round trip.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Any, Final, Protocol

from mangacache.errors import Invalid, MangaCacheError
from mangacache.tasks import together

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterable

    from mangacache import MangaCache

_AT_ONCE: Final = 256
_PARTS_OF_A_LIFE: Final = 8
_SIGHTS_WHILE_ONLINE: Final = 3


class Bound(Protocol):
    """A connection that is mapped to its session.

    Attributes:
        id: the connection's.
        session_id, customer_id: what it is for.
        endpoint: where it is held.
        mapped_at_s: when its mapping was refreshed last; minus infinity where it has yet to be made.
        gone: it has ended, and is not mapped again.
    """

    id: str
    session_id: str
    customer_id: str | None
    endpoint: str
    mapped_at_s: float
    gone: bool


class Upkeep:
    """Maps connections and keeps them and their customers' presence alive.

    Args:
        cache: whose Redis; where none is configured, nothing is done.
    """

    def __init__(self, cache: MangaCache) -> None:
        settings = cache.settings
        self._cache = cache
        self._has_redis = True
        self._mapping_every_s = settings.connection_ttl_s / _PARTS_OF_A_LIFE
        self._sight_every_s = settings.presence_online_s / _SIGHTS_WHILE_ONLINE
        self._seen_at_s: dict[str, float] = {}

    def __len__(self) -> int:
        return len(self._seen_at_s)

    async def bind(self, bound: Bound, now_s: float) -> None:
        """Map a connection to its session, and see its customer; where Redis is away, later."""
        if self._has_redis:
            await self.refresh((bound,), now_s)

    async def unbind(self, bound: Bound) -> None:
        """Remove a connection's mapping, and no other's; where Redis is away it ends by itself."""
        if self._has_redis:
            await self._survived(self._unmapped(bound))

    async def refresh(self, heard: Iterable[Bound], now_s: float) -> None:
        """Keep alive what belongs to connections that gave a sign of life, where it is due."""
        if not self._has_redis:
            return
        calls = []
        for bound in heard:
            if now_s - bound.mapped_at_s >= self._mapping_every_s:
                calls.append(self._mapped(bound, now_s))
            customer_id = bound.customer_id
            if customer_id is not None and now_s - self._seen_at_s.get(customer_id, -inf) >= self._sight_every_s:
                self._seen_at_s[customer_id] = now_s
                calls.append(self._sighted(customer_id))
        for begin in range(0, len(calls), _AT_ONCE):
            await together(*(self._survived(call) for call in calls[begin : begin + _AT_ONCE]))

    def forget(self, now_s: float) -> None:
        """Forget when customers were seen whose turn it is anyhow."""
        self._seen_at_s = {who: at for who, at in self._seen_at_s.items() if now_s - at < self._sight_every_s}

    async def _mapped(self, bound: Bound, now_s: float) -> None:
        """Have a connection's mapping live on; one that is new, or was lost, is made."""
        connections = self._cache.connections
        there = bound.mapped_at_s > -inf and await connections.refresh(bound.id) is not None
        if not there and not bound.gone:
            await connections.connect(
                bound.id, bound.session_id, customer_id=bound.customer_id, endpoint=bound.endpoint
            )
        bound.mapped_at_s = now_s

    async def _unmapped(self, bound: Bound) -> None:
        await self._cache.connections.disconnect(bound.id, session_id=bound.session_id)

    async def _sighted(self, customer_id: str) -> None:
        try:
            await self._cache.presence.heartbeat(customer_id)
        except MangaCacheError:
            self._seen_at_s.pop(customer_id, None)  # so that the next look tries again
            raise

    async def _survived(self, call: Coroutine[Any, Any, None]) -> None:
        try:
            await call
        except Invalid:
            self._has_redis = False
        except MangaCacheError as error:
            self._cache.telemetry.count_survived("socket_upkeep_failed", error)
