"""How many requests may be sent again, over all calls of a process together.

Each call bounds its own retries by its deadline. When DynamoDB is in trouble, every call has some, and together they
multiply the load on what is overloaded already. So retries are paid from a common purse: each request puts a share of
one in, a retry takes one out, and where it is empty the call ends at once, as `Transient`. In calm times the purse is
full, and no call notices it.

The retry budget of Finagle (Twitter), and of "Addressing Cascading Failures" in Google's Site Reliability Engineering.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from mangacache.clock import Clock

SHARE: Final = 0.2  # a fifth more requests is what a service that is well bears; Finagle's own figure
PER_S: Final = 10.0  # a process with few requests may try again as well; no load to speak of
BURST: Final = 100.0  # one lost connection for each of a pool of 64, and a switch of a node, cost no call


class RetryBudget:
    """The purse; it begins full."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._left = BURST
        self._filled_at_s = clock.monotonic_s()

    def pay_in(self) -> None:
        """Count a request that is sent for the first time."""
        self._left = min(BURST, self._left + SHARE)

    def take(self) -> bool:
        """Pay for one retry; False where there is nothing left."""
        now_s = self._clock.monotonic_s()
        self._left = min(BURST, self._left + max(0.0, now_s - self._filled_at_s) * PER_S)
        self._filled_at_s = now_s
        if self._left < 1:
            return False
        self._left -= 1
        return True
