"""Attribute values in boto's typed form: checking, one normal form, order, copies and sizes.

A value that went through `normalise` is compared with `==`: numbers are canonical and sets are sorted lists.
Items inside the double are never changed in place, so they may be shared between the table and its indexes.
"""

from __future__ import annotations

import base64
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from mangacache.testing.dynamodb.errors import invalid, invalid_values, mistyped
from mangacache.testing.dynamodb.numbers import canonical_number, number_size

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

AttributeValue: TypeAlias = dict[str, Any]
"""One typed value, for example `{"S": "text"}` or `{"M": {"a": {"N": "1"}}}`."""
Item: TypeAlias = dict[str, AttributeValue]
"""Attribute names and their typed values."""
Scalar: TypeAlias = str | bytes | Decimal
"""What a key attribute compares as."""

MAX_ITEM_BYTES: Final = 400 * 1024
_MAX_DEPTH: Final = 32
_CONTAINER_OVERHEAD: Final = 3
_PYTHON_TYPES: Final[dict[str, type | tuple[type, ...]]] = {
    "S": str,
    "N": str,
    "B": (bytes, bytearray, str),
    "BOOL": bool,
    "NULL": bool,
    "M": dict,
    "L": (list, tuple),
    "SS": (list, tuple),
    "NS": (list, tuple),
    "BS": (list, tuple),
}


def normalise_item(item: Mapping[str, Any]) -> Item:
    """Return a copy of `item` in normal form; refuse what DynamoDB refuses in a value."""
    return {name: normalise(value) for name, value in item.items()}


def normalise(value: Mapping[str, Any], depth: int = 0) -> AttributeValue:
    """Return a copy of one value in normal form.

    Raises:
        ParamValidationError: a value that the client itself refuses: of no known type, or of another Python type.
        Refusal: no type or several, an invalid number, an empty or repeating set, `NULL` that is not true,
            or deeper than 32 levels.
    """
    if len(value) == 1:  # nearly all are of these two
        if type(text := value.get("S")) is str:
            return {"S": text}
        if type(text := value.get("N")) is str:
            return {"N": canonical_number(text)}
    if len(value) != 1:
        several = "has more than one datatypes set" if value else "is empty"
        raise invalid(f"Supplied AttributeValue {several}, must contain exactly one of the supported datatypes")
    ((tag, inner),) = value.items()
    if tag not in _PYTHON_TYPES:
        raise mistyped(f"Unknown parameter in an attribute value: {tag!r}, must be one of: {', '.join(_PYTHON_TYPES)}")
    _check_type(tag, inner)
    if tag == "S":
        return {"S": inner}
    if tag == "M":
        _check_depth(depth)
        return {"M": {name: normalise(element, depth + 1) for name, element in inner.items()}}
    if tag == "L":
        _check_depth(depth)
        return {"L": [normalise(element, depth + 1) for element in inner]}
    return {tag: _NORMALISERS[tag](inner)}


def _check_type(tag: str, inner: object) -> None:
    if not isinstance(inner, _PYTHON_TYPES[tag]):
        raise mistyped(f"Invalid type for parameter {tag}, value: {inner!r:.80}, type: {type(inner)}")


def _check_depth(depth: int) -> None:
    if depth >= _MAX_DEPTH:
        raise invalid("Nesting Levels have exceeded supported limits")


def _blob(value: Any) -> bytes:
    if isinstance(value, str):
        return value.encode()
    return bytes(value)


def _null(value: bool) -> bool:  # noqa: FBT001 - called through the table below with the value alone
    if not value:
        raise invalid_values("Null attribute value types must have the value of true")
    return True


def _strings(value: list[str]) -> list[str]:
    if not value:
        raise invalid_values("An string set  may not be empty")
    if len(set(value)) != len(value):
        raise invalid_values(f"Input collection [{', '.join(value)}] contains duplicates.")
    return sorted(value)


def _numbers(value: list[str]) -> list[str]:
    if not value:
        raise invalid_values("An number set  may not be empty")
    canonical = [canonical_number(element) for element in value]
    if len(set(canonical)) != len(canonical):
        raise invalid("Input collection contains duplicates")
    return sorted(canonical, key=Decimal)


def _blobs(value: list[Any]) -> list[bytes]:
    if not value:
        raise invalid_values("Binary sets should not be empty")
    blobs = [_blob(element) for element in value]
    if len(set(blobs)) != len(blobs):
        shown = ", ".join(base64.b64encode(blob).decode() for blob in blobs)
        raise invalid_values(f"Input collection [{shown}]of type BS contains duplicates.")
    return sorted(blobs)


_NORMALISERS: Final[dict[str, Callable[[Any], Any]]] = {
    "B": _blob,
    "BOOL": bool,
    "BS": _blobs,
    "N": canonical_number,
    "NS": _numbers,
    "NULL": _null,
    "SS": _strings,
}
SET_TYPES: Final = frozenset({"SS", "NS", "BS"})
ORDERED_TYPES: Final = frozenset({"S", "N", "B"})


def set_of(tag: str, elements: set[Any]) -> AttributeValue:
    """Return a set value in normal form from its distinct elements."""
    return {tag: sorted(elements, key=Decimal) if tag == "NS" else sorted(elements)}


def type_of(value: AttributeValue) -> str:
    """Return the type tag of a value."""
    return next(iter(value))


def scalar(value: AttributeValue) -> Scalar:
    """Return what a string, number or binary value compares as; strings order as their UTF-8 bytes do."""
    ((tag, inner),) = value.items()
    return Decimal(inner) if tag == "N" else inner


def copy_item(item: Item) -> Item:
    """Return a deep copy, for what leaves the double."""
    return {
        name: value.copy() if "S" in value or "N" in value or "B" in value else copy_value(value)
        for name, value in item.items()
    }


def copy_value(value: AttributeValue) -> AttributeValue:
    """Return a deep copy of one value."""
    ((tag, inner),) = value.items()
    if tag == "M":
        return {"M": {name: copy_value(element) for name, element in inner.items()}}
    if tag == "L":
        return {"L": [copy_value(element) for element in inner]}
    return {tag: list(inner) if tag in SET_TYPES else inner}


def item_size(item: Item) -> int:
    """Return the bytes an item counts for: names in UTF-8 and values, as the developer guide defines them."""
    size = 0
    for name, value in item.items():
        size += len(name) if name.isascii() else len(name.encode())
        text = value.get("S")  # nearly all are of this
        size += len(text) if text is not None and text.isascii() else value_size(value)
    return size


def value_size(value: AttributeValue) -> int:
    """Return the bytes one value counts for."""
    ((tag, inner),) = value.items()
    if tag == "S":
        return len(inner) if inner.isascii() else len(inner.encode())
    if tag == "M":
        return _CONTAINER_OVERHEAD + len(inner) + item_size(inner)
    if tag == "L":
        return _CONTAINER_OVERHEAD + len(inner) + sum(map(value_size, inner))
    if tag in SET_TYPES:
        return sum(value_size({tag[0]: element}) for element in inner)
    if tag == "N":
        return number_size(inner)
    return len(inner) if tag == "B" else 1
