"""A looping reader: R2 (ask Redis), R3 (OBSERVE what was read in DynamoDB), R4 (fill strongly), R8, R9.

Tasks are `("idle",)`, `("sent", worker, since, least, have)`, `("get", worker, since)`, `("turns", worker, since,
lease)`, `("meta", worker, since, lease, (incarnation, turn))`, `("fill", worker, since, lease, version)` and
`("observe", worker, since, version)`; `since` is what the answer must not fall behind, lease None a read at STRONG.
"""

from __future__ import annotations

from contextmodel.scripts import BUSY, FILLING, FULL, HIT, LEASE, fill, get
from contextmodel.scripts import commit as observe
from contextmodel.versions import LOWEST, covers, join, show
from contextmodel.world import (
    ANSWER,
    FAULT,
    IDLE,
    PLAIN,
    Wrong,
    completed,
    confirmed,
    judged,
    learn,
    place,
    promise,
    put,
    sent_late,
    stored,
)


def reader_steps(case, world, reader):
    """Yield every step of one reader."""
    task = world.readers[reader]
    stage = task[0]
    if not case.rules.own_flight and stage != "idle" and task[2] != world.done:
        joined = (*task[:2], world.done, *task[3:])
        yield f"{case.names[reader]} another reader joins its flight", _go(world, reader, joined), PLAIN
    if stage == "idle":
        home = case.readers[reader]
        for worker in (home,) if home >= 0 else range(len(world.links)):
            yield from _begin(case, world, reader, worker)
    elif stage == "get":
        yield from _get(case, world, reader, task[1], task[2])
    elif stage == "turns":
        yield from _turns(case, world, reader, task)
    elif stage == "meta":
        yield from _meta(case, world, reader, task)
    elif stage == "fill":
        yield from _fill(case, world, reader, task)
    elif stage == "observe":
        yield from _observe(case, world, reader, task)
    else:
        yield from _executed(case, world, reader, task[1:])


def _go(world, reader, task, **changes):
    return world.but(readers=put(world.readers, reader, task), **changes)


def _is_client(case, reader):
    return case.readers[reader] < 0


def _begin(case, world, reader, worker):
    client = _is_client(case, reader)
    since = world.token if client else promise(case, world)
    memory = world.memories[worker]
    if "LATEST" in case.asks[reader]:
        if case.sends_apart and place(case, world, worker) is not None:
            sent = ("sent", worker, since, memory or LOWEST, memory)
            yield f"{case.names[reader]} sends GET, having {show(memory)}", _go(world, reader, sent), PLAIN
        elif not case.rules.ask_redis and memory is not None:
            answer = _answered(case, world, reader, (worker, since, memory), "memory answers")
            yield f"{case.names[reader]} memory answers {show(memory)}", answer, PLAIN
        else:
            yield from _get(case, world, reader, worker, since)
    if "STRONG" in case.asks[reader]:
        yield from _turns(case, world, reader, ("turns", worker, since, None))
    if "SESSION" in case.asks[reader] and memory is not None:
        yield from _from_memory(case, world, reader, worker)


def _from_memory(case, world, reader, worker):
    """SESSION: what the worker knows, if it satisfies the token; to who has none only what Redis has confirmed."""
    memory = world.memories[worker]
    name = f"{case.names[reader]} at SESSION: memory answers {show(memory)}"
    if _is_client(case, reader):
        name = f"{case.names[reader]} at w{worker}: memory answers {show(memory)}"
        if covers(memory, world.token) or not case.rules.token:
            answer = _answered(case, world, reader, (worker, world.token, memory), "memory answers")
            yield name, answer, PLAIN
    elif world.sure[worker] == memory or not case.rules.confirmed_memory:
        answer = _answered(case, world, reader, (worker, LOWEST, memory), "memory answers")
        yield name, answer, PLAIN


def _get(case, world, reader, worker, since):
    if place(case, world, worker) is None:
        yield from _cut_off(case, world, reader, worker, since)
        return
    memory = world.memories[worker]
    least = memory or LOWEST
    if _is_client(case, reader) and case.rules.token:
        least = join(least, since)
    yield from _executed(case, world, reader, (worker, since, least, memory))


