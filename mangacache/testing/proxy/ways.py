"""One direction of a proxy: how long what goes that way takes, and whether it arrives."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from mangacache.errors import Invalid

if TYPE_CHECKING:
    from mangacache.clock import Random

LONGEST_S: Final = 3600.0
DELAY_S: Final = "a delay is from 0 to 3,600 seconds"


class Way:
    """What befalls all that goes one way, on every connection of a proxy, from now on.

    Everything arrives in order, as on TCP, or not at all.

    Args:
        random: the jitter.
    """

    def __init__(self, random: Random) -> None:
        self._random = random
        self._delay_s = 0.0
        self._jitter_s = 0.0
        self._bytes_per_s = 0.0
        self._flows = asyncio.Event()
        self._flows.set()
        self.silent = False

    def __repr__(self) -> str:
        return f"<Way {self.status()}>"

    @property
    def plain(self) -> bool:
        """Whether everything arrives, at once."""
        return not (self._delay_s or self._jitter_s or self._bytes_per_s or self.silent) and self._flows.is_set()

    def delay(self, seconds: float, *, jitter_s: float = 0.0) -> None:
        """Have everything arrive so much later, and up to `jitter_s` more."""
        if not 0 <= seconds <= LONGEST_S or not 0 <= jitter_s <= LONGEST_S:
            raise Invalid(f"{DELAY_S}, not {seconds!r} with {jitter_s!r} of jitter")
        self._delay_s, self._jitter_s = seconds, jitter_s

    def throttle(self, bytes_per_s: float) -> None:
        """Let so many bytes a second through, on each connection; 0 ends it."""
        if not bytes_per_s >= 0:
            raise Invalid(f"a bandwidth is at least 0 bytes a second, not {bytes_per_s!r}")
        self._bytes_per_s = bytes_per_s

    def stall(self) -> None:
        """Hold everything back until `restore`; nothing is lost by it."""
        self._flows.clear()

    def silence(self) -> None:
        """Lose everything, without a sign to either end."""
        self.silent = True

    def restore(self) -> None:
        """End all of it. What was held back arrives, what was delayed as late as it was to."""
        self._delay_s = self._jitter_s = self._bytes_per_s = 0.0
        self.silent = False
        self._flows.set()

    def takes_s(self) -> float:
        """Return how long what is sent now is under way."""
        return self._delay_s + (self._random.random() * self._jitter_s if self._jitter_s else 0.0)

    def pace_s(self, size: int) -> float:
        """Return how long so many bytes take by the bandwidth."""
        return size / self._bytes_per_s if self._bytes_per_s else 0.0

    async def flowing(self) -> None:
        """Wait until nothing is held back."""
        await self._flows.wait()

    def status(self) -> dict[str, object]:
        """Return what is in force."""
        return {
            "delay_s": self._delay_s,
            "jitter_s": self._jitter_s,
            "bytes_per_s": self._bytes_per_s,
            "stalled": not self._flows.is_set(),
            "silent": self.silent,
        }
