"""Signature version 4 for requests that differ only in target, body and time.

The general algorithm sorts, escapes and joins whatever headers a request has. Here the method, the path and the
headers are known beforehand, so that a signature is three hashes over joined bytes; the derived key is kept for its
day. Held byte for byte to botocore's signer.

See "Create a signed AWS API request" in the AWS General Reference.
"""

from __future__ import annotations

import hmac
from datetime import UTC, datetime
from hashlib import sha256
from typing import TYPE_CHECKING, Final

from mangacache.errors import Invalid

if TYPE_CHECKING:
    from mangacache.store.direct.endpoint import Endpoint

CONTENT_TYPE: Final = b"application/x-amz-json-1.0"
USER_AGENT: Final = b"mangacache"
_SERVICE: Final = b"dynamodb"
_DEL: Final = "\x7f"


class Signer:
    """Signs requests by one credential to one endpoint.

    Args:
        access_key: the credential's public part.
        secret_key: its secret, which nothing but the derived key is made from.
        token: a temporary credential's session token.
        endpoint: where the requests go; its host and region are signed.

    Raises:
        Invalid: a credential that cannot stand in a header.
    """

    def __init__(self, access_key: str, secret_key: str, token: str | None, *, endpoint: Endpoint) -> None:
        for what, text in (("AWS_ACCESS_KEY_ID", access_key), ("AWS_SESSION_TOKEN", token or "")):
            if any(sign < " " or sign == _DEL for sign in text):
                raise Invalid(f"the AWS credentials hold a line break or another control character ({what})")
        self._access_key = access_key.encode()
        self._secret = b"AWS4" + secret_key.encode()
        self._region = endpoint.region.encode()
        host, signed_token = endpoint.host.encode(), " ".join((token or "").split()).encode()
        self._canonical_start = b"POST\n/\n\ncontent-type:%b\nhost:%b\nx-amz-date:" % (CONTENT_TYPE, host)
        self._canonical_token = b"\nx-amz-security-token:" + signed_token if token else b""
        token_name = b"x-amz-security-token;" if token else b""
        self._signed_headers = b"content-type;host;x-amz-date;%bx-amz-target" % token_name
        token_line = b"X-Amz-Security-Token: %b\r\n" % token.encode() if token else b""
        self._head_start = (
            b"POST / HTTP/1.1\r\nHost: %b\r\nContent-Type: %b\r\nUser-Agent: %b\r\nAccept-Encoding: identity\r\n%b"
            % (host, CONTENT_TYPE, USER_AGENT, token_line)
        )
        self._second = self._day = b""
        self._at_s = -1
        self._scope = self._key = b""

    def __repr__(self) -> str:
        return f"<Signer {self._access_key[:4].decode(errors='replace')}..., {self._region.decode()}>"

    def signed(self, target: bytes, body: bytes, at_s: float) -> bytes:
        """Return a whole request, head and body, signed for a wall clock's second.

        Args:
            target: what is asked, `DynamoDB_20120810.GetItem`.
            body: the parameters as JSON.
            at_s: seconds since 1970; the service accepts five minutes to each side of its own.
        """
        authorization = self.authorization(target, body, at_s)
        return b"%bX-Amz-Target: %b\r\nX-Amz-Date: %b\r\nAuthorization: %b\r\nContent-Length: %d\r\n\r\n%b" % (
            self._head_start,
            target,
            self._second,
            authorization,
            len(body),
            body,
        )

    def authorization(self, target: bytes, body: bytes, at_s: float) -> bytes:
        """Return the value of the `Authorization` header."""
        second_s = int(at_s)
        if second_s != self._at_s:
            self._begin_second(second_s)
        canonical = b"%b%b%b\nx-amz-target:%b\n\n%b\n%b" % (
            self._canonical_start,
            self._second,
            self._canonical_token,
            target,
            self._signed_headers,
            sha256(body).hexdigest().encode(),
        )
        to_sign = b"AWS4-HMAC-SHA256\n%b\n%b\n%b" % (
            self._second,
            self._scope,
            sha256(canonical).hexdigest().encode(),
        )
        return b"AWS4-HMAC-SHA256 Credential=%b/%b, SignedHeaders=%b, Signature=%b" % (
            self._access_key,
            self._scope,
            self._signed_headers,
            hmac.digest(self._key, to_sign, "sha256").hex().encode(),
        )

    def _begin_second(self, second_s: int) -> None:
        text = f"{datetime.fromtimestamp(second_s, UTC):%Y%m%dT%H%M%SZ}".encode()
        day = text[:8]
        if day != self._day:
            self._day = day
            key = self._secret
            for part in (day, self._region, _SERVICE, b"aws4_request"):
                key = hmac.digest(key, part, "sha256")
            self._key = key
            self._scope = b"%b/%b/%b/aws4_request" % (day, self._region, _SERVICE)
        self._second = text
        self._at_s = second_s
