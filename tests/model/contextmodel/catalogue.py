"""The cases that are explored: what must hold, what must stay alive, and what each rule is there for."""

from __future__ import annotations

from contextmodel.rules import Rules
from contextmodel.world import Case

ALL = Rules()
IN_PLACE = Rules(begins_in_place=True)
APPEND = (("a",), ())
APPENDS = (("a",), ("b",))
WITH_META = (("a",), ("META",))
DELETED = ((), ("DELETE",))
BEGUN_AGAIN = ((), ("DELETE", "b"))
RACED = (("a",), ("DELETE", "b"))
SAME_TURN = (("a",), ("a", "b"))
LATEST = ("LATEST",)
MIXED = ("LATEST", "SESSION")
WITH_STRONG = ("LATEST", "STRONG")
LOCAL = frozenset({"lost", "reply lost", "late", "crash"})
ONCE = frozenset({"late", "reply lost", "crash"})


def _case(operations, *faults, **more):
    """Return a case; the faults are the names, and the budget one of them unless said otherwise."""
    more.setdefault("budget", 1 if faults else 0)
    return Case(operations=operations, faults=frozenset(faults), **more)


HOLDS = {
    "no fault: 2 appends, STRONG": _case(APPENDS, levels=WITH_STRONG),
    "no fault: append + META": _case(WITH_META),
    "no fault: 2 appends, memory grows late": _case(APPENDS, levels=WITH_STRONG, learns_early=False),
    "no fault: 2 appends, SESSION beside LATEST": _case(APPENDS, levels=MIXED),
    "no fault: 2 appends, GETs under way": _case(APPENDS, sends_apart=True),
    "1 local fault: append, STRONG": _case(APPEND, *LOCAL, levels=WITH_STRONG),
    "1 lost reply: append + META, 1 reader": _case(WITH_META, "reply lost", "late", readers=(0,)),
    "1 local fault: append, SESSION beside LATEST": _case(APPEND, *LOCAL, levels=MIXED),
    "2 local faults: append": _case(APPEND, *LOCAL, budget=2, evictions=False),
    "link cut: HOLD, STRONG": _case(APPEND, "cut", levels=WITH_STRONG),
    "Redis stalls for all: HOLD, STRONG": _case(APPEND, "stall", levels=WITH_STRONG),
    "link cut: a new epoch, P, then ack": _case(APPEND, "cut", epochs=2, raises_epoch=True),
    "link cut: a new epoch, P, then ack; what began before goes on": _case(
        APPEND, "cut", epochs=2, raises_epoch=True, rules=ALL.without("begin_again"), evictions=False
    ),
    "failover to a lagging replica: R6 alone": _case(
        APPEND, "failover", epochs=2, rules=ALL.without("wait"), evictions=False, levels=WITH_STRONG
    ),
    "failover to a lagging replica: R6 + R7": _case(APPEND, "failover", epochs=2, evictions=False),
    "failover, and back before anybody connects": _case(APPEND, "failback", epochs=2, readers=(1,), evictions=False),
    "split brain: R6 + R7, 1 reader, STRONG": _case(
        APPEND, "split", epochs=2, readers=(1,), evictions=False, levels=WITH_STRONG
    ),
    "delete + append": _case((("a",), ("DELETE",)), levels=LATEST),
    "delete, begun again, 1 local fault": _case(BEGUN_AGAIN, *LOCAL, readers=(0,), evictions=False),
    "delete + append, begun again, 1 reader": _case(RACED, readers=(0,), levels=WITH_STRONG),
    "delete + append, begun again in place, 1 reader": _case(RACED, readers=(0,), levels=WITH_STRONG, rules=IN_PLACE),
    "delete, begun again in place, 1 local fault": _case(BEGUN_AGAIN, *LOCAL, readers=(0,), rules=IN_PLACE),
    "same turn_id by both, 1 fault": _case(SAME_TURN, *ONCE, readers=(0,)),
    "same turn_id by both, 2 faults": _case((("a",), ("a",)), *ONCE, readers=(0,), budget=2, evictions=False),
    "same turn_id by both, retried after Transient": _case((("a", "a"), ("a",)), "cut", evictions=False),
    "tokens, AVAILABLE: 3 faults, append": _case(
        APPEND, *LOCAL, "cut", readers=(-1,), levels=MIXED, available=True, budget=3, evictions=False
    ),
    "tokens, AVAILABLE: failover without any epoch": _case(
        APPENDS, "failover", readers=(-1,), levels=MIXED, rules=ALL.without("identity"), checks_latest=False
    ),
    "tokens: delete, begun again": _case(BEGUN_AGAIN, "cut", readers=(-1,), levels=MIXED, available=True),
    "AVAILABLE: link cut, LATEST where promised": _case(APPEND, "cut", available=True, levels=WITH_STRONG),
    "AVAILABLE: link cut, epoch raised": _case(
        APPEND, "cut", available=True, epochs=2, raises_epoch=True, evictions=False
    ),
}

