"""DynamoDB's numbers: their text, their one normal form, and the bytes that sort as they do.

The lexicographic form is that of range keys: a header of sign and magnitude, then the digits in groups of three, ten
bits a group, closed by a group that says how many digits of the last one are real.
"""

from __future__ import annotations

import re
from decimal import Context, Decimal, DecimalException
from typing import TYPE_CHECKING, Final

from mangacache.errors import Invalid
from mangacache.local.dax.cbor import DECIMAL, NEGATIVE_BIG, POSITIVE_BIG, TAG, decimal_fraction, integer
from mangacache.local.dax.limits import Malformed

if TYPE_CHECKING:
    from mangacache.local.dax.cursor import Cursor

MAX_DIGITS: Final = 38
_INTEGER: Final = re.compile(r"[+-]?[0-9]{1,400}", re.ASCII)
_FRACTION: Final = re.compile(r"([+-]?[0-9]{1,200})\.([0-9]{1,200})", re.ASCII)
_NUMBER: Final = re.compile(
    r"[+-]?(?:[0-9]{1,400}(?:\.[0-9]{0,400})?|\.[0-9]{1,400})(?:[eE][+-]?[0-9]{1,9})?", re.ASCII
)
_WIDE: Final = Context(prec=1000, Emax=999_999_999_999_999_999, Emin=-999_999_999_999_999_999)
_MAX_EXPONENT: Final = 100_000
"""Far beyond DynamoDB's own, and near enough to be computed with."""
_AS_INTEGER: Final = 400

_ZEROS: Final = frozenset({0x80, 0x7F})
_NEAR: Final = 62
_POSITIVE: Final = 0xC0
_NEGATIVE: Final = 0x3F
_FAR: Final = {0x81: False, 0xFE: False, 0x7E: True, 0x01: True}
_NULLS: Final = frozenset({0x00, 0xFF})
_FIRST_POSITIVE: Final = 0x82
_FAR_BYTES: Final = 5
_ABOVE: Final = 12
_BELOW: Final = 1011
_LAST: Final = 1023
_BITS: Final = 10
_DIGITS: Final = 3
_MASK: Final = 0xFFFFFFFF
_FLIP_POSITIVE: Final = 0x80000000
_FLIP_NEGATIVE: Final = 0x7FFFFFFF


def number_of(text: str) -> Decimal:
    """Return the number that a text of DynamoDB's spells, its digits as they stand.

    Raises:
        Invalid: it spells none.
    """
    if not _NUMBER.fullmatch(text):
        raise Invalid(f"{text!r:.60} is no number as DynamoDB has them")
    return Decimal(text)


def canonical(number: Decimal) -> Decimal:
    """Return the one form of all spellings of a number.

    A whole number that fits into 38 digits has no exponent, so its text is plain; any other has no zeros at its end.
    """
    if not number:
        return Decimal(0)
    try:
        least = _WIDE.normalize(number)
    except DecimalException as error:
        raise Invalid(f"{number!s:.60} is far beyond what DynamoDB has for numbers") from error
    _, digits, exponent = _parts(least)
    if 0 < exponent <= MAX_DIGITS - len(digits):
        return least.quantize(Decimal(1), context=_WIDE)
    return least


def _parts(number: Decimal) -> tuple[bool, str, int]:
    sign, digits, exponent = number.as_tuple()
    if not isinstance(exponent, int):
        raise Invalid(f"{number} is not finite: DynamoDB has no such numbers")
    return bool(sign), "".join(map(str, digits)), exponent


def read_number(cursor: Cursor) -> str:
    """Read a number and return its text, spelled as it was sent.

    Raises:
        Malformed: something else is there, or more than a number may have.
    """
    first = cursor.peek()
    if first >> 5 < TAG:
        return str(cursor.integer())
    if first >> 5 > TAG:
        return _text_of_float(cursor.floating())
    _, tag = cursor.head()
    return number_after_tag(cursor, tag)


def number_after_tag(cursor: Cursor, tag: int) -> str:
    """Read what follows the tag of a number, and return its text."""
    if tag in {POSITIVE_BIG, NEGATIVE_BIG}:
        return str(cursor.big(tag))
    if tag != DECIMAL:
        raise Malformed(f"tag {tag} is not that of a number")
    if cursor.length() != 2:  # noqa: PLR2004 - exponent and mantissa
        raise Malformed("a decimal number is not a list of exponent and mantissa")
    exponent = cursor.integer()
    if abs(exponent) > _MAX_EXPONENT:
        raise Malformed(f"a number has the exponent {exponent!s:.60}")
    return str(Decimal(cursor.integer()).scaleb(exponent, context=_WIDE))


def _text_of_float(number: float) -> str:
    text = repr(number)
    if not _NUMBER.fullmatch(text):
        raise Malformed(f"{text} is no number")
    return str(Decimal(text))