def _executed(case, world, reader, request):
    """GET in Redis, and its answer."""
    worker, since, least, have = request
    where = place(case, world, worker)
    if where is None:
        return
    found = world.redis[where]
    lease = _fresh_lease(world)
    after, answer = get(case.rules, found, lease, least, have)
    name = f"{case.names[reader]} GET" if case.readers[reader] >= 0 else f"{case.names[reader]} at w{worker}: GET"
    asked = world.but(redis=put(world.redis, where, after))
    if answer is LEASE:
        yield f"{name}: lease", _go(asked, reader, ("turns", worker, since, lease)), PLAIN
        if world.budget and "reply lost" in case.faults:
            nobody = put(world.redis, where, (FILLING, 0, *after[2:]))
            lost = _go(world, reader, ("get", worker, since), redis=nobody, budget=world.budget - 1)
            yield f"{name}: lease, its reply lost", lost, FAULT
    elif answer is BUSY:
        if not case.rules.own_read:
            yield from _filler_s(case, world, reader, worker, since)
        yield from _turns(case, world, reader, ("turns", worker, since, None), busy=True)
    elif answer is HIT and not found[2]:
        yield f"{name}: hit {show(found[1])}", Wrong("the content is not what the version says"), PLAIN
    else:
        version = found[1] if answer is HIT else have
        if answer is not HIT and not case.rules.same_is_have:
            version = world.memories[worker]
        ended = _answered(case, asked, reader, (worker, since, version), answer)
        yield f"{name}: {answer} {show(version)}", ended, ANSWER if covers(version, world.done) else PLAIN


def _filler_s(case, world, reader, worker, since):
    for task in world.readers:
        if task[0] == "fill":
            ended = _answered(case, world, reader, (worker, since, task[4]), "taken from the filler")
            yield f"{case.names[reader]} is told busy and takes the filler's {show(task[4])}", ended, PLAIN


def _cut_off(case, world, reader, worker, since):
    """What a reader gets whose worker cannot use Redis: an error; under AVAILABLE a read marked as degraded."""
    if world.readers[reader] != IDLE and world.links[worker].cut:
        yield f"{case.names[reader]} raises Transient", _go(world, reader, IDLE), PLAIN
    if case.available:
        version = stored(world)
        known = world.but(memories=learn(case, world, worker, version))
        if _is_client(case, reader):
            ended = _answered(case, known, reader, (worker, since, version), "degraded")
            yield f"{case.names[reader]} at w{worker}: DynamoDB {show(version)}, degraded", ended, PLAIN
        elif known.memories != world.memories:
            yield f"{case.names[reader]} DynamoDB {show(version)}, degraded", _go(known, reader, IDLE), PLAIN


def _turns(case, world, reader, task, *, busy=False):
    """Read the turns strongly; and META in the same step where nothing in the case can come between."""
    _, worker, since, lease = task
    version = stored(world)
    name = f"{case.names[reader]} {'is told busy and ' if busy else ''}reads"
    if case.meta_moves:
        read = ("meta", worker, since, lease, version[:2])
        yield f"{name} turns {show((version[0], version[1], 0))}", _go(world, reader, read), PLAIN
        return
    yield f"{name} {show(version)}", _has_read(case, world, reader, task, version), PLAIN
    if lease is not None and _from_dax(case, world, worker):
        old = (1, 0, 0)
        yield f"{case.names[reader]} DAX answers {show(old)}", _has_read(case, world, reader, task, old), PLAIN


def _from_dax(case, world, worker):
    if not case.rules.strong_fills:
        return True
    where = place(case, world, worker)
    found = None if where is None else world.redis[where]
    known = found is not None and found[0] is FILLING and found[3] != LOWEST
    return not case.rules.strong_fills_at_floor and known and covers((1, 0, 0), found[3])


def _meta(case, world, reader, task):
    _, worker, since, lease, (life, turn) = task
    if life != len(world.lives) and case.rules.reread:
        again = ("turns", worker, since, lease)
        yield f"{case.names[reader]} reads META of another incarnation: again", _go(world, reader, again), PLAIN
        return
    version = (len(world.lives), turn, world.revision)
    read = _has_read(case, world, reader, ("turns", worker, since, lease), version)
    yield f"{case.names[reader]} reads META {world.revision}: {show(version)}", read, PLAIN


