"""Looks after a process's actors: lets the idle go, sheds load, watches turns and services, and sees to the end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from mangacache.sessions.drain import Drain
from mangacache.sessions.intake import FEWEST
from mangacache.sessions.memory import ProcessMemory
from mangacache.sessions.restarts import Restarts
from mangacache.sessions.shedding import Shedding
from mangacache.sessions.state import Health, SupervisorState
from mangacache.sessions.watch import Watch

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from mangacache.clock import Clock, Random
    from mangacache.context import ContextTier
    from mangacache.sessions.intake import Intake
    from mangacache.sessions.mailbox import Mailboxes
    from mangacache.sessions.memory import Memory
    from mangacache.sessions.residents import Residents
    from mangacache.sessions.standstill import Standstill
    from mangacache.sessions.touches import Farewells, Touches
    from mangacache.sessions.treatment import DeadLetter
    from mangacache.settings import Settings
    from mangacache.tasks import TaskOwner
    from mangacache.telemetry import Telemetry

BUSY_TICK_S: Final = 0.1
CROWDED_TICK_S: Final = 0.025
"""With so many calls under way that there may be an overload: it is seen before there are more."""
IDLE_TICK_S: Final = 0.5
STEP_S: Final = 0.0005
"""How long one step of evictions may hold the event loop up."""
_BETWEEN_STEPS_S: Final = 0.002
_MEMORY_EVERY_S: Final = 1.0
_WORST_OF_S: Final = 60.0
_SMOOTHING: Final = 0.5


class Supervisor:
    """The one background task of the sessions, and what it knows.

    Attributes:
        memory: where it learns how memory stands.
    """

    def __init__(
        self,
        tier: ContextTier,
        *,
        residents: Residents,
        mailboxes: Mailboxes,
        intake: Intake,
        standstill: Standstill,
        touches: Touches,
        farewells: Farewells,
        tasks: TaskOwner,
        background: TaskOwner,
        settings: Settings,
        clock: Clock,
        random: Random,
        telemetry: Telemetry,
        memory: Memory | None = None,
    ) -> None:
        self._residents = residents
        self._mailboxes = mailboxes
        self._intake = intake
        self._standstill = standstill
        self._farewells = farewells
        self._clock = clock
        self._telemetry = telemetry
        self._lag_limit_s = settings.loop_lag_limit_s
        self._watch = Watch(mailboxes, settings=settings, telemetry=telemetry)
        memory = memory if memory is not None else ProcessMemory(settings.memory_limit_bytes)
        self._shedding = Shedding(memory, residents)
        self._drain = Drain(
            tier,
            residents=residents,
            mailboxes=mailboxes,
            touches=touches,
            farewells=farewells,
            intake=intake,
            tasks=tasks,
            background=background,
            settings=settings,
            clock=clock,
            telemetry=telemetry,
        )
        self._restarts = Restarts(
            tasks=background, clock=clock, random=random, telemetry=telemetry, gave_up=self.escalate
        )  # fmt: skip
        self._health: dict[str, Callable[[], Health]] = {}
        self._fatal = ""
        self._lag_s = 0.0
        self._worst_lag_s = self._worst_step_s = 0.0
        self._worst_since_s = self._memory_at_s = self._looked_at_s = clock.monotonic_s()
        self._processor_s = clock.processor_s()
        self._restarts.keep(self._run, name="supervise the sessions")

    def __repr__(self) -> str:
        state = self.state()
        return (
            f"<Supervisor {state.status}, {state.sessions} sessions, {state.memory_kib} KiB, {state.inside} of "
            f"{state.window} calls, lag {state.loop_lag_ms} ms>"
        )

    # What others tell it

    def watch_health(self, name: str, health: Callable[[], Health]) -> None:
        """Show how a service is seen, in `state`."""
        self._health[name] = health

    def before_close(self, name: str, step: Callable[[], Awaitable[object]]) -> None:
        """Run a step of somebody else's at the end, after the invalidations and before the clients are closed."""
        self._drain.before_close(name, step)

    def escalate(self, what: str, error: BaseException) -> None:
        """Take note of an error after which nothing in this process can be trusted; `state` says `failing`."""
        self._fatal = f"{what}: {type(error).__name__}: {error}"
        self._telemetry.turns.labels("fatal").inc()
        self._telemetry.log.critical("fatal", what=what, error=f"{type(error).__name__}: {error}")

    # What it knows

    def state(self) -> SupervisorState:
        """Return all of it, as a value."""
        intake, residents = self._intake, self._residents
        status = self._drain.status
        return SupervisorState(
            status="failing" if self._fatal and status == "open" else status,
            sessions=len(residents),
            memory_kib=residents.kib,
            running=len(self._mailboxes.running),
            inside=intake.inside,
            window=intake.window,
            limit=intake.limit,
            waiting=intake.waiting,
            refused=intake.refused,
            loop_lag_ms=round(self._lag_s * 1e3, 3),
            loop_lag_worst_ms=round(self._worst_lag_s * 1e3, 3),
            tick_ms=round(self._worst_step_s * 1e3, 3),
            used_bytes=self._shedding.used_bytes,
            limit_bytes=self._shedding.limit_bytes,
            sheddings=self._shedding.sheddings,
            evicted=dict(residents.evicted),
            farewells=len(self._farewells),
            farewells_dropped=self._farewells.dropped,
            dead_letters=self._mailboxes.dead_letters.counted,
            restarts=self._restarts.counted,
            fatal=self._fatal,
            health={name: health() for name, health in self._health.items()},
            drain=self._drain.report,
        )

    def dead_letters(self) -> Sequence[DeadLetter]:
        """Return the last messages that could not be carried out, oldest first."""
        return self._mailboxes.dead_letters.listed()

    # What it does

    async def _run(self) -> None:
        pause_s = BUSY_TICK_S
        while True:
            before_s = self._clock.monotonic_s()
            self._standstill.look_at(before_s + pause_s)
            await self._clock.sleep(pause_s)
            now_s = self._clock.monotonic_s()
            self._measured(now_s - before_s - pause_s, now_s)
            more = self.tick(now_s)
            busy = self._mailboxes.running or self._intake.inside
            pause_s = _BETWEEN_STEPS_S if more else BUSY_TICK_S if busy else IDLE_TICK_S
            if self._intake.inside > FEWEST:
                pause_s = min(pause_s, CROWDED_TICK_S)

    def _measured(self, late_s: float, now_s: float) -> None:
        """Take note of how late the loop ran, and let more or fewer calls in by it."""
        late_s = max(0.0, late_s)
        if self._standstill.looked(now_s):  # it was stopped, or its clock was moved: no turn took as long as that
            self._mailboxes.stood_still_s += late_s
        if now_s - self._worst_since_s > _WORST_OF_S:
            self._worst_since_s, self._worst_lag_s, self._worst_step_s = now_s, 0.0, 0.0
        self._lag_s += _SMOOTHING * (late_s - self._lag_s)
        self._worst_lag_s = max(self._worst_lag_s, late_s)
        passed_s = now_s - self._looked_at_s
        if passed_s >= (CROWDED_TICK_S if self._intake.inside > FEWEST else BUSY_TICK_S):
            processor_s = self._clock.processor_s()
            used_s, self._processor_s = processor_s - self._processor_s, processor_s
            self._looked_at_s = now_s
            self._intake.adjust(lag_s=self._lag_s, lag_limit_s=self._lag_limit_s, passed_s=passed_s, used_s=used_s)

    def tick(self, now_s: float) -> bool:
        """Do one step of what is due; True where more of it is."""
        self._watch.look()
        if now_s - self._memory_at_s >= _MEMORY_EVERY_S:
            self._memory_at_s = now_s
            self._shedding.look()
            self._export()
        more = self._residents.tick(now_s + STEP_S)
        self._worst_step_s = max(self._worst_step_s, self._clock.monotonic_s() - now_s)
        return more

    def _export(self) -> None:
        telemetry = self._telemetry
        telemetry.sessions.set(len(self._residents))
        telemetry.memory_bytes.set(self._residents.kib * 1024)
        telemetry.calls_inside.set(self._intake.inside)
        telemetry.calls_window.set(self._intake.window)
        telemetry.loop_lag_seconds.set(self._lag_s)

    async def drain(self) -> None:
        """See to the end; see `Drain`."""
        await self._drain.run()
