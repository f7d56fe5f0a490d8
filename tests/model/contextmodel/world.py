"""The state that every step reads and changes, and the cases: who does what, and what may happen to them."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import NamedTuple

from contextmodel.rules import Rules
from contextmodel.versions import LOWEST, covers, each_part, join, show

PLAIN = 0
FAULT = 1
ANSWER = 2
"""A step in which a reader gets out of Redis what has been acknowledged; what liveness looks for."""

IDLE = ("idle",)


class Link(NamedTuple):
    """A worker's way to Redis, and what it knows of the epoch.

    Attributes:
        server: it is connected to; -1 is none.
        epoch: bound to the connection.
        known: the newest epoch learnt.
        valid: the knowledge has not lapsed.
        settled: P has passed since `known` was learnt.
        cut: no connection can be made for now.
    """

    server: int = 0
    epoch: int = 0
    known: int = 0
    valid: bool = True
    settled: bool = True
    cut: bool = False


class World(NamedTuple):
    """One state.

    Attributes:
        lives: turn_ids stored in each incarnation, in DynamoDB.
        revision: META's, of the newest incarnation; 0 in a later one is a tombstone.
        redis: the session's hash by `server * epochs + epoch`.
        epoch: the epoch item, (epoch, identity of the primary).
        phase: of Redis: 0 one primary, 1 the replica no longer follows, 2 failed over, 3 split, 4 over and back.
        links: of each worker.
        memories: the version each worker holds; None where it holds nothing.
        sure: what Redis has confirmed of it; kept only where SESSION is asked for without a token.
        queues: invalidations not sent yet, one a worker.
        writers: a task each.
        readers: a task each.
        late: messages that their sender has given up, and that may still arrive.
        done: what completed operations have returned, joined.
        token: the client's.
        promised: False once an unsent invalidation was lost.
        budget: faults still to come.
    """

    lives: tuple
    revision: int
    redis: tuple
    epoch: tuple
    phase: int
    links: tuple
    memories: tuple
    sure: tuple
    queues: tuple
    writers: tuple
    readers: tuple
    late: tuple
    done: tuple
    token: tuple
    promised: bool
    budget: int

    def but(self, **changes):
        """Return the state with some of it changed: `_replace`, in half the time."""
        items = list(self)
        for name, item in changes.items():
            items[_FIELDS[name]] = item
        return _NEW(World, items)


_FIELDS = {name: index for index, name in enumerate(World._fields)}
_NEW = tuple.__new__


class Wrong(str):
    """What is wrong, in place of the next state."""

    __slots__ = ()


@dataclass(frozen=True, kw_only=True)
class Case:
    """Who does what, what may happen, and which rules hold.

    Attributes:
        operations: of each worker's writer, in order: a turn_id is appended; `META` is changed; `DELETE`.
        readers: the worker of each looping reader; -1 is a client that carries a token and changes its worker.
        levels: at which the readers ask; a tuple for each reader where they ask differently.
        faults: that may happen, at most `budget` in all.
        evictions: at any time, outside the budget.
        expiries: of leases, at any time.
        epochs: at most.
        raises_epoch: a worker that is cut off raises the epoch instead of waiting for Redis.
        sends_apart: a GET's sending and its execution are two steps.
        learns_early: a worker knows what it has read in DynamoDB before that is observed, not only afterwards.
        available: the policy is AVAILABLE, and LATEST is promised only while no worker is cut off.
        checks_latest: readers without a token are held to linearizability.
        checks_invariants: I2 and I3 are held in every state, not only what is answered.
    """

    operations: tuple
    readers: tuple = (0, 1)
    levels: tuple = ("LATEST",)
    faults: frozenset = frozenset()
    budget: int = 0
    evictions: bool = True
    expiries: bool = True
    epochs: int = 1
    raises_epoch: bool = False
    sends_apart: bool = False
    learns_early: bool = True
    available: bool = False
    checks_latest: bool = True
    checks_invariants: bool = True
    rules: Rules = field(default_factory=Rules)

    @cached_property
    def names(self):
        """What the traces call each reader."""
        return tuple("client" if worker < 0 else f"r{worker}" for worker in self.readers)

    @cached_property
    def asks(self):
        """At which levels each reader asks."""
        return self.levels if isinstance(self.levels[0], tuple) else (self.levels,) * len(self.readers)

    @cached_property
    def keeps_sure(self):
        """Whether it matters what of a worker's memory has been confirmed."""
        return any("SESSION" in asked and worker >= 0 for asked, worker in zip(self.asks, self.readers, strict=True))

    @cached_property
    def acks_unconfirmed(self):
        """Whether an append is acknowledged that Redis has not confirmed."""
        return self.available or not self.rules.hold

    @cached_property
    def servers(self):
        """How many servers there are: a replica where one may take over."""
        return 2 if self.faults & {"failover", "failback", "split"} else 1

    @cached_property
    def links_move(self):
        """Whether a worker's way to Redis can change at all."""
        return bool(self.faults & {"cut", "stall", "failover", "failback", "split"}) or self.available

    @cached_property
    def meta_moves(self):
        """Whether META can change between the two reads of a strong read."""
        return any({"META", "DELETE"} & set(of_worker) for of_worker in self.operations)

    def with_rules(self, rules):
        """Return the same case under other rules."""
        return replace(self, rules=rules)

    def start(self):
        """Return the state everything begins in: a session of no turns (or only older ones), known to all."""
        workers = len(self.operations)
        return World(
            lives=((),),
            revision=0,
            redis=(None,) * (self.servers * self.epochs),
            epoch=(0, 0),
            phase=0,
            links=(Link(),) * workers,
            memories=((1, 0, 0),) * workers,
            sure=((1, 0, 0) if self.keeps_sure else LOWEST,) * workers,
            queues=(None,) * workers,
            writers=((*IDLE, 0),) * workers,
            readers=(IDLE,) * len(self.readers),
            late=(),
            done=(1, 0, 0) if self.checks_latest else LOWEST,
            token=LOWEST,
            promised=True,
            budget=self.budget,
        )


