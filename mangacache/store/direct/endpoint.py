"""Where requests go."""

from __future__ import annotations

from typing import Final
from urllib.parse import urlsplit

import msgspec

_PORTS: Final = {"http": 80, "https": 443}


class Endpoint(msgspec.Struct, frozen=True):
    """An address that answers for DynamoDB.

    Attributes:
        name: the name or number to connect to.
        port: the port to connect to.
        scheme: `http` or `https`.
        host: as the `Host` header has it: without the scheme's own port, IPv6 in brackets.
        region: signed with each request.
    """

    name: str
    port: int
    scheme: str
    host: str
    region: str

    @property
    def tls(self) -> bool:
        """Whether connections are encrypted."""
        return self.scheme == "https"

    def __str__(self) -> str:
        return f"{self.name}:{self.port}"


def parse_endpoint(url: str, region: str) -> Endpoint | None:
    """Return the endpoint that a URL names, `None` for one that is more than scheme, host and port."""
    parts = urlsplit(url)
    name, own_port = parts.hostname, _PORTS.get(parts.scheme)
    beyond = parts.path not in ("", "/") or parts.query or parts.fragment or parts.username is not None
    if name is None or own_port is None or beyond:
        return None
    host = f"[{name}]" if ":" in name else name
    port = parts.port or own_port
    if port != own_port:
        host = f"{host}:{port}"
    return Endpoint(name=name, port=port, scheme=parts.scheme, host=host, region=region)
