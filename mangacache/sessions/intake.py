"""How many calls one process has under way or waiting, over all sessions: the bound behind all bounds.

The window of calls that are let in shrinks while the event loop lags and grows back when it does not, as the window of
a connection does by congestion: multiplicative decrease, slow increase (D. Chiu and R. Jain, 1989). So an overload is
met by refusing early, and what is let in keeps its latency.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Final

from mangacache.errors import Closed, Rejected

if TYPE_CHECKING:
    from mangacache.clock import Clock

LEAST: Final = 128
"""The window does not shrink below it where nobody had to be refused: so many calls are no overload, however slow the
machine."""
FEWEST: Final = 24
"""Nor below this in an overload: as many keep a processor at work while they wait for the services."""
_BUSY: Final = 0.002
"""Share of the lag that is allowed: where the loop is later, it has more to do than it can."""
_BUSY_MAY_TAKE: Final = (0.01, 0.05)
"""Shares of it too: in a busy loop calls that take longer, or twice as long as when it was not busy, but that between
these two, wait for the loop and not for a service."""
_SATURATED: Final = 0.9
_CALM: Final = 0.7
"""Of the time that passes: a loop that uses more than the first of it on its processor is busy too, however late it
runs, and what calls take in peace shows while it uses less than the second."""
_SHRINK: Final = 0.5
_GROW: Final = 0.4
_LOOK_S: Final = 0.1
"""In how long the window grows by that, and the rate is smoothed by this."""
_SMOOTHING: Final = 0.3
_RETRY_S: Final = (0.05, 5.0)


class Intake:
    """Counts who is in, and refuses, or lets wait, who comes when it is full.

    Attributes:
        limit: calls at most.
        window: calls that are let in now.
        inside: calls that are in.
        refused: how many were refused.
    """

    def __init__(self, limit: int, *, clock: Clock) -> None:
        self.limit = limit
        self.window = limit
        self.inside = 0
        self.refused = 0
        self.left = 0
        self._left_before = 0
        self._refused_before = 0
        self._rate_per_s = self._calm_s = 0.0
        self._clock = clock
        self._waiting: deque[asyncio.Future[None]] = deque()

    @property
    def waiting(self) -> int:
        """Calls that wait to be let in."""
        return len(self._waiting)

    def full(self, *, goes_on: bool = False) -> bool:
        """Tell whether a call would not be let in.

        Args:
            goes_on: it is the answer to what was let in before. An overload is met where work begins: who has asked
                is answered, as long as the limit itself is not reached, else what was done for him is lost.
        """
        return self.inside >= (self.limit if goes_on else self.window) or (bool(self._waiting) and not goes_on)

    def enter(self, *, goes_on: bool = False) -> bool:
        """Let a call in, unless the window is full; see `full`."""
        if self.full(goes_on=goes_on):
            return False
        self.inside += 1
        return True

    def enter_to_read(self, *, joins: bool) -> bool:
        """Let a read in, unless the window is full.

        Args:
            joins: another read of the session is under way, and may be shared: only the limit holds.
        """
        if self.inside >= (self.limit if joins else self.window):
            return False
        self.inside += 1
        return True

    def leave(self) -> None:
        """Note that a call is over, and let in who waits."""
        self.inside -= 1
        self.left += 1
        if self._waiting:
            self._let_in()

    def _let_in(self) -> None:
        while self._waiting and self.inside < self.window:
            future = self._waiting.popleft()
            if not future.done():
                self.inside += 1
                future.set_result(None)

    async def wait(self, until_s: float) -> None:
        """Wait to be let in, until a time on `clock.monotonic_s`.

        Raises:
            Rejected: the time has passed, or as many wait already as can ever be in.
        """
        if len(self._waiting) >= self.limit:
            raise self.refusal()
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(future)
        try:
            async with self._clock.timeout(max(0.0, until_s - self._clock.monotonic_s())):
                await future
        except BaseException as error:
            if future.done() and not future.cancelled():
                if future.exception() is None:  # let in at the same moment
                    self.leave()
            elif future in self._waiting:
                self._waiting.remove(future)
            if isinstance(error, TimeoutError):
                raise self.refusal() from error
            raise

    def close(self) -> None:
        """Tell who waits that nobody is let in any more."""
        while self._waiting:
            future = self._waiting.popleft()
            if not future.done():
                future.set_exception(Closed("this MangaCache is closing and takes no more calls"))

    def refusal(self) -> Rejected:
        """Return what a call that is not let in hears."""
        self.refused += 1
        return Rejected(
            f"{self.inside} calls are under way in this process, and no more are let in now (messages_in_flight, "
            f"loop_lag_limit_s): nothing was done",
            retry_after_s=self.retry_after_s(),
        )

    def retry_after_s(self) -> float:
        """Return in how long what is in now will have left, as fast as calls leave at present."""
        least_s, most_s = _RETRY_S
        if self._rate_per_s <= 0:
            return 1.0
        return round(min(most_s, max(least_s, (self.inside + len(self._waiting)) / self._rate_per_s)), 3)

    def adjust(self, *, lag_s: float, lag_limit_s: float, passed_s: float, used_s: float = 0.0) -> None:
        """Shrink or grow the window by how late the event loop ran, and note how fast calls leave.

        Args:
            lag_s: how late it ran of late.
            lag_limit_s: how late it may run.
            passed_s: since the last look.
            used_s: how much processor time of that its thread has used.
        """
        if passed_s <= 0:
            return
        looks = passed_s / _LOOK_S
        rate_per_s = (self.left - self._left_before) / passed_s
        weight = 1 - (1 - _SMOOTHING) ** looks
        self._rate_per_s += weight * (rate_per_s - self._rate_per_s)
        refuses = self.refused > self._refused_before
        self._left_before, self._refused_before = self.left, self.refused
        least = min(FEWEST, self.limit) if refuses else min(LEAST, self.window)
        # By Little's law: as fast as calls leave now, who comes in next leaves after so long.
        takes_s = self.inside / self._rate_per_s if self._rate_per_s > 0 else 0.0
        may_take_s = lag_limit_s
        if lag_s > lag_limit_s * _BUSY or used_s > passed_s * _SATURATED:
            shortest_s, longest_s = (lag_limit_s * share for share in _BUSY_MAY_TAKE)
            may_take_s = max(shortest_s, min(longest_s, 2 * self._calm_s))
        elif not refuses and used_s < passed_s * _CALM:
            self._calm_s += weight * (takes_s - self._calm_s)
        if lag_s > lag_limit_s:
            self.window = max(least, int(min(self.window, max(self.inside, least)) * max(_SHRINK, lag_limit_s / lag_s)))
        elif takes_s > may_take_s and self.inside > least:
            self.window = max(least, min(self.window, int(self._rate_per_s * may_take_s)))
        elif self.window < self.limit:
            grown = self.window * (1 + _GROW) ** looks
            self.window = min(self.limit, max(self.window + 1, int(grown)))
            self._let_in()
