"""A worker's writer: R1 (append once, without a hole), R5 (COMMIT, then acknowledge), R11 (delete).

Tasks are `("idle", n)`, `("start", n, since)`, `("put", n, since, first, (incarnation, number))`,
`("change", n, since, (incarnation, revision))`, `("delete", n, since)`, `("commit", n, since, version, first, meta)`
and `("wait", n, since, version)`: `n` counts the operations begun, `since` is what the operation must not fall behind
and None once it is acknowledged, `first` the first turn that travels in the COMMIT.
"""

from __future__ import annotations

from contextmodel.scripts import commit
from contextmodel.versions import LOWEST, covers, join, show
from contextmodel.world import FAULT, PLAIN, Wrong, completed, confirmed, learn, place, promise, put, sent_late, stored


def writer_steps(case, world, worker):
    """Yield every step of one worker's writer."""
    task = world.writers[worker]
    stage = task[0]
    if stage == "idle":
        if task[1] < len(case.operations[worker]) and world.memories[worker] is not None:
            yield from _begin(case, world, worker, ("start", task[1], promise(case, world)))
        elif world.memories[worker] is None and worker not in case.readers:
            known = learn(case, world, worker, stored(world))
            yield f"w{worker} reads its window: {show(stored(world))}", world.but(memories=known), PLAIN
    elif stage == "commit":
        yield from _confirm(case, world, worker, task)
    elif stage == "put":
        yield from _put(case, world, worker, task)
    elif stage == "start":
        yield from _begin(case, world, worker, task)
    elif stage == "change":
        yield from _change(case, world, worker, task)
    elif stage == "delete":
        yield from _delete(case, world, worker, task)
    elif world.links[worker].settled:
        label = f"w{worker} P has passed: {show(task[3])} acked"
        yield label, _acked(case, world, worker, task), PLAIN


def _go(world, worker, task, **changes):
    return world.but(writers=put(world.writers, worker, task), **changes)


def _begin(case, world, worker, task):
    _, n, since = task
    operation = case.operations[worker][n]
    known = world.memories[worker]
    if operation == "DELETE":
        yield from _delete(case, world, worker, ("delete", n, since))
    elif operation == "META":
        if known[0] > 1 and known[2] == 0:
            yield f"w{worker} META: there is no session", _go(world, worker, ("idle", n + 1)), PLAIN
        else:
            yield from _change(case, world, worker, ("change", n, since, (known[0], known[2])))
    elif case.rules.turn_id and operation in world.lives[known[0] - 1][: known[1]]:
        found = ("commit", n, since, known, None, False)
        label = f"w{worker} knows {operation} already"
        if case.rules.confirm_duplicates:
            yield label, _go(world, worker, found), PLAIN
        else:
            yield f"{label}, acked", _acked(case, world, worker, found), PLAIN
    else:
        ready = ("put", n, since, known[1] + 1, (known[0], known[1] + 1))
        if _repeated(case, operation):
            yield f"w{worker} looks for {operation} up to {known[1]}: new", _go(world, worker, ready), PLAIN
        else:
            yield from _put(case, world, worker, ready)


def _repeated(case, operation):
    return sum(of_worker.count(operation) for of_worker in case.operations) > 1


def _put(case, world, worker, task):
    """PutItem under the number, if nothing stands there; every outcome of it, and of its answer's loss."""
    _, n, since, first, (life, number) = task
    operation = case.operations[worker][n]
    if not case.rules.same_window:
        life, number = world.memories[worker][0], world.memories[worker][1] + 1
    label = f"w{worker} PUT {show((life, number, 0))}{f' = {operation}' if _repeated(case, operation) else ''}"
    after = put_item(case, world, life, number, operation)
    if after is None or isinstance(after, Wrong):
        yield label, after or _refused(case, world, worker, task, (life, number)), PLAIN
        return
    known = learn(case, after, worker, (life, number, after.revision if _begins(world, life) else 0))
    begun = _begins(world, life)
    ours = ("commit", n, since, _version(known[worker], life, number), first, begun)
    following = after.but(memories=known)
    if case.rules.commit_before_ack:
        yield label, _go(following, worker, ours), PLAIN
    else:
        yield f"{label}, acked", _acked_before(case, following, worker, ours), PLAIN
    if world.budget:
        again = task if case.rules.same_number else (*task[:4], (life, number + 1))
        spent = world.budget - 1
        if "reply lost" in case.faults:
            yield f"{label}, its reply lost", _go(after, worker, again, budget=spent), FAULT
        if "late" in case.faults:
            message = ("PUT", life, number, operation)
            late = sent_late(world, message)
            yield f"{label} is under way too long", _go(world, worker, again, late=late, budget=spent), FAULT


