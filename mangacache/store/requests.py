"""Bounded retries with full jitter around a transport, and what is known when they are used up.

Each request of this package may be sent again as it is: a put of one number under its condition, an update
under its `change_id`, a transaction under its token, a read. So a time-out is answered by the same request
until there is a definite answer; the answer then says whether an earlier try was in doubt.

A call's retries are bounded by its deadline, those of all calls together by a budget (`budget.py`). The back-off is
"full jitter" of M. Brooker, Exponential Backoff and Jitter, AWS Architecture Blog, 2015.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from mangacache.errors import Transient
from mangacache.store.budget import RetryBudget
from mangacache.store.transport import ConditionFailed, Throttled, TransactionCanceled, Unanswered

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mangacache.clock import Clock, Random
    from mangacache.settings import Settings
    from mangacache.store.transport import Transport
    from mangacache.telemetry import Telemetry


class Answer(msgspec.Struct, frozen=True):
    """A request's answer; `in_doubt` as in `ConditionFailed`."""

    body: dict[str, Any]
    in_doubt: bool = False


class Requests:
    """Sends requests until there is a definite answer, or the deadline has passed."""

    def __init__(
        self, transport: Transport, *, settings: Settings, clock: Clock, random: Random, telemetry: Telemetry
    ) -> None:
        self._transport = transport
        self._settings = settings
        self._clock = clock
        self._random = random
        self._telemetry = telemetry
        self._budget = RetryBudget(clock)

    async def send(self, operation: str, parameters: Mapping[str, Any], *, in_doubt: bool = False) -> Answer:
        """Send a request, again where that is needed.

        Args:
            operation: `PutItem` and the like.
            parameters: of the request.
            in_doubt: whether it was sent before, another way, and may have been done.

        Raises:
            ConditionFailed, TransactionCanceled: definite, with `in_doubt` set where an earlier try was open.
            Transient: no definite answer within `request_deadline_s`, or before the retry budget was spent.
            MangaCacheError: refused for good.
        """
        tries, last = 0, ""
        cause: Exception
        deadline_s = self._clock.monotonic_s() + self._settings.request_deadline_s
        self._budget.pay_in()
        while True:
            try:
                return Answer(await self._once(operation, parameters, deadline_s), in_doubt)
            except (ConditionFailed, TransactionCanceled) as definite:
                definite.in_doubt = in_doubt
                raise
            except Throttled as error:
                reason, last, cause = "throttled", str(error), error
            except Unanswered as error:
                reason, last, cause = "unanswered", str(error), error
                in_doubt = in_doubt or error.sent
            pause_s = self.pause_s(tries)
            tries += 1
            if self._clock.monotonic_s() + pause_s >= deadline_s:
                bound = f"{self._settings.request_deadline_s:g} s"
                raise self._gave_up(operation, tries, bound, last, in_doubt=in_doubt) from cause
            if not self._budget.take():
                bound = "retries of all calls are used up"
                raise self._gave_up(operation, tries, bound, last, in_doubt=in_doubt) from cause
            self._telemetry.retries.labels(operation, reason).inc()
            await self._clock.sleep(pause_s)

    async def _once(self, operation: str, parameters: Mapping[str, Any], deadline_s: float) -> dict[str, Any]:
        started_s = self._clock.monotonic_s()
        limit_s = min(self._settings.request_timeout_s, max(deadline_s - started_s, 0.001))
        self._telemetry.requests.labels(operation).inc()
        try:
            async with self._clock.timeout(limit_s):
                return await self._transport.request(operation, parameters)
        except TimeoutError as error:
            raise Unanswered(f"no answer within {limit_s:.3g} s") from error
        finally:
            self._telemetry.request_seconds.labels(operation).observe(self._clock.monotonic_s() - started_s)

    def pause_s(self, tries: int) -> float:
        """Return how long to wait after this many failed tries: full jitter."""
        ceiling_s: float = min(self._settings.retry_cap_s, self._settings.retry_base_s * 2 ** min(tries, 30))
        return self._random.random() * ceiling_s

    def _gave_up(self, operation: str, tries: int, bound: str, last: str, *, in_doubt: bool) -> Transient:
        outcome = "; whether it was done is unknown, repeating the call is safe" if in_doubt else "; nothing was done"
        return Transient(
            f"DynamoDB gave no definite answer to {operation} in {tries} tries ({bound}): {last}{outcome}",
            retry_after_s=self._settings.retry_cap_s,
        )
