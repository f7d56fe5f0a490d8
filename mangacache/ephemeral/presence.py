"""Who is there: customers by when they were last seen, spread over many keys so that none of them is hot."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final
from zlib import crc32

import msgspec

from mangacache.ephemeral import scripts
from mangacache.ephemeral.asking import shown
from mangacache.errors import Invalid
from mangacache.model import checked_id
from mangacache.tasks import together

if TYPE_CHECKING:
    from mangacache.ephemeral.asking import Asker
    from mangacache.redis import Script
    from mangacache.settings import Settings

SHARDS: Final = 64
MAX_PAGE: Final = 1000
_SHARDS_AT_ONCE: Final = 8
_MOST_REMOVED: Final = 100
"""Sights past their time that one heartbeat removes: more than it adds, so they cannot pile up."""
_SERVICE: Final = "presence"


class Sight(msgspec.Struct, frozen=True):
    """When somebody was last seen.

    Attributes:
        customer_id: who.
        ago_s: how long ago, by Redis's clock.
        online: whether that is recent enough to be online.
    """

    customer_id: str
    ago_s: float
    online: bool


class PresencePage(msgspec.Struct, frozen=True):
    """Some of those who are online.

    Attributes:
        sights: at most as many as were asked for.
        cursor: for the next page; None where this is the last.
    """

    sights: tuple[Sight, ...]
    cursor: str | None


class _Place(msgspec.Struct, frozen=True, array_like=True):
    """How far a listing has come: after this sight of this shard."""

    shard: int
    seen_ms: int = -1
    customer_id: str = ""


class Presence:
    """Who is online, for all workers."""

    def __init__(self, asker: Asker, *, settings: Settings) -> None:
        self._asker = asker
        self._online_ms = settings.presence_online_s * 1000
        self._keep_ms = max(settings.presence_keep_s * 1000, self._online_ms)

    async def heartbeat(self, customer_id: str) -> None:
        """Say that a customer was seen now; one round trip.

        Raises:
            Invalid: an id that is none, or no Redis is configured.
            Transient: Redis cannot be asked.
        """
        arguments = [checked_id(customer_id, what="customer id"), self._keep_ms, _MOST_REMOVED]
        await self._run(scripts.PRESENCE_SEEN, _shard(customer_id), arguments)

    async def leave(self, customer_id: str) -> None:
        """Say that a customer has left: not online, and not seen, until the next heartbeat; one round trip."""
        arguments = [checked_id(customer_id, what="customer id")]
        await self._run(scripts.PRESENCE_GONE, _shard(customer_id), arguments)

    async def is_online(self, customer_id: str) -> bool:
        """Tell whether a customer was seen within `presence_online_s`."""
        checked_id(customer_id, what="customer id")
        reply = await self._run(scripts.PRESENCE_LOOK, _shard(customer_id), [self._online_ms, customer_id])
        return int(reply) >= 0

    async def last_seen(self, customer_id: str) -> Sight | None:
        """Return when a customer was last seen; None where that is more than `presence_keep_s` ago."""
        checked_id(customer_id, what="customer id")
        ago_ms = int(await self._run(scripts.PRESENCE_LOOK, _shard(customer_id), [self._keep_ms, customer_id]))
        return self._sight(customer_id, ago_ms) if ago_ms >= 0 else None

    async def count(self) -> int:
        """Return how many customers are online: every shard is asked, all of them in one round trip."""
        asked = (self._run(scripts.PRESENCE_LOOK, shard, [self._online_ms, ""]) for shard in range(SHARDS))
        return sum(await together(*asked))

    async def page(self, *, limit: int = 100, cursor: str | None = None) -> PresencePage:
        """Return some of those who are online.

        Who is online from the first page to the last is on one of them; who is seen again meanwhile may be on two.

        Args:
            limit: 1 to 1,000.
            cursor: `cursor` of the page before.
        """
        if type(limit) is not int or limit not in range(1, MAX_PAGE + 1):
            raise Invalid(f"a page has 1 to {MAX_PAGE} customers, not {shown(limit)}")
        place = _parsed(cursor) if cursor is not None else _Place(0)
        sights: list[Sight] = []
        while place.shard < SHARDS:
            shards = range(place.shard, min(place.shard + _SHARDS_AT_ONCE, SHARDS))
            starts = [place if shard == place.shard else _Place(shard) for shard in shards]
            found = await together(*(self._from(start, limit - len(sights)) for start in starts))
            for start, (now_ms, seen) in zip(starts, found, strict=True):
                room = limit - len(sights)
                sights += [self._sight(customer_id, max(0, now_ms - ms)) for customer_id, ms in seen[:room]]
                if len(sights) == limit:
                    last_id, last_ms = seen[:room][-1]
                    return PresencePage(tuple(sights), _written(_Place(start.shard, last_ms, last_id)))
            place = _Place(shards.stop)
        return PresencePage(tuple(sights), None)

    async def _from(self, start: _Place, limit: int) -> tuple[int, list[tuple[str, int]]]:
        arguments = [self._online_ms, start.seen_ms, start.customer_id, limit]
        now_ms, *flat = await self._run(scripts.PRESENCE_PAGE, start.shard, arguments)
        return now_ms, [(flat[place].decode(), flat[place + 1]) for place in range(0, len(flat), 2)]

    def _sight(self, customer_id: str, ago_ms: int) -> Sight:
        return Sight(customer_id, ago_ms / 1000, ago_ms < self._online_ms)

    async def _run(self, script: Script, shard: int, arguments: list[Any]) -> Any:
        key = self._asker.key("online", str(shard))
        return await self._asker.run(_SERVICE, script, key, arguments, repeatable=True)


def _shard(customer_id: str) -> int:
    return crc32(customer_id.encode()) % SHARDS


def _written(place: _Place) -> str:
    return msgspec.json.encode(place).hex()


def _parsed(cursor: str) -> _Place:
    try:
        place = msgspec.json.decode(bytes.fromhex(cursor), type=_Place)
    except (ValueError, TypeError, msgspec.MsgspecError) as error:
        raise Invalid(f"{shown(cursor)} is no cursor of a page: pass `cursor` of the page before as it is") from error
    if place.shard not in range(SHARDS):
        raise Invalid(f"{shown(cursor)} is no cursor of a page of this release")
    return place
