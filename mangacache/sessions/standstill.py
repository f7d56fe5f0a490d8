"""Whether the process has stood still of late, so that what comes to it now may have been sent long ago.

A process that was stopped, or whose machine was paused, finds requests in its sockets for whose answers nobody waits
any more: they have been sent again since, to other workers, and more than a window of turns may have followed. So for
a while an append looks for its turn_id among all turns of the session.
"""

from __future__ import annotations

from typing import Final

STOOD_STILL_S: Final = 1.0
"""Who looks so much later than he meant to has not merely been kept waiting by a busy loop."""
_LATE_FOR_S: Final = 2.0
"""After it: what was in the sockets has been taken in by then."""


class Standstill:
    """Knows it from a look that is not taken when it is due."""

    def __init__(self) -> None:
        self._due_s = self._late_until_s = float("-inf")

    def look_at(self, due_s: float) -> None:
        """Note when the supervisor means to look next, by `clock.monotonic_s`, as all times here."""
        self._due_s = due_s

    def looked(self, now_s: float) -> bool:
        """Tell whether the process has stood still until now; calls may be late from now on, if so."""
        still = self._due_s > float("-inf") and now_s - self._due_s > STOOD_STILL_S
        if still:
            self._late_until_s = now_s + _LATE_FOR_S
        return still

    def calls_may_be_late(self, now_s: float) -> bool:
        """Tell whether a call that begins now may have been sent before a standstill, which nobody may have noticed."""
        return self.looked(now_s) or now_s < self._late_until_s
