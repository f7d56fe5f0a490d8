"""Projections are read as the real client compiles them, and select out of whole items."""

from __future__ import annotations

import pytest
from amazondax.CborSExprGenerator import encode_projection_expression
from daxvalues import NAMES, paths, patient, used
from hypothesis import given
from hypothesis import strategies as st

from mangacache.local.dax.cbor import array, integer, text
from mangacache.local.dax.limits import Malformed
from mangacache.local.dax.projections import decode_projection, project

ITEM = {
    "a": {"L": [{"S": "0"}, {"M": {"b": {"N": "1"}}}, {"L": [{"N": "2"}]}]},
    "m": {"M": {"x.y": {"BOOL": True}, "n": {"NULL": True}}},
    "s": {"SS": ["x"]},
}


def parsed(path):
    """Return the steps of a path as a caller writes it."""
    steps = []
    for part in path.split("."):
        name, *indexes = part.replace("]", "").split("[")
        steps += [NAMES.get(name, name), *map(int, indexes)]
    return tuple(steps)


@patient
@given(st.lists(paths, min_size=1, max_size=5))
def test_the_paths_are_those_that_were_asked_for_in_their_order(several):
    expression = ", ".join(several)
    octets = bytes(encode_projection_expression(expression, used(expression, NAMES), {}))
    assert decode_projection(octets) == tuple(map(parsed, several))


def test_a_path_is_known_to_the_byte():
    octets = bytes.fromhex("82 01 82 84 12 6178 6162 d90cfc01 82 12 6163")
    assert decode_projection(octets) == (("x", "b", 1), ("c",))


def test_indexes_count_in_the_list_as_it_is_stored():
    wanted = [("a", 1, "b"), ("a", 2, 0), ("m", "x.y"), ("s",)]
    assert project(ITEM, wanted) == {0: {"N": "1"}, 1: {"N": "2"}, 2: {"BOOL": True}, 3: {"SS": ["x"]}}


def test_what_is_not_there_is_left_out_and_the_others_keep_their_places():
    wanted = [
        ("none",),
        ("a", 9),
        ("a", "b"),
        ("m", 0),
        ("s", 0),
        ("a", 0, "x"),
        ("m", "n"),
        ("m", "n", "deep"),
        ("m",),
    ]
    assert project(ITEM, wanted) == {6: {"NULL": True}, 8: ITEM["m"]}


@pytest.mark.parametrize(
    ("octets", "reason"),
    [
        (b"\x80", "compiled expression"),
        (array([b"\x01", array([array([integer(17), integer(0)])])]), "document paths"),
        (array([b"\x01", array([array([])])]), "document paths"),
        (array([b"\x01", array([array([integer(18)])])]), "no name"),
        (array([b"\x01", array([array([integer(18), text("a")])])]) + b"\x00", "left over"),
    ],
)
def test_what_is_no_projection_is_malformed_and_says_why(octets, reason):
    with pytest.raises(Malformed, match=reason):
        decode_projection(octets)
