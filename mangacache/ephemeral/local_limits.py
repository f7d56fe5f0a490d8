"""The limiter of one worker, for while Redis is away: the units it has let through, and its share of each limit.

It is warm: it hears of what Redis allowed to this worker, so that when Redis goes away nobody begins anew.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections import OrderedDict
from typing import TYPE_CHECKING, Final

from mangacache.ephemeral.limits import Decision

if TYPE_CHECKING:
    from mangacache.ephemeral.limits import Limit

MOST_KEYS: Final = 50_000
"""Those used longest ago are forgotten. At 2 units each that is 10 MB."""


class LocalWindows:
    """Times of the units let through, by key; exact sliding windows on the worker's own monotonic clock."""

    def __init__(self) -> None:
        self._times_s: OrderedDict[str, array[float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._times_s)

    def note(self, key: str, limit: Limit, cost: int, now_s: float) -> None:
        """Take in what Redis allowed to this worker."""
        self._window(key, limit, now_s).extend([now_s] * cost)

    def take(self, key: str, limit: Limit, cost: int, now_s: float, *, share: int, record: bool) -> Decision:
        """Decide by this worker's share of a limit, and record what is allowed."""
        times_s = self._window(key, limit, now_s)
        if len(times_s) + cost <= share:
            if record:
                times_s.extend([now_s] * cost)
            return Decision(
                allowed=True,
                limit=limit.count,
                remaining=share - len(times_s),
                retry_after_s=0.0,
                source="local",
            )
        remaining = max(0, share - len(times_s))
        waits_for = len(times_s) + cost - share  # units that must leave first
        wait_s = limit.window_s  # a cost above the share is never there; Redis may be back by then
        if waits_for <= len(times_s):
            wait_s = times_s[waits_for - 1] + limit.window_s - now_s
        return Decision(
            allowed=False, limit=limit.count, remaining=remaining, retry_after_s=max(wait_s, 0.001), source="local"
        )

    def _window(self, key: str, limit: Limit, now_s: float) -> array[float]:
        """Return the times that are in the window now, oldest first, to be extended in place."""
        times_s = self._times_s.get(key)
        if times_s is None:
            times_s = self._times_s[key] = array("d")
            while len(self._times_s) > MOST_KEYS:
                self._times_s.popitem(last=False)
        else:
            self._times_s.move_to_end(key)
        if gone := bisect_right(times_s, now_s - limit.window_s):
            del times_s[:gone]
        return times_s
