"""The end of a worker: in order, by one deadline, out by 25 s whatever hangs.

ECS sends SIGTERM and, 30 s later, SIGKILL. First the worker says that it is not ready and serves on, until load
balancers have seen it. Then it takes nothing new in, tells its sockets, and lets requests under way finish. Then the
sessions' own end begins: mailboxes, the queue of invalidations, META, locks, clients.

All of it has one deadline, and each step what is left of that but for the shares of the steps that follow: so no sum of
bounds can pass it, and a step that hangs takes no other's time.
"""

from __future__ import annotations

import asyncio
from itertools import accumulate
from math import inf
from typing import TYPE_CHECKING, Final

import msgspec

from mangacache.tasks import TaskOwner

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from mangacache.clock import Clock
    from mangacache.settings import Settings
    from mangacache.telemetry import Telemetry

EXIT_BY_S: Final = 25.0
_KEPT_BACK_S: Final = 3.0
"""For cutting off what hangs, for closing, and for the process's end, when every step has taken all of its time."""
_SHARE_OF_REQUESTS: Final = 0.6

SOCKETS: Final = "end the sockets"
REQUESTS: Final = "finish requests"
PORT: Final = "close the port"
SESSIONS: Final = "close the sessions"
TRACES: Final = "send the traces"
REST: Final = "close the rest"
CUT_OFF_S: Final = 0.25
"""What those get who are to end at once, beside the time in which they may finish."""


class Plan(msgspec.Struct, frozen=True):
    """How long each part of the end may take, in seconds.

    Attributes:
        notice_s: /readyz says no, and requests are served.
        requests_s: sockets are told, and requests under way finish.
        sessions_s: mailboxes, invalidations, META, locks, clients.
    """

    notice_s: float
    requests_s: float
    sessions_s: float

    @property
    def shares(self) -> dict[str, float]:
        """The time that each step has for itself, in their order, whatever those before it did."""
        return {
            SOCKETS: self.requests_s + CUT_OFF_S,
            REQUESTS: CUT_OFF_S,
            PORT: 2 * CUT_OFF_S,
            SESSIONS: self.sessions_s + 2 * CUT_OFF_S,
            TRACES: 2 * CUT_OFF_S,
            REST: 2 * CUT_OFF_S,
        }


def plan(settings: Settings) -> Plan:
    """Return how the time is shared: the notice, then `drain_timeout_s` for the rest, all of it within 25 s."""
    notice_s = settings.worker_notice_s
    work_s = min(settings.drain_timeout_s, EXIT_BY_S - _KEPT_BACK_S - notice_s)
    requests_s = work_s * _SHARE_OF_REQUESTS
    return Plan(notice_s, requests_s, work_s - requests_s)


class Ending:
    """Takes steps, one after the other; one that fails or takes too long is noted, and the next is begun.

    A step that is cut off is waited for no longer, even where it does not let itself be cancelled.

    Args:
        shares: the least that each step has, by its name, in their order.
        before_s: what is waited before the first of them.

    Attributes:
        undone: the steps that did not end as they should, in words.
    """

    def __init__(
        self, shares: Mapping[str, float], *, before_s: float = 0.0, clock: Clock, telemetry: Telemetry
    ) -> None:
        self._clock = clock
        self._telemetry = telemetry
        self._tasks = TaskOwner(on_failure=telemetry.count_survived)
        self._began_s = clock.monotonic_s()
        marks = accumulate(shares.values(), initial=self._began_s + before_s)
        next(marks)
        self._until_s = dict(zip(shares, marks, strict=True))
        self.undone: list[str] = []

    @property
    def seconds(self) -> float:
        """How long it has taken so far."""
        return round(self._clock.monotonic_s() - self._began_s, 3)

    async def step(self, name: str, step: Callable[[], Awaitable[object]], *, within_s: float = inf) -> None:
        """Take a step, within its time at most, and within what is left but for the shares of those that follow."""
        within_s = max(0.0, min(within_s, self._until_s[name] - self._clock.monotonic_s()))
        task = self._tasks.start(_awaited(step), name=name, awaited=True)
        try:
            async with self._clock.timeout(within_s):
                await asyncio.wait((task,))
        except TimeoutError as error:
            if not task.done():
                self.undone.append(f"{name}: not done within {within_s:.3g} s")
                self._telemetry.count_survived("drain_timed_out", error, step=name)
                return
        finally:
            task.cancel()
        failed = asyncio.CancelledError() if task.cancelled() else task.exception()
        if failed is not None:
            self.undone.append(f"{name}: {type(failed).__name__}")
            self._telemetry.count_survived("drain_failed", failed, step=name)


async def _awaited(step: Callable[[], Awaitable[object]]) -> None:
    await step()
