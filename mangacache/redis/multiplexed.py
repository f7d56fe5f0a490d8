"""A link over one connection that all callers share.

A connection for each command under way costs a write, a read and a wake-up for each; on a shared one, all commands
of a turn of the event loop go out in one write, and their replies come in together.

Time-outs are kept by one task that looks now and then, only while something is under way: a timer for each call
would cost as much as the call.
"""

from __future__ import annotations

import asyncio
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, Final

from hiredis import ReplyError

from mangacache.redis.dialing import Dialer
from mangacache.redis.link import LinkLost, Moved, Redirected, ScriptFailed
from mangacache.redis.pipeline import ASKING, MOST_WAITING, WATCH, PipelinedLine, Unheard, forgotten, heard
from mangacache.redis.reconnecting import Lent, ReconnectingLink, said

if TYPE_CHECKING:
    from collections.abc import Coroutine, Sequence
    from contextlib import AbstractAsyncContextManager

    from mangacache.clock import Clock, Random
    from mangacache.redis.link import Argument, Changes, Script
    from mangacache.settings import RedisAddress, Settings
    from mangacache.telemetry import Telemetry

_LOOKS: Final = 4  # in the time that a call has
_MOST_DROPS: Final = 16
_STAYS: Final = ("TRYAGAIN ", "CLUSTERDOWN ")
"""Refusals that another connection to the same server would hear as well."""


