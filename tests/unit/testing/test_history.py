"""Each kind of violation, planted in a small history by hand, is found, with exactly the operations that make it."""

from __future__ import annotations

import pytest

from mangacache import Invalid, Version
from mangacache.testing import Operation, Promises, SeenTurn, Violation, check_history

MS = 10**6
S = 10**9


def version(*parts):
    return Version(*parts) if parts else None


def window(*turn_ids, first=1):
    return tuple(SeenTurn(number, turn_id, 7) for number, turn_id in enumerate(turn_ids, first))


def append(turn_id, begin, end, number, *, revision=1, incarnation=1, client="c1", worker="w1", **more):
    turns = (SeenTurn(number or 0, turn_id, more.pop("digest", 7)),)
    made = {"outcome": "ok", "version": Version(incarnation, number, revision)} if number else {}
    if end is None:
        made = {}
    return Operation("append", "s", client, worker, begin * MS, end and end * MS, turns=turns, **{**made, **more})


def update(begin, end, *parts, client="c1", worker="w1", **more):
    made = {"outcome": "ok", "version": version(*parts)} if parts else {}
    return Operation("update", "s", client, worker, begin * MS, end and end * MS, **{**made, **more})


def delete(begin, end, *parts, client="c1", worker="w1", **more):
    made = {"outcome": "ok", "version": version(*parts)} if parts else {}
    return Operation("delete", "s", client, worker, begin * MS, end and end * MS, **{**made, **more})


def read(begin, end, *parts, turns=None, client="c2", worker="w2", level="latest", **more):
    asked = {} if turns is None else {"turns": turns, "asked": more.pop("asked", 20)}
    given = {"outcome": "ok", "version": version(*parts), **asked, **more}
    return Operation("read", "s", client, worker, begin * MS, end * MS, level=level, **given)


def state(begin, end, *parts, turns=()):
    return Operation(
        "state", "s", "state", "w1", begin * MS, end * MS, "ok", "strong", version=version(*parts), turns=turns
    )


def found(operations, **promises):
    """Return what a check finds: name, component and the operations' places in the list."""
    report = check_history(operations, promises=Promises(**promises))
    places = {id(operation): place for place, operation in enumerate(operations)}
    violations = [(v.name, v.component, tuple(places[id(o)] for o in v.operations)) for v in report.violations]
    assert report.clean == (not violations)
    return sorted(violations)


BEGUN = append("t1", 0, 10, 1)
GROWN = [BEGUN, append("t2", 20, 30, 2, client="c9")]

