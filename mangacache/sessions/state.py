"""The supervisor's state as a value: to be printed, logged, and exported as JSON by `msgspec.json.encode`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from mangacache.breaker import Breaker


class Health(msgspec.Struct, frozen=True):
    """How a service that the sessions stand on is seen from here.

    Attributes:
        phase: `closed` (it is asked), `open` (it is not), `half-open` (single calls find out).
        failures: in the present window of its breaker.
        retry_after_s: when it is asked again.
    """

    phase: str
    failures: int = 0
    retry_after_s: float = 0.0


def health_of(breaker: Breaker) -> Health:
    """Return a service's health by its breaker."""
    state = breaker.state
    return Health(state.phase.value, state.failures, round(breaker.wait_s(), 3))


class DrainReport(msgspec.Struct, frozen=True):
    """How the end went: what was done in time, and what was not.

    Attributes:
        seconds: from the word to close until everything was let go of.
        unfinished: calls that were cut off.
        untold: sessions of whose newest version the other workers were not told.
        touched: METAs brought up to date.
        untouched: METAs that lag behind: lists of sessions are out of order, and nothing is lost.
        failed_steps: steps that did not end in time, or failed, by name.
    """

    seconds: float
    unfinished: int
    untold: int
    touched: int
    untouched: int
    failed_steps: tuple[str, ...] = ()

    @property
    def complete(self) -> bool:
        """Whether nothing was left undone."""
        return not (self.unfinished or self.untold or self.untouched or self.failed_steps)


class SupervisorState(msgspec.Struct, frozen=True):
    """What the supervisor knows, at one moment.

    Attributes:
        status: `open`, `draining`, `closed`, or `failing` where something happened after which nothing can be trusted.
        sessions: in memory.
        memory_kib: what their contexts take, about.
        running: messages that have their turn.
        inside: calls under way or waiting; `window` may be now, `limit` at most; `waiting` wait outside.
        refused: calls that found no room.
        loop_lag_ms: how late the event loop runs: lately, and the worst of the last minute.
        tick_ms: the longest step of the supervisor's own work in the last minute.
        used_bytes, limit_bytes: memory; 0 where it cannot be told.
        sheddings: how often sessions had to leave for want of memory.
        evicted: sessions that left, by why.
        farewells: touches of such sessions that wait; `farewells_dropped` were given up.
        dead_letters: messages that could not be carried out, ever.
        restarts: of background work.
        fatal: the last error that was escalated, in words.
        health: of each service.
        drain: how the end went.
    """

    status: str
    sessions: int
    memory_kib: int
    running: int
    inside: int
    window: int
    limit: int
    waiting: int
    refused: int
    loop_lag_ms: float
    loop_lag_worst_ms: float
    tick_ms: float
    used_bytes: int
    limit_bytes: int
    sheddings: int
    evicted: dict[str, int]
    farewells: int
    farewells_dropped: int
    dead_letters: int
    restarts: int
    fatal: str
    health: dict[str, Health]
    drain: DrainReport | None = None
