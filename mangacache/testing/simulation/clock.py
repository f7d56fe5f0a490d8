"""A clock that reads virtual time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from mangacache.clock import SystemClock

if TYPE_CHECKING:
    from mangacache.testing.simulation.loop import SimulatedLoop

EPOCH_S: Final = 1_767_225_600.0
"""The wall clock's time at the beginning, 2026-01-01T00:00:00Z, less what the loop's clock reads then."""


class SimulatedClock(SystemClock):
    """The clocks of one machine of the simulation; what waits on them waits in virtual time.

    Args:
        loop: whose time it is.
        wrong_by_s: how far the machine's wall clock is off.
    """

    __slots__ = ("_loop", "wrong_by_s")

    def __init__(self, loop: SimulatedLoop, *, wrong_by_s: float = 0.0) -> None:
        self._loop = loop
        self.wrong_by_s = wrong_by_s

    def time_s(self) -> float:
        """Return the wall clock: seconds since 1970-01-01 UTC."""
        return EPOCH_S + self._loop.time() + self.wrong_by_s

    def monotonic_s(self) -> float:
        """Return virtual seconds from an arbitrary start: for deadlines, and for times that processes compare."""
        return self._loop.time()

    def age_s(self) -> float:
        """Return virtual seconds from an arbitrary start: for the age of what is known."""
        return self._loop.time()

    def processor_s(self) -> float:
        """Return 0: what runs in virtual time takes none."""
        return 0.0
