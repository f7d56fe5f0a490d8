"""On small histories the checker agrees with an exhaustive search for an order that explains them."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from mangacache import Version
from mangacache.testing import Operation, SeenTurn, check_history

MAX_OPERATIONS = 7
HISTORIES = 4000


class Appends:
    """The list of turns; some appends were never answered."""

    start = (0, 0)
    kinds = ("append", "append", "read", "read", "read")
    lost = 0.25

    @staticmethod
    def after(state, kind):
        incarnation, number = state
        if kind == "append":
            return max(incarnation, 1), number + 1
        return (max(incarnation, 1) + 1, 0) if kind == "delete" else state

    @staticmethod
    def version(state):
        return Version(*state, min(state[1], 1))


class Deletes(Appends):
    """The list of turns and its incarnations; every operation was answered."""

    kinds = ("append", "append", "delete", "read", "read", "read")
    lost = 0.0


class Changes:
    """META of a session with one turn; some changes were never answered."""

    start = 1
    kinds = ("update", "update", "read", "read", "read")
    lost = 0.25

    @staticmethod
    def after(state, kind):
        return state + (kind == "update")

    @staticmethod
    def version(state):
        return Version(1, 1, state)


def explained(spec, operations):
    """Search for an order in which each operation takes effect while it is under way and tells what it told.

    An append may have stored its turn before, in a life of the session that was over when its answer was asked for
    again.
    """

    def search(state, left, in_vain=frozenset()):
        if all(operation.outcome == "unknown" for operation in left):
            return True
        first_end = min((o.returned_ns for o in left if o.returned_ns is not None), default=None)
        for operation in left:
            if first_end is not None and operation.invoked_ns > first_end:
                continue
            after = spec.after(state, operation.kind)
            if operation.kind == "append" and operation.outcome == "ok" and after[0] < operation.version.incarnation:
                before = (operation, after[0])
                if before not in in_vain and search(after, left, in_vain | {before}):
                    return True
            if operation.outcome == "ok" and operation.version != spec.version(after):
                continue
            if search(after, left - {operation}, in_vain):
                return True
        return False

    return search(spec.start, frozenset(operations))


def history(spec, noise):
    """Return operations that some order explains; in half of them one has then been told something else."""
    size = noise.randint(2, MAX_OPERATIONS)
    times = [sorted(noise.sample(range(10, 50), 3)) for _ in range(size)]
    state, operations = spec.start, []
    for place, (begin, _, end) in sorted(enumerate(times), key=lambda each: each[1][1]):
        kind = noise.choice(spec.kinds)
        lost = kind != "read" and noise.random() < spec.lost
        if not (lost and noise.random() < 0.5):
            state = spec.after(state, kind)
        told = {} if lost else {"returned_ns": end, "outcome": "ok", "version": spec.version(state)}
        if kind == "append":
            told["turns"] = (SeenTurn(0 if lost else spec.version(state).number, f"t{place}"),)
        level = {"level": noise.choice(("latest", "strong"))} if kind == "read" else {}
        operations.append(Operation(kind, "s", f"c{place}", "w", begin, **told, **level))
    if noise.random() < 0.5:
        perturb(spec, noise, operations)
    return operations


def perturb(spec, noise, operations):
    place = noise.randrange(len(operations))
    operation = operations[place]
    if operation.outcome != "ok":
        return
    versions = [spec.start]
    for kind in noise.choices(spec.kinds, k=5):
        versions.append(spec.after(versions[-1], kind))
    other = spec.version(noise.choice(versions))
    if operation.kind == "append" and not other.number:
        return
    if operation.kind == "delete" and (other.number or other.incarnation < 2):
        return
    if operation.kind == "update" and other.revision < 2:
        return
    turns = tuple(SeenTurn(other.number, turn.turn_id) for turn in operation.turns)
    if any(o.kind == operation.kind == "delete" and o.version == other for o in operations):
        return  # two deletes at once may both find that the session existed
    operations[place] = type(operation)(
        operation.kind, "s", operation.client, "w", operation.invoked_ns, operation.returned_ns, "ok",
        operation.level, version=other, turns=turns,
    )  # fmt: skip


BEFORE = Operation("append", "s", "c", "w", 0, 1, "ok", version=Version(1, 1, 1), turns=(SeenTurn(1, "first"),))


@pytest.mark.parametrize("spec", [Appends, Deletes, Changes])
def test_the_checker_agrees_with_a_search_through_all_orders(spec):
    noise = random.Random(spec.__name__)
    verdicts = Counter()
    for _ in range(HISTORIES):
        operations = history(spec, noise)
        right = explained(spec, operations)
        before = [BEFORE] if spec is Changes else []
        report = check_history([*before, *operations])
        assert report.clean == right, report.text() + "\n" + "\n".join(map(str, operations))
        verdicts[right] += 1
    assert min(verdicts.values()) > HISTORIES / 10, verdicts
