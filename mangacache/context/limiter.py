"""The limiter of reads while Redis is away: an outage of the cache must not become one of the source of truth."""

from __future__ import annotations

from mangacache.errors import Rejected


class ReadLimiter:
    """A token bucket of one second's burst, refilled continuously.

    Args:
        per_s: reads a second.
    """

    def __init__(self, per_s: float) -> None:
        self._per_s = per_s
        self._tokens = per_s
        self._at_s = float("-inf")

    def take(self, now_s: float, *, why: str) -> None:
        """Take a token.

        Args:
            now_s: `clock.monotonic_s`.
            why: why Redis cannot be asked, for whom is refused.

        Raises:
            Rejected: there is none; `retry_after_s` says when there will be.
        """
        self._tokens = min(self._per_s, self._tokens + max(0.0, now_s - self._at_s) * self._per_s)
        self._at_s = now_s
        if self._tokens < 1:
            raise Rejected(
                f"Redis cannot answer now ({why}), and {self._per_s:g} contexts a second are read from DynamoDB "
                "already (degraded_reads_per_s): nothing was done",
                retry_after_s=(1 - self._tokens) / self._per_s,
            )
        self._tokens -= 1
