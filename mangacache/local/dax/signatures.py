"""Whether a connection's signature is right: AWS's version 4 for the service `dax`.

The client sends what it signed beside the signature, so that the secret is enough to check it; day, service and time
are looked at as well, else an old signature would do for ever.

See "Create a signed AWS API request" in the AWS General Reference.
"""

from __future__ import annotations

import hmac
from datetime import datetime
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

MAX_SKEW_S: Final = 300.0
_ALGORITHM: Final = "AWS4-HMAC-SHA256"
_LINES: Final = 4
_SCOPE_PARTS: Final = 4


def complaint(
    secrets: Mapping[str, str], *, access_key: str, signature: str, string_to_sign: bytes, now_s: float
) -> str | None:
    """Return what is wrong with a signature, None where nothing is.

    Args:
        secrets: the secret of each access key that may come in.
        access_key: whose signature it is said to be.
        signature: 64 hexadecimal digits.
        string_to_sign: the four lines that were signed.
        now_s: seconds since 1970.
    """
    secret = secrets.get(access_key)
    if secret is None:
        return f"the access key {access_key[:4]}... is not known here"
    lines = string_to_sign.decode("latin-1").split("\n")
    wrong = _wrong_form(lines) or _wrong_time(lines[1], now_s)
    if wrong is not None:
        return wrong
    date, region = lines[2].split("/")[:2]
    key = b"AWS4" + secret.encode()
    for part in (date, region, "dax", "aws4_request"):
        key = hmac.digest(key, part.encode("latin-1"), "sha256")
    expected = hmac.digest(key, string_to_sign, "sha256").hex()
    if not hmac.compare_digest(expected.encode(), signature.encode("utf-8", "surrogatepass")):
        return "the signature is not the one that the secret gives"
    return None


def _wrong_form(lines: list[str]) -> str | None:
    if len(lines) != _LINES or lines[0] != _ALGORITHM:
        return f"what was signed is not in the form of {_ALGORITHM}"
    scope = lines[2].split("/")
    if len(scope) != _SCOPE_PARTS or scope[2:] != ["dax", "aws4_request"] or scope[0] != lines[1][:8]:
        return f"the scope {lines[2]!r:.80} is not one of the service dax"
    return None


def _wrong_time(written: str, now_s: float) -> str | None:
    try:
        at_s = datetime.strptime(f"{written}+0000", "%Y%m%dT%H%M%SZ%z").timestamp()
    except ValueError:
        return f"{written!r:.40} is no time"
    if abs(at_s - now_s) > MAX_SKEW_S:
        return f"it was signed {now_s - at_s:.0f} s ago by this machine's clock, and holds for {MAX_SKEW_S:.0f} s"
    return None
