"""Versions and their order, levels of consistency, ids."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mangacache import Consistency, Invalid, Version
from mangacache.model import MAX_ID_BYTES, checked_id

numbers = st.integers(0, 5)
versions = st.builds(Version, numbers, numbers, numbers)


@given(st.builds(Version, st.integers(0, 9_999), st.integers(0, 10**10), st.integers(0, 10**12)))
def test_a_token_is_small_safe_and_gives_its_version_back(version):
    token = str(version)
    assert Version.parse(token) == version
    assert Version.parse(version) is version
    assert len(token) <= 30
    assert set(token) <= set("0123456789abcdef.")


@pytest.mark.parametrize(
    "token",
    [
        *("", "1", "1.2", "1.2.3.4", "1.2.x", "-1.2.3", "1.-2.3", "1.2.-3", "01.2.3", "0x1.2.3", "1.2.3 ", " 1.2.3"),
        *("1.2.1_0", "A.1.1", "1.2.3\n", "\u0661.2.3", None, 7, b"1.2.3", ["1.2.3"]),
    ],
)
def test_what_is_no_token_is_refused(token):
    with pytest.raises(Invalid, match="is not a version token"):
        Version.parse(token)


def test_a_very_long_text_is_no_token_and_is_not_repeated_whole():
    with pytest.raises(Invalid) as caught:
        Version.parse("9" * 10_000)
    assert len(str(caught.value)) < 200


@given(versions, versions, versions)
def test_covers_is_an_order_and_join_its_least_upper_bound(a, b, c):
    assert a.covers(a)
    assert not (a.covers(b) and b.covers(a)) or a == b
    assert not (a.covers(b) and b.covers(c)) or a.covers(c)
    joined = a.join(b)
    assert joined.covers(a)
    assert joined.covers(b)
    assert not (c.covers(a) and c.covers(b)) or c.covers(joined)
    assert joined == b.join(a)
    assert a.join(b.join(c)) == joined.join(c)


def test_an_answer_covers_only_what_is_not_newer_in_any_part():
    seen = Version(2, 10, 3)
    assert Version(2, 10, 3).covers(seen)
    assert Version(2, 11, 3).covers(seen)
    assert not Version(2, 9, 9).covers(seen)
    assert not Version(2, 99, 2).covers(seen)
    assert Version(3, 0, 0).covers(seen), "a session begun again is newer than all of its last life"
    assert not Version(1, 99, 99).covers(seen)


def test_joining_takes_the_later_life_whole_and_within_one_life_the_most_of_each():
    assert Version(2, 10, 3).join(Version(2, 4, 7)) == Version(2, 10, 7)
    assert Version(2, 10, 3).join(Version(3, 1, 1)) == Version(3, 1, 1)


@pytest.mark.parametrize("age_s", [-1, float("nan"), -0.001])
def test_eventual_takes_no_age_below_0(age_s):
    with pytest.raises(Invalid, match="age of at least 0 seconds"):
        Consistency.EVENTUAL(age_s)


def test_the_levels_are_four():
    assert Consistency.EVENTUAL(0).max_age_s == 0
    names = [level.name for level in (Consistency.STRONG, Consistency.LATEST, Consistency.SESSION)]
    assert names == ["strong", "latest", "session"]


@given(st.text(min_size=1, max_size=MAX_ID_BYTES, alphabet=st.characters(codec="utf-8")))
def test_every_text_of_1_to_128_bytes_is_an_id(text):
    if len(text.encode()) <= MAX_ID_BYTES:
        assert checked_id(text, what="id") == text
    else:
        with pytest.raises(Invalid, match="must have 1 to 128 bytes"):
            checked_id(text, what="id")


@pytest.mark.parametrize("text", ["a", "x" * 128, "日" * 42, "{a}", "a\nb", "a#b", "\0", " ", "🗡️", "ベルセルク"])
def test_ids_of_any_script_and_sign_are_taken(text):
    assert checked_id(text, what="id") == text


@pytest.mark.parametrize(
    ("value", "complaint"),
    [
        ("", "session_id must have 1 to 128 bytes of UTF-8; '' has 0"),
        ("x" * 129, "has 129"),
        ("日" * 43, "has 129"),
        ("a\ud800", "holds a lone surrogate at position 1"),
        (None, "session_id must be text, not NoneType"),
        (b"bytes", "session_id must be text, not bytes"),
        (7, "session_id must be text, not int"),
    ],
)
def test_what_is_no_id_is_refused_with_what_is_wrong(value, complaint):
    with pytest.raises(Invalid) as caught:
        checked_id(value, what="session_id")
    assert complaint in str(caught.value)
    str(caught.value).encode()