PLANTED = {
    "a read that begins after a newer version was told": (
        [*GROWN, read(40, 50, 1, 1, 1, turns=window("t1"))],
        [("linearizability", "turns", (1, 2))],
    ),
    "two reads in the wrong order while the write is under way": (
        [BEGUN, append("t2", 20, 100, 2), read(30, 40, 1, 2, 1, client="c3"), read(50, 60, 1, 1, 1)],
        [("linearizability", "turns", (2, 3))],
    ),
    "META older than what was told": (
        [BEGUN, update(20, 30, 1, 1, 2), read(40, 50, 1, 1, 1)],
        [("linearizability", "meta", (1, 2))],
    ),
    "a deleted session that is still there": (
        [*GROWN, delete(40, 50, 2, 0, 0), read(60, 70, 1, 2, 1)],
        [("linearizability", "incarnation", (2, 3))],
    ),
    "a number made after a higher one was told": (
        [BEGUN, append("t3", 20, 30, 3), append("t2", 40, 50, 2, client="c3")],
        [("linearizability", "turns", (1, 2))],
    ),
    "an append to an incarnation that had ended": (
        [BEGUN, delete(20, 30, 2, 0, 0), append("t2", 40, 50, 2, client="c3")],
        [("linearizability", "incarnation", (1, 2))],
    ),
    "a strong read that misses what was acknowledged": (
        [*GROWN, read(40, 50, 1, 1, 1, level="strong", stale=True)],
        [("linearizability", "turns", (1, 2))],
    ),
    "a SESSION answer older than a second": (
        [*GROWN, read(1031, 1040, 1, 1, 1, level="session")],
        [("age bound", "turns", (1, 2))],
    ),
    "an EVENTUAL answer older than its age": (
        [*GROWN, read(231, 240, 1, 1, 1, level="eventual", max_age_ns=200 * MS)],
        [("age bound", "turns", (1, 2))],
    ),
    "a client that does not see its own turn": (
        [*GROWN, read(40, 50, 1, 1, 1, client="c9", level="session", token=Version(1, 2, 1))],
        [("read your writes", "turns", (1, 2))],
    ),
    "a client that goes back in time": (
        [
            BEGUN,
            append("t2", 20, None, 0),
            read(30, 40, 1, 2, 1),
            read(50, 60, 1, 1, 1, level="session", token=Version(1, 2, 1)),
        ],
        [("monotonic reads", "turns", (2, 3))],
    ),
    "a token that another client handed on": (
        [*GROWN, read(40, 50, 1, 1, 1, level="session", token=Version(1, 2, 1))],
        [("read your writes", "turns", (1, 2))],
    ),
    "a token that is not honoured by a stale answer": (
        [*GROWN, read(40, 50, 1, 1, 1, level="latest", token=Version(1, 2, 1), stale=True)],
        [("read your writes", "turns", (1, 2))],
    ),
    "a token's revision that is not honoured": (
        [BEGUN, update(20, 30, 1, 1, 2), read(40, 50, 1, 1, 1, level="session", token=Version(1, 1, 2))],
        [("read your writes", "meta", (1, 2))],
    ),
    "a token of a later incarnation that is not honoured": (
        [BEGUN, delete(20, 30, 2, 0, 0), read(40, 50, 1, 1, 1, level="session", token=Version(2, 0, 0))],
        [("read your writes", "incarnation", (1, 2))],
    ),
    "a client's second turn before its first": (
        [BEGUN, append("t3", 20, 30, 3), append("t2", 40, 50, 2)],
        [("linearizability", "turns", (1, 2)), ("monotonic writes", "turns", (1, 2))],
    ),
    "a turn before what its writer had read": (
        [
            BEGUN,
            append("t3", 20, None, 0, client="c3"),
            read(25, 35, 1, 3, 1, turns=window("t1", "t2", "t3"), client="c1"),
            append("t2", 40, 50, 2),
        ],
        [("linearizability", "turns", (2, 3)), ("writes follow reads", "turns", (2, 3))],
    ),
    "a change of META before what its writer had read": (
        [BEGUN, update(20, 30, 1, 1, 3, client="c3"), read(40, 50, 1, 1, 3, client="c1"), update(60, 70, 1, 1, 2)],
        [("linearizability", "meta", (1, 3)), ("writes follow reads", "meta", (2, 3))],
    ),
    "a delete of what its client knew to be deleted": (
        [BEGUN, delete(20, 30, 2, 0, 0, client="c3"), read(40, 50, 2, 0, 0), delete(60, 70, 2, 0, 0, client="c2")],
        [("phantom", "incarnation", (1, 3)), ("writes follow reads", "incarnation", (2, 3))],
    ),
    "a window with a hole": (
        [
            *GROWN,
            append("t3", 20, 30, 3, client="c3"),
            read(40, 50, 1, 3, 1, turns=(*window("t1"), *window("t3", first=3))),
        ],
        [("hole", "turns", (3,))],
    ),
    "a window that ends too soon": (
        [*GROWN, read(40, 50, 1, 2, 1, turns=window("t1"))],
        [("hole", "turns", (2,))],
    ),
    "a window as long as was asked for, with a hole": (
        [
            *GROWN,
            append("t3", 20, 30, 3, client="c3"),
            read(40, 50, 1, 3, 1, turns=(*window("t1"), *window("t3", first=3)), asked=2),
        ],
        [("hole", "turns", (3,))],
    ),
    "a window as long as was asked for that ends too soon": (
        [*GROWN, read(40, 50, 1, 2, 1, turns=window("t1"), asked=1)],
        [("hole", "turns", (2,))],
    ),
    "a window that begins too late": (
        [*GROWN, read(40, 50, 1, 2, 1, turns=window("t2", first=2))],
        [("hole", "turns", (2,))],
    ),
    "an empty answer where there are turns": (
        [*GROWN, read(40, 50, 1, 2, 1, turns=())],
        [("hole", "turns", (2,))],
    ),
    "a number that nobody was given": (
        [BEGUN, append("t3", 20, 30, 3)],
        [("hole", "turns", (1,))],
    ),
    "a number that nobody was given, though an append was lost whose number is known": (
        [BEGUN, append("t2", 20, None, 0), read(30, 40, 1, 2, 1, turns=window("t1", "t2")), append("t4", 50, 60, 4)],
        [("hole", "turns", (3,))],
    ),
    "a revision that nobody was given": (
        [BEGUN, update(20, 30, 1, 1, 3)],
        [("hole", "meta", (1,))],
    ),
    "one turn under two numbers": (
        [BEGUN, append("t1", 20, 30, 2, client="c3")],
        [("duplicate", "turns", (0, 1))],
    ),
    "one number for two turns": (
        [BEGUN, append("t2", 5, 15, 1, client="c3")],
        [("duplicate", "turns", (0, 1))],
    ),
    "one revision for two changes": (
        [BEGUN, update(20, 30, 1, 1, 2), update(25, 35, 1, 1, 2, client="c3")],
        [("duplicate", "meta", (1, 2))],
    ),
    "a turn that a read shows twice": (
        [BEGUN, append("t2", 20, None, 0), read(30, 40, 1, 2, 1, turns=window("t1", "t1"))],
        [("duplicate", "turns", (0, 2))],
    ),
    "an acknowledged turn that is gone at the end": (
        [*GROWN, state(40, 50, 1, 2, 1, turns=window("t2", first=2))],
        [("hole", "turns", (2,)), ("lost acknowledgement", "turns", (0, 2))],
    ),
    "a session that is gone at the end": (
        [BEGUN, state(40, 50, 0, 0, 0)],
        [("linearizability", "incarnation", (0, 1)), ("lost acknowledgement", "turns", (0, 1))],
    ),
    "a turn that nobody appended": (
        [BEGUN, append("t2", 20, None, 0), read(30, 40, 1, 2, 1, turns=window("t1", "tx"))],
        [("phantom", "turns", (2,))],
    ),
    "a turn whose append was refused": (
        [
            BEGUN,
            append("t2", 20, 30, 0, outcome="failed"),
            append("t3", 20, None, 0),
            read(40, 50, 1, 2, 1, turns=window("t1", "t2")),
        ],
        [("phantom", "turns", (1, 3))],
    ),
    "a turn returned before its append began": (
        [BEGUN, read(20, 30, 1, 2, 1, turns=window("t1", "t2")), append("t2", 40, 50, 2)],
        [("phantom", "turns", (1, 2))],
    ),
    "a number returned before anybody can have made it": (
        [BEGUN, read(20, 30, 1, 2, 1), append("t2", 40, None, 0)],
        [("phantom", "turns", (1,))],
    ),
    "a revision returned that nobody made": (
        [BEGUN, read(20, 30, 1, 1, 2)],
        [("phantom", "meta", (1,))],
    ),
    "a change of META returned before it began": (
        [BEGUN, read(20, 30, 1, 1, 2), update(40, 50, 1, 1, 2)],
        [("phantom", "meta", (1, 2))],
    ),
    "an incarnation that no delete began": (
        [BEGUN, read(20, 30, 2, 0, 0)],
        [("phantom", "incarnation", (1,))],
    ),
    "an end returned before the delete began": (
        [BEGUN, read(20, 30, 2, 0, 0), delete(40, 50, 2, 0, 0)],
        [("phantom", "incarnation", (1, 2))],
    ),
    "another turn than the one acknowledged": (
        [*GROWN, append("t3", 20, None, 0), read(40, 50, 1, 2, 1, turns=window("t1", "t3"))],
        [("mismatch", "turns", (1, 3))],
    ),
    "another content than the one appended": (
        [*GROWN, read(40, 50, 1, 2, 1, turns=(*window("t1"), SeenTurn(2, "t2", 8)))],
        [("mismatch", "turns", (1, 2))],
    ),
    "another content, where the append was never answered": (
        [BEGUN, append("t2", 20, None, 0), read(40, 50, 1, 2, 1, turns=(*window("t1"), SeenTurn(2, "t2", 8)))],
        [("mismatch", "turns", (1, 2))],
    ),
    "two contents of a turn of which only a repeat was acknowledged": (
        [
            BEGUN,
            append("t2", 20, None, 0),
            append("t2", 40, 50, 2, repeats=("t2",), digest=8),
            read(60, 70, 1, 2, 1, turns=window("t1", "t2")),
            read(80, 90, 1, 2, 1, turns=(*window("t1"), SeenTurn(2, "t2", 8))),
        ],
        [("mismatch", "turns", (3, 4))],
    ),
    "a content that nobody gave a turn of which only a repeat was acknowledged": (
        [
            BEGUN,
            append("t2", 20, None, 0),
            append("t2", 40, 50, 2, repeats=("t2",), digest=8),
            read(60, 70, 1, 2, 1, turns=(*window("t1"), SeenTurn(2, "t2", 9))),
        ],
        [("mismatch", "turns", (1, 3))],
    ),
    "two contents of META at one revision": (
        [BEGUN, update(20, 30, 1, 1, 2, meta=5), read(40, 50, 1, 1, 2, meta=6)],
        [("mismatch", "meta", (1, 2))],
    ),
    "two summaries at one revision": (
        [BEGUN, read(20, 30, 1, 1, 1, summary=5), read(40, 50, 1, 1, 1, summary=6)],
        [("mismatch", "meta", (1, 2))],
    ),
}


