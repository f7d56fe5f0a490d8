"""Bounded retries with full jitter around a transport, and what is known when they are used up.

Each request of this package may be sent again as it is: a put of one number under its condition, an update
under its `change_id`, a transaction under its token, a read. So a time-out is answered by the same request
until there is a definite answer; the answer then says whether an earlier try was in doubt.

A call's retries are bounded by its deadline, those of all calls together by a budget (`budget.py`). A breaker watches:
while next to nothing is answered each new call has one try and no more, so that its caller hears soon and DynamoDB is
left alone; and as every call still has its one, the first that is answered is answered. The back-off is
"full jitter" of M. Brooker, Exponential Backoff and Jitter, AWS Architecture Blog, 2015.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec

from mangacache.breaker import Breaker, BreakerRules
from mangacache.errors import Transient
from mangacache.store.budget import RetryBudget
from mangacache.store.transport import ConditionFailed, Throttled, TransactionCanceled, Unanswered

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mangacache.breaker import BreakerState
    from mangacache.clock import Clock, Random
    from mangacache.settings import Settings
    from mangacache.store.transport import Transport
    from mangacache.telemetry import Telemetry


RULES: Final = BreakerRules(failures=20, share=0.9, window_s=5.0, open_s=0.5, open_cap_s=5.0, probe_s=5.0)
"""A network that loses every third request is no outage: retries see to that."""


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
        self.breaker = Breaker(RULES, clock=clock, random=random, changed=self._changed)

    def _changed(self, state: BreakerState) -> None:
        self._telemetry.log.warning("dynamodb_breaker", phase=state.phase.value, failures=state.failures)

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
        permit = self.breaker.admit()
        while True:
            try:
                answer = Answer(await self._once(operation, parameters, deadline_s), in_doubt)
                self._answered(permit)
                return answer
            except (ConditionFailed, TransactionCanceled) as definite:
                definite.in_doubt = in_doubt
                self._answered(permit)
                raise
            except Throttled as error:
                reason, last, cause = "throttled", str(error), error
            except Unanswered as error:
                reason, last, cause = "unanswered", str(error), error
                in_doubt = in_doubt or error.sent
                if permit is None:
                    raise self._gave_up(operation, 1, "it answers nobody now", last, in_doubt=in_doubt) from cause
                self.breaker.failed(permit)
            except BaseException:
                if permit is not None:
                    self.breaker.gave_up(permit)
                raise
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

    def _answered(self, permit: int | None) -> None:
        if permit is not None:
            self.breaker.succeeded(permit)

    async def _once(self, operation: str, parameters: Mapping[str, Any], deadline_s: float) -> dict[str, Any]:
        started_s = self._clock.monotonic_s()
        limit_s = min(self._settings.request_timeout_s, max(deadline_s - started_s, 0.001))
        self._telemetry.requests.labels(operation).inc()
        try:
            async with self._clock.timeout(limit_s):
                if (tracer := self._telemetry.tracer) is None:
                    return await self._transport.request(operation, parameters)
                with tracer.span("dynamodb", operation):
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
            retry_after_s=max(self._settings.retry_cap_s, round(self.breaker.wait_s(), 3)),
        )
