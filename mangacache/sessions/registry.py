"""All sessions that a process keeps: the parts of the runtime put together, and the door to them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mangacache.sessions.intake import Intake
from mangacache.sessions.mailbox import Mailboxes
from mangacache.sessions.reading import Reads
from mangacache.sessions.residents import Residents
from mangacache.sessions.standstill import Standstill
from mangacache.sessions.supervisor import Supervisor
from mangacache.sessions.touches import Farewells, Touches
from mangacache.sessions.writing import DEFAULT_POLICY, Policy, Writes
from mangacache.tasks import TaskOwner

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from mangacache.clock import Clock, Random
    from mangacache.context import ContextTier
    from mangacache.model import Consistency, Context, Version
    from mangacache.sessions.actor import Actor
    from mangacache.sessions.memory import Memory
    from mangacache.settings import Settings
    from mangacache.store import Store
    from mangacache.store.append import Since
    from mangacache.store.effects import Steps
    from mangacache.store.snapshot import Snapshot
    from mangacache.telemetry import Telemetry


class Sessions:
    """The actors of one process.

    Attributes:
        settings, clock, random, store: what the handles need besides.
        residents: who is in memory.
        supervisor: who sees to it that they leave, that none is stuck, and that all is finished at the end.
    """

    def __init__(
        self,
        store: Store,
        tier: ContextTier,
        *,
        settings: Settings,
        clock: Clock,
        random: Random,
        telemetry: Telemetry,
        memory: Memory | None = None,
    ) -> None:
        self.store = store
        self.settings = settings
        self.clock = clock
        self.random = random
        self._tier = tier
        tasks = TaskOwner(on_failure=telemetry.count_survived)
        background = TaskOwner(on_failure=telemetry.count_survived)
        self._touches = touches = Touches(store, every_s=settings.touch_every_s, clock=clock, telemetry=telemetry)
        farewells = Farewells(touches, tasks=tasks, telemetry=telemetry)
        self.residents = residents = Residents(settings=settings, clock=clock, touches=touches, farewells=farewells)
        self._actors = residents.actors
        intake = Intake(settings.messages_in_flight, clock=clock)
        self._reads = Reads(
            store,
            tier,
            residents=residents,
            intake=intake,
            touches=touches,
            tasks=tasks,
            settings=settings,
            clock=clock,
            telemetry=telemetry,
        )
        mailboxes = Mailboxes(
            settings=settings,
            tasks=tasks,
            clock=clock,
            random=random,
            telemetry=telemetry,
            intake=intake,
            after=touches.due,
            recover=self._recover,
            escalate=self._escalate,
        )
        standstill = Standstill()
        self._writes = Writes(
            store,
            tier,
            residents=residents,
            mailboxes=mailboxes,
            intake=intake,
            standstill=standstill,
            reads=self._reads,
            tasks=background,
            settings=settings,
            clock=clock,
            telemetry=telemetry,
        )
        tier.feed(self._reads)
        self.supervisor = Supervisor(
            tier,
            residents=residents,
            mailboxes=mailboxes,
            intake=intake,
            standstill=standstill,
            touches=touches,
            farewells=farewells,
            tasks=tasks,
            background=background,
            settings=settings,
            clock=clock,
            random=random,
            telemetry=telemetry,
            memory=memory,
        )

    def __len__(self) -> int:
        return len(self.residents)

    def actor(self, session_id: str) -> Actor:
        """Return the session's actor, activated if need be; never awaits."""
        return self.residents.actor(session_id)

    def remembered(
        self,
        session_id: str,
        *,
        turns: int,
        at_least: Version | None,
        consistency: Consistency,
        customer_id: str | None,
    ) -> Context | None:
        """Return the session's context from memory, without a wait; None where memory may not answer."""
        return self._reads.remembered(
            self.actor(session_id), turns=turns, at_least=at_least, consistency=consistency, customer_id=customer_id
        )

    async def context(
        self,
        session_id: str,
        *,
        turns: int,
        at_least: Version | None,
        consistency: Consistency,
        customer_id: str | None,
        policy: Policy = DEFAULT_POLICY,
    ) -> Context:
        """Return the session's context, from memory or through the tiers; see `Session.context`."""
        remembered = self.remembered(
            session_id, turns=turns, at_least=at_least, consistency=consistency, customer_id=customer_id
        )
        if remembered is not None:
            return remembered
        return await self._reads.context(
            session_id,
            turns=turns,
            at_least=at_least,
            consistency=consistency,
            customer_id=customer_id,
            waits=policy.waits,
            deadline_s=policy.deadline_s,
        )

    async def write(
        self,
        session_id: str,
        begin: Callable[[Snapshot | None, Since], Steps[tuple[Any, Snapshot]]],
        *,
        what: str,
        policy: Policy = DEFAULT_POLICY,
        needs_window: bool = True,
        repeats: bool = False,
        long: bool = False,
        goes_on: bool = False,
    ) -> Any:
        """Run a decision in the session's turn; see `Writes.write`."""
        self.actor(session_id)
        return await self._writes.write(
            session_id,
            begin,
            what=what,
            policy=policy,
            needs_window=needs_window,
            repeats=repeats,
            long=long,
            goes_on=goes_on,
        )

    def refuse_early(self, policy: Policy, *, goes_on: bool) -> None:
        """Refuse a write that would not be let in; see `Writes.refuse_early`."""
        self._writes.refuse_early(policy, goes_on=goes_on)

    async def exclusive(
        self,
        session_id: str,
        operation: Callable[[], Coroutine[Any, Any, Any]],
        *,
        what: str,
        policy: Policy = DEFAULT_POLICY,
    ) -> Any:
        """Run something else in the session's turn; see `Writes.exclusive`."""
        self.actor(session_id)
        return await self._writes.exclusive(session_id, operation, what=what, policy=policy)

    async def _recover(self, actor: Actor) -> None:
        await self._writes.recover(actor)

    def _escalate(self, what: str, error: BaseException) -> None:
        self.supervisor.escalate(what, error)

    async def close(self) -> None:
        """Take in nothing more, finish what waits, tell the others, write what META lags behind; in time."""
        await self.supervisor.drain()
