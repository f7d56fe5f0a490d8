"""The write path: decisions in the session's turn, durable and committed before they are acknowledged."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec

from mangacache.context import Confirmed
from mangacache.errors import Rejected, Transient
from mangacache.model import Version
from mangacache.sessions.actor import NEVER_S, Actor

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from mangacache.clock import Clock
    from mangacache.context import ContextTier
    from mangacache.sessions.intake import Intake
    from mangacache.sessions.mailbox import Mailboxes
    from mangacache.sessions.reading import Reads
    from mangacache.sessions.residents import Residents
    from mangacache.sessions.standstill import Standstill
    from mangacache.settings import Settings
    from mangacache.store import Store
    from mangacache.store.append import Since
    from mangacache.store.effects import Steps
    from mangacache.store.snapshot import Snapshot
    from mangacache.tasks import TaskOwner
    from mangacache.telemetry import Telemetry


class Policy(msgspec.Struct, frozen=True, gc=False):
    """What a call does where there is no room for it.

    Attributes:
        waits: it waits for room until its deadline, rather than being refused at once.
        deadline_s: how long it may wait for its turn; None is `message_deadline_s`.
    """

    waits: bool = False
    deadline_s: float | None = None


DEFAULT_POLICY = Policy()
_PROMPT_S: Final = 1.0
"""Of a call that has taken longer until the session was read, another try may have been stored, and much behind it."""


class Writes:
    """Runs decisions and other operations in their sessions' turns."""

    def __init__(
        self,
        store: Store,
        tier: ContextTier,
        *,
        residents: Residents,
        mailboxes: Mailboxes,
        intake: Intake,
        standstill: Standstill,
        reads: Reads,
        tasks: TaskOwner,
        settings: Settings,
        clock: Clock,
        telemetry: Telemetry,
    ) -> None:
        self._store = store
        self._tier = tier
        self._residents = residents
        self._mailboxes = mailboxes
        self._intake = intake
        self._standstill = standstill
        self._reads = reads
        self._wait_s = settings.message_deadline_s
        self._window_age_s = settings.window_age_s
        self._retry_s = settings.retry_cap_s
        self._clock = clock
        self._tasks = tasks
        self._telemetry = telemetry

    async def write(
        self,
        session_id: str,
        begin: Callable[[Snapshot | None, Since], Steps[tuple[Any, Snapshot]]],
        *,
        what: str,
        policy: Policy,
        needs_window: bool = True,
        repeats: bool = False,
        long: bool = False,
        goes_on: bool = False,
    ) -> Any:
        """Run a decision in the session's turn and return its result, once it is durable and committed (R1, R5).

        Args:
            session_id: whose turn it is.
            begin: given what is known, and who tells from where on a turn may have been stored that another try of the
                call has stored, begins the decision.
            what: the decision in a word.
            policy: what to do where there is no room.
            needs_window: whether the decision rests on what is known; one that does not reads what it needs itself.
            repeats: whether it may be begun again after a failure, being done once all the same.
            long: whether it may take as long as it takes.
            goes_on: whether it is the answer to a message that was let in before; see `Intake.full`.
        """
        at_first = self._residents.actor(session_id)
        waits = at_first.draining
        began_s = self._clock.monotonic_s()
        known_at_first = at_first.known.version if at_first.known is not None else None
        if self._standstill.calls_may_be_late(began_s):
            known_at_first = Version()
        if not self._intake.enter(goes_on=goes_on):
            # Who waits outside is behind whatever was stored meanwhile, of which memory may know nothing any more.
            known_at_first = known_at_first if known_at_first is not None else Version()
            await self._let_in(policy)
        actor = self._residents.actor(session_id)
        stored, again = False, False

        def since() -> Version | None:
            """Return what was known when the call began; where nothing was, and that is long ago, the beginning."""
            if known_at_first is not None:
                return known_at_first
            if self._clock.monotonic_s() - began_s > _PROMPT_S:
                return Version()
            return _first_version(actor) if waits else None

        async def operation() -> Any:
            nonlocal stored, again
            base = await self._window(actor) if needs_window and not again else actor.known
            sent_at_s, sent_age_s = self._clock.monotonic_s(), self._clock.age_s()
            known = None if base is not None and (base.foreign or self._window_too_old(actor)) else base
            try:
                result, after = await self._store.run(session_id, begin(known, since))
            except BaseException:
                # Whatever went wrong, what is known may be what misled the decision: read it anew next time.
                again = True
                self._forget(actor)
                raise
            stored = True
            confirmed = Confirmed(degraded=True)
            try:
                confirmed = await self._tier.commit(session_id, base=base, after=after)
            finally:  # it is stored, whether or not the others have heard of it
                self._reads.learned(actor, after, sent_at_s)
                if after is not known:  # a turn that was found in memory says nothing of the table
                    actor.window_at_s = max(actor.window_at_s, sent_age_s)
                if confirmed.degraded:  # no read without a look at Redis may tell what the others cannot know
                    actor.validated_at_s = NEVER_S
            if confirmed.degraded:
                return _degraded(result)
            if known is None:  # the decision began with a strong read, and holds what was written since
                actor.validated_at_s = max(actor.validated_at_s, sent_age_s)
            elif confirmed.current_age_s is not None and actor.known is after:
                actor.validated_at_s = max(actor.validated_at_s, confirmed.current_age_s)
            return result

        return await self._run(
            actor, operation, what=what, policy=policy, repeats=(lambda: not stored) if repeats else None, long=long
        )

    def refuse_early(self, policy: Policy, *, goes_on: bool) -> None:
        """Refuse a call that would not be let in before anything is made ready for it: a refusal is to cost little.

        Raises:
            Rejected: there is no room, and the call's policy is not to wait.
        """
        if not policy.waits and self._intake.full(goes_on=goes_on):
            raise self._intake.refusal()

    async def _let_in(self, policy: Policy) -> None:
        """Wait for room in the process, where the call's policy is to wait."""
        if not policy.waits:
            raise self._intake.refusal()
        await self._intake.wait(self._clock.monotonic_s() + self._wait_of(policy))

    def _wait_of(self, policy: Policy) -> float:
        return self._wait_s if policy.deadline_s is None else policy.deadline_s

    async def _run(
        self,
        actor: Actor,
        operation: Callable[[], Coroutine[Any, Any, Any]],
        *,
        what: str,
        policy: Policy,
        repeats: Callable[[], bool] | None = None,
        long: bool = False,
    ) -> Any:
        try:
            return await self._mailboxes.run(
                actor,
                operation,
                what=what,
                deadline_s=self._wait_of(policy),
                waits=policy.waits,
                repeats=repeats,
                long=long,
            )
        finally:
            self._intake.leave()

    async def _window(self, actor: Actor) -> Snapshot | None:
        """Return what is known of the session, read through the tiers where nothing is.

        None where Redis is away and the limit of reads is reached: an append is never refused for that, and reads
        for itself.
        """
        if actor.known is not None:
            return actor.known
        try:
            return (await self._reads.fresh(actor, None)).known
        except Rejected:
            return None

    async def exclusive(
        self, session_id: str, operation: Callable[[], Coroutine[Any, Any, Any]], *, what: str, policy: Policy
    ) -> Any:
        """Run something else in the session's turn, after which nothing is known of it; the tier is told."""
        if not self._intake.enter():
            await self._let_in(policy)
        actor = self._residents.actor(session_id)

        async def forgetting() -> Any:
            try:
                result = await operation()
            finally:
                self._forget(actor)
            try:
                await self._tier.strong(session_id)
            except Transient as error:  # it is done: who repeated it would be told that there was nothing to do
                self._telemetry.count_survived("told_late", error)
                self._tasks.start(self._tell(session_id), name="tell the others of an adoption or a delete")
            return result

        return await self._run(actor, forgetting, what=what, policy=policy, long=True)

    async def _tell(self, session_id: str) -> None:
        """Read a session strongly, which tells the others what has become of it, as soon as that works."""
        while True:
            await self._clock.sleep(self._retry_s)
            try:
                await self._tier.strong(session_id)
            except Transient:
                continue
            return

    async def recover(self, actor: Actor) -> None:
        """Read a session strongly after a turn of unknown outcome, so that nothing is told or built on what was."""
        self._forget(actor)
        await self._reads.fresh(actor, None, strong=True)

    def _forget(self, actor: Actor) -> None:
        actor.forget()
        self._residents.weigh(actor)

    def _window_too_old(self, actor: Actor) -> bool:
        return self._clock.age_s() - actor.window_at_s > self._window_age_s


def _first_version(actor: Actor) -> Version | None:
    return actor.activity.first_version if actor.activity is not None else None


def _degraded(result: Any) -> Any:
    """Return a write's result, or each of its results, marked as not told to the others."""
    if isinstance(result, tuple):
        return tuple(msgspec.structs.replace(one, degraded=True) for one in result)
    return msgspec.structs.replace(result, degraded=True)
