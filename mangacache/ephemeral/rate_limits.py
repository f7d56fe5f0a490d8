"""How much a customer may ask for: an exact sliding window, decided in Redis by Redis's time, in one script.

While Redis is away each worker decides by itself with its share of the limit, or nothing is allowed: as
`rate_limit_policy` says.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

from mangacache.ephemeral import scripts
from mangacache.ephemeral.asking import refused, shown
from mangacache.ephemeral.limits import Decision, Limit, parsed_limits
from mangacache.ephemeral.local_limits import LocalWindows
from mangacache.ephemeral.workers import Workers
from mangacache.errors import Closed, Invalid, Rejected, Transient
from mangacache.model import checked_id
from mangacache.redis import LinkLost, ScriptFailed
from mangacache.tasks import TaskOwner

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mangacache.clock import Clock, Random
    from mangacache.ephemeral.asking import Asker
    from mangacache.settings import Settings
    from mangacache.telemetry import Telemetry

DEFAULT: Final = "messages"
_ROUND: Final = 2**24
_WINDOWS_A_ROUND: Final = 4
_CLOSED_RETRY_S: Final = 1.0
_SERVICE: Final = "rate limits"


class RateLimits:
    """The rate limits of all workers, by customer and limit."""

    def __init__(self, asker: Asker, *, settings: Settings, clock: Clock, random: Random, telemetry: Telemetry) -> None:
        self._asker = asker
        self._clock = clock
        self._telemetry = telemetry
        self._closes = settings.rate_limit_policy == "closed"
        self._limits = parsed_limits(settings.rate_limits)
        self._local = LocalWindows()
        self._tasks = TaskOwner(on_failure=telemetry.count_survived)
        self.workers = Workers(asker, settings=settings, clock=clock, random=random, telemetry=telemetry)
        self._closed = False

    def __repr__(self) -> str:
        return f"<RateLimits {', '.join(self._limits)}; {self.workers.count()} workers, {len(self._local)} customers>"

    async def check(self, customer_id: str, *, limit: str | Limit = DEFAULT, cost: int = 1) -> Decision:
        """Take units of a customer's limit where they are there; what is refused is not counted.

        Args:
            customer_id: whose limit; any id will do, a session's too.
            limit: the name of one in `rate_limits`, or one of your own.
            cost: units, 1 to the limit.

        Raises:
            Invalid: no such limit, or a cost that it could never allow.
            Corrupt: something else is kept under its key.
        """
        return await self._decide(customer_id, self._limit(limit), cost, record=True)

    async def peek(self, customer_id: str, *, limit: str | Limit = DEFAULT, cost: int = 1) -> Decision:
        """Tell what `check` would say now, and take nothing."""
        return await self._decide(customer_id, self._limit(limit), cost, record=False)

    async def require(self, customer_id: str | None, limit: str | Limit) -> None:
        """Take a unit of a limit, or refuse.

        Raises:
            Rejected: it is not there; `retry_after_s` says when it will be.
        """
        await self.outcome(self.begin(customer_id, limit))

    def begin(self, customer_id: str | None, limit: str | Limit) -> asyncio.Task[Decision]:
        """Begin to take a unit, so that it is asked for with what else this turn of the event loop asks; see `outcome`.

        Who loses interest leaves the task alone: it ends by itself, and the unit is taken.
        """
        if customer_id is None:
            raise Invalid("a rate limit is a customer's: make the session's handle with `customer_id`")
        found = self._limit(limit)
        checked_id(customer_id, what="customer id")
        if self._closed:
            raise Closed("this MangaCache is closed")
        deciding = self._decide(customer_id, found, 1, record=True)
        return self._tasks.start(deciding, name="ask for a rate limit", awaited=True)

    async def outcome(self, begun: asyncio.Task[Decision]) -> None:
        """Wait for what was begun.

        Raises:
            Rejected: it was refused.
        """
        await asyncio.wait((begun,))
        if begun.cancelled():
            raise Closed("this MangaCache was closed while a rate limit was asked for")
        decision = begun.result()
        if decision.allowed:
            return
        why = "its limit of {0} is used up" if decision.source != "closed" else "its limit of {0} cannot be asked for"
        raise Rejected(
            f"the customer sends too fast: {why.format(decision.limit)} (source {decision.source}); try again in"
            f" {decision.retry_after_s:.3g} s. Nothing was done",
            retry_after_s=decision.retry_after_s,
        )

    async def close(self) -> None:
        """Hear the end of what was begun, which the link bounds, and be counted no more; before the link is closed."""
        self._closed = True
        await self._tasks.settle()
        await self.workers.close()

    # Deciding

    async def _decide(self, customer_id: str, limit: Limit, cost: int, *, record: bool) -> Decision:
        checked_id(customer_id, what="customer id")
        if type(cost) is not int or cost < 1:
            raise Invalid(f"a cost is a whole number of units from 1 on, not {shown(cost)}")
        if cost > limit.count:
            raise Invalid(f"{shown(cost)} can never be allowed: the limit {limit.name!r} is {limit.count:,} units")
        self.workers.begin()
        key = self._key(customer_id, limit)
        decision = None
        if self._asker.link is not None:
            decision = await self._by_redis(key, limit, cost, record=record)
        if decision is None:
            decision = self._alone(key, limit, cost, record=record)
        elif decision.allowed and record:
            self._local.note(key, limit, cost, self._clock.monotonic_s())
        self._telemetry.rate_limits.labels(decision.source, "allowed" if decision.allowed else "refused").inc()
        return decision

    async def _by_redis(self, key: str, limit: Limit, cost: int, *, record: bool) -> Decision | None:
        """Ask Redis; None where it cannot be asked, or whether it did what it was asked is unknown."""
        link = self._asker.required(_SERVICE)
        try:
            reply = await link.run(scripts.RATE_LIMIT, key, arguments(limit, cost, record=record))
        except LinkLost:
            return None  # counted by the source of the decision
        except ScriptFailed as failed:
            error = refused(_SERVICE, key, failed)
            if isinstance(error, Transient):
                self._telemetry.count_survived("rate_limit_unasked", error)
                return None
            raise error from failed
        allowed, remaining, retry_us, _ = reply
        return Decision(
            allowed=bool(allowed),
            limit=limit.count,
            remaining=remaining,
            retry_after_s=retry_us / 1_000_000,
            source="redis",
        )

    def _alone(self, key: str, limit: Limit, cost: int, *, record: bool) -> Decision:
        if self._closes and self._asker.link is not None:
            return Decision(
                allowed=False, limit=limit.count, remaining=0, retry_after_s=_CLOSED_RETRY_S, source="closed"
            )
        share = self.workers.share(limit.count, key)
        return self._local.take(key, limit, cost, self._clock.monotonic_s(), share=share, record=record)

    def _limit(self, limit: str | Limit) -> Limit:
        if isinstance(limit, Limit):
            return limit
        if limit not in tuple(self._limits):  # whatever else it is, it need not have a hash
            known = ", ".join(sorted(self._limits))
            raise Invalid(f"there is no limit {shown(limit)} among those of rate_limits: {known}")
        return self._limits[limit]

    def _key(self, customer_id: str, limit: Limit) -> str:
        """Return the window's key: a limit that has been changed is another window."""
        return self._asker.key("rate", customer_id, f":{limit.name}:{limit.count}/{limit.window_s:.12g}")


def arguments(limit: Limit, cost: int, *, record: bool) -> Sequence[Any]:
    """Return the script's arguments."""
    window_us = round(limit.window_s * 1_000_000)
    unit_us = -(-_WINDOWS_A_ROUND * window_us // _ROUND)
    return [limit.count, window_us, unit_us, cost, int(record)]
