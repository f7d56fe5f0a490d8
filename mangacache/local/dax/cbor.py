"""CBOR (RFC 8949) as DAX uses it: what a reply is put together from.

Each function returns the bytes of one item, or of the head of one; whoever calls puts them one after another.
"""

from __future__ import annotations

import struct
from typing import Final

UNSIGNED: Final = 0
NEGATIVE: Final = 1
BYTES: Final = 2
TEXT: Final = 3
ARRAY: Final = 4
MAP: Final = 5
TAG: Final = 6
SIMPLE: Final = 7

FALSE: Final = b"\xf4"
TRUE: Final = b"\xf5"
NULL: Final = b"\xf6"
BREAK: Final = b"\xff"
EMPTY_ARRAY: Final = b"\x80"
INDEFINITE_MAP: Final = b"\xbf"

POSITIVE_BIG: Final = 2
NEGATIVE_BIG: Final = 3
DECIMAL: Final = 4
STRING_SET: Final = 3321
NUMBER_SET: Final = 3322
BINARY_SET: Final = 3323
LIST_INDEX: Final = 3324
"""Tags: RFC 8949's for numbers, then DAX's own."""

_IN_HEAD: Final = 24
_SMALL: Final = 1 << 8
_HEADS: Final = tuple(
    tuple(
        bytes([major << 5 | number]) if number < _IN_HEAD else bytes([major << 5 | _IN_HEAD, number])
        for number in range(_SMALL)
    )
    for major in range(SIMPLE)
)
_WIDER: Final = (
    (1 << 16, 25, struct.Struct(">BH")),
    (1 << 32, 26, struct.Struct(">BI")),
    (1 << 64, 27, struct.Struct(">BQ")),
)
_DOUBLE: Final = struct.Struct(">Bd")
_DOUBLE_HEAD: Final = 0xFB


def head(major: int, number: int) -> bytes:
    """Return the head of an item: its major type, and its value, length or count below 2**64."""
    if number < _SMALL:
        return _HEADS[major][number]
    for bound, width, packer in _WIDER:
        if number < bound:
            return packer.pack(major << 5 | width, number)
    raise ValueError(f"a head holds numbers below 2**64, not {number}")


def integer(number: int) -> bytes:
    """Return a whole number; beyond 64 bits a tagged byte string."""
    if 0 <= number < _SMALL:
        return _HEADS[UNSIGNED][number]
    major, magnitude = (UNSIGNED, number) if number >= 0 else (NEGATIVE, -1 - number)
    if magnitude >> 64:
        tag = POSITIVE_BIG if major == UNSIGNED else NEGATIVE_BIG
        return _HEADS[TAG][tag] + blob(magnitude.to_bytes((magnitude.bit_length() + 7) // 8, "big"))
    return head(major, magnitude)


def decimal_fraction(exponent: int, mantissa: int) -> bytes:
    """Return the number `mantissa * 10**exponent`."""
    return b"\xc4\x82" + integer(exponent) + integer(mantissa)


def double(number: float) -> bytes:
    """Return a number of 64 bits."""
    return _DOUBLE.pack(_DOUBLE_HEAD, number)


def text(value: str) -> bytes:
    """Return a text."""
    octets = value.encode()
    return head(TEXT, len(octets)) + octets


def blob(value: bytes) -> bytes:
    """Return a byte string."""
    return head(BYTES, len(value)) + value


def array(items: list[bytes]) -> bytes:
    """Return an array of items that are bytes already."""
    return head(ARRAY, len(items)) + b"".join(items)