@pytest.mark.parametrize("name", PLANTED)
def test_what_is_planted_is_found_with_the_operations_that_make_it(name):
    operations, expected = PLANTED[name]
    assert found(operations) == expected


CLEAN = {
    "nothing": [],
    "a read while the write is under way, before and after": [
        BEGUN,
        append("t2", 20, 100, 2),
        read(30, 40, 1, 1, 1),
        read(50, 60, 1, 2, 1),
        read(110, 120, 1, 2, 1),
    ],
    "a read that overlaps the end of a write": [*GROWN, read(29, 50, 1, 1, 1)],
    "a read that begins in the instant in which a write returns": [*GROWN, read(30, 50, 1, 1, 1)],
    "SESSION within its second": [*GROWN, read(1030, 1040, 1, 1, 1, level="session")],
    "SESSION without a token, back in time": [
        *GROWN,
        read(40, 50, 1, 2, 1, level="session"),
        read(60, 70, 1, 1, 1, level="session"),
    ],
    "EVENTUAL within its age": [*GROWN, read(230, 240, 1, 1, 1, level="eventual", max_age_ns=200 * MS)],
    "a client's read that begins in the instant in which its write returns": [
        *GROWN,
        read(30, 50, 1, 1, 1, client="c9", token=Version(1, 1, 1)),
    ],
    "a stale answer that says so": [*GROWN, read(40, 50, 1, 1, 1, stale=True)],
    "what a degraded worker returned, not seen by others yet": [
        BEGUN,
        append("t2", 20, 100, 2),
        read(30, 40, 1, 2, 1, stale=True),
        read(50, 60, 1, 1, 1, client="c3"),
    ],
    "a lost first try that is stored, though the retry does not say so": [
        BEGUN,
        append("t2", 20, None, 0),
        append("t3", 30, 40, 3, client="c3"),
        read(50, 60, 1, 3, 1, client="c1"),
        append("t2", 70, 80, 2),
    ],
    "a retry whose first try was not recorded": [
        state(0, 5, 1, 2, 1, turns=window("t1", "t2")),
        read(10, 20, 1, 2, 1),
        append("t1", 30, 40, 1, client="c2", repeats=("t1",)),
    ],
    "a retry with another content than what a lost try stored": [
        BEGUN,
        append("t2", 20, None, 0),
        append("t2", 40, 50, 2, repeats=("t2",), digest=8),
        read(60, 70, 1, 2, 1, turns=window("t1", "t2")),
    ],
    "META that changes before the session is ours": [read(0, 10, 0, 0, 0, meta=5), read(20, 30, 0, 0, 0, meta=6)],
    "a token of an incarnation that has ended": [
        *GROWN,
        delete(40, 50, 2, 0, 0),
        read(60, 70, 2, 0, 0, token=Version(1, 2, 1)),
    ],
    "a retry that gets its first number": [*GROWN, append("t1", 40, 50, 1, repeats=("t1",))],
    "a retry, after a lost answer, that stores the turn": [
        BEGUN,
        append("t2", 20, None, 0),
        read(30, 40, 1, 1, 1, client="c1"),
        append("t2", 50, 60, 2),
    ],
    "a retry with another content": [
        *GROWN,
        append("t2", 40, 50, 2, repeats=("t2",), digest=8),
        read(60, 70, 1, 2, 1, turns=window("t1", "t2")),
    ],
    "a first try of which only the content of the retry was stored": [
        BEGUN,
        append("t2", 20, None, 0),
        append("t2", 40, 50, 2, digest=8),
        read(60, 70, 1, 2, 1, turns=(*window("t1"), SeenTurn(2, "t2", 8))),
    ],
    "an append that was never answered, seen": [
        BEGUN,
        append("t2", 20, None, 0),
        read(30, 40, 1, 2, 1, turns=window("t1", "t2")),
    ],
    "an append that was never answered, not seen": [BEGUN, append("t2", 20, None, 0), read(30, 40, 1, 1, 1)],
    "a number between, which a lost append must have": [BEGUN, append("t2", 20, None, 0), append("t3", 40, 50, 3)],
    "a revision between, which a lost change must have": [BEGUN, update(20, None), update(40, 50, 1, 1, 3)],
    "an incarnation that a lost delete began": [BEGUN, delete(20, None), read(40, 50, 2, 0, 0)],
    "a turn_id used again after a delete": [
        BEGUN,
        delete(20, 30, 2, 0, 0),
        append("t1", 40, 50, 1, incarnation=2),
        state(60, 70, 2, 1, 1, turns=window("t1")),
    ],
    "a delete that found nothing": [delete(0, 10, 0, 0, 0, made=False), append("t1", 20, 30, 1)],
    "turns that were stored before": [
        state(0, 5, 3, 41, 4, turns=window("a", "b", first=40)),
        append("t1", 10, 20, 42, revision=4, incarnation=3),
        read(30, 40, 3, 42, 4, turns=window("a", "b", "t1", first=40)),
        state(50, 60, 3, 42, 4, turns=window("a", "b", "t1", first=40)),
    ],
    "a sound end": [*GROWN, state(40, 50, 1, 2, 1, turns=window("t1", "t2"))],
}


