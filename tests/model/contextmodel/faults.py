"""What happens to a worker, a message or the hash, without anybody's doing."""

from __future__ import annotations

from contextmodel.scripts import FILLING, FULL, commit, fill
from contextmodel.versions import LOWEST, show
from contextmodel.world import FAULT, IDLE, PLAIN, Wrong, put, stored
from contextmodel.writing import put_item


def fault_steps(case, world):
    """Yield every fault that may come, and the arrival of every late message."""
    for where, found in enumerate(world.redis):
        if found is None:
            continue
        gone = put(world.redis, where, None)
        if case.evictions:
            yield "evicted", world.but(redis=gone), FAULT
        elif world.budget and "eviction" in case.faults:
            yield "evicted", world.but(redis=gone, budget=world.budget - 1), FAULT
        if case.expiries and found[0] is FILLING and found[2]:
            ended = (FILLING, found[1], False, found[3])
            yield "the lease has run out", world.but(redis=put(world.redis, where, ended)), PLAIN
        if found[0] is FULL and found[3] and "age" in case.faults:
            aged = put(world.redis, where, (*found[:3], False))
            yield "the content is past its maximum age", world.but(redis=aged), PLAIN
    for index, message in enumerate(world.late):
        yield _arrival(case, world.but(late=world.late[:index] + world.late[index + 1 :]), message)
    if not world.budget:
        return
    if "crash" in case.faults:
        for worker in range(len(world.links)):
            yield f"w{worker} crashes", crashed(case, world, worker), FAULT
    if "restore" in case.faults and stored(world) != (1, 0, 0):
        restored = world.but(lives=((),), revision=0, budget=world.budget - 1)
        yield "the table is restored as it was", restored, FAULT


def crashed(case, world, worker):
    """Return the world after a worker's crash: nothing it held in memory is left; another takes its place."""
    stage, begun = world.writers[worker][:2]
    task = ("idle", begun if stage == "idle" else begun + 1)
    readers = tuple(
        IDLE if (home == worker or (home < 0 and task != IDLE and task[1] == worker)) else task
        for home, task in zip(case.readers, world.readers, strict=True)
    )
    lost = world.queues[worker] is not None
    link, epoch = world.links[worker], world.epoch[0]
    if epoch > 0:
        settled = not (case.rules.wait and case.rules.starting_waits)
        link = link._replace(server=-1, known=epoch, valid=True, settled=settled)
    return world.but(
        links=put(world.links, worker, link),
        writers=put(world.writers, worker, task),
        readers=readers,
        memories=put(world.memories, worker, None),
        sure=put(world.sure, worker, LOWEST),
        queues=put(world.queues, worker, None),
        promised=world.promised and not lost,
        budget=world.budget - 1,
    )


def _arrival(case, world, message):
    kind = message[0]
    if kind == "PUT":
        _, life, number, turn_id = message
        after = put_item(case, world, life, number, turn_id)
        label = f"late PUT {show((life, number, 0))}{'' if after else ' meets what stands there'}"
        return label, (after if isinstance(after, Wrong) else after or world), PLAIN
    if kind == "COMMIT":
        _, where, version, first, meta = message
        after = commit(case.rules, world.redis[where], version, first, meta=meta)
        label = f"late {'OBSERVE' if first is None and not meta else 'COMMIT'} {show(version)}"
    else:
        _, where, lease, version = message
        after = fill(case.rules, world.redis[where], lease, version)
        label = f"late FILL {show(version)}"
    return label, world.but(redis=put(world.redis, where, after)), PLAIN