def stored(world):
    """Return the version DynamoDB is at."""
    return (len(world.lives), len(world.lives[-1]), world.revision)


def place(case, world, worker):
    """Return where in `redis` a worker's commands go: None while it cannot or must not use Redis."""
    link = world.links[worker]
    if link.server < 0 or not link.valid or link.epoch != link.known or not link.settled:
        return None
    return link.server * case.epochs + link.epoch


def put(items, index, item):
    """Return a tuple with one item exchanged."""
    return (*items[:index], item, *items[index + 1 :])


def sent_late(world, message):
    """Return the messages under way with one more; their order says nothing."""
    return tuple(sorted((*world.late, message), key=repr))


def learn(case, world, worker, version):
    """Return the memories when a worker has learnt of a version."""
    known = world.memories[worker]
    if known is not None:
        version = (join if case.rules.join_incarnation else each_part)(known, version)
    return put(world.memories, worker, version)


def degraded(world):
    """Tell whether LATEST is out of promise: a worker is cut off, has invalidations to send, or is an epoch behind."""
    if not world.promised:
        return True
    newest = world.epoch[0]
    for link, queue in zip(world.links, world.queues, strict=True):
        if queue is not None or link.server < 0 or (link.valid and link.known < newest):
            return True
    return False


def promise(case, world):
    """Return what an operation that begins now must not fall behind."""
    if not case.checks_latest or (case.available and degraded(world)):
        return LOWEST
    return world.done


def completed(case, world, version):
    """Return `done` when an operation has returned a version."""
    return join(world.done, version) if case.checks_latest else LOWEST


def confirmed(case, world, worker, version):
    """Return `sure` when Redis has confirmed a version to a worker."""
    return put(world.sure, worker, join(world.sure[worker], version)) if case.keeps_sure else world.sure


def judged(case, world, version, least, what):
    """Return what is wrong with a version that an operation returns, if anything."""
    if not covers(version, least):
        return Wrong(f"{what} {show(version)}, after {show(least)} had been returned")
    if case.checks_latest and not covers(stored(world), version):
        return Wrong(f"{what} {show(version)}, which is not stored: that is {show(stored(world))}")
    return None


def invariant(case, world):
    """Return what is wrong with a state, if anything: I2 and I3."""
    usable = [place(case, world, worker) for worker in range(len(world.links))]
    for index, found in enumerate(world.redis):
        if found is None or found[0] != "full":
            continue
        if not found[2]:
            return Wrong(f"I2: the hash says {show(found[1])}, and its content is something else")
        held = case.checks_latest and not case.available and index in usable
        if held and found[3] and not covers(found[1], world.done):
            return Wrong(f"I3: the hash is at {show(found[1])}, after {show(world.done)} had been returned")
    return None
