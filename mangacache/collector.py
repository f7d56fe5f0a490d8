"""Garbage collection, for whoever owns the process: freeze after the warm-up, and measure the pauses.

A library does not touch the collector: it belongs to the process. A process that holds many sessions should: a full
collection looks at every tracked object and stalls the event loop meanwhile, a third of a second for a million of them,
to find nothing. What is there after the warm-up stays, so it is put out of sight; what comes afterwards is mostly
structs that the collector need not visit, and the rest is looked at in large portions.
"""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING, Final, Self

import msgspec

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from mangacache.clock import Clock

THRESHOLDS: Final = (50_000, 20, 100)
"""New tracked objects before a look at the young, looks at the young before one at the middle, and at the old."""


class Collections(msgspec.Struct, frozen=True):
    """What the collector did while it was watched.

    Attributes:
        pauses: how often it ran.
        total_ms, longest_ms: how long it held the process up.
        full: how often it looked at everything.
    """

    pauses: int
    total_ms: float
    longest_ms: float
    full: int


def freeze(*, thresholds: tuple[int, int, int] = THRESHOLDS) -> int:
    """Collect what is garbage now, put all that is left out of the collector's sight, and make it look less often.

    To be called by a process when it has warmed up: modules imported, clients open, what it holds for good in place.

    Returns:
        How many objects it will not look at any more.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*thresholds)
    return gc.get_freeze_count()


class PauseWatch:
    """Measures the collector's pauses while its block runs.

    Args:
        clock: by which they are measured.
        paused: told of each, with its generation and seconds. It runs where the collector ran: in the middle of
            anything, in any thread.
    """

    def __init__(self, clock: Clock, *, paused: Callable[[int, float], None] | None = None) -> None:
        self._clock = clock
        self._paused = paused
        self._began_s = 0.0
        self._pauses = 0
        self._full = 0
        self._total_s = 0.0
        self._longest_s = 0.0

    def __enter__(self) -> Self:
        gc.callbacks.append(self._heard)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        gc.callbacks.remove(self._heard)

    def _heard(self, phase: str, info: dict[str, int]) -> None:
        if phase == "start":
            self._began_s = self._clock.monotonic_s()
            return
        lasted_s = self._clock.monotonic_s() - self._began_s
        self._pauses += 1
        self._full += info.get("generation") == 2  # noqa: PLR2004 - the oldest of the three
        self._total_s += lasted_s
        self._longest_s = max(self._longest_s, lasted_s)
        if self._paused is not None:
            self._paused(info.get("generation", 0), lasted_s)

    def seen(self) -> Collections:
        """Return what was measured so far."""
        return Collections(self._pauses, round(self._total_s * 1e3, 3), round(self._longest_s * 1e3, 3), self._full)
