"""Signatures (version 4) worked out anew, and a container's credential endpoint with short lives."""

from __future__ import annotations

import asyncio
import hmac
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import sha256
from typing import TYPE_CHECKING

from dynamodb_server import Answer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from dynamodb_server import Received


def is_signed_by(received: Received, secret_key: str, *, region: str = "us-east-1") -> bool:
    """Tell whether a request's signature (version 4) is one by this secret, worked out anew from the request."""
    scheme, _, rest = received.headers["authorization"].partition(" ")
    parts = dict(part.strip().split("=", 1) for part in rest.split(","))
    at = received.headers["x-amz-date"]
    scope = f"{at[:8]}/{region}/dynamodb/aws4_request"
    names = parts["SignedHeaders"].split(";")
    signed = [f"{name}:{' '.join(received.headers[name].split())}" for name in names]
    body = sha256(received.body).hexdigest()
    canonical = "\n".join(["POST", "/", "", *signed, "", ";".join(names), body])
    key = b"AWS4" + secret_key.encode()
    for part in (*scope.split("/"), "\n".join([scheme, at, scope, sha256(canonical.encode()).hexdigest()])):
        key = hmac.digest(key, part.encode(), "sha256")
    required = {"host", "x-amz-date", "x-amz-target"} | {"x-amz-security-token"} & received.headers.keys()
    return required <= set(names) and hmac.compare_digest(key.hex(), parts["Signature"])


GRACE_S = 0.5
"""How long a credential is still taken after its end, for what was on its way."""


@dataclass
class Issued:
    """A credential that was handed out."""

    secret_key: str
    token: str
    expires_at_s: float


@dataclass
class CredentialEndpoint:
    """A container's credential endpoint, whose credentials live for a short time.

    Attributes:
        life_s: how long the next ones live.
        works: False answers each request with an error.
        issued: what was handed out, by access key.
        asked: how often it was asked.
        url: its address.
    """

    life_s: float
    works: bool = True
    issued: dict[str, Issued] = field(default_factory=dict)
    asked: int = 0
    url: str = ""

    @classmethod
    @asynccontextmanager
    async def open(cls, life_s: float) -> AsyncIterator[CredentialEndpoint]:
        made = cls(life_s)
        server = await asyncio.start_server(made._serve, "127.0.0.1", 0)
        made.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/credentials"
        try:
            yield made
        finally:
            server.close()

    def judge(self, received: Received) -> str | None:
        """Return the service's reason to refuse a request, None where its signature is good."""
        issued = self.issued.get(received.access_key)
        if issued is None or received.headers.get("x-amz-security-token") != issued.token:
            return "UnrecognizedClientException"
        if not is_signed_by(received, issued.secret_key):
            return "InvalidSignatureException"
        is_over = issued.expires_at_s + GRACE_S <= datetime.now(UTC).timestamp()
        return "ExpiredTokenException" if is_over else None

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, asyncio.IncompleteReadError):
            await reader.readuntil(b"\r\n\r\n")
            self.asked += 1
            answer = Answer.of(self._issue()) if self.works else Answer(500, b"")
            writer.write(answer.head(Connection="close", Content_Type="application/json") + answer.body)
            await writer.drain()
        writer.close()

    def _issue(self) -> dict[str, str]:
        number = len(self.issued) + 1
        expires = datetime.fromtimestamp(datetime.now(UTC).timestamp() + self.life_s, UTC)
        issued = Issued(f"secret/{number}+of=the test", f"token {number}/+==", expires.timestamp())
        access_key = f"ASIATEST{number:012d}"
        self.issued[access_key] = issued
        return {
            "AccessKeyId": access_key,
            "SecretAccessKey": issued.secret_key,
            "Token": issued.token,
            "Expiration": expires.isoformat().replace("+00:00", "Z"),
        }
