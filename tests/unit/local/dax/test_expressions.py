"""Compiled expressions become text that means the same, and in which no name and no value stands."""

from __future__ import annotations

import re

import pytest
from daxtrees import compiled, flat, objects
from daxvalues import VALUES, conditions, patient, same, updates
from hypothesis import given

from mangacache.local.dax.cbor import array, head, integer, text
from mangacache.local.dax.cursor import Budget
from mangacache.local.dax.expressions import Placeholders, condition_text, update_text
from mangacache.local.dax.limits import Limits, Malformed

SAFE = re.compile(r"(?:#n\d+|:v\d+|\[\d+\]|[a-z_]+(?=\()|AND|OR|NOT|BETWEEN|IN|SET|ADD|DELETE|REMOVE|[-+<>=(),. ])*")
CONDITION_KINDS = ("ConditionExpression", "KeyConditionExpression", "FilterExpression")


@patient
@given(conditions)
def test_a_condition_keeps_its_tree(expression):
    """The text that comes out is compiled to the same again, by the real client."""
    octets = compiled("ConditionExpression", expression)
    placeholders = Placeholders()
    written = condition_text(octets, placeholders)
    again = compiled("ConditionExpression", written, placeholders.names, placeholders.values)
    assert flat(objects(again)) == flat(objects(octets))
    assert SAFE.fullmatch(written), written


@patient
@given(updates())
def test_an_update_keeps_its_actions(expression):
    octets = compiled("UpdateExpression", expression)
    placeholders = Placeholders()
    written = update_text(octets, placeholders)
    assert compiled("UpdateExpression", written, placeholders.names, placeholders.values) == octets
    assert SAFE.fullmatch(written), written


@pytest.mark.parametrize(
    ("expression", "written"),
    [
        ("a = :n", "#n0 = :v0"),
        ("a <> :n AND b < :n AND c >= :s", "#n0 <> :v0 AND #n1 < :v0 AND #n2 >= :v1"),
        ("a = :n AND (b = :n OR c = :n)", "#n0 = :v0 AND (#n1 = :v0 OR #n2 = :v0)"),
        ("a = :n AND b = :n OR c = :n", "#n0 = :v0 AND #n1 = :v0 OR #n2 = :v0"),
        ("(a = :n AND b = :n) AND (c = :n AND d = :n)", "#n0 = :v0 AND #n1 = :v0 AND #n2 = :v0 AND #n3 = :v0"),
        ("NOT a = :n AND NOT attribute_exists(a)", "NOT (#n0 = :v0) AND NOT attribute_exists(#n0)"),
        ("NOT (a = :n OR NOT b = :n)", "NOT (#n0 = :v0 OR NOT (#n1 = :v0))"),
        ("a BETWEEN :n AND :s AND b IN (:n, :s)", "#n0 BETWEEN :v0 AND :v1 AND #n1 IN (:v0, :v1)"),
        ("size(a) > :n", "size(#n0) > :v0"),
        ("#dots.#and[3][0].#dots = #index", "#n0.#n1[3][0].#n0 = #n2"),
        ("attribute_type(a, :s) OR contains(a, :s)", "attribute_type(#n0, :v0) OR contains(#n0, :v0)"),
    ],
)
@pytest.mark.parametrize("kind", CONDITION_KINDS)
def test_a_condition_is_written_with_placeholders_and_few_parentheses(kind, expression, written):
    placeholders = Placeholders()
    assert condition_text(compiled(kind, expression), placeholders) == written


@pytest.mark.parametrize(
    ("expression", "written"),
    [
        ("SET a = :n", "SET #n0 = :v0"),
        ("REMOVE a, b[1] SET c = c + :n, d = :n - d", "REMOVE #n0, #n1[1] SET #n2 = #n2 + :v0, #n3 = :v0 - #n3"),
        ("ADD a :n DELETE b :ns", "ADD #n0 :v0 DELETE #n1 :v1"),
        ("SET a = list_append(if_not_exists(a, :l), :l)", "SET #n0 = list_append(if_not_exists(#n0, :v0), :v0)"),
    ],
)
def test_an_update_is_written_by_sections(expression, written):
    placeholders = Placeholders()
    assert update_text(compiled("UpdateExpression", expression), placeholders) == written


def test_names_and_values_of_several_expressions_share_placeholders():
    placeholders = Placeholders()
    first = condition_text(compiled("ConditionExpression", "#dots = :n AND plain = :s"), placeholders)
    second = update_text(compiled("UpdateExpression", "SET plain = :s, #dots = :b"), placeholders)
    assert first == "#n0 = :v0 AND #n1 = :v1"
    assert second == "SET #n1 = :v2, #n0 = :v3"
    assert placeholders.names == {"#n0": "a.b.c", "#n1": "plain"}
    assert same(placeholders.values) == same(
        {":v0": VALUES[":n"], ":v1": VALUES[":s"], ":v2": VALUES[":s"], ":v3": VALUES[":b"]}
    )


