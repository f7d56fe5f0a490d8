"""The seam of the context cache: what the sessions ask of a tier between the process and DynamoDB."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import msgspec

from mangacache.store.snapshot import Snapshot

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from mangacache.clock import Clock
    from mangacache.context.watching import Memory
    from mangacache.model import Version
    from mangacache.store.windows import Loaded


class Found(msgspec.Struct, frozen=True, gc=False):
    """What a read found.

    Attributes:
        source: `redis`, `dax` or `dynamodb`.
        strong: whether it was read strongly in DynamoDB, so that it may replace what memory holds.
        sent_at_s: `clock.monotonic_s` when the request was sent that makes it valid.
        sent_age_s: the same by `clock.age_s`.
        window_age_s: how long before that its turns were last read strongly.
        degraded: Redis was away, so that LATEST does not hold.
        stale: the epoch could not be asked for, so that something newer may be elsewhere.
    """

    snapshot: Snapshot
    source: str
    strong: bool
    sent_at_s: float
    sent_age_s: float
    window_age_s: float = 0.0
    degraded: bool = False
    stale: bool = False


class Confirmed(msgspec.Struct, frozen=True, gc=False):
    """How a write was told to the other workers.

    Attributes:
        current_age_s: `clock.age_s` when the COMMIT was sent whose reply showed that nothing newer is in the tier;
            None where it did not show that.
        degraded: it was not confirmed, and is acknowledged all the same.
    """

    current_age_s: float | None = None
    degraded: bool = False


class ContextTier(Protocol):
    """A cache of contexts that workers share. It may forget at any time, and is never older than it says."""

    def feed(self, memory: Memory) -> None:
        """Tell a memory of what other workers write, from now on, as far as the tier hears of it."""

    async def read(self, session_id: str, *, least: Version, have: Snapshot | None) -> Found:
        """Return the session at `least` or newer, from the tier or else from DynamoDB.

        Args:
            session_id: whose context.
            least: join of the reader's token and of what memory knows.
            have: what memory holds, which need not be sent again.

        Raises:
            Rejected: too many reads while the tier is away.
            Transient: DynamoDB does not answer.
        """

    async def strong(self, session_id: str) -> Found:
        """Return the session as DynamoDB has it."""

    async def latest_may_degrade(self) -> bool:
        """Tell whether a degraded answer may stand for LATEST; where it may not, wait until one can be promised.

        Raises:
            Transient: it cannot be promised now, and nothing less may be answered (policy `hold`).
        """

    async def commit(self, session_id: str, *, base: Snapshot | None, after: Snapshot) -> Confirmed:
        """Bring what was written into the tier, before the write is acknowledged.

        Args:
            session_id: whose write.
            base: what was known when the write began.
            after: what is known now.

        Raises:
            Transient: what was written is stored and not confirmed (policy `hold`).
        """

    @property
    def owed(self) -> int:
        """Sessions of whose newest version the others have not been told."""

    async def settle(self) -> None:
        """Tell the others what they have not been told yet; what goes wrong is counted, and stays owed."""

    async def close(self) -> None:
        """Let go of the tier; what is still owed stays untold."""


class NoTier:
    """No cache of contexts between the process and DynamoDB: every miss of the memory is read there, at its version.

    Args:
        load: strong reads.
        window: reads at DynamoDB's version, some turns of which may come from DAX.
        clock: when they were sent.
    """

    def __init__(
        self,
        load: Callable[[str], Awaitable[Snapshot]],
        window: Callable[[str], Awaitable[Loaded]],
        *,
        clock: Clock,
    ) -> None:
        self._load = load
        self._window = window
        self._clock = clock

    def feed(self, memory: Memory) -> None:
        """See `ContextTier`: nothing is heard."""

    async def read(self, session_id: str, *, least: Version, have: Snapshot | None) -> Found:
        """See `ContextTier`."""
        del least, have
        sent_at_s, sent_age_s = self._clock.monotonic_s(), self._clock.age_s()
        loaded = await self._window(session_id)
        return Found(loaded.snapshot, loaded.source, strong=True, sent_at_s=sent_at_s, sent_age_s=sent_age_s)

    async def strong(self, session_id: str) -> Found:
        """See `ContextTier`."""
        sent_at_s, sent_age_s = self._clock.monotonic_s(), self._clock.age_s()
        snapshot = await self._load(session_id)
        return Found(snapshot, "dynamodb", strong=True, sent_at_s=sent_at_s, sent_age_s=sent_age_s)

    async def latest_may_degrade(self) -> bool:
        """See `ContextTier`: a strong read is the latest."""
        return True

    async def commit(self, session_id: str, *, base: Snapshot | None, after: Snapshot) -> Confirmed:
        """See `ContextTier`: there is nobody to tell."""
        del session_id, base, after
        return Confirmed()

    @property
    def owed(self) -> int:
        """See `ContextTier`: there is nobody to tell."""
        return 0

    async def settle(self) -> None:
        """Do nothing."""

    async def close(self) -> None:
        """Do nothing."""
