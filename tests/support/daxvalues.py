"""Generated values, items, keys and expressions, within what the real DAX client sends; and when two are the same."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

KEY_SCHEMAS = ("S", "N", "B", "SS", "SN", "SB", "NS", "NN", "NB", "BS", "BN", "BB")
"""Types of the hash key and, where there is one, the range key."""

patient = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
"""For a busy machine: nothing is said about time."""
brief = settings(patient, max_examples=25)
"""For a case that is run for many kinds of keys."""

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
octets = st.binary(max_size=12)


def _number(parts: tuple[bool, int, int, int]) -> str:
    negative, coefficient, exponent, form = parts
    # The real client cannot write a zero with a sign.
    number = Decimal((int(negative and coefficient != 0), tuple(map(int, str(coefficient))), exponent))
    if form == 0 and -40 < exponent <= 38 - len(str(coefficient)):
        return format(number, "f")
    return str(number).lower() if form == 1 else str(number)


numbers = st.one_of(
    st.integers(-300, 300).map(str),
    st.integers(-(10**38) + 1, 10**38 - 1).map(str),
    st.tuples(st.booleans(), st.integers(0, 10**38 - 1), st.integers(-88, 84), st.integers(0, 2)).map(_number),
    st.sampled_from(["0", "0.0", "0E-7", "1.0", "100", "1e2", "1E+70", "1E-100", "-1E-100", "18446744073709551616"]),
)
"""As callers spell them: equal ones in many ways."""

leaves = st.one_of(
    texts.map(lambda text: {"S": text}),
    numbers.map(lambda text: {"N": text}),
    octets.map(lambda value: {"B": value}),
    st.booleans().map(lambda yes: {"BOOL": yes}),
    st.just({"NULL": True}),
    st.lists(texts, min_size=1, max_size=3).map(lambda several: {"SS": several}),
    st.lists(numbers, min_size=1, max_size=3).map(lambda several: {"NS": several}),
    st.lists(octets, min_size=1, max_size=3).map(lambda several: {"BS": several}),
)
values = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(lambda several: {"L": several}),
        st.dictionaries(texts, inner, max_size=3).map(lambda named: {"M": named}),
    ),
    max_leaves=8,
)
names = texts.filter(bool) | st.sampled_from(["a.b", "size", "SET", "x[0]", "#n0", ":v0", "a AND b", "M"])
"""Of attributes: also such as would do harm in a text."""
attributes = st.dictionaries(names, values, max_size=4)


def key_values(kind: str) -> st.SearchStrategy[dict[str, Any]]:
    """Give values for key attributes, never empty."""
    inner = {"S": texts.filter(bool), "N": numbers, "B": octets.filter(bool)}[kind]
    return inner.map(lambda value: {kind: value})


def keys(kinds: str) -> st.SearchStrategy[dict[str, Any]]:
    """Give keys of a table whose key attributes `pk` and `sk` have these types."""
    return st.fixed_dictionaries({name: key_values(kind) for name, kind in zip(("pk", "sk"), kinds, strict=False)})


def spelled(key: dict[str, Any]) -> str:
    """Return what tells keys without numbers apart."""
    return repr(sorted(key.items()))


def same(value: Any) -> Any:
    """Return a value such that those of equal meaning are equal: numbers count by value, and zeros have no sign."""
    if isinstance(value, dict) and len(value) == 1:
        ((kind, inner),) = value.items()
        if kind == "N" and isinstance(inner, str):
            return {"N": Decimal(inner) + 0}
        if kind == "NS" and isinstance(inner, list):
            return {"NS": [Decimal(number) + 0 for number in inner]}
    if isinstance(value, dict):
        return {name: same(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [same(inner) for inner in value]
    return value


# Expressions, as text with placeholders. Names that an expression may use: plain words, and placeholders for the rest.

NAMES = {"#a": "a", "#dots": "a.b.c", "#and": "AND", "#quote": "it's", "#index": "x[0]"}
VALUES = {
    ":s": {"S": "text"},
    ":n": {"N": "1.50"},
    ":b": {"B": b"\x00\xff"},
    ":l": {"L": [{"N": "1"}, {"M": {"x": {"NULL": True}}}]},
    ":ns": {"NS": ["1", "2.5"]},
    ":t": {"BOOL": True},
}
_first = st.sampled_from([*NAMES, "plain", "b2", "c_3"])
_step = st.one_of(
    st.sampled_from([*NAMES, "plain"]).map(lambda name: f".{name}"), st.integers(0, 40).map(lambda index: f"[{index}]")
)
paths = st.builds(lambda first, steps: first + "".join(steps), _first, st.lists(_step, max_size=3))
_value = st.sampled_from([*VALUES])
_operand = st.one_of(paths, _value, paths.map(lambda path: f"size({path})"))


def _joined(template: str, *parts: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.tuples(*parts).map(lambda filled: template.format(*filled))


_conditions = st.one_of(
    st.tuples(_operand, st.sampled_from(["=", "<>", "<", "<=", ">", ">="]), _operand).map(" ".join),
    _joined("{} BETWEEN {} AND {}", _operand, _operand, _operand),
    st.builds(
        lambda one, several: f"{one} IN ({', '.join(several)})", _operand, st.lists(_operand, min_size=1, max_size=4)
    ),
    _joined("attribute_exists({})", paths),
    _joined("attribute_not_exists({})", paths),
    _joined("attribute_type({}, {})", paths, _value),
    _joined("begins_with({}, {})", paths, _value),
    _joined("contains({}, {})", paths, _value),
)
conditions = st.recursive(
    _conditions,
    lambda inner: st.one_of(
        _joined("({}) AND ({})", inner, inner),
        _joined("({}) OR ({})", inner, inner),
        _joined("{} AND {}", inner, inner),
        _joined("{} OR {}", inner, inner),
        _joined("NOT ({})", inner),
    ),
    max_leaves=8,
)
_default = st.recursive(
    st.one_of(paths, _value), lambda inner: _joined("if_not_exists({}, {})", paths, inner), max_leaves=3
)
_sections = {
    "SET": st.one_of(
        _joined("{} = {}", paths, _default),
        _joined("{} = list_append({}, {})", paths, _default, _default),
        _joined("{} = {} + {}", paths, _default, _default),
        _joined("{} = {} - {}", paths, _default, _default),
    ),
    "ADD": _joined("{} {}", paths, _value),
    "DELETE": _joined("{} {}", paths, _value),
    "REMOVE": paths,
}


@st.composite
def updates(draw: st.DrawFn) -> str:
    """Give update expressions: their sections in any order."""
    chosen = draw(st.lists(st.sampled_from([*_sections]), min_size=1, max_size=4, unique=True))
    written = [
        f"{section} {', '.join(draw(st.lists(_sections[section], min_size=1, max_size=3)))}" for section in chosen
    ]
    return " ".join(written)


def used(expression: str, given: dict[str, Any]) -> dict[str, Any]:
    """Return those of the placeholders that an expression uses: the client refuses others."""
    found = set(re.findall(r"[#:]\w+", expression))
    return {name: value for name, value in given.items() if name in found}


def placeholders(expression: str) -> dict[str, Any]:
    """Return the parameters of a call that has such an expression."""
    parameters = {
        "ExpressionAttributeNames": used(expression, NAMES),
        "ExpressionAttributeValues": used(expression, VALUES),
    }
    return {name: value for name, value in parameters.items() if value}
