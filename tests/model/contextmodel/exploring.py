"""Breadth-first search of every state a case can reach: the first wrong one found has a shortest trace."""

from __future__ import annotations

from array import array
from dataclasses import dataclass
from typing import TYPE_CHECKING

from contextmodel.faults import fault_steps
from contextmodel.links import link_steps
from contextmodel.reading import reader_steps
from contextmodel.world import ANSWER, FAULT, Wrong, invariant
from contextmodel.writing import writer_steps

if TYPE_CHECKING:
    from contextmodel.world import Case

LIMIT = 20_000_000


@dataclass(frozen=True, slots=True)
class Explored:
    """What a search found.

    Attributes:
        states: visited.
        exhausted: all that can be reached were.
        wrong: what is wrong with the first wrong state, or None.
        trace: the labels of the steps that lead there.
    """

    states: int
    exhausted: bool
    wrong: str | None = None
    trace: tuple[str, ...] = ()

    def __str__(self) -> str:
        return "\n".join([*self.trace, f"=> {self.wrong}"])


def steps(case, world):
    """Yield every step from a state: (label, next state or what is wrong, kind)."""
    for worker in range(len(world.writers)):
        yield from writer_steps(case, world, worker)
    for reader in range(len(world.readers)):
        yield from reader_steps(case, world, reader)
    yield from fault_steps(case, world)
    if case.links_move:
        yield from link_steps(case, world)


def explore(case: Case, *, limit: int = LIMIT) -> Explored:
    """Visit every state that `case` can reach, or the first wrong one."""
    seen = {case.start(): 0}
    worlds = list(seen)
    came_from = array("l", [-1])
    at = 0
    while at < len(worlds):
        for label, after, _ in steps(case, worlds[at]):
            if type(after) is Wrong:
                return Explored(
                    len(worlds), exhausted=False, wrong=after, trace=_trace(case, worlds, came_from, at, label)
                )
            if after in seen:
                continue
            seen[after] = len(worlds)
            worlds.append(after)
            came_from.append(at)
            if case.checks_invariants and (wrong := invariant(case, after)):
                trace = _trace(case, worlds, came_from, at, label)
                return Explored(len(worlds), exhausted=False, wrong=wrong, trace=trace)
        at += 1
        if len(worlds) > limit:
            return Explored(len(worlds), exhausted=False)
    return Explored(len(worlds), exhausted=True)


@dataclass(frozen=True, slots=True)
class Lived:
    """What a search for states without a future found.

    Attributes:
        states: visited; all that can be reached.
        dead: how many of them never see a fresh hit again, though no further fault happens.
        trace: the steps to the first of these.
    """

    states: int
    dead: int
    trace: tuple[str, ...] = ()

    def __str__(self) -> str:
        return "\n".join([*self.trace, "=> no fresh hit can be reached any more"])


def live(case: Case) -> Lived:
    """Tell from how many states no reader can get out of Redis what has been acknowledged, without further faults."""
    seen = {case.start(): 0}
    worlds = list(seen)
    came_from = array("l", [-1])
    before, after_at, reached = array("l"), array("l"), set()
    at = 0
    while at < len(worlds):
        for _, after, kind in steps(case, worlds[at]):
            if type(after) is Wrong:
                raise AssertionError(after)
            if (index := seen.get(after)) is None:
                index = seen[after] = len(worlds)
                worlds.append(after)
                came_from.append(at)
            if kind != FAULT:
                before.append(at)
                after_at.append(index)
                if kind == ANSWER:
                    reached.add(at)
        at += 1
    dead = _cut_from(reached, before, after_at, len(worlds))
    if not dead:
        return Lived(len(worlds), 0)
    first = dead[0]
    labels = [] if first == 0 else _trace(case, worlds, came_from, first, None)
    return Lived(len(worlds), len(dead), tuple(labels))


def _cut_from(reached, before, after_at, count):
    """Return the states from which none of `reached` can be reached over the edges `before` -> `after_at`."""
    edges: dict[int, list[int]] = {}
    for source, target in zip(before, after_at, strict=True):
        edges.setdefault(target, []).append(source)
    alive, open_ends = set(reached), list(reached)
    while open_ends:
        for source in edges.get(open_ends.pop(), ()):
            if source not in alive:
                alive.add(source)
                open_ends.append(source)
    return [state for state in range(count) if state not in alive]


def _trace(case, worlds, came_from, at, last):
    labels = [last] if last is not None else []
    while came_from[at] >= 0:
        before = came_from[at]
        labels.append(next(label for label, after, _ in steps(case, worlds[before]) if after == worlds[at]))
        at = before
    return tuple(reversed(labels))
