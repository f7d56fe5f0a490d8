"""The door to DAX: asked while it is well, passed by while it is not, and never a reason for an error."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from mangacache.breaker import Breaker, BreakerRules, BreakerState, Phase
from mangacache.errors import Closed, Invalid, MangaCacheError, NotFound, Rejected
from mangacache.store.transport import ConditionFailed, Throttled, TransactionCanceled, Unanswered
from mangacache.tasks import TaskOwner

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from mangacache.clock import Clock, Random
    from mangacache.store.transport import Transport
    from mangacache.telemetry import Telemetry

RULES: Final = BreakerRules(failures=3, share=0.0, window_s=10.0, open_s=0.5, open_cap_s=5.0, probe_s=5.0)
"""A time-out opens at once, however many calls went well before it: it has cost one caller its time, and the next one
need not pay it again. To go by DAX for half a second costs nobody anything."""

_STALL_WEIGHT: Final = 3
_READS: Final = frozenset({"BatchGetItem", "GetItem", "Query"})


class DaxDoor:
    """Asks DAX, or says that DynamoDB is to be asked.

    A breaker stands in it. When its opening is over, the call that comes is not made to try it out: it goes to
    DynamoDB as the others do, and a probe of the door's own is sent beside it.

    Args:
        transport: one request to DAX.
        table_name: that a probe asks for.
        random: for the breaker's jitter.
        telemetry: hears of each outcome, and says once when DAX goes and when it is back.
    """

    def __init__(
        self, transport: Transport, *, table_name: str, clock: Clock, random: Random, telemetry: Telemetry
    ) -> None:
        self._transport = transport
        self._table_name = table_name
        self._clock = clock
        self._telemetry = telemetry
        self._breaker = Breaker(RULES, clock=clock, random=random, changed=self._changed)
        self._tasks = TaskOwner(on_failure=telemetry.count_survived)
        self._why = ""
        telemetry.dax_up.set(1)

    def __repr__(self) -> str:
        return f"<DaxDoor {self._breaker}, {self._transport}>"

    @property
    def breaker(self) -> Breaker:
        """The breaker in it."""
        return self._breaker

    def ready(self) -> bool:
        """Tell whether DAX is to be asked; where it is not and a probe is due, send it on its way."""
        if self._breaker.state.phase is Phase.CLOSED:
            return True
        permit = self._breaker.admit()
        if permit is not None:
            self._tasks.start(self._probe(permit), name="probe DAX")
        return False

    async def ask(self, operation: str, parameters: Mapping[str, Any]) -> dict[str, Any] | None:
        """Return DAX's answer, or None where there is none to be had: DynamoDB is to be asked then.

        A read whose connection broke is sent once more: a node that was started again shows in this way, and the
        next connection is good. What took its whole time is not, and a write never.
        """
        permit = self._breaker.admit() if self.ready() else None
        if permit is None:
            return self._counted(operation, "open")
        try:
            return await self._asked(operation, parameters, permit)
        except BaseException:
            self._breaker.gave_up(permit)
            raise

    async def _asked(self, operation: str, parameters: Mapping[str, Any], permit: int) -> dict[str, Any] | None:
        for tries_left in (1, 0):
            sent_s = self._clock.monotonic_s()
            try:
                answer = await self._sent(operation, parameters)
            except (Rejected, Closed):
                self._breaker.gave_up(permit)
                return self._counted(operation, "full")
            except (Throttled, ConditionFailed, TransactionCanceled):
                self._breaker.succeeded(permit)
                return self._counted(operation, "refused")
            except (Unanswered, MangaCacheError) as error:
                if tries_left and operation in _READS and type(error) is Unanswered:
                    continue
                self._why = str(error)
                self._breaker.failed(permit, weight=1 if type(error) is Unanswered else _STALL_WEIGHT)
                return self._counted(operation, "failed")
            self._breaker.succeeded(permit)
            self._telemetry.dax_requests.labels(operation, "answered").inc()
            self._telemetry.dax_seconds.labels(operation).observe(self._clock.monotonic_s() - sent_s)
            return answer
        raise AssertionError("the second try returns")

    async def _sent(self, operation: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
        if (tracer := self._telemetry.tracer) is None:
            return await self._transport.request(operation, parameters)
        with tracer.span("dax", operation):
            return await self._transport.request(operation, parameters)

    def _counted(self, operation: str, outcome: str) -> dict[str, Any] | None:
        """Count a request that DAX did not answer, and return what stands for that."""
        self._telemetry.dax_requests.labels(operation, outcome).inc()
        return None

    def missed(self) -> None:
        """Count an answer in which something was absent, which DynamoDB is asked for then."""
        self._telemetry.tier_misses.labels("dax").inc()

    def refused_as_stale(self) -> None:
        """Count an answer that was older than its reader's token."""
        self._telemetry.tier_stale_refused.labels("dax").inc()

    async def put(self, parameters: Mapping[str, Any]) -> bool | None:
        """Put an item through DAX, once.

        Returns:
            True where it was done, False where it certainly was not, None where that is open. A condition that did
            not hold is open too: DAX does not say what stands there, and it may be what DAX itself has tried before.
        """
        permit = self._breaker.admit() if self.ready() else None
        if permit is None:
            self._counted("PutItem", "open")
            return False
        outcome, done = "failed", None
        try:
            await self._sent("PutItem", parameters)
            outcome, done = "answered", True
        except (Rejected, Closed):
            outcome, done = "full", False
        except Throttled:
            outcome, done = "refused", False
        except ConditionFailed:
            outcome = "refused"
        except (Unanswered, MangaCacheError) as error:
            self._why = str(error)
            self._breaker.failed(permit, weight=1 if type(error) is Unanswered else _STALL_WEIGHT)
            done = False if isinstance(error, Unanswered) and not error.sent else None
        except BaseException:
            self._breaker.gave_up(permit)
            raise
        if outcome in ("answered", "refused"):
            self._breaker.succeeded(permit)
        self._counted("PutItem", outcome)
        return done

    async def _probe(self, permit: int) -> None:
        try:
            await self._ask_probe()
        except (Unanswered, MangaCacheError) as error:
            self._why = str(error)
            self._breaker.failed(permit)
        else:
            self._breaker.succeeded(permit)

    async def _ask_probe(self) -> None:
        parameters = {"TableName": self._table_name, "Key": {"PK": {"S": "CACHE#"}, "SK": {"S": "PROBE"}}}
        try:
            await self._transport.request("GetItem", parameters)
        except Throttled:
            return

    async def open(self, connect: Callable[[], Awaitable[Any]] | None = None) -> None:
        """Ask for the first time; a cluster that is away is no error.

        Args:
            connect: what has to be done before.

        Raises:
            Invalid: the credentials or the client cannot do.
            NotFound: the cluster does not know the table.
        """
        permit = self._breaker.admit()
        try:
            if connect is not None:
                await connect()
            await self._ask_probe()
        except (Invalid, NotFound):
            raise
        except (Unanswered, MangaCacheError) as error:
            self._why = str(error)
            if permit is not None:
                self._breaker.failed(permit, weight=_STALL_WEIGHT)

    def _changed(self, state: BreakerState) -> None:
        self._telemetry.dax_up.set(state.phase is Phase.CLOSED)
        if state.phase is Phase.CLOSED:
            self._telemetry.log.info("dax_back")
        elif state.phase is Phase.OPEN and state.openings == 1:
            self._telemetry.log.warning("dax_away", why=self._why, instead="DynamoDB is asked")

    async def close(self) -> None:
        """End the probe that is under way."""
        await self._tasks.cancel()
