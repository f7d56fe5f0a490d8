"""Condition, filter and key condition expressions, parsed once into functions.

Grammar and meaning follow the Amazon DynamoDB Developer Guide, "Condition and filter expressions, operators, and
functions".
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Final, TypeAlias

from mangacache.testing.dynamodb.errors import Refusal, invalid
from mangacache.testing.dynamodb.expressions import CACHE_SIZE, ExpressionParser, Names, Uses
from mangacache.testing.dynamodb.paths import Path, read_path
from mangacache.testing.dynamodb.values import (
    ORDERED_TYPES,
    SET_TYPES,
    AttributeValue,
    Item,
    Scalar,
    scalar,
    type_of,
    value_size,
)

if TYPE_CHECKING:
    from mangacache.testing.dynamodb.tokens import Token

Values: TypeAlias = Mapping[str, AttributeValue]
"""ExpressionAttributeValues in normal form."""
Operand: TypeAlias = Callable[[Item, Values], AttributeValue | None]
Test: TypeAlias = Callable[[Item, Values], bool]

_ORDERINGS: Final[dict[str, Callable[[Scalar, Scalar], bool]]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_COMPARATORS: Final = frozenset({"=", "<>", *_ORDERINGS})
_TYPES: Final = frozenset({"S", "SS", "N", "NS", "B", "BS", "BOOL", "NULL", "L", "M"})
_MAX_IN: Final = 100
_KEY_CONDITIONS: Final = 2


@dataclass(frozen=True, slots=True)
class Condition:
    """A parsed condition: `test(item, values)` tells whether it holds; a missing item is an empty one."""

    test: Test
    uses: Uses


@lru_cache(CACHE_SIZE)
def parse_condition(text: str, names: Names, expression: str) -> Condition:
    """Return the parsed ConditionExpression or FilterExpression (`expression` says which, for messages)."""
    parser = _ConditionParser(text, names, expression)
    test = parser.disjunction()
    return Condition(test, parser.finish())


class _ConditionParser(ExpressionParser):
    def __init__(self, text: str, names: Names, expression: str) -> None:
        super().__init__(text, names, expression)
        self._groups: dict[int, int] = {}
        """Where each group in parentheses begins and ends, in words."""

    def disjunction(self) -> Test:
        tests = [self._conjunction()]
        while self.accept_keyword("OR"):
            tests.append(self._conjunction())
        return tests[0] if len(tests) == 1 else lambda item, values: any(test(item, values) for test in tests)

    def _conjunction(self) -> Test:
        tests = [self._negation()]
        while self.accept_keyword("AND"):
            tests.append(self._negation())
        return tests[0] if len(tests) == 1 else lambda item, values: all(test(item, values) for test in tests)

    def _negation(self) -> Test:
        if self.accept_keyword("NOT"):
            test = self._negation()
            return lambda item, values: not test(item, values)
        if self.token.text == "(":
            return self._group()
        return self._function() or self._comparison()

    def _group(self) -> Test:
        start = self.position
        self.expect("(")
        test = self.disjunction()
        if self._groups.get(start + 1) == self.position:
            raise self.error("The expression has redundant parentheses;")
        self.expect(")")
        self._groups[start] = self.position
        return test

    def _function(self) -> Test | None:
        if not (self.token.kind == "word" and self.following().text == "(") or self.token.text == "size":
            return None
        name = self.next().text
        if name in ("attribute_exists", "attribute_not_exists"):
            (path,) = self.function_arguments(name, 1, self.path)
            return _exists(path, wanted=name == "attribute_exists")  # type: ignore[arg-type] # `path` reads paths
        if name not in _FUNCTIONS:
            raise self.error(f"Invalid function name; function: {name}")
        left, right = self.function_arguments(name, 2, self.operand)
        return _FUNCTIONS[name](left, right, self.expression)  # type: ignore[arg-type] # `operand` reads operands

    def operand(self) -> Operand:
        if self.token.kind == "value":
            return _value(self.value_name(), self.expression)
        if self.token.kind == "word" and self.token.text == "size" and self.following().text == "(":
            self.next()
            (measured,) = self.function_arguments("size", 1, self.operand)
            return _size(measured, self.expression)  # type: ignore[arg-type] # `operand` reads operands
        path = self.path()
        return lambda item, _: read_path(item, path)

    def _comparison(self) -> Test:
        left = self.operand()
        if self.accept_keyword("BETWEEN"):
            low = self.operand()
            if not self.accept_keyword("AND"):
                raise self.unexpected()
            at_least = _ordering(">=", left, low, self.expression)
            at_most = _ordering("<=", left, self.operand(), self.expression)
            return lambda item, values: at_least(item, values) and at_most(item, values)
        if self.accept_keyword("IN"):
            return self._membership(left)
        symbol = self._comparator()
        right = self.operand()
        if symbol == "=":
            return lambda item, values: _equal(left(item, values), right(item, values))
        if symbol == "<>":
            return lambda item, values: not _equal(left(item, values), right(item, values))
        return _ordering(symbol, left, right, self.expression)

    def _comparator(self) -> str:
        if self.token.text not in _COMPARATORS:
            raise self.unexpected()
        return self.next().text

    def _membership(self, left: Operand) -> Test:
        self.expect("(")
        members = [self.operand()]
        while self.accept(","):
            members.append(self.operand())
        self.expect(")")
        if len(members) > _MAX_IN:
            raise self.error(f"The IN operator is provided with too many operands; number of operands: {len(members)}")
        return lambda item, values: any(_equal(left(item, values), member(item, values)) for member in members)


def _value(name: str, expression: str) -> Operand:
    def read(_: Item, values: Values) -> AttributeValue:
        try:
            return values[name]
        except KeyError:
            raise _undefined(name, expression) from None

    return read


def _undefined(name: str, expression: str) -> Refusal:
    return invalid(
        f"Invalid {expression}: An expression attribute value used in expression is not defined; "
        f"attribute value: {name}"
    )


def _exists(path: Path, *, wanted: bool) -> Test:
    return lambda item, _: (read_path(item, path) is not None) is wanted


def _equal(left: AttributeValue | None, right: AttributeValue | None) -> bool:
    # A missing attribute equals nothing, so that `<>` holds for it.
    return left is not None and left == right


def _ordering(symbol: str, left: Operand, right: Operand, expression: str) -> Test:
    holds = _ORDERINGS[symbol]

    def test(item: Item, values: Values) -> bool:
        first, second = left(item, values), right(item, values)
        if second is not None and type_of(second) not in ORDERED_TYPES:
            raise _wrong_type(expression, symbol, second)
        if first is None or second is None or type_of(first) != type_of(second):
            return False
        return holds(scalar(first), scalar(second))

    return test


def _wrong_type(expression: str, name: str, value: AttributeValue) -> Refusal:
    return invalid(
        f"Invalid {expression}: Incorrect operand type for operator or function; "
        f"operator or function: {name}, operand type: {type_of(value)}"
    )


def _size(measured: Operand, expression: str) -> Operand:
    def read(item: Item, values: Values) -> AttributeValue | None:
        value = measured(item, values)
        if value is None:
            return None
        tag = type_of(value)
        if tag in ("L", "M") or tag in SET_TYPES:
            return {"N": str(len(value[tag]))}
        if tag in ("S", "B"):
            return {"N": str(value_size(value))}
        raise _wrong_type(expression, "size", value)

    return read


def _begins_with(left: Operand, right: Operand, expression: str) -> Test:
    def test(item: Item, values: Values) -> bool:
        first, second = left(item, values), right(item, values)
        if second is not None and type_of(second) not in ("S", "B"):
            raise _wrong_type(expression, "begins_with", second)
        if first is None or second is None or type_of(first) != type_of(second):
            return False
        return scalar(first).startswith(scalar(second))  # type: ignore[union-attr,arg-type] # both S or both B

    return test


def _contains(left: Operand, right: Operand, _: str) -> Test:
    def test(item: Item, values: Values) -> bool:
        container, element = left(item, values), right(item, values)
        if container is None or element is None:
            return False
        tag, element_tag = type_of(container), type_of(element)
        if tag == "L":
            return element in container["L"]
        if tag in SET_TYPES:
            return element_tag == tag[0] and element[element_tag] in container[tag]
        return tag in ("S", "B") and tag == element_tag and element[tag] in container[tag]

    return test


def _attribute_type(left: Operand, right: Operand, expression: str) -> Test:
    def test(item: Item, values: Values) -> bool:
        value, wanted = left(item, values), right(item, values) or {}
        if wanted.get("S") not in _TYPES:
            raise invalid(f"Invalid {expression}: Invalid attribute type name found; type: {wanted.get('S')}")
        return value is not None and type_of(value) == wanted["S"]

    return test


_FUNCTIONS: Final[dict[str, Callable[[Operand, Operand, str], Test]]] = {
    "attribute_type": _attribute_type,
    "begins_with": _begins_with,
    "contains": _contains,
}


@dataclass(frozen=True, slots=True)
class KeyTerm:
    """One comparison of a key condition: an attribute, `=`, `<`, ..., `BETWEEN` or `begins_with`, value names."""

    attribute: str
    relation: str
    values: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class KeyCondition:
    """A parsed key condition: one or two terms."""

    terms: tuple[KeyTerm, ...]
    uses: Uses


@lru_cache(CACHE_SIZE)
def parse_key_condition(text: str, names: Names) -> KeyCondition:
    """Return the parsed KeyConditionExpression."""
    parser = _KeyConditionParser(text, names, "KeyConditionExpression")
    terms = parser.terms()
    return KeyCondition(tuple(terms), parser.finish())


class _KeyConditionParser(ExpressionParser):
    def terms(self) -> list[KeyTerm]:
        terms = self._parenthesised()
        while self.accept_keyword("AND"):
            terms += self._parenthesised()
        if len(terms) > _KEY_CONDITIONS:
            raise invalid("Conditions can be of length 1 or 2 only")
        return terms

    def _parenthesised(self) -> list[KeyTerm]:
        if self.accept("("):
            terms = self.terms()
            self.expect(")")
            return terms
        return [self._term()]

    def _term(self) -> KeyTerm:
        if self.token.kind == "word" and self.following().text == "(":
            return self._begins_with(self.next())
        attribute = self._attribute()
        if self.accept_keyword("BETWEEN"):
            low = self.value_name()
            if not self.accept_keyword("AND"):
                raise self.unexpected()
            return KeyTerm(attribute, "BETWEEN", (low, self.value_name()))
        relation = self.next()
        if relation.text == "<>":
            raise self.error("Unsupported operator on KeyCondition; operator: <>")
        if relation.text not in _COMPARATORS:
            raise self.error(f"Invalid operator used in KeyConditionExpression: {relation.text}")
        return KeyTerm(attribute, relation.text, (self.value_name(),))

    def _begins_with(self, function: Token) -> KeyTerm:
        if function.text != "begins_with":
            raise self.error(f"Invalid operator used in KeyConditionExpression: {function.text}")
        self.expect("(")
        attribute = self._attribute()
        self.expect(",")
        value = self.value_name()
        self.expect(")")
        return KeyTerm(attribute, "begins_with", (value,))

    def _attribute(self) -> str:
        path = self.path()
        if len(path) != 1:
            raise self.error("KeyConditionExpressions cannot have conditions on nested attributes")
        return str(path[0])
