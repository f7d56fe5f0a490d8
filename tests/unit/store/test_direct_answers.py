"""Answers are read whole however they are cut on the way, and nothing else is taken for one."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mangacache.store.direct import answers
from mangacache.store.direct.answers import AnswerReader, Malformed

OK = b"HTTP/1.1 200 OK\r\n"
INTERIM = b"HTTP/1.1 100 Continue\r\n\r\n"

CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"
IN_CHUNKS = CHUNKED + b"2\r\n{}\r\n0\r\n\r\n"
AT_LENGTH = OK + b"Content-Length: 2\r\n\r\n{}"

bodies = st.binary(max_size=300) | st.just(b"\r\n\r\n") | st.just(b"0\r\n\r\n")
cuts = st.lists(st.integers(0, 2_000), max_size=12)


def _pieces(data, places):
    ends = sorted({min(place, len(data)) for place in places} | {0, len(data)})
    return [data[begin:end] for begin, end in pairwise(ends)]


def _chunked(body, sizes):
    wire, rest = b"", body
    for size in sizes:
        if rest:
            part, rest = rest[:size], rest[size:]
            wire += b"%X;name=value\r\n%b\r\n" % (len(part), part)
    if rest:
        wire += b"%x\r\n%b\r\n" % (len(rest), rest)
    return wire + b"0\r\nX-Trailer: yes\r\n\r\n"


def _read(pieces):
    """Feed the pieces; only the last may complete the answer."""
    reader = AnswerReader()
    for piece in pieces[:-1]:
        assert reader.feed(piece) is None
    return reader.feed(pieces[-1])


@given(bodies, cuts, st.integers(0, 2), st.sampled_from([200, 400, 503]))
def test_an_answer_with_a_length_is_the_same_however_it_is_cut(body, places, interim, status):
    head = b"HTTP/1.1 %d Said\r\nX-Amz-CRC32:  17 \r\nEmpty:\r\nContent-Length: %d\r\n\r\n" % (status, len(body))
    answer = _read(_pieces(INTERIM * interim + head + body, places))
    assert (answer.status, answer.body, answer.keep) == (status, body, True)
    assert answer.headers[b"x-amz-crc32"] == b"17"
    assert answer.headers[b"empty"] == b""


@given(bodies, st.lists(st.integers(1, 40), max_size=8), cuts)
def test_an_answer_in_chunks_is_the_same_however_it_is_cut(body, sizes, places):
    wire = CHUNKED + _chunked(body, sizes)
    answer = _read(_pieces(wire, places))
    assert (answer.body, answer.keep) == (body, True)


@given(bodies, bodies, cuts)
def test_a_reader_reads_one_answer_after_another(first, second, places):
    reader = AnswerReader()
    for body in (first, second, first):
        wire = OK + b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
        assert [found.body for piece in _pieces(wire, places) if (found := reader.feed(piece))] == [body]


@pytest.mark.parametrize(
    "framing", [b"Content-Length: 2\r\n\r\n{}", b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n"]
)
def test_what_comes_behind_an_answer_is_no_part_of_it_and_ends_its_connection(framing):
    answer = AnswerReader().feed(OK + framing + OK)
    assert (answer.body, answer.keep) == (b"{}", False)
    assert AnswerReader().feed(OK + framing).keep


@pytest.mark.parametrize(
    ("head", "keep"),
    [
        (b"HTTP/1.1 200 OK\r\nConnection: keep-alive", True),
        (b"HTTP/1.1 200 OK\r\nConnection: Close", False),
        (b"HTTP/1.1 200 OK\r\nconnection: upgrade, close", False),
        (b"HTTP/1.0 200 OK\r\nConnection: keep-alive", False),
        (b"HTTP/1.1 200", True),
        (b"HTTP/1.1 200 ", True),
    ],
)
def test_a_connection_is_kept_unless_the_answer_says_otherwise(head, keep):
    assert AnswerReader().feed(head + b"\r\nContent-Length: 0\r\n\r\n").keep is keep


def test_an_answer_that_has_no_body_by_its_status_needs_no_length():
    assert AnswerReader().feed(b"HTTP/1.1 204 No Content\r\n\r\n").body == b""


@pytest.mark.parametrize(
    "wire",
    {
        "no status line": b"\r\n\r\n",
        "another protocol": b"HTTP/2 200 OK\r\nContent-Length: 0\r\n\r\n",
        "lower case": b"http/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        "status of two digits": b"HTTP/1.1 20 OK\r\nContent-Length: 0\r\n\r\n",
        "status of four digits": b"HTTP/1.1 2000 OK\r\nContent-Length: 0\r\n\r\n",
        "no end": OK + b"X: y\r\n\r\n",
        "length below zero": OK + b"Content-Length: -1\r\n\r\n",
        "length with a sign": OK + b"Content-Length: +1\r\n\r\nx",
        "length in hexadecimal": OK + b"Content-Length: 0x1\r\n\r\nx",
        "empty length": OK + b"Content-Length:\r\n\r\n",
        "two lengths": OK + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nxx",
        "lengths in one line": OK + b"Content-Length: 1, 1\r\n\r\nx",
        "length beside chunks": OK + b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "another coding": OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        "two codings": OK + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: gzip\r\n\r\n0\r\n\r\n",
        "encoded": OK + b"Content-Encoding: gzip\r\nContent-Length: 1\r\n\r\nx",
        "no colon": OK + b"Content-Length 1\r\n\r\nx",
        "space before the colon": OK + b"Content-Length : 1\r\n\r\nx",
        "folded": OK + b"X: y\r\n z\r\nContent-Length: 1\r\n\r\nx",
        "bare line feed": OK + b"X: y\nContent-Length: 1\r\n\r\nx",
        "no name": OK + b": y\r\nContent-Length: 1\r\n\r\nx",
        "too long a body": OK + b"Content-Length: %d\r\n\r\n" % (answers.MAX_BODY_BYTES + 1),
        "too long a head": OK + b"X: %b\r\nContent-Length: 0\r\n\r\n" % (b"y" * answers.MAX_HEAD_BYTES),
        "a head without an end": b"x" * (answers.MAX_HEAD_BYTES + 1),
        "chunk without a size": CHUNKED + b"\r\n",
        "chunk of a size that is none": CHUNKED + b"-1\r\n",
        "chunk longer than its size": CHUNKED + b"1\r\nxyz\r\n0\r\n\r\n",
        "chunk longer than its size that ends well": CHUNKED + b"1\r\nxyz0\r\n\r\n",
        "chunk too long": CHUNKED + b"%x\r\n" % (answers.MAX_BODY_BYTES + 1),
        "chunk's line without an end": CHUNKED + b"0" * (answers.MAX_HEAD_BYTES + 1),
    }.items(),
    ids=lambda case: case[0],
)
def test_what_is_no_answer_of_a_service_that_is_well_is_refused(wire):
    with pytest.raises(Malformed):
        AnswerReader().feed(wire[1])


@pytest.mark.parametrize("wire", [OK + b"Content-Length: 5\r\n\r\n12345", CHUNKED + b"5\r\n12345\r\n0\r\n\r\n"])
def test_an_answer_that_is_cut_off_is_never_taken_for_a_whole_one(wire):
    for end in range(len(wire)):
        assert AnswerReader().feed(wire[:end]) is None


def test_many_chunks_together_may_not_be_longer_than_a_body(monkeypatch):
    monkeypatch.setattr(answers, "MAX_BODY_BYTES", 20)
    reader = AnswerReader()
    reader.feed(CHUNKED)
    reader.feed(b"a\r\n0123456789\r\n")
    reader.feed(b"a\r\n0123456789\r\n")
    with pytest.raises(Malformed, match="more than 20 bytes"):
        reader.feed(b"1\r\n0\r\n")


@given(st.binary(max_size=200), cuts)
def test_noise_ends_in_a_refusal_or_waits_for_more_and_nothing_else(noise, places):
    reader = AnswerReader()
    try:
        found = [reader.feed(piece) for piece in _pieces(noise, places)]
    except Malformed:
        return
    assert not any(found)
