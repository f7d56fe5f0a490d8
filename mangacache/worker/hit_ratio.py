"""The alarm on the hit ratio: which share of contexts memory and Redis answered, over a sliding window.

It goes on below the least share, and off again a good way above it, so that a share that swings around the mark does
not ring for each swing. Few contexts say nothing: it does not go on by them, and goes off when there are hardly any.
"""

from __future__ import annotations

import math
from collections import deque
from typing import Final

import msgspec

_SAMPLES: Final = 60
_BACK_BY: Final = 0.25
"""Of the way from the least share to 1, before it goes off."""


class _Sample(msgspec.Struct, frozen=True, gc=False):
    at_s: float
    hits: float
    reads: float


class HitRatio:
    """A window over two counters.

    Args:
        least: below which share it goes on; 0 never.
        window_s: over how long the share is taken.
        reads: how many contexts it takes at least.

    Attributes:
        low: whether it is on.
        ratio: the share in the window; NaN where nothing was asked for.
        seen: contexts in the window.
    """

    def __init__(self, *, least: float, window_s: float, reads: int) -> None:
        self._least = least
        self._enough = least + (1 - least) * _BACK_BY
        self._window_s = window_s
        self._reads = reads
        self._samples: deque[_Sample] = deque()
        self.low = False
        self.ratio = math.nan
        self.seen = 0.0

    def look(self, now_s: float, *, hits: float, reads: float) -> bool:
        """Take note of the counters, and tell whether the alarm has gone on or off.

        Args:
            now_s: by a clock that never goes back.
            hits: contexts that memory or Redis answered, ever.
            reads: contexts that were answered, ever.
        """
        samples = self._samples
        if not samples:
            samples.append(_Sample(now_s, 0.0, 0.0))  # what was counted before this look is in the window
        newest = _Sample(now_s, hits, reads)
        while len(samples) > 1 and samples[1].at_s <= now_s - self._window_s:
            samples.popleft()
        first = samples[0]
        self.seen = newest.reads - first.reads
        self.ratio = (newest.hits - first.hits) / self.seen if self.seen else math.nan
        if now_s - samples[-1].at_s >= self._window_s / _SAMPLES:
            samples.append(newest)
        was, self.low = self.low, self._judged()
        return was is not self.low

    def _judged(self) -> bool:
        if self.low:
            return self.seen * 2 >= self._reads and self.ratio < self._enough
        return self.seen >= self._reads and self.ratio < self._least