def _begins(world, life):
    return life > 1 and life == len(world.lives) and world.revision == 0


def _version(known, life, number):
    """Return what an append's COMMIT carries and its result says; of an older life, only the number."""
    return known if known[0] == life else (life, number, 0)


def put_item(case, world, life, number, turn_id):
    """Return the world with the turn stored; None where something stands under its number."""
    turns = world.lives[life - 1]
    if number <= len(turns):
        return None
    if life < len(world.lives) and case.rules.seal and number == len(turns) + 1:
        return None
    if number > len(turns) + 1:
        return Wrong(f"a hole: {number} stored after {len(turns)}")
    if turn_id in turns:
        return Wrong(f"{turn_id} stored twice: as {turns.index(turn_id) + 1} and {number}")
    lives = put(world.lives, life - 1, (*turns, turn_id))
    return world.but(lives=lives, revision=1 if _begins(world, life) else world.revision)


def _refused(case, world, worker, task, slot):
    """Return the world when something stood under the number: ours, another's (the tail is read), or a seal."""
    _, n, since, first, _ = task
    life, number = slot
    turns = world.lives[life - 1]
    operation = case.operations[worker][n]
    if number > len(turns):
        return _go(world, worker, ("start", n, since), memories=learn(case, world, worker, stored(world)))
    if turns[number - 1] == operation and case.rules.turn_id_shown:
        known = learn(case, world, worker, (life, number, 0))
        ours = ("commit", n, since, _version(known[worker], life, number), first, False)
        return _go(world, worker, ours, memories=known)
    if life < len(world.lives):
        return _go(world, worker, ("start", n, since), memories=learn(case, world, worker, stored(world)))
    tail = len(turns)
    known = learn(case, world, worker, (life, tail, 0))
    if case.rules.turn_id_shown and operation in turns[number - 1 :]:
        return _go(world, worker, ("commit", n, since, known[worker], first, False), memories=known)
    return _go(world, worker, ("put", n, since, first, (life, tail + 1)), memories=known)


def _change(case, world, worker, task):
    """Put META under the condition that nobody has changed it; the case has one such change at most."""
    _, n, since, (life, revision) = task
    known = world.memories[worker]
    if len(world.lives) == life and world.revision in {revision, revision + 1}:
        after = world.but(revision=revision + 1)
        memories = learn(case, after, worker, (life, 0, revision + 1))
        turn = known[1] if known is not None and known[0] == life else 0
        ours = ("commit", n, since, (life, turn, revision + 1), None, True)
        label = f"w{worker} META {revision + 1}"
        yield label, _go(after, worker, ours, memories=memories), PLAIN
        if world.budget and "reply lost" in case.faults:
            yield f"{label}, its reply lost", _go(after, worker, task, budget=world.budget - 1), FAULT
    else:
        yield f"w{worker} META: somebody else changed it", _go(world, worker, ("idle", n + 1)), PLAIN


def _delete(case, world, worker, task):
    """Seal the next number and make META a tombstone, in one transaction on what is stored."""
    _, n, since = task
    buried = len(world.lives) > 1 and world.revision == 0
    after = world if buried else world.but(lives=(*world.lives, ()), revision=0)
    dead = (len(after.lives), 0, 0)
    memories = learn(case, after, worker, dead)
    observing = ("commit", n, since, dead, None, False)
    if case.rules.observe_delete:
        yield f"w{worker} DELETE", _go(after, worker, observing, memories=memories), PLAIN
    else:
        done = _acked(case, after.but(memories=memories), worker, observing)
        yield f"w{worker} DELETE, acked", done, PLAIN
    if world.budget and "reply lost" in case.faults:
        yield f"w{worker} DELETE, its reply lost", _go(after, worker, task, budget=world.budget - 1), FAULT


