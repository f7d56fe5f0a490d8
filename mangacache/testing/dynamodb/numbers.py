"""DynamoDB's numbers: decimals of 38 digits, stored in one canonical form."""

from __future__ import annotations

import re
from decimal import Context, Decimal
from typing import Final

from mangacache.testing.dynamodb.errors import invalid

MAX_DIGITS: Final = 38
_MAX_EXPONENT: Final = 125
_MIN_EXPONENT: Final = -130
_PLAIN_INTEGER: Final = re.compile(r"0|-?[1-9][0-9]{0,37}")
_NUMBER: Final = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
# Wide enough that sums of any two storable numbers (exponents -130..125) are exact.
_EXACT: Final = Context(prec=400, Emax=10_000, Emin=-10_000)


def canonical_number(text: str) -> str:
    """Return `text` as DynamoDB gives it back: plain digits, no needless zeros, no exponent.

    Raises:
        Refusal: it is no number, has more than 38 significant digits, or a magnitude out of range.
    """
    if _PLAIN_INTEGER.fullmatch(text):
        return text
    if not _NUMBER.fullmatch(text):
        raise invalid(f"The parameter cannot be converted to a numeric value{': ' if text else ''}{text}")
    return _canonical(Decimal(text))


def _canonical(number: Decimal) -> str:
    if not number:
        return "0"
    if number.adjusted() > _MAX_EXPONENT:
        raise invalid("Number overflow. Attempting to store a number with magnitude larger than supported range")
    if number.adjusted() < _MIN_EXPONENT:
        raise invalid("Number underflow. Attempting to store a number with magnitude smaller than supported range")
    digits = "".join(map(str, number.as_tuple().digits)).strip("0")
    if len(digits) > MAX_DIGITS:
        raise invalid("Attempting to store more than 38 significant digits in a Number")
    plain = format(number, "f")
    return plain.rstrip("0").rstrip(".") if "." in plain else plain


def add(left: str, right: str) -> str:
    """Return `left + right`, refused when it does not fit into 38 digits."""
    return _canonical(_EXACT.add(Decimal(left), Decimal(right)))


def subtract(left: str, right: str) -> str:
    """Return `left - right`, refused when it does not fit into 38 digits."""
    return _canonical(_EXACT.subtract(Decimal(left), Decimal(right)))


def number_size(text: str) -> int:
    """Return the bytes a canonical number counts for: one for two significant digits, one more, one for a minus."""
    digits = text.lstrip("-").replace(".", "").strip("0")
    return (len(digits) + 1) // 2 + 1 + text.startswith("-")
