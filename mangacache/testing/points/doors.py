"""Fault points on a process's ways to DynamoDB and Redis, by wrapping them: the product has no hook for it."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING, Any, Final

from mangacache.clock import SystemClock
from mangacache.redis import LinkLost
from mangacache.store.transport import Unanswered
from mangacache.testing.points.plans import parse_plans

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from mangacache.clock import Clock
    from mangacache.redis import Admission, Argument, Changes, Link, Script
    from mangacache.store import Transport
    from mangacache.testing.points.plans import Action, Plan, Point

VARIABLE: Final = "MANGACACHE_FAULT_POINTS"
"""Environment variable that `FaultPoints.from_environment` reads; see `parse_plans`."""

KILLED: Final = 137
"""The exit status of a process that a fault point has killed, as of SIGKILL in a shell."""

_READS: Final = frozenset({"GetItem", "Query", "BatchGetItem", "TransactGetItems"})
_WRITES: Final = frozenset({"PutItem", "UpdateItem", "TransactWriteItems"})
_SESSION: Final = "SESSION#"


class FaultPoints:
    """The fault points of one process: wrap its transport and its link, and plan what happens at which point.

    Args:
        plans: what happens from the beginning.
        clock: delays.

    Attributes:
        passed: how often each point was passed.
        happened: what has happened, in order: point and action.
    """

    def __init__(self, *plans: Plan, clock: Clock | None = None) -> None:
        self._clock = clock or SystemClock()
        self._left: dict[Plan, list[int]] = {}
        self.passed: dict[str, int] = {}
        self.happened: list[tuple[Point, Action]] = []
        for plan in plans:
            self.plan(plan)

    def __repr__(self) -> str:
        return f"<FaultPoints {len(self._left)} planned, {len(self.happened)} happened>"

    @classmethod
    def from_environment(cls) -> FaultPoints:
        """Return the points that the environment variable `MANGACACHE_FAULT_POINTS` plans; none without it."""
        return cls(*parse_plans(os.environ.get(VARIABLE, "")))

    def plan(self, plan: Plan) -> None:
        """Have something happen from now on; the point's passings are counted from now."""
        self._left[plan] = [plan.after, plan.times]

    def heal(self) -> None:
        """Have nothing happen any more."""
        self._left.clear()

    def transport(self, inner: Transport) -> Transport:
        """Return a transport with the points before and after what is asked of DynamoDB."""
        return _PointedTransport(inner, self)

    def link(self, inner: Link) -> Link:
        """Return a link with the points before and after what is asked of Redis about contexts."""
        return _PointedLink(inner, self)

    async def reach(self, point: Point, failure: Callable[[str], Exception]) -> None:
        """Pass a point: whatever is planned for it happens.

        Args:
            point: which.
            failure: makes the error of the plan `raise`.
        """
        self.passed[point] = self.passed.get(point, 0) + 1
        if not self._left:
            return
        for plan, left in tuple(self._left.items()):
            if plan.point != point:
                continue
            if left[0]:
                left[0] -= 1
                continue
            left[1] -= 1
            if not left[1]:
                del self._left[plan]
            self.happened.append((point, plan.action))
            await self._act(plan, failure)

    async def _act(self, plan: Plan, failure: Callable[[str], Exception]) -> None:
        match plan.action:
            case "kill":
                os._exit(KILLED)
            case "stop":
                os.kill(os.getpid(), signal.SIGSTOP)
            case "delay":
                await self._clock.sleep(plan.seconds)
            case "raise":
                raise failure(f"for the test, at the fault point {plan.point}")


class _PointedTransport:
    """A `Transport`; see `FaultPoints.transport`."""

    def __init__(self, inner: Transport, points: FaultPoints) -> None:
        self._inner = inner
        self._points = points

    async def request(self, operation: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
        points = self._points
        if operation in _WRITES and _is_of_session(operation, parameters):
            await points.reach("before_write", _unasked)
            answer = await self._inner.request(operation, parameters)
            await points.reach("written_before_commit", Unanswered)
            return answer
        if operation in _READS:
            await points.reach("before_read", _unasked)
            answer = await self._inner.request(operation, parameters)
            await points.reach("read_before_fill", Unanswered)
            return answer
        return await self._inner.request(operation, parameters)


def _is_of_session(operation: str, parameters: Mapping[str, Any]) -> bool:
    """Tell whether a write is of a session's items, and not of the cache's own."""
    if operation == "TransactWriteItems":
        return True
    key = parameters.get("Item") or parameters.get("Key") or {}
    return str(key.get("PK", {}).get("S", "")).startswith(_SESSION)


_BEFORE: Final[dict[str, Point]] = {"get": "before_get"}
_AFTER: Final[dict[str, Point]] = {
    "get": "leased_before_read",
    "fill": "filled_before_answer",
    "commit": "committed_before_acknowledge",
}


class _PointedLink:
    """A `Link`; see `FaultPoints.link`. What else the inner one has is there as well."""

    def __init__(self, inner: Link, points: FaultPoints) -> None:
        self._inner = inner
        self._points = points

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def watch_with(self, changes: Changes) -> None:
        self._inner.watch_with(changes)

    def admit_with(self, admission: Admission) -> None:
        self._inner.admit_with(admission)

    @property
    def up(self) -> bool:
        return self._inner.up

    async def run(
        self,
        script: Script,
        key: str,
        arguments: Sequence[Argument],
        *,
        more_keys: Sequence[str] = (),
        tag: int | None = None,
        repeatable: bool = False,
        watch: bool = False,
    ) -> Any:
        if (before := _BEFORE.get(script.name)) is not None:
            await self._points.reach(before, _unsent)
        reply = await self._inner.run(
            script, key, arguments, more_keys=more_keys, tag=tag, repeatable=repeatable, watch=watch
        )
        if (after := _AFTER.get(script.name)) is not None:
            await self._points.reach(after, _sent)
        return reply

    async def call(
        self, *command: Argument, key: str | None = None, tag: int | None = None, repeatable: bool = False
    ) -> Any:
        return await self._inner.call(*command, key=key, tag=tag, repeatable=repeatable)

    def drop(self) -> None:
        self._inner.drop()

    async def close(self) -> None:
        await self._inner.close()


def _unasked(message: str) -> Unanswered:
    return Unanswered(message, sent=False)


def _unsent(message: str) -> LinkLost:
    return LinkLost(message, sent=False)


def _sent(message: str) -> LinkLost:
    return LinkLost(message, sent=True, broke=True)
