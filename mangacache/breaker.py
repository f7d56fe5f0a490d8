"""A circuit breaker: stop asking a service that fails, and let single calls find out when it is back.

A caller that asks a service in trouble waits for a time-out each time, and adds to the trouble. After some failures the
breaker opens and refuses at once, so that the caller goes another way. When the opening is over one call is let
through, the probe; its success closes the breaker, its failure opens it for twice as long, up to a cap. Openings have
jitter, so that the workers of a fleet do not come back in the same moment.

M. Nygard, Release It!, 2007; the jitter as in M. Brooker, Exponential Backoff and Jitter, AWS Architecture Blog, 2015.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Final

import msgspec

from mangacache.errors import Invalid

if TYPE_CHECKING:
    from collections.abc import Callable

    from mangacache.clock import Clock, Random

_MOST_DOUBLINGS: Final = 30


class Phase(Enum):
    """Where a breaker stands."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half-open"


class BreakerRules(msgspec.Struct, frozen=True, kw_only=True):
    """When a breaker opens, and for how long.

    Attributes:
        failures: so many within one window open it.
        share: but only if at least this share of the window's calls failed.
        window_s: after which the counts begin again from nothing.
        open_s: the first opening, at most; at least half of it.
        open_cap_s: the longest opening.
        probe_s: a probe of which nothing is heard for so long is given up, and another let through.
    """

    failures: int = 5
    share: float = 0.2
    window_s: float = 10.0
    open_s: float = 0.5
    open_cap_s: float = 10.0
    probe_s: float = 5.0

    def __post_init__(self) -> None:
        if self.failures < 1 or not 0 <= self.share <= 1:
            raise Invalid("a breaker opens after at least 1 failure, and a share from 0 to 1")
        if min(self.window_s, self.open_s, self.probe_s) <= 0 or self.open_cap_s < self.open_s:
            raise Invalid("a breaker's times are above 0, and open_cap_s is not below open_s")


class BreakerState(msgspec.Struct, frozen=True):
    """All that a breaker remembers; each event makes a new one of it.

    Attributes:
        since_s: when the window began (closed), the opening (open), or the probe (half-open).
        calls: that ended in this window.
        failures: among them, by weight.
        openings: in a row, without a call that went well in between.
        until_s: when the next probe may go.
        generation: raised with each change of phase. A verdict on a call from an earlier one says nothing of now.
    """

    phase: Phase = Phase.CLOSED
    since_s: float = 0.0
    calls: int = 0
    failures: int = 0
    openings: int = 0
    until_s: float = 0.0
    generation: int = 0


def admitted(state: BreakerState, rules: BreakerRules, now_s: float) -> BreakerState | None:
    """Return the state after a call was let through; None where it is refused."""
    if state.phase is Phase.CLOSED:
        return state
    if now_s < state.until_s:
        return None
    return msgspec.structs.replace(
        state,
        phase=Phase.HALF_OPEN,
        since_s=now_s,
        until_s=now_s + rules.probe_s,
        generation=state.generation + 1,
    )


def succeeded(state: BreakerState, rules: BreakerRules, now_s: float) -> BreakerState:
    """Return the state after a call went well; a probe's success closes."""
    if state.phase is Phase.CLOSED:
        window = _window(state, rules, now_s)
        return msgspec.structs.replace(window, calls=window.calls + 1, openings=0)
    return BreakerState(since_s=now_s, openings=state.openings, generation=state.generation + 1)


def failed(state: BreakerState, rules: BreakerRules, now_s: float, *, weight: int, jitter: float) -> BreakerState:
    """Return the state after a failure that counts `weight` times; `jitter` is random in [0, 1)."""
    calls, failures = state.calls, state.failures
    if state.phase is Phase.CLOSED:
        window = _window(state, rules, now_s)
        calls, failures = window.calls + 1, window.failures + weight
        if failures < rules.failures or failures < rules.share * calls:
            return msgspec.structs.replace(window, calls=calls, failures=failures)
    longest_s = min(rules.open_cap_s, rules.open_s * 2 ** min(state.openings, _MOST_DOUBLINGS))
    return BreakerState(
        Phase.OPEN,
        since_s=now_s,
        calls=calls,
        failures=failures,
        openings=state.openings + 1,
        until_s=now_s + longest_s * (1 + jitter) / 2,
        generation=state.generation + 1,
    )


def given_up(state: BreakerState, now_s: float) -> BreakerState:
    """Return the state after a call ended without a verdict, its caller gone; another probe may go at once."""
    return msgspec.structs.replace(state, until_s=now_s) if state.phase is Phase.HALF_OPEN else state


def _window(state: BreakerState, rules: BreakerRules, now_s: float) -> BreakerState:
    if now_s - state.since_s < rules.window_s:
        return state
    return msgspec.structs.replace(state, since_s=now_s, calls=0, failures=0)


class Breaker:
    """Holds a state, and tells it what happens. Not for threads: it lives on the event loop.

    Whoever was let through says how it went, once, by the permit:

        permit = breaker.admit()
        if permit is None: ...another way, at once
        try: ...
        except Unanswered: breaker.failed(permit); raise
        except CancelledError: breaker.gave_up(permit); raise
        else: breaker.succeeded(permit)

    Args:
        rules: see there.
        clock: by whose monotonic seconds it goes.
        random: for the jitter.
        changed: called with the new state at each change of phase.

    Attributes:
        state: see `BreakerState`.
    """

    __slots__ = ("_changed", "_clock", "_random", "_rules", "state")

    def __init__(
        self,
        rules: BreakerRules,
        *,
        clock: Clock,
        random: Random,
        changed: Callable[[BreakerState], None] | None = None,
    ) -> None:
        self._rules = rules
        self._clock = clock
        self._random = random
        self._changed = changed
        self.state = BreakerState(since_s=clock.monotonic_s())

    def __repr__(self) -> str:
        state = self.state
        return f"<Breaker {state.phase.value}, {state.failures} failures of {state.calls}, waits {self.wait_s():.3g} s>"

    def admit(self) -> int | None:
        """Return a permit for one call, or None where it is to go another way."""
        state = admitted(self.state, self._rules, self._clock.monotonic_s())
        if state is None:
            return None
        self._become(state)
        return state.generation

    def succeeded(self, permit: int) -> None:
        """Count a call that went well, whatever its answer says."""
        if permit == self.state.generation:
            self._become(succeeded(self.state, self._rules, self._clock.monotonic_s()))

    def failed(self, permit: int, *, weight: int = 1) -> None:
        """Count a call that showed the service in trouble, `weight` times, as one may that cost a whole time-out."""
        if permit == self.state.generation:
            now_s, jitter = self._clock.monotonic_s(), self._random.random()
            self._become(failed(self.state, self._rules, now_s, weight=weight, jitter=jitter))

    def gave_up(self, permit: int) -> None:
        """Count nothing: the caller left before there was a verdict."""
        if permit == self.state.generation:
            self._become(given_up(self.state, self._clock.monotonic_s()))

    def wait_s(self) -> float:
        """Return for how long every call is refused from now on; 0 where one would be let through."""
        if self.state.phase is Phase.CLOSED:
            return 0.0
        return max(0.0, self.state.until_s - self._clock.monotonic_s())

    def _become(self, state: BreakerState) -> None:
        before, self.state = self.state, state
        if self._changed is not None and before.phase is not state.phase:
            self._changed(state)
