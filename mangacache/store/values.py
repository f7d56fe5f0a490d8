"""Free attributes: Python values to and from DynamoDB's typed values, and the one form they have in every tier."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from decimal import Context as DecimalContext
from decimal import Decimal, DecimalException, Inexact, Rounded
from typing import TYPE_CHECKING, Any, Final, TypeAlias, cast

from mangacache.errors import Corrupt, Invalid

if TYPE_CHECKING:
    from mangacache.model import Attribute

Typed: TypeAlias = dict[str, Any]
"""A value as DynamoDB's protocol has it, `{"S": "text"}`."""

MAX_DEPTH: Final = 32
_MAX_NAME_LENGTH: Final = 255
_NUMBERS: Final = DecimalContext(prec=38, Emin=-130, Emax=126, traps=[Inexact, Rounded])


def _number(value: int | Decimal, path: str) -> str:
    try:
        number = _NUMBERS.create_decimal(value)
    except DecimalException as error:
        raise Invalid(f"{path}: {value} does not fit a DynamoDB number (38 digits, 1E-130 to 1E+126)") from error
    if not number.is_finite() or (number and not -130 <= number.adjusted() < 126):  # noqa: PLR2004 - the engine's
        raise Invalid(f"{path}: {value} does not fit a DynamoDB number (38 digits, 1E-130 to 1E+126)")
    return str(number)


def _text(value: str, path: str) -> str:
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise Invalid(f"{path} holds a lone surrogate at position {error.start}: decode it properly first") from error
    return value


def _set(value: AbstractSet[Any], path: str) -> Typed:
    if not value:
        raise Invalid(f"{path} is an empty set, which DynamoDB cannot store: leave the attribute out")
    if all(isinstance(member, str) for member in value):
        return {"SS": sorted(_text(member, path) for member in value)}
    if all(isinstance(member, bytes) for member in value):
        return {"BS": sorted(value)}
    if all(isinstance(member, int | Decimal) and not isinstance(member, bool) for member in value):
        return {"NS": [_number(member, path) for member in sorted(value)]}
    raise Invalid(f"{path} is a set of mixed types: a set holds only text, only numbers or only bytes")


def to_typed(value: Attribute, path: str = "attribute", depth: int = 0) -> Typed:  # noqa: PLR0911 - a case a type
    """Return `value` as DynamoDB has it.

    Raises:
        Invalid: a type, number, text or depth that DynamoDB cannot hold; `path` says where.
    """
    if depth > MAX_DEPTH:
        raise Invalid(f"{path} is nested deeper than {MAX_DEPTH} levels")
    match value:
        case None:
            return {"NULL": True}
        case bool():
            return {"BOOL": value}
        case str():
            return {"S": _text(value, path)}
        case int() | Decimal():
            return {"N": _number(value, path)}
        case bytes() | bytearray() | memoryview():
            return {"B": bytes(value)}
        case Mapping():
            return {"M": {_name(k, path): to_typed(v, f"{path}.{k}", depth + 1) for k, v in value.items()}}
        case list() | tuple():
            return {"L": [to_typed(item, f"{path}[{i}]", depth + 1) for i, item in enumerate(value)]}
        case AbstractSet():
            return _set(value, path)
        case float():
            raise Invalid(f"{path} is a float, which DynamoDB rounds: pass Decimal({str(value)!r}) or text")
    raise Invalid(f"{path} is a {type(value).__name__}: pass text, numbers, bytes, lists, mappings, sets or None")


def _name(name: object, path: str) -> str:
    if not isinstance(name, str):
        raise Invalid(f"{path}: a mapping's keys must be text, {name!r:.40} is not")
    return _text(name, path)


def _from_number(text: str) -> int | Decimal:
    """Return a number in the one form it has in every tier: DynamoDB drops the zeros at its end, 6.80 is 6.8."""
    number = Decimal(text)
    return int(number) if number == number.to_integral_value() else _NUMBERS.normalize(number)


_FROM: Final[dict[str, Callable[[Any], Any]]] = {
    "S": str,
    "N": _from_number,
    "B": bytes,
    "BOOL": bool,
    "NULL": lambda _: None,
    "M": lambda members: {name: from_typed(member) for name, member in members.items()},
    "L": lambda members: [from_typed(member) for member in members],
    "SS": set,
    "BS": lambda members: {bytes(member) for member in members},
    "NS": lambda members: {_from_number(member) for member in members},
}


def from_typed(typed: Typed) -> Attribute:
    """Return the Python value of a typed one: whole numbers as `int`, others as `Decimal`, binary as `bytes`."""
    try:
        ((kind, value),) = typed.items()
        return cast("Attribute", _FROM[kind](value))
    except (ValueError, KeyError, TypeError, ArithmeticError) as error:
        raise Corrupt(f"a stored value of types {sorted(typed)} cannot be read") from error


def _is_name(name: object) -> bool:
    return isinstance(name, str) and 1 <= len(name) <= _MAX_NAME_LENGTH


def typed_attributes(attributes: Mapping[str, Attribute], reserved: frozenset[str]) -> Typed:
    """Return free attributes as items hold them, each beside the layout's own.

    Raises:
        Invalid: a name that the layout uses itself, or a value that DynamoDB cannot hold.
    """
    typed: Typed = {}
    for name, value in attributes.items():
        if not _is_name(name):
            raise Invalid(f"an attribute's name must be text of 1 to 255 characters, not {name!r:.60}")
        if name in reserved:
            raise Invalid(f"the attribute name {name!r} is used by the table's layout: choose another")
        typed[_text(name, "an attribute's name")] = to_typed(value, f"attribute {name!r}")
    return typed


def copied(attributes: dict[str, Attribute]) -> dict[str, Attribute]:
    """Return a deep copy, so that what a caller does to an answer changes nobody else's."""
    return {name: _copied(value) for name, value in attributes.items()}


def _copied(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _copied(member) for name, member in value.items()}
    if isinstance(value, list):
        return [_copied(member) for member in value]
    return set(value) if isinstance(value, set) else value


def size_of(typed: Typed) -> int:
    """Return the bytes that an item's attributes count for, by DynamoDB's published arithmetic, rounded up."""
    return sum(len(name.encode()) + _size(value) for name, value in typed.items())


def _size(typed: Typed) -> int:
    ((kind, value),) = typed.items()
    if kind in ("S", "B"):
        return len(value.encode()) if isinstance(value, str) else len(value)
    if kind == "N":
        return len(value) // 2 + 3
    if kind == "M":
        return 3 + size_of(value) + len(value)
    if kind == "L":
        return 3 + sum(_size(member) + 1 for member in value)
    if kind in ("SS", "BS", "NS"):
        return 3 + sum(len(member.encode()) if isinstance(member, str) else len(member) for member in value)
    return 1
