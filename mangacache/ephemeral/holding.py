"""A lock that is held: renewed in the background, its holder stopped when it cannot be sure of it any more."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, Protocol

from mangacache.errors import Conflict

if TYPE_CHECKING:
    from collections.abc import Callable

    from mangacache.clock import Clock
    from mangacache.tasks import TaskOwner

_RENEW_SHARE: Final = 1 / 3
_SURE_SHARE: Final = 2 / 3
_RETRY_SHARE: Final = 1 / 20


class Renewal(Protocol):
    """How a hold is prolonged."""

    async def __call__(self) -> bool:
        """Prolong it by a whole lease from now on; False where it is another's, or has ended.

        Raises:
            MangaCacheError: whether it is still ours could not be found out.
        """


class Held:
    """The lock of a session, held by the task that took it.

    Attributes:
        session_id: whose lock.
        fence: the number of this hold: pass it to each write that is to be done under the lock.
        lost: set the moment the hold is over before its time. The task that took the lock is cancelled then, and
            `async with` raises `Conflict`; code elsewhere (another task, a thread) watches this, or calls `check`.
        source: `redis`, or `fence` where Redis could not be asked, so that the fence alone is the lock: the next who
            claims it has it at once.
        waited_s: how long the lock was waited for.
    """

    def __init__(
        self,
        session_id: str,
        *,
        fence: int,
        source: str,
        waited_s: float,
        lease_s: float,
        taken_at_s: float,
        clock: Clock,
    ) -> None:
        self.session_id = session_id
        self.fence = fence
        self.source = source
        self.waited_s = waited_s
        self.lost = asyncio.Event()
        self._why = ""
        self._lease_s = lease_s
        self._clock = clock
        self._sure_until_s = taken_at_s + lease_s * _SURE_SHARE
        self._holder: asyncio.Task[object] | None = None
        self._cancelling = 0
        self._keeper: asyncio.Task[None] | None = None
        self._stopped_holder = False

    def __repr__(self) -> str:
        state = f"lost: {self._why}" if self.lost.is_set() else f"held by {self.source}"
        return f"<Held {self.session_id!r}, fence {self.fence}, {state}>"

    def check(self) -> None:
        """Raise `Conflict` where the lock is not held for certain at this very moment, by this process's clock."""
        if not self.lost.is_set() and self._clock.monotonic_s() >= self._sure_until_s:
            self.lose(self._late())
        if self.lost.is_set():
            raise Conflict(f"the lock of session {self.session_id!r} was lost ({self._why}): it may be another's")

    def lose(self, why: str) -> None:
        """End the hold: tell whoever watches, and stop the task that took it."""
        if self.lost.is_set():
            return
        self._why = why
        self.lost.set()
        if self._holder is not None and self._holder is not asyncio.current_task():
            self._stopped_holder = self._holder.cancel()

    # For `Locks`

    def begin(self, renew: Renewal, *, tasks: TaskOwner, watched: Callable[[str, BaseException], None]) -> None:
        """Hold it for the current task, from now on until `end`."""
        self._holder = asyncio.current_task()
        self._cancelling = self._holder.cancelling() if self._holder is not None else 0
        self._keeper = tasks.start(self._keep(renew, watched), name="renew a lock")

    def end(self, error: BaseException | None) -> None:
        """Stop renewing; where the task was stopped because of the loss, say so instead of letting it look cancelled.

        Raises:
            Conflict: the lock was lost, and the task stopped for it.
        """
        holder, self._holder = self._holder, None
        if self._keeper is not None:
            self._keeper.cancel()
        if not self._stopped_holder or holder is None:
            return
        if holder.uncancel() <= self._cancelling and isinstance(error, asyncio.CancelledError):
            raise Conflict(
                f"the lock of session {self.session_id!r} was lost ({self._why}), and what was done under it stopped: "
                "take it again, load the session and decide anew"
            ) from error

    def _late(self) -> str:
        return f"it could not be renewed within two thirds of its lease of {self._lease_s:g} s"

    async def _keep(self, renew: Renewal, watched: Callable[[str, BaseException], None]) -> None:
        pause_s = self._lease_s * _RENEW_SHARE
        while not self.lost.is_set():
            left_s = self._sure_until_s - self._clock.monotonic_s()
            await self._clock.sleep(max(0.0, min(pause_s, left_s)))
            sent_at_s = self._clock.monotonic_s()
            if sent_at_s >= self._sure_until_s:
                self.lose(self._late())
                return
            try:
                async with self._clock.timeout(self._sure_until_s - sent_at_s):
                    ours = await renew()
            except TimeoutError:
                continue
            except Exception as error:  # noqa: BLE001 - whatever it is, a hold that is renewed no more must end in time
                watched("lock_not_renewed", error)
                pause_s = self._lease_s * _RETRY_SHARE
                continue
            if not ours:
                self.lose("it is another's, or its lease has ended")
                return
            self._sure_until_s = max(self._sure_until_s, sent_at_s + self._lease_s * _SURE_SHARE)
            pause_s = self._lease_s * _RENEW_SHARE