def _confirm(case, world, worker, task):
    """COMMIT or OBSERVE until it is confirmed, then acknowledge; section 4 where Redis cannot be reached."""
    _, n, since, version, first, meta = task
    where = place(case, world, worker)
    what = f"w{worker} {'OBSERVE' if first is None and not meta else 'COMMIT'} {show(version)}"
    if where is None:
        yield from _unconfirmed(case, world, worker, task)
        return
    after = commit(case.rules, world.redis[where], version, first, meta=meta)
    committed = world.but(redis=put(world.redis, where, after))
    yield (
        (what, _go(committed, worker, ("idle", n + 1)), PLAIN)
        if since is None
        else (
            f"{what}, acked",
            _acked(case, committed, worker, task),
            PLAIN,
        )
    )
    if world.budget:
        if "reply lost" in case.faults and after != world.redis[where]:
            yield f"{what}, its reply lost", committed.but(budget=world.budget - 1), FAULT
        if "late" in case.faults:
            message = ("COMMIT", where, version, first, meta)
            late = sent_late(world, message)
            yield f"{what} is under way too long", world.but(late=late, budget=world.budget - 1), FAULT
        if "lost" in case.faults and case.acks_unconfirmed:
            queued = _acked(case, _queued(world, worker, version), worker, task)
            yield f"{what} is lost: queued, acked", queued, FAULT


def _queued(world, worker, version):
    queue = world.queues[worker]
    return world.but(queues=put(world.queues, worker, version if queue is None else join(queue, version)))


def _unconfirmed(case, world, worker, task):
    _, n, since, version, first, meta = task
    link = world.links[worker]
    if since is None:
        return
    if case.acks_unconfirmed:
        kept = _queued(world, worker, version) if case.rules.queue else world
        yield f"w{worker} {show(version)} queued, acked", _acked(case, kept, worker, task), PLAIN
        return
    if link.cut:
        yield f"w{worker} raises Transient: {show(version)} is stored", _go(world, worker, ("idle", n + 1)), PLAIN
        if case.raises_epoch and world.epoch[0] + 1 < case.epochs:
            epoch = world.epoch[0] + 1
            raised = link._replace(known=epoch, valid=True, settled=not case.rules.wait)
            yield (
                f"w{worker} raises the epoch to {epoch}",
                _go(
                    world,
                    worker,
                    ("wait", n, since, version),
                    epoch=(epoch, world.epoch[1]),
                    links=put(world.links, worker, raised),
                ),
                PLAIN,
            )
    elif link.server >= 0 and link.valid and link.epoch == link.known:
        where = link.server * case.epochs + link.epoch
        after = commit(case.rules, world.redis[where], version, first, meta=meta)
        early = _go(world, worker, ("wait", n, since, version), redis=put(world.redis, where, after))
        yield f"w{worker} COMMIT {show(version)}, before P has passed", early, PLAIN


def _acked_before(case, world, worker, task):
    _, n, _, version, first, meta = task
    return _go(world, worker, ("commit", n, None, version, first, meta), done=completed(case, world, version))


def _acked(case, world, worker, task):
    """Return the world with the operation acknowledged, or what is wrong with that.

    An append says something of the turns, a change of META; a turn_id found again repeats what was said.
    """
    _, n, since, version = task[:4]
    operation = case.operations[worker][n]
    says_of_meta = operation == "META"
    said = (version[0], since[1], version[2]) if says_of_meta else (version[0], version[1], since[2])
    if not covers(said, since) and not (_repeated(case, operation) and covers(since, version)):
        return Wrong(f"acked {show(version)}, after {show(since)} had been returned")
    if case.checks_latest and not covers(stored(world), version):
        return Wrong(f"acked {show(version)}, which is not stored: that is {show(stored(world))}")
    token = join(world.token, version) if -1 in case.readers else LOWEST
    return _go(
        world,
        worker,
        ("idle", n + 1),
        done=completed(case, world, version),
        token=token,
        sure=confirmed(case, world, worker, version),
    )
