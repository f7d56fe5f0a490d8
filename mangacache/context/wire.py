"""Each message of the context protocol, sent under the epoch it belongs to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from mangacache.clock import random_id
from mangacache.context import scripts
from mangacache.context.calls import Calls, Committed, committed, got
from mangacache.context.codec import Unreadable
from mangacache.context.knowledge import Standing
from mangacache.context.messages import (
    Away,
    Busy,
    Filled,
    Held,
    Lease,
    Overtaken,
    Restart,
    Spoilt,
    Told,
)
from mangacache.redis import LinkLost, Moved, ScriptFailed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mangacache.clock import Clock, Random
    from mangacache.context.announcing import Announcer
    from mangacache.context.keeper import EpochKeeper
    from mangacache.model import Version
    from mangacache.redis import Argument, Link, Script
    from mangacache.store.snapshot import Snapshot
    from mangacache.telemetry import Telemetry

_MAX_MOVES: Final = 16
_WATCHED: Final = frozenset({scripts.GET.name, scripts.FILL.name, scripts.COMMIT.name})
"""What leaves the caller with a context that is current: he is told when another writes it."""


class Asked:
    """When a read asked for what it found, and whether the epoch was known then.

    Attributes:
        at_s: `clock.monotonic_s`.
        age_s: `clock.age_s`.
        unsure: whether the epoch could have been raised unheard.
        source: where what was read last came from, if it was not Redis.
        only_dynamodb: whether nothing of it may come from DAX.
    """

    __slots__ = ("_clock", "age_s", "at_s", "only_dynamodb", "source", "unsure")

    def __init__(self, clock: Clock, *, only_dynamodb: bool = False) -> None:
        self._clock = clock
        self.only_dynamodb = only_dynamodb
        self.at_s = self.age_s = float("-inf")
        self.unsure = False
        self.source = "dynamodb"

    def now(self) -> None:
        """Note that a request is being sent."""
        self.at_s, self.age_s = self._clock.monotonic_s(), self._clock.age_s()


class Wire:
    """Sends the protocol's messages to Redis; knows epochs and scripts, and decides nothing."""

    def __init__(
        self,
        link: Link,
        keeper: EpochKeeper,
        calls: Calls,
        *,
        random: Random,
        telemetry: Telemetry,
        announcer: Announcer,
    ) -> None:
        self._link = link
        self._keeper = keeper
        self._calls = calls
        self._random = random
        self._telemetry = telemetry
        self._announcer = announcer

    async def get(
        self, session_id: str, *, least: Version, have: Snapshot | None, asked: Asked
    ) -> Held | Busy | Lease | Spoilt | Away:
        """Send GET, once more where the connection broke: nothing is lost by a lease that is given twice."""
        arguments = self._calls.get(token := random_id(self._random), least=least, have=have)
        for tries in range(_MAX_MOVES):
            standing = await self._keeper.standing()
            asked.unsure = standing is Standing.UNSURE
            epoch = self._keeper.epoch
            if standing is Standing.WAITING or not epoch or not self._link.up:
                return Away("a new epoch is waited out" if standing is Standing.WAITING else "Redis is away")
            asked.now()
            try:
                reply = await self._run(scripts.GET, session_id, arguments, epoch=epoch)
                return got(reply, have) or Lease(token, epoch)
            except Moved:
                continue
            except LinkLost as error:
                if tries:
                    return Away(str(error))
            except ScriptFailed as error:
                self._telemetry.count_survived("script_failed", error)
                return Away(str(error))
            except Unreadable as error:
                self._telemetry.count_survived("context_unreadable", error)
                if error.known_format:
                    await self._quietly(scripts.DISCARD, session_id, (), epoch=epoch)
                return Spoilt()
        return Away("the epoch does not settle")

    async def fill(self, session_id: str, lease: Lease, snapshot: Snapshot) -> Filled | Overtaken | Restart | Away:
        """Send FILL, if the epoch still is the lease's."""
        standing = await self._keeper.standing()
        if self._keeper.epoch != lease.epoch:
            return Restart()
        if standing is not Standing.SURE:
            return Away(standing.value)
        arguments = self._calls.fill(lease.token, snapshot)
        try:
            reply = await self._run(scripts.FILL, session_id, arguments, epoch=lease.epoch)
        except Moved:
            return Restart()
        except (LinkLost, ScriptFailed) as error:
            return Away(str(error))
        return Filled() if reply == b"filled" else Overtaken()

    async def observe(self, session_id: str, version: Version) -> Told | Away:
        """Send OBSERVE, once more where the connection broke; `Told` where it was heard and LATEST rests on it."""
        arguments = self._calls.observe(version)
        for tries in range(_MAX_MOVES):
            standing = await self._keeper.standing()
            if not self._keeper.epoch or not self._link.up:
                return Away("Redis is away")
            try:
                await self._run(scripts.COMMIT, session_id, arguments, epoch=self._keeper.epoch)
            except Moved:
                continue
            except LinkLost as error:
                if tries:
                    return Away(str(error))
            except ScriptFailed as error:
                self._telemetry.count_survived("script_failed", error)
                return Away(str(error))
            else:
                return Told() if standing is Standing.SURE else Away(standing.value)
        return Away("the epoch does not settle")

    async def commit(self, session_id: str, *, base: Snapshot | None, after: Snapshot) -> Committed:
        """Send COMMIT once.

        Raises:
            Moved: the epoch has changed; send it again.
            LinkLost, ScriptFailed: it is not confirmed.
        """
        notice, channel, customers = self._calls.told(session_id, base, after)
        elsewhere = ""
        if customers and self._announcer.is_needed:
            elsewhere, customers = customers, ""
        arguments = [*self._calls.commit(base, after), notice, channel, customers]
        done = committed(await self._run(scripts.TOLD, session_id, arguments, epoch=self._keeper.epoch))
        if elsewhere:
            self._announcer.announce(elsewhere, self._calls.whole(after.version, notice))
        self._telemetry.cache_events.labels(f"commit_{done.what}").inc()
        return done

    async def release(self, session_id: str, lease: Lease) -> None:
        """Send RELEASE; a lease that cannot be given back ends by time."""
        await self._quietly(scripts.RELEASE, session_id, (lease.token,), epoch=lease.epoch)

    async def _quietly(self, script: Script, session_id: str, arguments: Sequence[Argument], *, epoch: int) -> None:
        try:
            await self._run(script, session_id, arguments, epoch=epoch)
        except (Moved, LinkLost, ScriptFailed) as error:
            self._telemetry.count_survived(f"{script.name}_failed", error)

    async def _run(self, script: Script, session_id: str, arguments: Sequence[Argument], *, epoch: int) -> Any:
        """Run a script under an epoch; an answer that comes after the epoch has changed does not count."""
        watch = script.name in _WATCHED
        key = self._calls.key(session_id, epoch)
        if (tracer := self._telemetry.tracer) is None:
            reply = await self._link.run(script, key, arguments, tag=epoch, watch=watch)
        else:
            with tracer.span("redis", script.name):
                reply = await self._link.run(script, key, arguments, tag=epoch, watch=watch)
        if self._keeper.epoch != epoch:
            raise Moved
        return reply