LARGER = {
    "no fault: append + META, STRONG": _case(WITH_META, levels=WITH_STRONG),
    "no fault: 2 appends + META": _case((("a",), ("b", "META"))),
    "no fault: 3 appends": _case((("a", "c"), ("b",))),
    "1 local fault: 2 appends": _case(APPENDS, *LOCAL),
    "1 local fault: append + META": _case(WITH_META, *LOCAL),
    "2 local faults: append, STRONG": _case(APPEND, *LOCAL, levels=WITH_STRONG, budget=2),
    "3 local faults: append, STRONG": _case(APPEND, *LOCAL, levels=WITH_STRONG, budget=3, evictions=False),
    "2 local faults: 2 appends": _case(APPENDS, *LOCAL, budget=2, evictions=False),
    "link cut: HOLD, 2 appends": _case(APPENDS, "cut", evictions=False),
    "link cut and crash: a new epoch, P, then ack": _case(
        APPEND, "cut", "crash", budget=2, epochs=2, raises_epoch=True, evictions=False
    ),
    "failover: R6 + R7, STRONG, evictions": _case(APPEND, "failover", epochs=2, levels=WITH_STRONG),
    "failover: R6 alone, 2 appends": _case(APPENDS, "failover", epochs=2, rules=ALL.without("wait"), evictions=False),
    "split brain: R6 + R7, 2 readers": _case(APPEND, "split", epochs=2, evictions=False),
    "split brain: R6 + R7, 2 readers; what began before goes on": _case(
        APPEND, "split", epochs=2, rules=ALL.without("begin_again"), evictions=False
    ),
    "split brain: R6 + R7, 2 readers, STRONG": _case(APPEND, "split", epochs=2, evictions=False, levels=WITH_STRONG),
    "split brain: R6 + R7, 3 epochs, 1 reader": _case(APPEND, "split", epochs=3, readers=(1,), evictions=False),
    "split brain and crash: R6 + R7, 1 reader": _case(
        APPEND, "split", "crash", budget=2, epochs=2, readers=(1,), evictions=False
    ),
    "delete + append, begun again": _case(RACED),
    "delete + append, 1 local fault": _case((("a",), ("DELETE",)), *LOCAL),
    "delete + append, begun again in place": _case(RACED, rules=IN_PLACE, evictions=False),
    "delete, begun again in place, 1 local fault, 2 readers": _case(
        BEGUN_AGAIN, *LOCAL, rules=IN_PLACE, evictions=False
    ),
    "AVAILABLE: link cut, begun again in place": _case(
        BEGUN_AGAIN, "cut", available=True, rules=IN_PLACE, evictions=False
    ),
    "same turn_id by both, 3 faults": _case(SAME_TURN, *ONCE, readers=(0,), budget=3, evictions=False),
    "tokens, AVAILABLE: 3 faults, evictions": _case(
        APPEND, *LOCAL, "cut", readers=(-1,), levels=MIXED, available=True, budget=3
    ),
    "tokens, AVAILABLE: 2 faults, 2 appends": _case(
        APPENDS, *LOCAL, "cut", readers=(-1,), levels=MIXED, available=True, budget=2, evictions=False
    ),
    "tokens and readers: failover without any epoch": _case(
        APPEND, "failover", readers=(-1, 0, 1), rules=ALL.without("identity"), checks_latest=False
    ),
    "AVAILABLE: link cut and crash, lost COMMITs": _case(
        APPEND, "cut", "crash", "lost", budget=2, available=True, evictions=False
    ),
    "AVAILABLE: link cut, 2 appends": _case(APPENDS, "cut", available=True, evictions=False),
    "AVAILABLE: link cut, 2 appends by one, epoch raised": _case(
        (("a", "b"), ()), "cut", available=True, epochs=2, raises_epoch=True, evictions=False
    ),
    "AVAILABLE: link cut, append + META": _case(WITH_META, "cut", available=True, evictions=False),
    "AVAILABLE: link cut, deleted and begun again": _case(BEGUN_AGAIN, "cut", available=True, evictions=False),
    "AVAILABLE: failover": _case(APPEND, "failover", available=True, epochs=2, evictions=False),
}

