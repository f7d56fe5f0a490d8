"""What a chat tells and sends again, whatever order things come in: the pure part, without a connection."""

from __future__ import annotations

import random

import pytest

from mangacache import Turn, Version
from mangacache.client.talk import ChatEvent, Talk
from mangacache.client.values import WireAppended


def turn(number, *, incarnation=1, turn_id=None):
    said = Turn(number, turn_id or f"other-{number}", "user", "x", "")
    return ChatEvent(kind="turn", version=Version(incarnation, number, 1), number=number, turn=said)


def gap(version, *, waits=False):
    return ChatEvent(kind="gap", version=version, why="for the test", waits=waits)


def append(talk, turn_id):
    return talk.ask({"type": "append"}, frozenset([turn_id]))


def ack(number, *, incarnation=1):
    return (WireAppended(number, str(Version(incarnation, number, 1))),)


def shown(events):
    return [event.number if event.kind == "turn" else event.kind for event in events]


@pytest.fixture
def talk():
    talk = Talk(seen=None)
    talk.ready(Version(1, 3, 1))
    return talk


def test_turns_are_told_once(talk):
    assert shown(talk.heard(turn(4))) == [4]
    assert shown(talk.heard(turn(4))) == []
    assert shown(talk.heard(turn(3))) == []
    assert shown(talk.heard(turn(5))) == [5]
    assert talk.told == Version(1, 5, 1)


def test_a_hole_that_nobody_told_of_is_a_gap(talk):
    assert shown(talk.heard(turn(6))) == ["gap", 6]
    assert shown(talk.heard(turn(7))) == [7]


def test_after_a_gap_that_was_told_turns_are_taken_as_they_come(talk):
    assert shown(talk.heard(gap(Version(1, 6, 1)))) == ["gap"]
    assert shown(talk.heard(turn(6))) == []
    assert shown(talk.heard(turn(7))) == [7]


def test_a_gap_of_unknown_size_is_told_once(talk):
    assert shown(talk.heard(gap(None))) == ["gap"]
    assert shown(talk.heard(turn(9))) == [9]
    assert shown(talk.heard(turn(11))) == ["gap", 11]


def test_own_turns_are_acknowledged_and_not_told(talk):
    mine = append(talk, "mine")
    assert shown(talk.answered(mine, ack(4))) == []
    assert talk.told == Version(1, 4, 1)
    assert shown(talk.heard(turn(4, turn_id="mine"))) == []
    assert shown(talk.heard(turn(5))) == [5]


def test_a_turn_after_our_own_with_which_the_session_begins_waits_for_the_acknowledgement():
    talk = Talk(seen=Version())
    mine = append(talk, "mine")
    assert shown(talk.heard(turn(2))) == []
    assert shown(talk.answered(mine, ack(1))) == [2]
    assert (talk.told.incarnation, talk.told.number) == (1, 2)


def test_own_turns_that_are_not_acknowledged_are_known_however_many_there_are(talk):
    """A lost connection leaves them unanswered, and the next one tells them all."""
    many = 3_000
    for place in range(many):
        append(talk, f"mine-{place}")
    assert [shown(talk.heard(turn(4 + place, turn_id=f"mine-{place}"))) for place in range(many)] == [[]] * many
    assert talk.told == Version(1, 3 + many, 1)


def test_a_turn_after_our_own_waits_for_the_acknowledgement(talk):
    """It is not told that something is missing, nor that the turn before ours has been told."""
    mine = append(talk, "mine")
    assert shown(talk.heard(turn(5))) == []
    assert shown(talk.heard(turn(6))) == []
    assert talk.told == Version(1, 3, 1)
    assert shown(talk.answered(mine, ack(4))) == [5, 6]
    assert talk.told == Version(1, 6, 1)


def test_what_waited_for_an_acknowledgement_that_never_comes_is_told_behind_a_gap(talk):
    mine = append(talk, "mine")
    assert shown(talk.heard(turn(5))) == []
    assert shown(talk.withdraw(mine)) == ["gap", 5]


def test_an_acknowledgement_may_overtake_the_turns_before_it(talk):
    mine = append(talk, "mine")
    assert shown(talk.answered(mine, ack(6))) == []
    assert talk.told == Version(1, 3, 1)
    assert shown(talk.heard(turn(4))) == [4]
    assert shown(talk.heard(turn(5))) == [5]
    assert talk.told == Version(1, 6, 1)
    assert shown(talk.heard(turn(7))) == [7]


