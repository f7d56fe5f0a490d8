"""The end of a worker: in order, each step within its share of the time, out by 25 s whatever hangs.

ECS sends SIGTERM and, 30 s later, SIGKILL. First the worker says that it is not ready and serves on, until load
balancers have seen it. Then it takes nothing new in, tells its sockets, and lets requests under way finish. Then the
sessions' own end begins: mailboxes, the queue of invalidations, META, locks, clients.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from mangacache.clock import Clock
    from mangacache.settings import Settings
    from mangacache.telemetry import Telemetry

EXIT_BY_S: Final = 25.0
_KEPT_BACK_S: Final = 2.5
"""For closing ports and connections, when every step before has taken all of its time."""
_SHARE_OF_REQUESTS: Final = 0.6


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


def plan(settings: Settings) -> Plan:
    """Return how the time is shared: the notice, then `drain_timeout_s` for the rest, all of it within 25 s."""
    notice_s = settings.worker_notice_s
    work_s = min(settings.drain_timeout_s, EXIT_BY_S - _KEPT_BACK_S - notice_s)
    requests_s = work_s * _SHARE_OF_REQUESTS
    return Plan(notice_s, requests_s, work_s - requests_s)


class Ending:
    """Takes steps, one after the other; one that fails or takes too long is noted, and the next is begun.

    Attributes:
        undone: the steps that did not end as they should, in words.
    """

    def __init__(self, *, clock: Clock, telemetry: Telemetry) -> None:
        self._clock = clock
        self._telemetry = telemetry
        self._began_s = clock.monotonic_s()
        self.undone: list[str] = []

    @property
    def seconds(self) -> float:
        """How long it has taken so far."""
        return round(self._clock.monotonic_s() - self._began_s, 3)

    async def step(self, name: str, step: Callable[[], Awaitable[object]], *, within_s: float) -> None:
        """Take a step, within its time."""
        try:
            async with self._clock.timeout(within_s):
                await step()
        except TimeoutError as error:
            self.undone.append(f"{name}: not done within {within_s:.3g} s")
            self._telemetry.count_survived("drain_timed_out", error, step=name)
        except Exception as error:  # noqa: BLE001 - whatever it is, the steps that follow are due all the same
            self.undone.append(f"{name}: {type(error).__name__}")
            self._telemetry.count_survived("drain_failed", error, step=name)