@pytest.mark.parametrize("name", CLEAN)
def test_what_is_right_is_not_called_wrong(name):
    assert found(CLEAN[name]) == []


def test_turns_that_expire_leave_short_windows_and_jumps():
    operations = [BEGUN, append("t3", 20, 30, 515, revision=2), read(40, 50, 1, 515, 2, turns=window("t3", first=515))]
    assert ("hole", "turns", (1,)) in found(operations)
    assert found(operations, turns_expire=True) == []


def test_a_cut_off_worker_reads_and_acknowledges_outside_the_promise_until_the_gap_ends():
    operations = [
        BEGUN,
        append("t2", 20, 30, 2, client="c3", worker="w9"),
        read(40, 50, 1, 1, 1, worker="w2"),
        read(60, 70, 1, 1, 1, worker="w9"),
        read(200, 210, 1, 1, 1, worker="w2", client="c5"),
    ]
    gaps = {"unpromised": {"w9": [(0, 10 * MS), (25 * MS, 100 * MS)]}}
    assert found(operations, **gaps) == [("linearizability", "turns", (1, 4))]
    assert len(found(operations)) == 3
    assert found(operations, unpromised={"*": [(0, S)]}) == []


def test_a_gap_excuses_neither_tokens_nor_strong_reads():
    gaps = {"unpromised": {"*": [(0, S)]}}
    stale = [*GROWN, read(40, 50, 1, 1, 1, token=Version(1, 2, 1))]
    assert found(stale, **gaps) == [("read your writes", "turns", (1, 2))]
    strong = [*GROWN, read(40, 50, 1, 1, 1, level="strong")]
    assert found(strong, **gaps) == [("linearizability", "turns", (1, 2))]


