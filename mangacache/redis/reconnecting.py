"""What the links share: opening a connection and having it admitted, being down, and finding the way back."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, Final, Generic, Protocol, TypeVar

from mangacache.errors import MangaCacheError
from mangacache.redis.link import LinkLost, ScriptFailed, Server
from mangacache.tasks import TaskOwner

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Awaitable, Callable, Sequence
    from contextlib import AbstractAsyncContextManager

    from prometheus_client import Counter

    from mangacache.clock import Clock, Random
    from mangacache.redis.link import Admission, Argument, Changes, Script
    from mangacache.telemetry import Telemetry

_RECONNECT_BASE_S: Final = 0.02
_RECONNECT_CAP_S: Final = 0.25


class Line(Server, Protocol):
    """A connection. Its commands raise `LinkLost` and `ScriptFailed`, and no other error of the server or the way."""

    def abort(self) -> None:
        """Let go of it at once; who waits for a reply on it hears `LinkLost`."""

    async def ended(self) -> None:
        """Wait until nothing is left of it, after `abort`."""


L = TypeVar("L", bound=Line)


class Refused(LinkLost):
    """The server answers, and its connection may not be used."""


class Lent(Generic[L]):
    """A line with what it was admitted under; a command on it takes no longer than the time-out."""

    __slots__ = ("_clock", "_timeout_s", "generation", "line", "tag")

    def __init__(self, line: L, generation: int, *, clock: Clock, timeout_s: float) -> None:
        self.line = line
        self.generation = generation
        self.tag = 0
        self._clock = clock
        self._timeout_s = timeout_s

    async def info(self) -> dict[str, str]:
        """See `Server`."""
        try:
            async with self._clock.timeout(self._timeout_s):
                return await self.line.info()
        except TimeoutError as error:
            raise LinkLost(f"info: no answer within {self._timeout_s:g} s", sent=True) from error

    async def run(
        self, script: Script, key: str, arguments: Sequence[Argument], *, more_keys: Sequence[str] = ()
    ) -> Any:
        """See `Server`."""
        try:
            async with self._clock.timeout(self._timeout_s):
                return await self.line.run(script, key, arguments, more_keys=more_keys)
        except TimeoutError as error:
            raise LinkLost(f"{script.name}: no answer within {self._timeout_s:g} s", sent=True) from error

    async def call(self, *command: Argument) -> Any:
        """See `Server`."""
        try:
            async with self._clock.timeout(self._timeout_s):
                return await self.line.call(*command)
        except TimeoutError as error:
            raise LinkLost(f"{command[0]!s}: no answer within {self._timeout_s:g} s", sent=True) from error


class ReconnectingLink(ABC, Generic[L]):
    """A `Link` but for how its lines are used.

    Args:
        address: what the lines lead to, for messages.
        connect: opens a line, or raises `LinkLost`.
        connect_timeout_s: how long opening may take.
        timeout_s: how long a command may take.
        clock: deadlines, and the pauses between tries to reconnect.
        random: their jitter.
        telemetry: counts, and says when Redis is lost and reached again.
        renew_every_s: after how long all lines are given up for new ones, because their login ends; None: never.

    Attributes:
        stand: told 1 when it is up again and 0 when it is down.
    """

    def __init__(
        self,
        address: object,
        connect: Callable[[], Awaitable[L]],
        *,
        connect_timeout_s: float,
        timeout_s: float,
        clock: Clock,
        random: Random,
        telemetry: Telemetry,
        renew_every_s: float | None = None,
    ) -> None:
        self._address = address
        self._connect = connect
        self._connect_timeout_s = connect_timeout_s
        self._timeout_s = timeout_s
        self._clock = clock
        self._random = random
        self._telemetry = telemetry
        self._tasks = TaskOwner(on_failure=telemetry.count_survived)
        self._admission: Admission | None = None
        self._reconnecting: asyncio.Task[None] | None = None
        self._renew_every_s = renew_every_s
        self._renewing: asyncio.Task[None] | None = None
        self._counters: dict[str, Counter] = {}
        self._took = telemetry.redis_seconds.observe  # told of every script that was answered, whoever asked for it
        self.stand: Callable[[float], None] = telemetry.redis_up.set
        self._generation = 0
        self._down = ""
        self._closed = False

    def admit_with(self, admission: Admission) -> None:
        """See `Link`."""
        self._admission = admission

    @property
    def up(self) -> bool:
        """See `Link`."""
        return not self._down and not self._closed

    def watch_with(self, changes: Changes) -> None:
        """See `Link`: nothing is said."""

    @abstractmethod
    def drop(self) -> None:
        """See `Link`."""

    @abstractmethod
    def _serving(self) -> bool:
        """Tell whether a line that was admitted is still at work."""

    @abstractmethod
    def _take_back(self, lent: Lent[L]) -> None:
        """Keep a line for whoever needs it next, or end it where it is not to be used any more."""

    @abstractmethod
    def _place(self) -> AbstractAsyncContextManager[Any]:
        """Hold a place among the lines that may be open, for a probe."""

    def _state(self) -> str:
        return "closed" if self._closed else f"down: {self._down}" if self._down else "up"

    def _count(self, name: str) -> None:
        counter = self._counters.get(name)
        if counter is None:
            counter = self._counters[name] = self._telemetry.redis_calls.labels(name)
        counter.inc()

    def _check_up(self) -> None:
        if not self.up:
            raise LinkLost("closed" if self._closed else self._down, sent=False, down=True)

    def _end(self, lent: Lent[L]) -> None:
        lent.line.abort()
        self._tasks.start(lent.line.ended(), name="see a connection to Redis end")

    # Opening

    async def _opened(self) -> Lent[L]:
        try:
            return await self._open()
        except Refused:
            if not self._serving():  # the server may be well: lines that were admitted go on
                self._fell("a connection was refused")
            raise
        except LinkLost as lost:
            self._fell(str(lost))
            raise

    async def _open(self) -> Lent[L]:
        """Open a line and have it admitted.

        Raises:
            LinkLost: it does not open, or does not answer.
            Refused: it is not admitted.
        """
        generation = self._generation
        try:
            async with self._clock.timeout(self._connect_timeout_s):
                line = await self._connect()
        except (TimeoutError, LinkLost) as error:
            raise LinkLost(f"no connection to {self._address}: {said(error)}", sent=False) from error
        lent = Lent(line, generation, clock=self._clock, timeout_s=self._timeout_s)
        try:
            if self._admission is not None:
                async with self._clock.timeout(self._connect_timeout_s + self._timeout_s):
                    lent.tag = await self._admission(lent)
        except LinkLost as error:
            self._end(lent)
            raise LinkLost(f"no connection to {self._address}: {said(error)}", sent=False) from error
        except (TimeoutError, MangaCacheError, ScriptFailed) as error:
            self._end(lent)
            raise Refused(f"no connection to {self._address}: {said(error)}", sent=False) from error
        except BaseException:
            self._end(lent)
            raise
        if self._renew_every_s is not None and self._renewing is None:
            self._renewing = self._tasks.start(self._renew(self._renew_every_s), name="renew connections to Redis")
        return lent

    async def _renew(self, every_s: float) -> None:
        """Give the lines up before their login ends; not all workers at once."""
        while True:
            await self._clock.sleep(every_s * (1 - 0.1 * self._random.random()))
            self._telemetry.log.info("redis_login_renewed")
            self.drop()

    # Being down

    def _fell(self, why: str) -> None:
        if self._down or self._closed:
            return
        self._down = why
        self.stand(0)
        self._telemetry.log.warning("redis_down", why=why)
        self.drop()
        self._reconnecting = self._tasks.start(self._reconnect(), name="reconnect to Redis")

    async def _reconnect(self) -> None:
        """Try until a connection is admitted: exponential back-off with full jitter, one probe at a time."""
        tries = 0
        while self._down:
            ceiling_s = min(_RECONNECT_CAP_S, _RECONNECT_BASE_S * 2 ** min(tries, 10))
            await self._clock.sleep(self._random.random() * ceiling_s)
            tries += 1
            async with self._place():
                await self._probe(tries)

    async def _probe(self, tries: int) -> None:
        try:
            lent = await self._open()
        except LinkLost as lost:
            self._down = str(lost)
            return
        except Exception as error:  # noqa: BLE001 - whatever it is, giving up would end the cache for good
            self._telemetry.count_survived("redis_reconnect_failed", error)
            return
        if lent.generation == self._generation and not self._closed:
            self._down = ""
            self.stand(1)
            self._telemetry.redis_reconnections.inc()
            self._telemetry.log.info("redis_up", tries=tries)
        self._take_back(lent)


def said(error: BaseException) -> str:
    """Return an error in words, its kind where it has none."""
    return str(error) or type(error).__name__
