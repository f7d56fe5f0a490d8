"""What is asked for most: counts of titles by bucket of time, and the top of the last hour and day."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec

from mangacache.ephemeral import scripts
from mangacache.ephemeral.asking import shown
from mangacache.errors import Invalid
from mangacache.model import checked_id
from mangacache.tasks import together

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from mangacache.clock import Clock
    from mangacache.ephemeral.asking import Asker

CAPACITY: Final = 1000
MAX_WEIGHT: Final = 1_000_000
MAX_TOP: Final = 100
_FIRST_LOOK: Final = 100
_DEEPER: Final = 4
_SERVICE: Final = "trending titles"


class _Span(msgspec.Struct, frozen=True):
    """A span of time by its buckets: the current one, and as many whole ones before it as fill the span."""

    bucket_s: int
    whole: int

    @property
    def ttl_ms(self) -> int:
        """How long a bucket is of use, and one bucket more for clocks that differ."""
        return (self.whole + 2) * self.bucket_s * 1000

    def newest(self, now_s: float) -> int:
        return int(now_s // self.bucket_s)


_SPANS: Final = {"hour": _Span(300, 12), "day": _Span(3600, 24)}


class Trend(msgspec.Struct, frozen=True):
    """A title among the first.

    Attributes:
        title: as it was counted.
        count: how often, at most.
        over: by how much `count` may be too high; 0 while a bucket has had fewer titles than it holds.
    """

    title: str
    count: int
    over: int


class Trending:
    """The counts of all workers."""

    def __init__(self, asker: Asker, *, clock: Clock) -> None:
        self._asker = asker
        self._clock = clock

    async def record(self, title: str, *, weight: int = 1) -> None:
        """Count a title, now; one round trip.

        Args:
            title: its id or name, 1 to 128 bytes.
            weight: by how much, 1 to 1,000,000.

        Raises:
            Invalid: a title or weight that is none, or no Redis is configured.
            Transient: Redis cannot be asked; whether it was counted is unknown.
        """
        checked_id(title, what="title")
        if type(weight) is not int or weight not in range(1, MAX_WEIGHT + 1):
            raise Invalid(f"a weight is a whole number from 1 to {MAX_WEIGHT:,}, not {shown(weight)}")
        now_s = self._clock.time_s()
        await together(
            *(
                self._asker.run(
                    _SERVICE,
                    scripts.TRENDING_ADD,
                    self._key(name, span.newest(now_s)),
                    [title, weight, CAPACITY, span.ttl_ms],
                )
                for name, span in _SPANS.items()
            )
        )

    async def top(self, span: str = "hour", *, limit: int = 10) -> tuple[Trend, ...]:
        """Return the titles that were counted most, the first first: two round trips, as a rule.

        Args:
            span: `hour` (the last 60 to 65 minutes) or `day` (the last 24 to 25 hours).
            limit: 1 to 100.
        """
        if span not in tuple(_SPANS):
            raise Invalid(f"the top is of an 'hour' or a 'day', not {shown(span)}")
        if type(limit) is not int or limit not in range(1, MAX_TOP + 1):
            raise Invalid(f"the top has 1 to {MAX_TOP} titles, not {shown(limit)}")
        found = _SPANS[span]
        newest = found.newest(self._clock.time_s())
        keys = [self._key(span, newest - back) for back in range(found.whole + 1)]
        first = _FIRST_LOOK
        while True:
            top = await self._first(keys, min(first, CAPACITY), limit)
            if top is not None:
                return top
            first *= _DEEPER

    async def _first(self, keys: Sequence[str], first: int, limit: int) -> tuple[Trend, ...] | None:
        """Find the top among the first so many of each bucket; None where others could be above it.

        The threshold algorithm (Fagin, Lotem, Naor, PODS 2001): a title that is first nowhere has at most the sum of
        what comes next in each bucket.
        """
        buckets = [_Bucket.of(reply) for reply in await self._ask(keys, [first])]
        candidates = _candidates(buckets, limit)
        totals = dict.fromkeys(candidates, 0)
        if candidates:
            for reply in await self._ask(keys, [0, *candidates]):
                for title, count in zip(candidates, reply[2:], strict=True):
                    totals[title] += count
        ranked = sorted(totals.items(), key=lambda each: (-each[1], each[0]))[:limit]
        threshold = sum(bucket.next for bucket in buckets)
        if threshold > 0 and first < CAPACITY and (len(ranked) < limit or ranked[-1][1] < threshold):
            return None
        over = sum(bucket.least for bucket in buckets)
        return tuple(Trend(title, count, min(over, count - 1)) for title, count in ranked)

    async def _ask(self, keys: Sequence[str], arguments: Sequence[Any]) -> list[Any]:
        asked = (
            self._asker.run(_SERVICE, scripts.TRENDING_TOP, key, [CAPACITY, *arguments], repeatable=True)
            for key in keys
        )
        return await together(*asked)

    def _key(self, span: str, bucket: int) -> str:
        return self._asker.key("trending", f"{span}:{bucket}")


class _Bucket(msgspec.Struct, frozen=True):
    """The first of a bucket, by count; see trending_top.lua."""

    least: int
    next: int
    counts: dict[str, int]

    @classmethod
    def of(cls, reply: Sequence[Any]) -> _Bucket:
        least, next_, *flat = reply
        return cls(least, next_, {flat[at].decode(): flat[at + 1] for at in range(0, len(flat), 2)})


def _candidates(buckets: Iterable[_Bucket], limit: int) -> list[str]:
    """Return the titles that may be among the first `limit`, whatever the buckets have that was not shown."""
    least: dict[str, int] = {}
    unseen: dict[str, int] = {}
    for bucket in buckets:
        for title, count in bucket.counts.items():
            least[title] = least.get(title, 0) + count
            unseen[title] = unseen.get(title, 0) + bucket.next
    hidden = sum(bucket.next for bucket in buckets)
    sure = sorted(least.values(), reverse=True)[:limit]
    enough = sure[-1] if len(sure) == limit else 0
    return [title for title, count in least.items() if count + hidden - unseen[title] >= enough]
