"""A worker's way to Redis: cut links, failover, split brain; R6 (identity), R7 (the epoch), section 4's queue."""

from __future__ import annotations

from contextmodel.scripts import commit
from contextmodel.versions import show
from contextmodel.world import FAULT, IDLE, PLAIN, place, put

FOLLOWING, STOPPED, FAILED_OVER, SPLIT, BACK = range(5)


def link_steps(case, world):
    """Yield what happens between workers, Redis and the epoch item."""
    for worker, link in enumerate(world.links):
        if link.server < 0:
            yield from _reconnect(case, world, worker, link)
        if link.known < world.epoch[0]:
            yield f"w{worker} polls: epoch {world.epoch[0]}", _learnt(case, world, worker, world.epoch[0]), PLAIN
        if not link.settled:
            yield f"P has passed for w{worker}", _settled(world, worker), PLAIN
        if world.queues[worker] is not None:
            yield from _flush(case, world, worker)
        if world.phase == SPLIT and link.server == 0:
            yield f"w{worker} loses its connection", dropped(case, world, worker), PLAIN
    if world.budget:
        yield from _breaks(case, world)
    yield from _replica(case, world)


def _breaks(case, world):
    spent = world.but(budget=world.budget - 1)
    connected = [worker for worker, link in enumerate(world.links) if not link.cut]
    if "cut" in case.faults:
        for worker in connected:
            yield f"w{worker} is cut off", _cut(case, spent, worker), FAULT
    if "stall" in case.faults and connected:
        stalled = spent
        for worker in connected:
            stalled = _cut(case, stalled, worker)
        yield "Redis stalls", stalled, FAULT


def _cut(case, world, worker):
    world = dropped(case, world, worker)
    return world.but(links=put(world.links, worker, world.links[worker]._replace(cut=True)))


def dropped(case, world, worker):
    """Return the world when a worker's connection is gone; what began on it begins again."""
    links = put(world.links, worker, world.links[worker]._replace(server=-1))
    return _restarted(case, world.but(links=links), worker)


def _restarted(case, world, worker):
    if not case.rules.begin_again:
        return world
    readers = tuple(_again(task) if task != IDLE and task[1] == worker else task for task in world.readers)
    return world.but(readers=readers)


def _again(task):
    strong = task[0] in {"turns", "meta"} and task[3] is None
    return ("turns", *task[1:3], None) if strong else ("get", *task[1:3])


def _reconnect(case, world, worker, link):
    if link.cut:
        yield f"w{worker} is no longer cut off", _healed(world, worker), PLAIN
        return
    if not link.valid or link.known < world.epoch[0]:
        # R6 reads the epoch item strongly at each new connection: the same as a poll just before it.
        return
    epoch, identity = world.epoch
    for server in {FAILED_OVER: (1,), SPLIT: (0, 1)}.get(world.phase, (0,)):
        found = 2 if world.phase == BACK and case.rules.replication_id else server
        name = f"w{worker} connects to {'AB'[server]}"
        if found == identity or not case.rules.identity:
            bound = link._replace(server=server, epoch=epoch)
            yield name, world.but(links=put(world.links, worker, bound)), PLAIN
        elif epoch + 1 < case.epochs:
            raised = _learnt(case, world.but(epoch=(epoch + 1, found)), worker, epoch + 1)
            bound = raised.links[worker]._replace(server=server, epoch=epoch + 1)
            label = f"{name}, not as it was: epoch {epoch + 1}"
            yield label, raised.but(links=put(raised.links, worker, bound)), PLAIN


def _healed(world, worker):
    return world.but(links=put(world.links, worker, world.links[worker]._replace(cut=False)))


def _learnt(case, world, worker, epoch):
    """Return the world when a worker knows a new epoch: its connection is bound to the old one and goes."""
    link = world.links[worker]._replace(server=-1, known=epoch, valid=True, settled=not case.rules.wait)
    return _restarted(case, world.but(links=put(world.links, worker, link)), worker)


def _settled(world, worker):
    """Return the world P after a worker has learnt an epoch: who has not learnt it by then knows nothing valid."""
    known = world.links[worker].known
    links = tuple(link._replace(valid=link.valid and link.known >= known) for link in world.links)
    return world.but(links=put(links, worker, links[worker]._replace(settled=True)))


def _flush(case, world, worker):
    version = world.queues[worker]
    emptied = world.but(queues=put(world.queues, worker, None))
    where = place(case, world, worker)
    if where is not None:
        after = commit(case.rules, world.redis[where], version, None, meta=False)
        sent = emptied.but(redis=put(world.redis, where, after))
        yield f"w{worker} sends its queue: OBSERVE {show(version)}", sent, PLAIN
    elif case.raises_epoch and world.epoch[0] + 1 < case.epochs and world.links[worker].server < 0:
        raised = _learnt(case, emptied.but(epoch=(world.epoch[0] + 1, world.epoch[1])), worker, world.epoch[0] + 1)
        yield f"w{worker} raises the epoch to {raised.epoch[0]}", raised, PLAIN


def _replica(case, world):
    """The replica stops following at some moment, and later takes over; in a split the old primary goes on."""
    if case.servers == 1 or not world.budget:
        return
    copies = world.redis[: case.epochs]
    if world.phase == FOLLOWING:
        yield "the replica stops following", world.but(redis=(*copies, *copies), phase=STOPPED), PLAIN
    elif world.phase == STOPPED:
        spent = world.but(budget=world.budget - 1)
        gone, copies = (None,) * case.epochs, world.redis[case.epochs :]
        if "split" in case.faults:
            yield "SPLIT: the replica takes over too", spent.but(phase=SPLIT), FAULT
        if "failover" in case.faults:
            yield "FAILOVER", _failed(case, spent, FAILED_OVER, (*gone, *copies)), FAULT
        if "failback" in case.faults:
            yield "FAILOVER, and back", _failed(case, spent, BACK, (*copies, *gone)), FAULT


def _failed(case, world, phase, redis):
    """Return the world when every connection was lost with a primary, and the replica's content is what there is."""
    late = tuple(message for message in world.late if message[0] == "PUT")
    failed = world.but(phase=phase, redis=redis, late=late)
    for worker in range(len(world.links)):
        failed = dropped(case, failed, worker)
    return failed
