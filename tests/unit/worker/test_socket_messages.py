"""What clients say, and what is done about it."""

from __future__ import annotations

import json
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mangacache.errors import Closed, Conflict, Corrupt, Invalid, Rejected, Transient
from mangacache.model import Consistency, NewTurn
from mangacache.worker.caller import Forbidden, Unauthenticated
from mangacache.worker.sockets.closing import Code, code_of, shortened
from mangacache.worker.sockets.conversation import MOST_MISTAKES, Conversation, Do, Refuse, Say
from mangacache.worker.sockets.messages import Append, ContextAsked, Open, decoded, id_of, level_of, new_turns

OPEN = '{"type": "open", "session_id": "s"}'

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
FIELDS = {name for kind in (Open, Append, ContextAsked) for name in kind.__struct_fields__} | {"type", "other"}
names = st.sampled_from(sorted(FIELDS))
kinds = st.sampled_from(["open", "append", "context", "ping", "turn", ""])
almost_messages = st.builds(
    lambda kind, rest: json.dumps({"type": kind} | rest), kinds, st.dictionaries(names, json_values, max_size=5)
)


def opened():
    conversation = Conversation()
    conversation.opened = True
    return conversation


def append(**fields):
    return decoded(json.dumps({"type": "append", "id": 1} | fields))


def test_messages_are_read():
    assert decoded(OPEN) == Open("s")
    assert append(role="user", content="hi") == Append(1, "user", "hi")
    assert decoded('{"type": "context", "id": "a", "turns": 3}') == ContextAsked("a", 3)


def test_numbers_in_attributes_stay_what_they_are():
    assert append(role="user", content="", attributes={"price": 1.10, "n": 2}).attributes == {
        "price": Decimal("1.1"),
        "n": 2,
    }


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "1",
        "null",
        '"open"',
        "{}",
        '{"type": 1}',
        '{"type": "turn"}',
        '{"type": "open"}',
        '{"type": "open", "session_id": 1}',
        '{"type": "open", "session_id": "s", "token": "x"}',
        '{"type": "append", "role": "user", "content": "x"}',
        '{"type": "append", "id": "", "role": "user", "content": "x"}',
        '{"type": "append", "id": 1.5, "role": "user", "content": "x"}',
        json.dumps({"type": "append", "id": "x" * 129, "role": "user", "content": "x"}),
        json.dumps({"type": "append", "id": 1, "turns": []}),
        json.dumps({"type": "append", "id": 1, "turns": [{"role": "user", "content": "x"}] * 33}),
        '{"type": "append", "id": 1, "role": "user", "content": "\\ud800"}',
        '{"type": "context", "id": 1, "turns": "20"}',
        '{"type": "context", "id": 1, "turns": true}',
        '{"type": "ping"} {"type": "ping"}',
        '{"type": "append", "id": 1, "role": "user", "content": "", "attributes": '
        + '{"a":' * 100_000
        + "1"
        + "}" * 100_000
        + "}",
    ],
)
def test_what_is_no_message_is_refused_in_words(text):
    with pytest.raises(Invalid, match=r"\w"):
        decoded(text)


@given(st.text(max_size=64) | almost_messages)
def test_whatever_a_client_says_is_a_step(text):
    for conversation in (Conversation(), opened()):
        assert isinstance(conversation.heard(text), Do | Say | Refuse)


def test_the_id_of_what_is_no_message_is_found_where_there_is_one():
    assert id_of('{"id": 7, "type": "x"}') == 7
    assert id_of('{"id": [7]}') is None
    assert id_of("{") is None
    assert id_of('{"a":' * 100_000) is None


def test_one_turn_or_several():
    assert new_turns(append(role="user", content="hi", turn_id="t")) == (
        NewTurn(role="user", content="hi", turn_id="t"),
    )
    assert len(new_turns(append(turns=[{"role": "user", "content": "a"}, {"role": "tool", "content": "b"}]))) == 2
    for wrong in ({}, {"role": "user"}, {"role": "user", "content": "", "turns": [{"role": "user", "content": ""}]}):
        with pytest.raises(Invalid, match="append"):
            new_turns(append(**wrong))


def test_levels_of_consistency():
    asked = {"type": "context", "id": 1}
    assert level_of(decoded(json.dumps(asked))) == Consistency.SESSION
    assert level_of(decoded(json.dumps(asked | {"consistency": "eventual", "age_s": 2}))) == Consistency.EVENTUAL(2)
    with pytest.raises(Invalid):
        level_of(decoded(json.dumps(asked | {"consistency": "eventual"})))
    with pytest.raises(Invalid):
        level_of(decoded(json.dumps(asked | {"consistency": "soon"})))


def test_the_first_message_is_open_and_no_later_one_is():
    assert isinstance(Conversation().heard(OPEN), Do)
    refused = Conversation().heard('{"type": "append", "id": 3, "role": "user", "content": "x"}')
    assert isinstance(refused, Refuse)
    assert (refused.id, refused.code) == (3, None)
    assert isinstance(opened().heard(OPEN), Refuse)


def test_a_ping_is_answered_by_its_id():
    assert opened().heard('{"type": "ping", "id": "x"}') == Say({"type": "pong", "id": "x"})
    assert Conversation().heard('{"type": "ping"}') == Say({"type": "pong"})


def test_too_many_mistakes_end_it_and_a_message_takes_one_back():
    conversation = opened()
    for _ in range(MOST_MISTAKES - 1):
        assert conversation.heard("?").code is None
    conversation.heard('{"type": "ping"}')
    assert conversation.heard("?").code is None
    assert conversation.heard("?").code == Code.TOO_MANY_MISTAKES


def test_a_binary_frame_ends_it():
    assert opened().heard_binary().code == Code.TEXT_ONLY


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (Unauthenticated(""), Code.UNAUTHENTICATED),
        (Forbidden(""), Code.FORBIDDEN),
        (Transient(""), Code.TRY_LATER),
        (Closed(""), Code.TRY_LATER),
        (Rejected(""), Code.TOO_FAST),
        (Conflict(""), Code.CONFLICT),
        (Invalid(""), Code.BAD_OPEN),
        (Corrupt(""), Code.INTERNAL),
    ],
)
def test_each_error_of_an_opening_has_its_code(error, code):
    assert code_of(error) == code


def test_a_reason_fits_into_a_frame_and_no_character_is_cut_in_two():
    assert len(shortened("漫" * 100)) == 123
    assert shortened("漫" * 100).decode() == "漫" * 41
    assert len(shortened("é" + "漫" * 100)) == 122
