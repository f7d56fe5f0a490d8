"""The end of a process: in order, within a deadline, and with a report of what could not be done.

Stop taking in; finish the mailboxes; send the queue of invalidations; bring META up to date; release what others hold
(locks); close the clients. Each step has what is left of `drain_timeout_s`; one that fails or takes too long is
reported, and the next is begun all the same.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from mangacache.sessions.state import DrainReport

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from mangacache.clock import Clock
    from mangacache.context import ContextTier
    from mangacache.sessions.intake import Intake
    from mangacache.sessions.mailbox import Mailboxes
    from mangacache.sessions.residents import Residents
    from mangacache.sessions.touches import Farewells, Touches
    from mangacache.settings import Settings
    from mangacache.tasks import TaskOwner
    from mangacache.telemetry import Telemetry

_LATE_STEP_S: Final = 1.0
_KEPT_FOR_TELLING: Final = 0.15
"""The share of the deadline that the mailboxes do not get, so that the others are told whatever hangs."""


class Drain:
    """Brings the sessions to their end.

    Attributes:
        status: `open`, `draining` or `closed`.
        report: how it went; None before.
    """

    def __init__(
        self,
        tier: ContextTier,
        *,
        residents: Residents,
        mailboxes: Mailboxes,
        touches: Touches,
        farewells: Farewells,
        intake: Intake,
        tasks: TaskOwner,
        background: TaskOwner,
        settings: Settings,
        clock: Clock,
        telemetry: Telemetry,
    ) -> None:
        self.status = "open"
        self.report: DrainReport | None = None
        self._tier = tier
        self._residents = residents
        self._mailboxes = mailboxes
        self._touches = touches
        self._farewells = farewells
        self._intake = intake
        self._tasks = tasks
        self._background = background
        self._within_s = settings.drain_timeout_s
        self._clock = clock
        self._telemetry = telemetry
        self._others: list[tuple[str, Callable[[], Awaitable[object]]]] = []
        self._failed: list[str] = []
        self._unfinished = 0
        self._tried_to_tell = False
        self._untold = 0
        self._untouched = 0

    def before_close(self, name: str, step: Callable[[], Awaitable[object]]) -> None:
        """Add a step between the touches and the closing of clients."""
        self._others.append((name, step))

    async def run(self) -> None:
        """Do all of it; who cancels it waits no longer for what is under way, and nothing is left behind."""
        began_s = self._clock.monotonic_s()
        until_s = began_s + self._within_s
        self.status = "draining"
        self._mailboxes.close()
        self._intake.close()
        touched_before = self._farewells.sent
        try:
            await self._step("finish the mailboxes", self._finish, until_s - self._within_s * _KEPT_FOR_TELLING)
            await self._step("tell the others", self._tell, until_s)
            await self._step("touch META", self._touch, until_s)
            while self._others:
                await self._step(*self._others.pop(0), until_s)
        finally:
            try:
                while self._others:  # somebody waits no longer, and they are to leave nothing behind all the same
                    await self._step(*self._others.pop(0), self._clock.monotonic_s() + _LATE_STEP_S)
            finally:
                await self._let_go()
            self.report = DrainReport(
                seconds=round(self._clock.monotonic_s() - began_s, 3),
                unfinished=self._unfinished,
                untold=self._untold,
                touched=self._farewells.sent - touched_before,
                untouched=self._untouched + len(self._farewells),
                failed_steps=tuple(self._failed),
            )
            log = self._telemetry.log.info if self.report.complete else self._telemetry.log.warning
            log("drained", seconds=self.report.seconds, unfinished=self._unfinished, failed=list(self._failed))

    async def _step(self, name: str, step: Callable[[], Awaitable[object]], until_s: float) -> None:
        try:
            async with self._clock.timeout(max(0.0, until_s - self._clock.monotonic_s())):
                await step()
        except TimeoutError as error:
            self._failed.append(name)
            self._telemetry.count_survived("drain_timed_out", error, step=name, sessions=len(self._residents))
        except Exception as error:  # noqa: BLE001 - whatever it is, the steps that follow are due all the same
            self._failed.append(name)
            self._telemetry.count_survived("drain_failed", error, step=name)

    async def _finish(self) -> None:
        """Wait for all that is under way; what does not end in time is cut off, and its caller told."""
        try:
            await self._tasks.settle()
        finally:
            self._unfinished = len(self._mailboxes.running) + sum(
                len(actor.activity.mailbox) for actor in self._residents.actors.values() if actor.activity is not None
            )
            await self._tasks.cancel()

    async def _tell(self) -> None:
        self._tried_to_tell = True
        await self._tier.settle()

    async def _touch(self) -> None:
        farewells = self._farewells
        self._untouched = len(self._residents)
        for actor in self._residents.actors.values():
            if (touch := self._touches.lacking(actor)) is not None:
                while farewells.crowded:
                    await self._tasks.step()
                farewells.say(actor.session_id, touch)
            self._untouched -= 1
        await self._tasks.settle()

    async def _let_go(self) -> None:
        self._residents.close()
        try:
            await self._tasks.cancel()
        finally:
            try:
                await self._background.cancel()
            finally:
                for actor in self._residents.actors.values():
                    if actor.activity is not None:  # a drain that was cancelled before it began has told nobody
                        self._mailboxes.abandon(actor.activity.mailbox)
                self._residents.clear()
                if self._tier.owed and not self._tried_to_tell:  # the end was cancelled before it came to that
                    await self._step("tell the others", self._tell, self._clock.monotonic_s() + _LATE_STEP_S)
                self._untold = self._tier.owed
                await self._tier.close()
                self.status = "closed"
