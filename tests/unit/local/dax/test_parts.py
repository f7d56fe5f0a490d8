"""The parts of the DAX emulator that need no connection: sizes, signatures, numbers of attribute lists."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from amazondax import SigV4Gen
from botocore.credentials import Credentials

from mangacache.errors import Invalid, NotFound, Rejected
from mangacache.local.dax import attribute_lists
from mangacache.local.dax.attribute_lists import AttributeLists
from mangacache.local.dax.options import EmulatorOptions, parse_size
from mangacache.local.dax.report import status_lines
from mangacache.local.dax.signatures import complaint

# Sizes.


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("1000", 1_000),
        ("256M", 268_435_456),
        ("256m", 268_435_456),
        ("64 KiB", 65_536),
        ("1.5G", 1_610_612_736),
        ("2 GB", 2_147_483_648),
        ("1T", 1_099_511_627_776),
        ("10B", 10),
    ],
)
def test_a_size_of_memory_means_so_many_bytes(text, size):
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "M", "-1", "1Q", "1e3", "1,5G", "256 M B", "nan", "0x10", "256MM"])
def test_what_is_no_size_is_refused_in_one_line(text):
    with pytest.raises(Invalid, match="is no size of memory: write a number of bytes, or one with K, M or G"):
        parse_size(text)


def test_ports_follow_the_first_one_or_are_free():
    assert EmulatorOptions(port=8111, nodes=3).ports() == [8111, 8112, 8113]
    assert EmulatorOptions(port=8111, nodes=3, other_ports="free").ports() == [8111, 0, 0]
    assert EmulatorOptions(port=0, nodes=2).ports() == [0, 0]


# Signatures, by the real client's own signer.

AT = datetime(2026, 11, 25, 12, 0, 0, tzinfo=UTC)


def signed():
    made = SigV4Gen.generate_signature(
        Credentials("AKID", "secret"), "https://dax.amazonaws.com", "eu-west-1", b"", AT.replace(tzinfo=None)
    )
    return {"signature": made.signature, "string_to_sign": made.string_to_sign.encode()}


def looked_at(now=AT, secrets=None, **changes):
    given = {"access_key": "AKID", **signed(), **changes}
    return complaint(secrets or {"AKID": "secret"}, now_s=now.timestamp(), **given)


def test_the_real_client_s_signature_is_right_within_five_minutes_of_either_side():
    for minutes in (-5, 0, 5):
        assert looked_at(AT + timedelta(minutes=minutes)) is None


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"now": AT + timedelta(seconds=301)}, "it was signed 301 s ago"),
        ({"now": AT - timedelta(seconds=301)}, "it was signed -301 s ago"),
        ({"access_key": "AKIX"}, "the access key AKIX... is not known here"),
        ({"secrets": {"AKID": "another"}}, "not the one that the secret gives"),
        ({"signature": "0" * 64}, "not the one that the secret gives"),
        ({"signature": "é"}, "not the one that the secret gives"),
        ({"string_to_sign": b""}, "not in the form"),
        ({"string_to_sign": b"a\nb\nc\nd"}, "not in the form"),
        (
            {"string_to_sign": signed()["string_to_sign"].replace(b"/dax/", b"/s3/")},
            "is not one of the service dax",
        ),
        (
            {"string_to_sign": signed()["string_to_sign"].replace(b"\n20261125T", b"\n20261126T")},
            "is not one of the service dax",
        ),
        (
            {"string_to_sign": signed()["string_to_sign"].replace(b"T120000Z", b"Tnoon")},
            "is no time",
        ),
        (
            {"string_to_sign": signed()["string_to_sign"].replace(b"eu-west-1", b"us-east-1")},
            "not the one that the secret gives",
        ),
    ],
)
def test_a_signature_that_is_not_right_is_refused_for_what_is_wrong_with_it(changes, what):
    assert what in looked_at(**changes)


def test_a_refusal_tells_nothing_of_the_secret():
    assert "secret " not in looked_at(secrets={"AKID": "another"}).replace("the secret gives", "")


# Attribute lists.


def test_a_list_has_the_same_number_in_every_process_for_ever():
    """These numbers are what clients may hold: they are not to change with a version."""
    assert AttributeLists().id_of(()) == 1
    assert AttributeLists().id_of(("a", "b")) == AttributeLists().id_of(("a", "b")) == 1204598751644513562
    assert AttributeLists().id_of(("é",)) == 1382962917850463436


def test_lists_that_differ_have_numbers_that_differ():
    lists = AttributeLists()
    names = [("a", "b"), ("b", "a"), ("ab",), ("a", "b", ""), ("1:a", "b"), ("a", "1:b"), ("a1:b",)]
    numbers = [lists.id_of(each) for each in names]
    assert len(set(numbers)) == len(names)
    assert [lists.names_of(number) for number in numbers] == names
    assert all(16 <= number < 2**62 for number in numbers)


def test_a_number_that_nobody_asked_for_is_an_error_and_no_guess():
    known = AttributeLists().id_of(("a",))
    with pytest.raises(NotFound, match="make a new client"):
        AttributeLists().names_of(known)


def test_there_are_so_many_lists_and_no_more_and_those_known_stay():
    lists = AttributeLists(limit=3)
    first = lists.id_of(("a",))
    lists.id_of(("b",))
    with pytest.raises(Rejected, match="more than 3"):
        lists.id_of(("c",))
    assert lists.id_of(("a",)) == first
    with pytest.raises(Invalid, match="belongs to no item"):
        AttributeLists().id_of(("x" * 409_601,))


def test_two_lists_of_one_number_are_not_taken_for_each_other(monkeypatch):
    monkeypatch.setattr(attribute_lists, "_number", lambda _names: 77)
    lists = AttributeLists()
    assert lists.id_of(("a",)) == 77
    with pytest.raises(Rejected, match="the same number"):
        lists.id_of(("b",))
    assert lists.names_of(77) == ("a",)


def test_lists_kept_in_a_file_are_known_again_but_for_one_that_was_cut_off(tmp_path):
    file = tmp_path / "lists"
    lists = AttributeLists(file=file)
    number = lists.id_of(("a", "line\nbreak", "é"))
    assert lists.id_of(("a", "line\nbreak", "é")) == number
    with file.open("ab") as kept:
        kept.write(b'["cut')
    again = AttributeLists(file=file)
    assert again.names_of(number) == ("a", "line\nbreak", "é")
    other = again.id_of(("other",))
    assert AttributeLists(file=file).names_of(other) == ("other",)
    assert len(AttributeLists(file=file)) == 3


def test_a_file_of_something_else_is_refused(tmp_path):
    file = tmp_path / "lists"
    file.write_text("hello\n")
    with pytest.raises(Invalid, match="cannot be used as a file of attribute lists"):
        AttributeLists(file=file)
    assert file.read_text() == "hello\n"


# The status in words.


def test_the_status_in_words_tells_of_each_node_and_of_connections_that_were_ended():
    counts = {"hits": 3, "misses": 2, "negative_hits": 1, "evictions": 4, "expired": 0}
    cache = {**counts, "entries": 5, "bytes": 600}
    node = {"port": 1, "connections": 2, "items": cache, "queries": cache}
    status = {
        "endpoint": "dax://h:1",
        "dynamodb": "http://d",
        "uptime_s": 61.4,
        "leader": 0,
        "items": counts,
        "queries": counts,
        "received": {"GetItem": 5},
        "passed_on": {},
        "nodes": [
            {**node, "node": 0, "alive": True, "ended": {"not the protocol": 1}},
            {**node, "node": 1, "alive": True, "ended": {}},
            {**node, "node": 2, "alive": False, "ended": {}},
        ],
    }
    said = list(status_lines(status))
    assert said[0] == "DAX emulator at dax://h:1, before http://d, up for 61 s"
    assert said[1] == "item cache: 3 hits (1 of them negative), 2 misses (0 of them expired), 4 evictions"
    assert said[3:5] == ["received: 5 GetItem", "passed on to DynamoDB: nothing"]
    assert [line.split(": ")[1].split(",")[0] for line in said if " at port " in line] == ["leads", "follows", "dead"]
    assert "node 0 ended connections: 1 not the protocol" in said
