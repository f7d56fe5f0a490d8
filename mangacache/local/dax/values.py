"""Attribute values as CBOR, each one item without a wrapper that would name its type."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from mangacache.errors import Invalid
from mangacache.local.dax.cbor import (
    ARRAY,
    BINARY_SET,
    BYTES,
    FALSE,
    MAP,
    NULL,
    NUMBER_SET,
    STRING_SET,
    TAG,
    TEXT,
    TRUE,
    blob,
    head,
    text,
)
from mangacache.local.dax.decimals import encode_number, number_after_tag, read_number
from mangacache.local.dax.limits import Malformed

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from mangacache.local.dax.cursor import Cursor

_FALSE: Final = FALSE[0]
_TRUE: Final = TRUE[0]
_NULLS: Final = frozenset({0xF6, 0xF7})
_SETS: Final = {STRING_SET: "SS", NUMBER_SET: "NS", BINARY_SET: "BS"}
_FLOATS: Final = frozenset({0xF9, 0xFA, 0xFB})


def read_value(cursor: Cursor, depth: int = 0) -> dict[str, Any]:  # noqa: PLR0911 - a case a type
    """Read an attribute value, typed as boto's low-level client has it.

    Raises:
        Malformed: something else is there, or deeper than the limit.
    """
    first = cursor.peek()
    kind = first >> 5
    if kind == TEXT:
        return {"S": cursor.text()}
    if kind == BYTES:
        return {"B": cursor.blob()}
    if kind < BYTES or first in _FLOATS:
        return {"N": read_number(cursor)}
    if kind == TAG:
        return _read_tagged(cursor)
    if kind <= MAP:
        return _read_container(cursor, kind, depth)
    if first in _NULLS:
        cursor.position += 1
        return {"NULL": True}
    if first in {_TRUE, _FALSE}:
        cursor.position += 1
        return {"BOOL": first == _TRUE}
    return cursor.wrong("an attribute value", first)


def _read_container(cursor: Cursor, kind: int, depth: int) -> dict[str, Any]:
    if depth >= cursor.limits.depth:
        raise Malformed(f"lists and maps stand in each other more than {cursor.limits.depth} deep (depth)")
    if kind == ARRAY:
        return {"L": [read_value(cursor, depth + 1) for _ in cursor.elements()]}
    members: dict[str, Any] = {}
    for _ in cursor.pairs():
        name = cursor.text()
        members[name] = read_value(cursor, depth + 1)
    return {"M": members}


def _read_tagged(cursor: Cursor) -> dict[str, Any]:
    _, tag = cursor.head()
    kind = _SETS.get(tag)
    if kind is None:
        return {"N": number_after_tag(cursor, tag)}
    read: Callable[[], str | bytes]
    if kind == "SS":
        read = cursor.text
    elif kind == "BS":
        read = cursor.blob
    else:
        return {"NS": [read_number(cursor) for _ in cursor.elements()]}
    return {kind: [read() for _ in cursor.elements()]}


def _write_map(members: dict[str, Any]) -> bytes:
    return head(MAP, len(members)) + b"".join([text(name) + encode_value(member) for name, member in members.items()])


def _write_list(members: list[Any]) -> bytes:
    return head(ARRAY, len(members)) + b"".join(map(encode_value, members))


def _write_set(tag: int, write: Callable[[Any], bytes]) -> Callable[[list[Any]], bytes]:
    opening = head(TAG, tag)

    def written(members: list[Any]) -> bytes:
        return opening + head(ARRAY, len(members)) + b"".join(map(write, members))

    return written


_WRITE: Final[dict[str, Callable[[Any], bytes]]] = {
    "S": text,
    "N": encode_number,
    "B": blob,
    "BOOL": lambda value: TRUE if value else FALSE,
    "NULL": lambda _: NULL,
    "M": _write_map,
    "L": _write_list,
    "SS": _write_set(STRING_SET, text),
    "NS": _write_set(NUMBER_SET, encode_number),
    "BS": _write_set(BINARY_SET, blob),
}


def encode_value(value: Mapping[str, Any]) -> bytes:
    """Return an attribute value as CBOR.

    Raises:
        Invalid: it is none.
    """
    try:
        ((kind, inner),) = value.items()
        return _WRITE[kind](inner)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Invalid(f"a value of the types {sorted(value)} is none of DynamoDB's") from error