def test_within_a_gap_a_client_without_token_may_miss_its_own_turn():
    operations = [BEGUN, append("t2", 20, 30, 2, worker="w9"), read(40, 50, 1, 1, 1, client="c1")]
    assert found(operations, unpromised={"w9": [(0, 100 * MS)]}) == []
    assert [name for name, *_ in found(operations)] == ["linearizability", "read your writes"]


def test_a_gap_touches_what_is_under_way_in_it_and_ends_before_its_last_instant():
    operations = [*GROWN, read(40, 50, 1, 1, 1, worker="w2")]
    assert found(operations, unpromised={"w2": [(50 * MS, 60 * MS)]}) == []
    assert found(operations, unpromised={"w2": [(30 * MS, 40 * MS + 1)]}) == []
    assert len(found(operations, unpromised={"w2": [(30 * MS, 40 * MS), (50 * MS + 1, 60 * MS)]})) == 1


def test_a_token_is_traced_to_who_told_its_own_client_first():
    operations = [*GROWN, read(40, 50, 1, 2, 1), read(60, 70, 1, 1, 1, level="session", token=Version(1, 2, 1))]
    assert found(operations, per_client=False) == [("monotonic reads", "turns", (2, 3))]


def test_a_gap_that_ends_before_it_begins_is_refused():
    with pytest.raises(Invalid, match="before it begins"):
        check_history([], promises=Promises(unpromised={"w": [(2, 1)]}))