def test_the_next_connection_tells_our_own_turns_and_they_are_passed_over(talk):
    mine = append(talk, "mine")
    assert shown(talk.heard(turn(4))) == [4]
    assert talk.unanswered() == [mine]
    assert shown(talk.heard(turn(5, turn_id="mine"))) == []
    assert shown(talk.heard(turn(6))) == [6]
    assert shown(talk.answered(mine, ack(5))) == []
    assert talk.unanswered() == []
    assert talk.told == Version(1, 6, 1)


def test_a_session_that_begins_with_our_own_turn_has_no_gap():
    talk = Talk(seen=None)
    talk.ready(Version())
    mine = append(talk, "mine")
    assert shown(talk.answered(mine, ack(1))) == []
    assert talk.told == Version(1, 1, 0)
    assert shown(talk.heard(turn(2))) == [2]


def test_a_session_that_begins_with_anothers_turn_has_no_gap():
    talk = Talk(seen=None)
    talk.ready(Version())
    assert shown(talk.heard(turn(1))) == [1]
    assert shown(talk.heard(ChatEvent(kind="meta", version=Version(1, 1, 1)))) == ["meta"]
    assert talk.told == Version(1, 1, 1)


def test_a_deleted_session_is_told_of_once_and_begins_again(talk):
    deleted = ChatEvent(kind="deleted", version=Version(2, 0, 0))
    assert shown(talk.heard(deleted)) == ["deleted"]
    assert shown(talk.heard(deleted)) == []
    assert shown(talk.heard(turn(9))) == []
    assert shown(talk.heard(turn(1, incarnation=2))) == [1]


def test_a_life_whose_beginning_was_missed_is_told_behind_a_gap(talk):
    assert shown(talk.heard(turn(2, incarnation=2))) == ["gap", 2]


def test_changes_of_meta_are_told_once(talk):
    changed = ChatEvent(kind="meta", version=Version(1, 3, 2))
    assert shown(talk.heard(changed)) == ["meta"]
    assert shown(talk.heard(changed)) == []
    assert talk.told == Version(1, 3, 2)


def test_a_gap_that_waits_loses_none_of_what_was_told(talk):
    """The worker's own count does not run ahead over turns that it acknowledged only."""
    mine = append(talk, "mine")
    talk.answered(mine, ack(4))
    assert shown(talk.heard(gap(Version(1, 3, 1), waits=True))) == ["gap"]
    assert talk.told == Version(1, 4, 1)
    assert shown(talk.heard(turn(5))) == [5]


def test_where_what_was_told_is_not_there_any_more_the_chat_goes_on_from_what_is(talk):
    assert shown(talk.heard(gap(Version(1, 1, 1), waits=True))) == ["gap"]
    assert shown(talk.heard(turn(2))) == [2]


@pytest.mark.parametrize("seed", range(200))
def test_whatever_the_order_others_turns_are_told_once_and_in_order(seed):
    """A worker passes over the turns of its connection; cuts resume at what was told, answers lag behind."""
    choose = random.Random(seed)
    talk = Talk(seen=None)
    talk.ready(Version(1, 0, 1))
    stored: list[str] = []
    told: list[int] = []
    answers: list[tuple[int, str]] = []
    sent = 0  # up to where the connection has told
    passes: set[str] = set()

    def take(events):
        told.extend(shown(events))

    for step in range(60):
        match choose.choice(["other", "own", "tell", "tell", "answer", "cut"]):
            case "other":
                stored.append(f"other-{step}")
            case "own":
                answers.append((append(talk, f"own-{step}"), f"own-{step}"))
                stored.append(f"own-{step}")
                passes.add(f"own-{step}")
            case "tell" if sent < len(stored):
                sent += 1
                if stored[sent - 1] not in passes:
                    take(talk.heard(turn(sent, turn_id=stored[sent - 1])))
            case "answer" if answers:
                number, turn_id = answers.pop(0)
                take(talk.answered(number, ack(stored.index(turn_id) + 1)))
            case "cut":
                sent, passes = talk.told.number, set()
                assert talk.unanswered() == [number for number, _ in answers]
    while answers:
        number, turn_id = answers.pop(0)
        take(talk.answered(number, ack(stored.index(turn_id) + 1)))
    for number in range(sent + 1, len(stored) + 1):
        if stored[number - 1] not in passes:
            take(talk.heard(turn(number, turn_id=stored[number - 1])))
    assert told == [number for number, turn_id in enumerate(stored, 1) if turn_id.startswith("other")]
