"""A short run of the fuzzer over DAX's wire, always the same; and that it finds what is there to be found."""

from __future__ import annotations

from random import Random

import daxfuzz
import pytest
from daxfuzz import TARGETS, Fuzzer, corpus, requests_of

from mangacache.local.dax.limits import Malformed

EXECUTIONS = 3000


@pytest.mark.parametrize("name", ["condition", "update", "projection", "values"])
def test_what_is_kept_is_taken_as_it_is(name):
    """Else changes of it would not get far."""
    inputs = corpus(name)
    assert inputs
    for data in inputs:
        TARGETS[name](data, Random(1))


def test_the_connections_that_are_kept_hold_every_request():
    kinds = set()
    for data in corpus("connection"):
        taken, error = requests_of(iter([data]))
        assert error is None
        kinds |= {type(one).__name__ for one in taken}
    assert len(kinds) >= 15


def _taken(data, seed):
    try:
        TARGETS["key"](data, Random(seed))
    except Malformed:
        return False
    return True


def test_each_key_that_is_kept_is_one_by_some_schema():
    assert all(any(_taken(data, seed) for seed in range(50)) for data in corpus("key"))


def test_what_is_kept_is_small():
    assert sum(len(data) for name in TARGETS for data in corpus(name)) < 10_000


@pytest.mark.parametrize("seed", [1, 2])
def test_nothing_but_malformed_comes_out(seed):
    report = Fuzzer(seed, traced=0.2).run(executions=EXECUTIONS)
    assert report.crashes == {}, report
    assert report.executions.total() == EXECUTIONS
    assert all(report.accepted[name] for name in TARGETS), "some inputs must get through, or little is tried"
    assert report.kept > 0, "some changes must reach lines that no other had reached"


# That it bites.


def _run(target):
    return Fuzzer(1, {"values": target}).run(executions=300)


def test_another_error_is_found_and_kept_with_its_input():
    def values(data, _):
        if data[-1:] > b"\x80":
            raise IndexError(data[-1])

    report = _run(values)
    ((what, (trace, data)),) = report.crashes.items()
    assert what.startswith("IndexError in test_dax_wire.py")
    assert "IndexError" in trace
    assert data[-1] > 0x80


def test_a_hang_is_found(monkeypatch):
    monkeypatch.setattr(daxfuzz, "HANG_S", 0.02)

    def values(_data, _random):
        while True:
            pass

    report = Fuzzer(1, {"values": values}).run(executions=2)
    assert report.hangs == 2
    assert [*report.crashes] == ["hang in values"]


def test_a_decoder_that_forgets_a_limit_is_found(monkeypatch):
    """A value of any depth is read by recursion: without the limit, some depth is too much."""
    from mangacache.local.dax import values as module

    deep = b"\x02" + b"\x81" * 3000 + b"\x01\x01"
    with pytest.raises(Malformed, match="depth"):
        TARGETS["values"](deep, Random(1))
    inner = module._read_container
    monkeypatch.setattr(module, "_read_container", lambda cursor, kind, _: inner(cursor, kind, 0))
    with pytest.raises(RecursionError):
        TARGETS["values"](deep, Random(1))


def test_a_reader_that_loses_a_piece_is_found(monkeypatch):
    feed = daxfuzz.Reader.feed
    monkeypatch.setattr(daxfuzz.Reader, "feed", lambda reader, data: feed(reader, data if len(data) != 2 else data[:1]))
    report = Fuzzer(1, {"connection": TARGETS["connection"]}).run(executions=100)
    assert any(what.startswith("Contradiction") for what in report.crashes)