def encode_number(text: str) -> bytes:
    """Return a number as CBOR, spelled as its text is.

    Raises:
        Invalid: the text is no number.
    """
    if _INTEGER.fullmatch(text):
        return integer(int(text))
    fraction = _FRACTION.fullmatch(text)
    if fraction is not None:
        before, after = fraction.groups()
        return decimal_fraction(-len(after), int(before + after))
    negative, digits, exponent = _parts(number_of(text))
    return decimal_fraction(exponent, -int(digits) if negative else int(digits))


def encode_canonical(text: str) -> bytes:
    """Return a number as CBOR: the same bytes for all of its spellings.

    Raises:
        Invalid: the text is no number.
    """
    negative, digits, exponent = _parts(canonical(number_of(text)))
    mantissa = -int(digits) if negative else int(digits)
    if 0 <= exponent <= _AS_INTEGER:
        return integer(mantissa * 10**exponent)
    return decimal_fraction(exponent, mantissa)


def encode_sortable(number: Decimal) -> bytes:
    """Return a number as bytes that sort as it does, its digits as they stand.

    Raises:
        Invalid: it is not finite, or far beyond what DynamoDB has.
    """
    negative, digits, exponent = _parts(number)
    if not number:
        return b"\x80"
    magnitude = len(digits) + exponent
    if abs(magnitude) > _MAX_EXPONENT:
        raise Invalid(f"{number!s:.60} is far beyond what DynamoDB has for numbers")
    missing = -len(digits) % _DIGITS
    padded = digits + "0" * missing
    bits = 0
    for start in range(0, len(padded), _DIGITS):
        group = int(padded[start : start + _DIGITS])
        bits = bits << _BITS | (_BELOW - group if negative else group + _ABOVE)
    terminator = 2 - missing
    bits = bits << _BITS | (_LAST - terminator if negative else terminator)
    width = (len(padded) // _DIGITS + 1) * _BITS
    octets = -(-width // 8)
    return _header(magnitude, negative=negative) + (bits << (octets * 8 - width)).to_bytes(octets, "big")


def _header(magnitude: int, *, negative: bool) -> bytes:
    if -_NEAR <= magnitude < _NEAR:
        return bytes([_NEGATIVE - magnitude if negative else _POSITIVE + magnitude])
    if negative:
        return bytes([0x7E if magnitude < 0 else 0x01]) + ((magnitude & _MASK) ^ _FLIP_NEGATIVE).to_bytes(4, "big")
    return bytes([0x81 if magnitude < 0 else 0xFE]) + ((magnitude & _MASK) ^ _FLIP_POSITIVE).to_bytes(4, "big")


def decode_sortable(data: bytes, limit: int) -> Decimal:
    """Return the number that bytes of the sortable form hold, to their end.

    Args:
        data: all of them.
        limit: how many they may be.

    Raises:
        Malformed: they hold none, or something besides.
    """
    if not data or data[0] in _NULLS:
        raise Malformed("a number of a range key is missing")
    if len(data) > limit:
        raise Malformed(f"a number of a range key has {len(data)} bytes, more than {limit} (number_bytes)")
    if data[0] in _ZEROS:
        if len(data) > 1:
            raise Malformed("bytes are left over after a number of a range key")
        return Decimal(0)
    negative, magnitude, start = _read_header(data)
    if abs(magnitude) > _MAX_EXPONENT:
        raise Malformed(f"a number of a range key has the magnitude {magnitude}")
    digits = _read_digits(data[start:], negative=negative)
    return Decimal((int(negative), tuple(map(int, digits)), magnitude - len(digits)))


def _read_header(data: bytes) -> tuple[bool, int, int]:
    first = data[0]
    if first not in _FAR:
        negative = first < _FIRST_POSITIVE
        return negative, (_NEGATIVE - first if negative else first - _POSITIVE), 1
    if len(data) < _FAR_BYTES:
        raise Malformed("a number of a range key ends within its header")
    raw = int.from_bytes(data[1:_FAR_BYTES], "big") ^ (_FLIP_NEGATIVE if _FAR[first] else _FLIP_POSITIVE)
    return _FAR[first], raw - (1 << 32) if raw & _FLIP_POSITIVE else raw, _FAR_BYTES


def _read_digits(data: bytes, *, negative: bool) -> str:
    bits, width = int.from_bytes(data, "big"), len(data) * 8
    digits: list[str] = []
    for end in range(_BITS, width + 1, _BITS):
        group = (bits >> (width - end)) & _LAST
        if _ABOVE <= group <= _BELOW:
            digits.append(f"{_BELOW - group if negative else group - _ABOVE:03}")
            continue
        missing = 2 - (_LAST - group if negative else group)
        if not digits or not 0 <= missing < _DIGITS:
            raise Malformed(f"a number of a range key has {group} for its last group")
        if width - end >= 8:  # noqa: PLR2004 - bits of a byte
            raise Malformed("bytes are left over after a number of a range key")
        text = "".join(digits)
        return text[: len(text) - missing]
    raise Malformed("a number of a range key has no end")