ALIVE = {
    "local faults": _case(APPEND, *LOCAL),
    "link cut: HOLD": _case(APPEND, "cut"),
    "link cut: a new epoch, P, then ack": _case(APPEND, "cut", epochs=2, raises_epoch=True, evictions=False),
    "failover to a lagging replica": _case(APPEND, "failover", epochs=2, evictions=False),
    "deleted and begun again": _case(BEGUN_AGAIN),
    "table restored": _case(APPEND, "restore", checks_latest=False, checks_invariants=False),
    "AVAILABLE: cut off, and dead with its queue": _case(
        APPEND, "cut", "crash", "age", readers=(1,), budget=2, available=True, evictions=False
    ),
}

ALIVE_LARGER = {
    "local faults, append + META": _case(WITH_META, *LOCAL),
    "AVAILABLE: cut off, and dead with its queue, 2 readers": _case(
        APPEND, "cut", "crash", "age", budget=2, available=True, evictions=False
    ),
    "delete + append, begun again": _case(RACED),
}

WITHOUT = {
    "commit_before_ack": _case(APPEND),
    "confirm_duplicates": _case((("a", "a"), ()), "cut"),
    "contiguity": _case(APPENDS),
    "whole_meta": _case((("META",), ())),
    "lease": _case(APPEND),
    "floor": _case(APPEND),
    "floor_parts": _case(WITH_META),
    "strong_fills": _case(APPEND),
    "strong_fills_at_floor": _case(APPEND, levels=WITH_STRONG),
    "observe": _case(APPEND, levels=WITH_STRONG),
    "refused_observes": _case(APPEND),
    "least": _case(APPENDS),
    "ask_redis": _case(APPENDS),
    "own_flight": _case(APPEND),
    "own_read": _case(APPEND),
    "same_is_have": _case(APPENDS, sends_apart=True),
    "confirmed_memory": _case(APPEND, levels=MIXED),
    "token": _case(APPEND, readers=(-1,), levels=("SESSION",)),
    "turn_id": _case((("a",), ("a",))),
    "turn_id_shown": _case((("a",), ("a",))),
    "same_window": _case((("a",), ("a",))),
    "same_number": _case(APPEND, "late"),
    "identity": _case(APPEND, "failover", epochs=2, evictions=False),
    "replication_id": _case(APPEND, "failback", epochs=2, evictions=False),
    "wait": _case(APPEND, "split", epochs=2, readers=(1,), evictions=False),
    "wait_returns": _case(APPEND, "split", epochs=2, evictions=False, expiries=False, levels=(("STRONG",), LATEST)),
    "starting_waits": _case(
        APPEND, "split", "crash", budget=2, epochs=2, readers=(1,), evictions=False, expiries=False
    ),
    "hold": _case(APPEND, "cut"),
    "queue": _case(APPEND, "cut", available=True),
    "seal": _case((("a",), ("DELETE",))),
    "observe_delete": _case(DELETED),
    "commit_incarnation": _case(RACED, readers=(0,)),
    "observe_incarnation": _case(DELETED),
    "fill_incarnation": _case(DELETED),
    "have_incarnation": _case(DELETED),
    "join_incarnation": _case(RACED, readers=(1,), levels=WITH_STRONG),
    "reread": _case((("a",), ("DELETE",))),
}
"""For each rule a case in which something goes wrong without it, and nothing with it."""

DEAD_WITHOUT = {
    "floor_of_lease": ALIVE["table restored"],
    "replace_memory": ALIVE["table restored"],
    "maximum_age": ALIVE["AVAILABLE: cut off, and dead with its queue"],
}
"""For each rule a case in which, without it, there are states after which no reader gets a fresh hit again."""