def test_clients_are_held_to_more_than_their_tokens_unless_only_tokens_count():
    operations = [*GROWN, read(40, 50, 1, 1, 1, client="c9", level="session", token=Version(1, 1, 1))]
    assert found(operations) == [("read your writes", "turns", (1, 2))]
    assert found(operations, per_client=False) == []


def test_sessions_are_judged_apart():
    other = Operation("read", "other", "c1", "w1", 40 * MS, 50 * MS, "ok", "latest", version=Version())
    assert found([*GROWN, other]) == []


def test_a_violation_tells_a_short_story_with_relative_times():
    (violation,) = check_history(PLANTED["a client that does not see its own turn"][0]).violations
    assert isinstance(violation, Violation)
    assert violation.story() == (
        "read your writes (turns) in session 's': client 'c9' knew number 2 of incarnation 1, "
        "and its read returned number 1 of incarnation 1\n"
        "     0.000 ..   10.000 ms  w1/c9            append t2 -> (1, 2, 1) as 2\n"
        "    20.000 ..   30.000 ms  w2/c9            read session given (1, 2, 1) -> (1, 1, 1)"
    )


def test_a_report_counts_what_it_does_not_explain():
    stale = [read(40 + i, 50 + i, 1, 1, 1, client=f"d{i}") for i in range(25)]
    report = check_history([*GROWN, *stale], limit=3)
    assert report.counts == {"linearizability": 25}
    assert len(report.violations) == 3
    assert report.outcomes == {"append ok": 2, "read ok": 25}
    assert "25 linearizability" in report.text()
    assert not report.clean


def test_appends_that_no_state_was_read_after_are_noted():
    assert "2 acknowledged appends were not looked up" in check_history(GROWN).text()
    late = [state(12, 15, 1, 1, 1, turns=window("t1")), *GROWN]
    assert "1 acknowledged appends were not looked up" in check_history(late).text()
    ended = [*GROWN, state(40, 50, 1, 2, 1, turns=window("t1", "t2"))]
    assert check_history(ended).text().endswith("no violation")
    assert check_history(ended).notes == ()