def test_a_value_that_no_operator_uses_is_left_out():
    """DynamoDB refuses a value that its expression does not use."""
    octets = array([b"\x01", array([integer(0), path("a"), variable(1)]), array([text("x"), text("y")])])
    placeholders = Placeholders()
    assert condition_text(octets, placeholders) == "#n0 = :v0"
    assert placeholders.values == {":v0": {"S": "y"}}


def path(*steps):
    return array([integer(18), *map(text, steps)])


def variable(number):
    return array([integer(17), integer(number)])


EQUAL = array([integer(0), path("a"), variable(0)])
ONE_VALUE = array([b"\x01"])


def condition(tree, values=ONE_VALUE):
    return array([b"\x01", tree, values])


def nested(depth, operator=8):
    return (b"\x82" + integer(operator)) * depth + EQUAL


@pytest.mark.parametrize(
    ("octets", "reason"),
    [
        (b"", "item is due"),
        (b"\x01", "list is due"),
        (array([b"\x02", EQUAL, ONE_VALUE]), "compiled expression"),
        (array([b"\x01", EQUAL]), "compiled expression"),
        (condition(EQUAL) + b"\x00", "left over"),
        (condition(EQUAL, array([])), "no value number 0"),
        (condition(path("a")), "cannot stand"),
        (condition(variable(0)), "cannot stand"),
        (condition(array([integer(16), path("a")])), "cannot stand"),
        (condition(array([integer(6), EQUAL])), "has 1 arguments, not 2"),
        (condition(array([integer(6), EQUAL, EQUAL, EQUAL])), "has 3 arguments, not 2"),
        (condition(array([integer(0), EQUAL, path("a")])), "cannot stand"),
        (condition(array([integer(19), path("a"), variable(0)])), "cannot stand"),
        (condition(array([integer(25), path("a"), variable(0)])), "cannot stand"),
        (condition(array([integer(10), path("a"), variable(0)])), "list is due"),
        (condition(array([integer(10), path("a"), array([])])), "operands"),
        (condition(array([integer(10), path("a"), array([EQUAL])])), "operands"),
        (condition(array([integer(10), path("a")])), "has 1 arguments"),
        (condition(array([integer(27), path("a")])), "no operator 27"),
        (condition(array([integer(-1), EQUAL])), "no operator -1"),
        (condition(array([integer(-3), EQUAL])), "no operator -3"),
        (condition(array([])), "operator is due"),
        (condition(array([integer(18)])), "begins with no name"),
        (condition(array([integer(11), array([integer(18), bytes.fromhex("d90cfc00")])])), "begins with no name"),
        (condition(array([integer(11), array([integer(18), text("a"), bytes.fromhex("d90cfc20")])])), "no index"),
        (condition(array([integer(11), array([integer(18), text("a"), bytes.fromhex("d90cf900")])])), "tag 3321"),
        (condition(array([integer(11), array([integer(18), text("a"), integer(1)])])), "text is due"),
        (condition(array([integer(11), path(*["a"] * 65)])), "65 steps"),
        (condition(array([integer(17)])), "no number"),
        (condition(array([integer(17), integer(0), integer(0)])), "more than a number"),
        (condition(nested(400)), "tree_depth"),
        (condition(head(4, 1 << 40)), "elements"),
    ],
)
def test_what_is_no_condition_is_malformed_and_says_why(octets, reason):
    with pytest.raises(Malformed, match=reason):
        condition_text(octets, Placeholders())


@pytest.mark.parametrize(
    ("octets", "reason"),
    [
        (condition(array([])), "no action"),
        (condition(array([EQUAL])), "actions"),
        (condition(array([path("a")])), "actions"),
        (condition(array([array([integer(19), path("a"), EQUAL])])), "cannot stand"),
        (condition(array([array([integer(22), path("a"), path("b")])])), "has 2 arguments"),
        (condition(EQUAL), "list is due"),
    ],
)
def test_what_is_no_update_is_malformed_and_says_why(octets, reason):
    with pytest.raises(Malformed, match=reason):
        update_text(octets, Placeholders())


def test_a_tree_as_deep_as_dynamodb_allows_is_read():
    written = condition_text(condition(nested(300)), Placeholders())
    assert written.count("NOT") == 300


def test_a_chain_of_the_longest_kind_is_read():
    """To the left or to the right, as clients nest them."""
    left = right = EQUAL
    for _ in range(299):
        left, right = array([integer(6), left, EQUAL]), array([integer(6), EQUAL, right])
    for tree in (left, right):
        assert condition_text(condition(tree), Placeholders()) == " AND ".join(["#n0 = :v0"] * 300)


def test_depth_and_elements_are_limits_one_can_set():
    with pytest.raises(Malformed, match="more than 3 operators deep"):
        condition_text(condition(nested(4)), Placeholders(), Limits(tree_depth=3))
    limits = Limits(elements=12)
    budget = Budget(limits)
    condition_text(condition(EQUAL), Placeholders(), limits, budget)
    with pytest.raises(Malformed, match="more than 12 elements"):
        condition_text(condition(EQUAL), Placeholders(), limits, budget)
