"""Whether this worker takes requests in, and what it tells load balancers.

Degraded is still ready: without Redis or DAX, with a low hit ratio or while sessions are shed the worker answers, and
another one would be no better off. Not ready is a worker that is about to leave, one after whose failure nothing can be
trusted, and one that has not reached DynamoDB for so long that others may do better.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Final

import msgspec

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mangacache.clock import Clock
    from mangacache.sessions.state import Health, SupervisorState

DYNAMODB_AWAY_S: Final = 30.0
"""So long a worker stays ready that does not reach DynamoDB: a short outage is everybody's, and empties no fleet."""


class Phase(Enum):
    """How far a worker has come."""

    STARTING = "starting"
    SERVING = "serving"
    LEAVING = "leaving"  # serves on, and says that it is not ready
    DRAINING = "draining"  # takes nothing new in


class Verdict(msgspec.Struct, frozen=True):
    """What /readyz says.

    Attributes:
        ready: whether requests should be sent here.
        status: `ready`, `degraded`, or why not: `starting`, `draining`, `failing`, `unreachable`.
        reasons: what is not as it should be, one word or two each.
    """

    ready: bool
    status: str
    reasons: tuple[str, ...] = ()


def judge(
    phase: Phase, state: SupervisorState, *, away_s: Mapping[str, float], hit_ratio_low: bool, shedding: bool
) -> Verdict:
    """Return the verdict on a worker.

    Args:
        phase: how far it has come.
        state: what its supervisor knows.
        away_s: for how long each service has been away; those that are there are not in it.
        hit_ratio_low: whether that alarm is on.
        shedding: whether sessions leave for want of memory.
    """
    if phase is Phase.STARTING:
        return Verdict(ready=False, status="starting")
    if phase is not Phase.SERVING or state.status in {"draining", "closed"}:
        return Verdict(ready=False, status="draining")
    reasons = tuple(
        [f"{name} away" for name in sorted(away_s)]
        + ["hit ratio low"] * hit_ratio_low
        + ["shedding sessions"] * shedding
    )
    if state.status == "failing":
        return Verdict(ready=False, status="failing", reasons=reasons)
    if away_s.get("dynamodb", 0.0) >= DYNAMODB_AWAY_S:
        return Verdict(ready=False, status="unreachable", reasons=reasons)
    return Verdict(ready=True, status="degraded" if reasons else "ready", reasons=reasons)


class Readiness:
    """The phase of this worker, and since when the services that it stands on have been away.

    Attributes:
        phase: see `Phase`.
        retry_after_s: what those hear who are turned away.
    """

    def __init__(self, *, clock: Clock, retry_after_s: float = 1.0) -> None:
        self._clock = clock
        self._away_since_s: dict[str, float] = {}
        self.phase = Phase.STARTING
        self.retry_after_s = retry_after_s

    @property
    def takes_in(self) -> bool:
        """Whether a new request may begin."""
        return self.phase in {Phase.SERVING, Phase.LEAVING}

    def look(self, health: Mapping[str, Health]) -> None:
        """Take note of which services are there; called every second or so, and whenever somebody asks."""
        now_s = self._clock.monotonic_s()
        for name, seen in health.items():
            if seen.phase == "closed":
                self._away_since_s.pop(name, None)
            else:
                self._away_since_s.setdefault(name, now_s)

    def away_s(self) -> dict[str, float]:
        """Return for how long each service has been away."""
        now_s = self._clock.monotonic_s()
        return {name: now_s - since_s for name, since_s in self._away_since_s.items()}