class MultiplexedLink(ReconnectingLink[PipelinedLine]):
    """A `Link` over one connection; while it is replaced, the one before hears out what was sent on it.

    Args:
        settings: where Redis is, and the time-outs.
        clock: deadlines, and the pauses between tries to reconnect.
        random: their jitter.
        telemetry: counts, and says when Redis is lost and reached again.
        dialer: opens the connections; its own by default.
        address: another node than the one that the settings name.

    Raises:
        Invalid: `redis_ca_file` cannot be used, or the login's settings do not go together.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        clock: Clock,
        random: Random,
        telemetry: Telemetry,
        dialer: Dialer | None = None,
        address: RedisAddress | None = None,
    ) -> None:
        self._dialer = dialer if dialer is not None else Dialer(settings, clock=clock)
        self._to = address if address is not None else self._dialer.address
        super().__init__(
            self._to,
            self._dial,
            connect_timeout_s=settings.connect_timeout_s,
            timeout_s=settings.redis_timeout_s,
            clock=clock,
            random=random,
            telemetry=telemetry,
            renew_every_s=self._dialer.renew_every_s,
        )
        self._changes: Changes | None = None
        self._lines: dict[PipelinedLine, None] = {}
        self._current: Lent[PipelinedLine] | None = None
        self._opening: asyncio.Task[Lent[PipelinedLine] | LinkLost] | None = None
        self._joining = 0
        self._looking = False
        self._looker: asyncio.Task[None] | None = None
        telemetry.watch_depth("redis_pipeline", self._depth)
        self._counts: dict[str, int] = {}  # handed to the metrics now and then: to count there is a tenth of a call

    def __repr__(self) -> str:
        sent, waiting = sum(line.sent for line in self._lines), sum(line.waiting for line in self._lines)
        return f"<{type(self).__name__} {self._address}, {self._state()}, {sent} sent, {waiting} waiting>"

    def _depth(self) -> int:
        return self._joining + sum(line.sent + line.waiting for line in self._lines)

    def watch_with(self, changes: Changes) -> None:
        """See `Link`."""
        self._changes = changes

    def run(
        self,
        script: Script,
        key: str,
        arguments: Sequence[Argument],
        *,
        more_keys: Sequence[str] = (),
        tag: int | None = None,
        repeatable: bool = False,
        watch: bool = False,
        asking: bool = False,
    ) -> Coroutine[Any, Any, Any]:
        """See `Link` and `NodeLink`."""
        command = ("EVALSHA", script.sha, 1 + len(more_keys), key, *more_keys, *arguments)
        before = ASKING if asking else WATCH if watch else b""
        return self._ask(script.name, command, before, script=script, tag=tag, repeatable=repeatable)

    def call(
        self,
        *command: Argument,
        key: str | None = None,
        tag: int | None = None,
        repeatable: bool = False,
        asking: bool = False,
    ) -> Coroutine[Any, Any, Any]:
        """See `Link` and `NodeLink`."""
        del key
        name = str(command[0]).lower()
        return self._ask(name, command, ASKING if asking else b"", script=None, tag=tag, repeatable=repeatable)

    async def _ask(
        self,
        name: str,
        command: tuple[Argument, ...],
        before: bytes,
        *,
        script: Script | None,
        tag: int | None,
        repeatable: bool,
    ) -> Any:
        asked_s = self._clock.monotonic_s()
        for _ in range(_MOST_DROPS):
            lent = self._current
            if lent is None or not lent.line.usable:
                lent = await self._joined()
            if tag is not None and lent.tag != tag:
                raise Moved
            if not self._looking:
                self._looking = True
                self._looker = self._tasks.start(self._look(), name="end calls to Redis that take too long")
            self._counts[name] = self._counts.get(name, 0) + 1
            ahead = before if before is not WATCH or lent.line.watches else b""
            outcome = await lent.line.put(command, ahead)
            if type(outcome) is ReplyError and script is not None and forgotten(outcome):
                outcome = await lent.line.put(("EVAL", script.text, *command[2:]), ahead)
            kind = type(outcome)
            if kind is not Unheard and kind is not ReplyError:
                if script is not None:
                    self._took(name, self._clock.monotonic_s() - asked_s)
                return outcome
            if kind is Unheard:
                if outcome.retired:
                    continue  # it was not sent, and another connection may be there
                if outcome.broke and repeatable and not self._closed:
                    repeatable = False
                    continue
            return self._heard(outcome, lent, what=name if script is None else f"{name} of {command[3]!s}")
        raise LinkLost("connections are given up as fast as they open", sent=False)

    def _heard(self, outcome: Any, lent: Lent[PipelinedLine], *, what: str) -> Any:
        try:
            return heard(outcome, what)
        except Redirected:
            raise
        except LinkLost:
            if type(outcome) is ReplyError and self._current is lent and not str(outcome).startswith(_STAYS):
                self.drop()  # no primary any more, or not yet: the next connection's admission tells
            raise

    def drop(self) -> None:
        """See `Link`; what was sent is still answered."""
        self._generation += 1
        lent, self._current = self._current, None
        if lent is not None:
            lent.line.retire()

    async def close(self) -> None:
        """See `Link`; returns when nothing is left of any connection."""
        self._closed = True
        self._hand_counts_over()
        self.drop()
        for task in (self._reconnecting, self._opening, self._looker, self._renewing):
            if task is not None:
                task.cancel()
        for line in tuple(self._lines):
            line.abort("the link was closed")
            self._tasks.start(line.ended(), name="see a connection to Redis end")
        await self._tasks.settle()

    # The connection

    async def _joined(self) -> Lent[PipelinedLine]:
        """Wait for the connection that is being opened, for all who need it; it is nobody's who leaves.

        Raises:
            LinkLost: it could not be opened, or was refused.
        """
        self._check_up()
        if self._joining >= MOST_WAITING:
            raise LinkLost(f"{MOST_WAITING} commands wait for a connection already", sent=False)
        if self._opening is None:
            self._opening = self._tasks.start(self._replace(), name="connect to Redis", awaited=True)
        opening = self._opening
        self._joining += 1
        try:
            await asyncio.wait((opening,))
        finally:
            self._joining -= 1
        if opening.cancelled():
            raise LinkLost("closed", sent=False)
        found = opening.result()
        if isinstance(found, LinkLost):
            raise LinkLost(str(found), sent=False) from found
        return found

    async def _replace(self) -> Lent[PipelinedLine] | LinkLost:
        try:
            lent = await self._opened()
        except LinkLost as lost:
            return lost
        finally:
            self._opening = None
        self._take_back(lent)
        return lent

    def _serving(self) -> bool:
        return self._current is not None and self._current.line.usable

    def _take_back(self, lent: Lent[PipelinedLine]) -> None:
        if lent.generation == self._generation and not self._closed and not self._serving():
            self._current = lent
        else:
            self._end(lent)

    def _place(self) -> AbstractAsyncContextManager[Any]:
        return nullcontext()  # while the link is down nobody else opens a connection

    async def _dial(self) -> PipelinedLine:
        """Open a connection, log in and choose the database.

        Raises:
            LinkLost: it cannot be done.
        """
        username, password = await self._dialer.login()
        line = await self._dialer.open(self._to, self._made)
        self._lines[line] = None
        try:
            await line.log_in(username, password, self._to.db)
        except (LinkLost, ScriptFailed) as error:
            line.abort()
            raise LinkLost(said(error), sent=False) from error
        except BaseException:
            line.abort()
            raise
        return line

    def _made(self) -> PipelinedLine:
        return PipelinedLine(clock=self._clock, gone=self._gone, changes=self._changes)

    def _gone(self, line: PipelinedLine) -> None:
        self._lines.pop(line, None)

    # Deadlines

    async def _look(self) -> None:
        """End what takes longer than it may, as long as there is something under way."""
        try:
            while True:
                await self._clock.sleep(self._timeout_s / _LOOKS)
                self._hand_counts_over()
                busy = [line for line in self._lines if line.busy]
                if not busy:
                    return
                for line in busy:
                    line.end_what_takes_longer_than(self._timeout_s)
        finally:
            self._looking = False

    def _hand_counts_over(self) -> None:
        counts, self._counts = self._counts, {}
        for name, count in counts.items():
            self._telemetry.redis_calls.labels(name).inc(count)