def _has_read(case, world, reader, task, version):
    _, worker, since, lease = task
    known = world.memories[worker]
    if case.rules.replace_memory and known is not None and not covers(version, known) and version == stored(world):
        world = world.but(memories=put(world.memories, worker, version))
    if case.learns_early:
        world = world.but(memories=learn(case, world, worker, version))
    if lease is not None:
        return _go(world, reader, ("fill", worker, since, lease, version))
    if not case.rules.observe:
        return _answered(case, world, reader, (worker, since, version), "read")
    return _go(world, reader, ("observe", worker, since, version))


def _fill(case, world, reader, task):
    """FILL; refused or lost, what was read is observed before it is returned."""
    _, worker, since, lease, version = task
    where = place(case, world, worker)
    name = f"{case.names[reader]} FILL {show(version)}"
    if where is None:
        yield from _cut_off(case, world, reader, worker, since)
        return
    found = world.redis[where]
    after = fill(case.rules, found, lease, version)
    taken = after is not None and after[0] is FULL and after != found
    kept = world.but(redis=put(world.redis, where, after))
    label = name if taken else f"{name}, refused"
    yield label, _answered(case, kept, reader, (worker, since, version), "read"), PLAIN
    if world.budget:
        spent = world.budget - 1
        unsure = ("observe", worker, since, version)
        if "lost" in case.faults:
            yield f"{name} is lost", _go(_dropped(world, where, lease), reader, unsure, budget=spent), FAULT
        if "reply lost" in case.faults and after != found:
            yield f"{label}, its reply lost", _go(kept, reader, unsure, budget=spent), FAULT
        if "late" in case.faults:
            late = sent_late(world, ("FILL", where, lease, version))
            yield f"{name} is under way too long", _go(world, reader, unsure, late=late, budget=spent), FAULT


def _observe(case, world, reader, task):
    _, worker, since, version = task
    where = place(case, world, worker)
    link = world.links[worker]
    if (
        where is None
        and not (case.rules.wait_returns or link.settled)
        and link.server >= 0
        and link.epoch == link.known
    ):
        where = link.server * case.epochs + link.epoch
    if where is None:
        yield from _cut_off(case, world, reader, worker, since)
        return
    after = observe(case.rules, world.redis[where], version, None, meta=False)
    observed = world.but(redis=put(world.redis, where, after))
    returned = _answered(case, observed, reader, (worker, since, version), "returned")
    yield f"{case.names[reader]} OBSERVE {show(version)}, returned", returned, PLAIN
    if world.budget:
        if "reply lost" in case.faults and after != world.redis[where]:
            yield f"{case.names[reader]} OBSERVE, its reply lost", observed.but(budget=world.budget - 1), FAULT
        if "late" in case.faults:
            message = ("COMMIT", where, version, None, False)
            late = sent_late(world, message)
            spent = world.but(late=late, budget=world.budget - 1)
            yield f"{case.names[reader]} OBSERVE {show(version)} is under way too long", spent, FAULT


def _answered(case, world, reader, answer, what):
    """Return the world with the reader answered, or what is wrong with the answer."""
    worker, since, version = answer
    found = judged(case, world, version, since, what)
    if found is not None:
        return found
    memories = learn(case, world, worker, version)
    if _is_client(case, reader):
        return _go(world, reader, IDLE, memories=memories, token=join(world.token, version))
    sure = world.sure if what == "memory answers" else confirmed(case, world, worker, version)
    return _go(world, reader, IDLE, memories=memories, sure=sure, done=completed(case, world, version))


def _fresh_lease(world):
    """Return the least lease that nothing in the state holds: a state stays one of finitely many."""
    used = {task[3] for task in world.readers if task[0] in {"turns", "meta", "fill"}}
    used.update(message[2] for message in world.late if message[0] == "FILL")
    used.update(found[1] for found in world.redis if found is not None and found[0] is FILLING)
    lease = 1
    while lease in used:
        lease += 1
    return lease


def _dropped(world, where, lease):
    """Return the world when the only holder of a lease has forgotten it."""
    found = world.redis[where]
    held = any(message[0] == "FILL" and message[2] == lease for message in world.late)
    if found is None or found[0] is not FILLING or found[1] != lease or held:
        return world
    return world.but(redis=put(world.redis, where, (FILLING, 0, *found[2:])))
