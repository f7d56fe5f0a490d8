"""Appends, changes and deletes driven by hand: what each asks for, given what it hears back."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from mangacache import Appended, Conflict, Invalid, NewTurn, NotFound, Summary, Transient, Turn, Version, VersionGone
from mangacache.store.append import MAX_COLLISIONS, Append
from mangacache.store.changes import MAX_TRIES, Update
from mangacache.store.deletion import Delete
from mangacache.store.drafts import drafted
from mangacache.store.effects import (
    Begin,
    Bury,
    Change,
    Done,
    Load,
    LookBack,
    Put,
    Refused,
    Stamp,
    Sweep,
    Tail,
    Touch,
)
from mangacache.store.items import MetaRecord, meta_item, seal_item, turn_item
from mangacache.store.snapshot import RESERVE, Snapshot

NOW_S = 1_800_000_000
LATER_S = NOW_S + 86_400
STAMP = Stamp(
    now_s=NOW_S,
    at="2027-01-15T08:00:00.000Z",
    turn_expires_at=LATER_S,
    meta_expires_at=LATER_S + 86_400,
    seal_expires_at=NOW_S + 3600,
    nonce="n",
)
NOTHING = Snapshot()


def run(steps, *script):
    """Drive a decision: each entry of the script is what must be asked for and what is answered.

    Returns:
        The decision's result, and the effects that it asked for.
    """
    effects: list[Any] = []
    try:
        effect = next(steps)
        for expected, outcome in script:
            effects.append(effect)
            assert isinstance(effect, expected), f"asked for {effect}, not for {expected.__name__}"
            effect = steps.send(outcome)
    except StopIteration as end:
        assert len(effects) == len(script), f"it ended without {script[len(effects)]}"
        return end.value, effects
    raise AssertionError(f"it goes on to ask for {effect}")


def raised(error, steps, *script):
    """Drive a decision that ends with an error, and return the error."""
    with pytest.raises(error) as caught:
        run(steps, *script)
    return caught.value


def turn(number, turn_id=None, *, expires_at=LATER_S):
    return Turn(number, turn_id or f"t{number}", "user", f"text {number}", STAMP.at, {}, expires_at)


def meta(*, incarnation=1, revision=1, **changes):
    record = MetaRecord(
        incarnation=incarnation,
        revision=revision,
        customer_id="c",
        created_at=STAMP.at,
        last_active_at=STAMP.at,
        last_number=1,
        expires_at=LATER_S,
    )
    return msgspec.structs.replace(record, **changes)


def session(last, *, first=1, incarnation=1, revision=1, turn_ids=None, **changes):
    """Return the knowledge of a session with the turns `first`..`last`."""
    turns = tuple(turn(number, (turn_ids or {}).get(number)) for number in range(max(first, last - 31), last + 1))
    record = meta(incarnation=incarnation, revision=revision, **changes)
    return Snapshot(meta=record, version=Version(incarnation, last, revision), turns=turns)


def standing(number, turn_id, incarnation=1):
    return turn_item("s", incarnation, turn(number, turn_id), typed_attributes={}, compress_from_bytes=512)


SEAL = seal_item("s", "TURN#0001-0000000004", LATER_S)
TOMBSTONE = Snapshot(
    meta=MetaRecord(incarnation=2, revision=0, status="deleted", expires_at=LATER_S, unswept=True, fence=7),
    version=Version(2, 0, 0),
)


def refused(*items, in_doubt=False):
    return Refused(items or ({},), in_doubt)


def append(*turn_ids, after=None, customer_id="c"):
    drafts = [
        drafted(NewTurn(role="user", content=f"said {turn_id}"), turn_id, stamp=STAMP, max_content_bytes=100)
        for turn_id in turn_ids
    ]
    return Append(drafts, stamp=STAMP, customer_id=customer_id, after=after)


# Append


def test_an_append_to_a_known_session_is_one_put_of_the_next_number():
    ((done,), known), (put,) = run(append("x").steps(session(3)), (Put, Done()))
    assert done == Appended(4, Version(1, 4, 1))
    assert (put.incarnation, put.first, put.nonce) == (1, 4, "n")
    assert [(draft.turn.number, draft.turn.turn_id) for draft in put.drafts] == [(4, "x")]
    assert known.version == Version(1, 4, 1)
    assert known.turns[-1] == put.drafts[0].turn


def test_the_first_append_of_a_session_makes_meta_and_turn_together():
    ((done,), known), (_, begin) = run(append("x").steps(None), (Load, NOTHING), (Begin, Done()))
    assert done == Appended(1, Version(1, 1, 1))
    assert (begin.previous, begin.first) == (None, 1)
    record = begin.meta
    assert (record.incarnation, record.revision, record.last_number, record.customer_id) == (1, 1, 1, "c")
    assert (record.created_at, record.expires_at) == (STAMP.at, STAMP.meta_expires_at)
    assert (known.meta, known.version) == (record, Version(1, 1, 1))


def test_a_turn_in_the_known_window_is_answered_without_asking_anybody():
    ((done,), _), effects = run(append("t2").steps(session(3)))
    assert done == Appended(2, Version(1, 2, 1), duplicate=True)
    assert effects == []


def test_anothers_turn_at_our_number_is_read_past_and_the_next_one_tried():
    known = session(3)
    ((done,), _), (_, tail, put) = run(
        append("x").steps(known),
        (Put, refused(standing(4, "y"))),
        (Tail, (session(6), (turn(4, "y"), turn(5), turn(6)))),
        (Put, Done()),
    )
    assert tail.known == known
    assert put.first == 7
    assert done == Appended(7, Version(1, 7, 1))


def test_our_turn_is_found_among_more_than_a_window_of_others():
    between = tuple(turn(number, "x" if number == 5 else None) for number in range(4, 60))
    ((done,), _), _ = run(
        append("x").steps(session(3)), (Put, refused(standing(4, "y"))), (Tail, (session(59), between))
    )
    assert done == Appended(5, Version(1, 5, 1), duplicate=True)


def test_our_turn_found_behind_anothers_is_the_result():
    ((done,), _), _ = run(
        append("x").steps(session(3)),
        (Put, refused(standing(4, "y"))),
        (Tail, (session(5, turn_ids={5: "x"}), (turn(4, "y"), turn(5, "x")))),
    )
    assert done == Appended(5, Version(1, 5, 1), duplicate=True)


@pytest.mark.parametrize(("in_doubt", "duplicate"), [(True, False), (False, True)])
def test_our_own_turn_at_our_number_is_a_duplicate_only_where_no_earlier_try_of_ours_is_open(in_doubt, duplicate):
    ((done,), known), _ = run(append("x").steps(session(3)), (Put, refused(standing(4, "x"), in_doubt=in_doubt)))
    assert done == Appended(4, Version(1, 4, 1), duplicate=duplicate)
    assert known.version == Version(1, 4, 1)


def test_our_turn_found_after_a_lost_answer_is_ours_and_no_duplicate():
    ((done,), _), _ = run(
        append("x").steps(session(3)),
        (Put, refused(standing(4, "y"), in_doubt=True)),
        (Tail, (session(5, turn_ids={5: "x"}), (turn(4, "y"), turn(5, "x")))),
    )
    assert done.duplicate is False


def test_a_seal_at_our_number_sends_the_append_into_the_next_life():
    ((done,), known), (_, _, begin) = run(
        append("x").steps(session(3)), (Put, refused(SEAL)), (Load, TOMBSTONE), (Begin, Done())
    )
    assert done == Appended(1, Version(2, 1, 1))
    assert begin.previous == TOMBSTONE.meta
    assert (begin.meta.incarnation, begin.meta.revision, begin.meta.fence) == (2, 1, 7)
    assert begin.meta.unswept, "the sweep of the old life is still to be finished"
    assert known.version == Version(2, 1, 1)


def test_what_was_found_in_a_life_that_has_ended_is_stored_again_in_the_next():
    """Of two turns one stood in the old life; it went with it, so both are stored in the new one."""
    (done, _), (_, _, begin) = run(
        append("t2", "x").steps(session(3)), (Put, refused(SEAL)), (Load, TOMBSTONE), (Begin, Done())
    )
    assert [(one.number, one.duplicate) for one in done] == [(1, False), (2, False)]
    assert [draft.turn.turn_id for draft in begin.drafts] == ["t2", "x"]


def test_somebody_elses_beginning_is_loaded_and_appended_to():
    ((done,), _), _ = run(
        append("x").steps(None), (Load, NOTHING), (Begin, refused({}, None)), (Load, session(1)), (Put, Done())
    )
    assert done == Appended(2, Version(1, 2, 1))


def test_of_several_turns_only_those_not_stored_yet_are_written_and_all_are_answered_in_order():
    (done, _), (put,) = run(append("x", "t2", "y").steps(session(3)), (Put, Done()))
    assert [draft.turn.turn_id for draft in put.drafts] == ["x", "y"]
    assert [(one.number, one.duplicate) for one in done] == [(4, False), (2, True), (5, False)]


def test_a_number_beyond_metas_reserve_is_announced_in_meta_first():
    at_the_reserve = session(1 + RESERVE, first=1 + RESERVE - 31)
    ((done,), known), (touch, put) = run(append("x").steps(at_the_reserve), (Touch, Done()), (Put, Done()))
    assert (touch.incarnation, touch.number) == (1, 1 + RESERVE)
    assert put.first == done.number == 2 + RESERVE
    assert known.meta.last_number == 1 + RESERVE
    below = session(RESERVE, first=RESERVE - 31)
    run(append("x").steps(below), (Put, Done()))
    run(append("x", "y").steps(below), (Touch, Done()), (Put, Done()))


def test_a_touch_that_somebody_was_faster_with_is_as_good():
    at_the_reserve = session(1 + RESERVE, first=1 + RESERVE - 31)
    ahead = meta_item("s", meta(last_number=1 + RESERVE))
    ((done,), _), _ = run(append("x").steps(at_the_reserve), (Touch, refused(ahead)), (Put, Done()))
    assert done.number == 2 + RESERVE
    moved = meta_item("s", meta(last_number=1 + RESERVE, revision=2))
    loaded = session(1 + RESERVE, first=RESERVE, revision=2, last_number=1 + RESERVE)
    run(append("x").steps(at_the_reserve), (Touch, refused(moved)), (Load, loaded), (Put, Done()))


def test_a_retry_with_its_token_is_looked_for_back_to_the_token():
    known = session(100, last_number=90)
    token = Version(1, 10, 1)
    ((done,), _), (look,) = run(append("x", after=token).steps(known), (LookBack, {"x": 12}))
    assert (look.incarnation, look.first, look.last, look.turn_ids) == (1, 11, 68, {"x"})
    assert done.duplicate is True
    assert done.number == 12
    assert done.version.covers(token)
    ((done,), _), _ = run(append("x", after=token).steps(known), (LookBack, {}), (Put, Done()))
    assert (done.number, done.duplicate) == (101, False)


def test_a_result_is_never_older_than_the_token_that_came_with_the_call():
    ((done,), _), _ = run(append("t5", after=Version(1, 9, 1)).steps(session(9)))
    assert done == Appended(5, Version(1, 9, 1), duplicate=True)


def test_a_token_within_the_window_needs_no_looking_back():
    run(append("x", after=Version(1, 70, 1)).steps(session(100, last_number=90)), (Put, Done()))
    run(append("t90", after=Version(1, 10, 1)).steps(session(100, last_number=90)))


def test_a_token_of_an_earlier_life_looks_through_the_whole_present_one():
    known = session(100, incarnation=2, last_number=90)
    _, (look, _) = run(append("x", after=Version(1, 95, 3)).steps(known), (LookBack, {}), (Put, Done()))
    assert (look.incarnation, look.first, look.last) == (2, 1, 68)


def test_what_was_stored_while_a_call_waited_for_its_turn_is_looked_through_as_well():
    known = session(100, last_number=90)
    _, (look, _) = run(append("x").steps(known, lambda: Version(1, 60, 1)), (LookBack, {}), (Put, Done()))
    assert (look.first, look.last) == (29, 68)
    run(append("x").steps(known, lambda: Version(1, 100, 1)), (Put, Done()))


def test_a_token_newer_than_what_is_known_is_asked_about_and_then_refused():
    token = Version(1, 9, 1)
    ((done,), _), _ = run(append("x", after=token).steps(session(3)), (Load, session(9)), (Put, Done()))
    assert done.number == 10
    raised(VersionGone, append("x", after=token).steps(session(3)), (Load, session(8)))
    raised(VersionGone, append("x", after=token).steps(None), (Load, session(8)))


def test_a_foreign_session_is_refused_and_adopt_named():
    foreign = Snapshot(meta=MetaRecord(), foreign=True)
    assert "adopt()" in str(raised(Conflict, append("x").steps(None), (Load, foreign)))


def test_another_customers_session_is_refused_only_after_it_was_read_again():
    theirs = session(3, customer_id="somebody else")
    raised(Conflict, append("x").steps(theirs), (Load, theirs))
    run(append("x").steps(theirs), (Load, session(1, incarnation=2)), (Put, Done()))
    run(append("x", customer_id=None).steps(theirs), (Put, Done()))


def test_after_expired_turns_the_number_is_taken_through_meta():
    """A turn that has expired may be gone at any moment, and a put of its number would collide with nothing."""
    old = Snapshot(
        meta=meta(last_number=5),
        version=Version(1, 3, 1),
        turns=tuple(turn(n, expires_at=NOW_S - 1) for n in (1, 2, 3)),
    )
    ((done,), known), effects = run(append("x").steps(None), (Load, old), (Begin, Done()))
    assert done.number == 5 + RESERVE + 1
    assert effects[1].meta.revision == 2
    assert known.version == Version(1, 5 + RESERVE + 1, 2)


def test_writers_who_are_always_faster_are_given_way_to_in_the_end():
    tries = []

    def others():
        effect = next(steps)
        while True:
            number = effect.first
            tries.append(number)
            assert isinstance(steps.send(refused(standing(number, "y"))), Tail)
            effect = steps.send((session(number, last_number=number), (turn(number, "y"),)))

    steps = append("x").steps(session(3))
    with pytest.raises(Transient, match="nothing was stored") as caught:
        others()
    assert tries == list(range(4, 4 + MAX_COLLISIONS))
    assert caught.value.retry_after_s > 0


# Update


def update(**options):
    return Update(stamp=STAMP, change_id="mine", **{"sets": {"mood": {"S": "good"}}, **options})


def changed(*, revision=2, change_id="mine", **changes):
    return meta_item("s", meta(revision=revision, change_id=change_id, **changes))


def test_a_change_compares_and_raises_the_revision():
    after = changed(attributes={"mood": "good"})
    (done, known), (change,) = run(update(removes=("old",)).steps(session(3)), (Change, Done(after)))
    assert (change.incarnation, change.revision, change.change_id, change.removes) == (1, 1, "mine", ("old",))
    assert change.sets == {"mood": {"S": "good"}, "ttl": {"N": str(STAMP.meta_expires_at)}}
    assert done.version == known.version == Version(1, 3, 2)
    assert done.meta.attributes == {"mood": "good"}


def test_a_change_that_somebody_was_faster_with_is_made_on_top_of_theirs():
    (done, _), effects = run(
        update().steps(session(3)),
        (Change, refused(changed(change_id="theirs"))),
        (Load, session(3, revision=2)),
        (Change, Done(changed(revision=3))),
    )
    assert effects[2].revision == 2
    assert done.version == Version(1, 3, 3)


def test_our_own_change_id_means_that_it_was_done_by_a_try_whose_answer_was_lost():
    (done, _), _ = run(update().steps(session(3)), (Change, refused(changed(), in_doubt=True)))
    assert done.version == Version(1, 3, 2)


def test_anothers_change_after_a_lost_answer_leaves_the_outcome_unknown_and_nothing_is_tried_blindly():
    error = raised(
        Conflict, update().steps(session(3)), (Change, refused(changed(revision=3, change_id="theirs"), in_doubt=True))
    )
    assert "unknown" in str(error)


def test_a_change_expected_at_a_version_is_not_made_at_another():
    expected = Version(1, 3, 1)
    run(update(if_version=expected).steps(session(9)), (Change, Done(changed())))
    run(update(if_version=expected).steps(session(3, revision=2)), (Load, session(3)), (Change, Done(changed())))
    raised(Conflict, update(if_version=expected).steps(session(3, revision=2)), (Load, session(3, revision=2)))
    raised(
        Conflict,
        update(if_version=expected).steps(session(3)),
        (Change, refused(changed(change_id="theirs"))),
        (Load, session(3, revision=2)),
    )


@pytest.mark.parametrize("gone", [NOTHING, TOMBSTONE, session(3, expires_at=NOW_S)])
def test_a_session_that_is_not_there_is_not_changed(gone):
    raised(NotFound, update().steps(None), (Load, gone))
    raised(NotFound, update().steps(gone), (Load, gone))


def test_a_foreign_or_anothers_session_is_not_changed():
    raised(Conflict, update().steps(None), (Load, Snapshot(meta=MetaRecord(), foreign=True)))
    raised(Conflict, update(customer_id="d").steps(session(3)), (Load, session(3)))


def test_a_summary_is_stored_with_its_reach_and_never_goes_backwards():
    (done, known), (change,) = run(update(summary_text="short").steps(session(3)), (Change, Done()))
    assert change.summary == Summary(3, "short", STAMP.at, LATER_S)
    assert change.sets["summary_upto"] == {"N": "3"}
    assert done.version == Version(1, 3, 2)
    assert (known.summary, known.meta.summary_upto, known.meta.change_id) == (change.summary, 3, "mine")
    raised(Conflict, update(summary_text="x", upto=2).steps(session(3, summary_upto=2)))
    raised(Invalid, update(summary_text="x", upto=0).steps(session(3)))
    raised(Invalid, update(summary_text="x", upto=4).steps(session(3)), (Load, session(3)))
    run(update(summary_text="x", upto=4).steps(session(3)), (Load, session(4)), (Change, Done()))


def test_a_summary_that_stands_already_is_not_overwritten():
    raised(Conflict, update(summary_text="x").steps(session(3)), (Change, refused(None, {"upto": {"N": "3"}})))


def test_changes_by_others_time_after_time_end_the_tries():
    tries = []

    def others():
        effect = next(steps)
        while True:
            tries.append(effect.revision)
            theirs = changed(revision=effect.revision + 1, change_id="theirs")
            assert isinstance(steps.send(refused(theirs)), Load)
            effect = steps.send(session(3, revision=effect.revision + 1))

    steps = update().steps(session(3))
    with pytest.raises(Conflict, match=f"{MAX_TRIES} times in a row"):
        others()
    assert tries == list(range(1, 1 + MAX_TRIES))


# Delete


def delete(**options):
    return Delete(stamp=STAMP, **options)


def test_a_delete_seals_the_next_number_leaves_a_tombstone_and_only_then_sweeps():
    (done, known), (_, bury, sweep) = run(
        delete().steps(session(99)), (Load, session(3, fence=7)), (Bury, Done()), (Sweep, True)
    )
    assert (bury.incarnation, bury.sealed, bury.previous) == (1, 4, meta(fence=7))
    tombstone = bury.tombstone
    assert (tombstone.incarnation, tombstone.revision, tombstone.customer_id, tombstone.fence) == (2, 0, None, 8)
    assert tombstone.unswept
    assert tombstone.expires_at == STAMP.meta_expires_at
    assert sweep.incarnation == 2
    assert (done.version, done.existed, done.swept) == (Version(2, 0, 0), True, True)
    assert (known.version, known.turns) == (Version(2, 0, 0), ())


def test_a_sweep_that_fails_leaves_the_delete_done():
    (done, _), _ = run(delete().steps(None), (Load, session(3)), (Bury, Done()), (Sweep, False))
    assert (done.existed, done.swept) == (True, False)


def test_a_turn_appended_meanwhile_is_covered_by_the_delete():
    _, (_, _, tail, bury, _) = run(
        delete().steps(None),
        (Load, session(3)),
        (Bury, refused(None, standing(4, "y"))),
        (Tail, (session(4), (turn(4, "y"),))),
        (Bury, Done()),
        (Sweep, True),
    )
    assert tail.known == session(3)
    assert bury.sealed == 5


def test_a_session_that_somebody_else_has_just_deleted_did_not_exist_for_this_call():
    (done, _), _ = run(
        delete().steps(None), (Load, session(3)), (Bury, refused({"a": 1}, SEAL)), (Load, TOMBSTONE), (Sweep, True)
    )
    assert (done.version, done.existed) == (Version(2, 0, 0), False)


def test_our_own_tombstone_after_a_lost_answer_says_that_it_existed():
    (done, _), _ = run(
        delete().steps(None),
        (Load, session(3)),
        (Bury, refused({"a": 1}, SEAL, in_doubt=True)),
        (Load, TOMBSTONE),
        (Sweep, True),
    )
    assert done.existed is True


def test_what_is_not_there_is_not_deleted():
    (done, _), effects = run(delete().steps(None), (Load, NOTHING))
    assert (done.existed, done.swept) == (False, True)
    swept = msgspec.structs.replace(TOMBSTONE, meta=msgspec.structs.replace(TOMBSTONE.meta, unswept=False))
    (done, _), effects = run(delete().steps(None), (Load, swept))
    assert (done.existed, done.swept) == (False, True)
    assert len(effects) == 1


def test_a_foreign_session_is_left_to_be_erased():
    (done, _), _ = run(delete().steps(None), (Load, Snapshot(meta=MetaRecord(), foreign=True)))
    assert (done.existed, done.swept) == (False, False)


def test_another_customers_session_is_not_deleted():
    raised(Conflict, delete(customer_id="d").steps(None), (Load, session(3)))
    (done, _), effects = run(delete(only_if_of="d").steps(None), (Load, session(3)))
    assert done.existed is False
    assert len(effects) == 1
    (done, _), _ = run(delete(only_if_of="c").steps(None), (Load, session(3)), (Bury, Done()), (Sweep, True))
    assert done.existed is True


def test_the_last_life_that_keys_can_hold_cannot_be_ended():
    raised(Invalid, delete().steps(None), (Load, session(3, incarnation=9_999)))


def test_a_clock_that_is_behind_shortens_no_tombstone():
    far = STAMP.meta_expires_at + 1_000_000
    _, (_, bury, _) = run(delete().steps(None), (Load, session(3, expires_at=far)), (Bury, Done()), (Sweep, True))
    assert bury.tombstone.expires_at == far
