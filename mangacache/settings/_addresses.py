"""Endpoints as people write them, and what they mean.

Every reason raised here is a constant sentence: no part of the text that was given stands in it, because that
text may hold a password. `conceal` makes the form of it that may be shown.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass, field
from typing import Final, NamedTuple
from urllib.parse import quote, unquote

REDIS_PORT: Final = 6379
DAX_PORT: Final = 8111
DAX_TLS_PORT: Final = 9111
_MAX_PORT: Final = 65535
_MAX_HOST: Final = 253
_MAX_UNIX_PATH: Final = 107
"""Bytes: `sun_path` holds 108 with its closing zero (unix(7))."""

_SCHEME: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_HOST_PORT: Final = re.compile(r"(?:\[(?P<six>[^\[\]]*)\]|(?P<host>[^:\[\]]*))(?::(?P<port>.*))?", re.DOTALL)
_PORT: Final = re.compile(r"[1-9][0-9]{0,4}")
_DATABASE: Final = re.compile(r"0|[1-9][0-9]{0,4}")
_LABEL: Final = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?")
_BAD_ESCAPE: Final = re.compile(r"%(?![0-9A-Fa-f]{2})")
_SHOWABLE: Final = re.compile(r"(?:\[[0-9A-Fa-f:.]*\]|[^\s@/?#:\[\]]+)(?::[0-9]{1,5})?(?:/[0-9]{0,5})?")
_SHOWABLE_PATH: Final = re.compile(r"/?[\w./-]*")


@dataclass(frozen=True, slots=True, kw_only=True)
class RedisAddress:
    """Where Redis or Valkey listens: a host and a port, or `unix_path` alone.

    Neither `repr` nor `str` shows the password.
    """

    host: str = ""
    port: int = REDIS_PORT
    tls: bool = False
    db: int = 0
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    unix_path: str | None = None

    def __str__(self) -> str:
        if self.unix_path is not None:
            return f"unix://{quote(self.unix_path)}"
        login = "" if self.password is None else f"{quote(self.username or '', safe='')}:***@"
        database = f"/{self.db}" if self.db else ""
        return f"redis{'s' if self.tls else ''}://{login}{_bracketed(self.host)}:{self.port}{database}"


@dataclass(frozen=True, slots=True, kw_only=True)
class DaxAddress:
    """Where the DAX cluster is found. `str()` gives the URL that the DAX client takes."""

    host: str
    port: int
    tls: bool

    def __str__(self) -> str:
        return f"dax{'s' if self.tls else ''}://{self.host}:{self.port}"


class _Parts(NamedTuple):
    scheme: str | None
    login: str | None
    location: str
    path: str


def parse_redis(text: str) -> RedisAddress:
    """Return the address `text` names.

    A bare host that is not loopback means TLS: it is what ElastiCache gives, and a password or a chat must
    not cross a network in the clear because somebody left out a scheme.

    Raises:
        ValueError: the reason, without any part of `text`.
    """
    parts = _split(text)
    if parts.scheme == "unix":
        return RedisAddress(unix_path=_unix_path(parts))
    if parts.scheme not in {None, "redis", "rediss"}:
        raise ValueError("the scheme is redis://, rediss:// (TLS) or unix://")
    if parts.scheme is None and (parts.login is not None or parts.path):
        raise ValueError("credentials or a database need a scheme in front: rediss:// (TLS) or redis://")
    host, port = _host_port(parts.location)
    database = parts.path.removeprefix("/")
    if database and not _DATABASE.fullmatch(database):
        raise ValueError("what follows the / is the number of a database, such as /0")
    username, password = (None, None) if parts.login is None else _login(parts.login)
    tls = not is_loopback(host) if parts.scheme is None else parts.scheme == "rediss"
    return RedisAddress(
        host=host,
        port=port or REDIS_PORT,
        tls=tls,
        db=int(database or 0),
        username=username,
        password=password,
    )


def parse_dax(text: str) -> DaxAddress:
    """Return the address `text` names; a bare host that is not loopback means TLS.

    Raises:
        ValueError: the reason, without any part of `text`.
    """
    parts = _split(text)
    if parts.scheme not in {None, "dax", "daxs"}:
        raise ValueError("the scheme is dax:// or daxs:// (TLS)")
    if parts.login is not None or parts.path not in {"", "/"}:
        raise ValueError("a DAX endpoint has a host and a port only: no credentials and no path")
    host, port = _host_port(parts.location)
    if ":" in host:
        raise ValueError("the DAX client cannot take an IPv6 address: give a host name or an IPv4 address")
    if parts.scheme is None and port is not None:
        raise ValueError("with a port, say which protocol listens there: dax://host:8111 or daxs://host:9111 (TLS)")
    tls = not is_loopback(host) if parts.scheme is None else parts.scheme == "daxs"
    return DaxAddress(host=host, port=port or (DAX_TLS_PORT if tls else DAX_PORT), tls=tls)


def parse_http(text: str) -> str:
    """Return the URL `text` without the slash it may end with.

    Raises:
        ValueError: the reason, without any part of `text`.
    """
    parts = _split(text)
    if parts.scheme not in {"http", "https"}:
        raise ValueError("it begins with http:// or https://")
    if parts.login is not None:
        raise ValueError("no credentials stand in it: they come from the AWS credential chain")
    if parts.path not in {"", "/"}:
        raise ValueError("nothing follows the host and port: no path, query or fragment")
    host, port = _host_port(parts.location)
    return f"{parts.scheme}://{_bracketed(host)}{'' if port is None else f':{port}'}"


def is_loopback(host: str) -> bool:
    """Tell whether `host` (lower case, no brackets) never leaves this machine."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return (mapped or address).is_loopback


def conceal(text: str) -> str:
    """Return `text`, well formed or not, with *** for everything that may be or hold a credential."""
    match = _SCHEME.match(text)
    scheme = match.group(0) if match else ""
    _, at, tail = text[len(scheme) :].rpartition("@")
    showable = _SHOWABLE_PATH if scheme == "unix://" and not at else _SHOWABLE
    return f"{scheme}{'***@' if at else ''}{tail if showable.fullmatch(tail) else '***'}"


def _split(text: str) -> _Parts:
    if not text.isprintable() or " " in text:
        raise ValueError("no space, line end or control character stands in it")
    match = _SCHEME.match(text)
    rest = text[match.end() :] if match else text
    if "?" in rest or "#" in rest:
        raise ValueError("no ? or # stands in it; in a password write %3F and %23")
    authority, slash, path = rest.partition("/")
    if "@" in path and not (match and match.group(1).lower() == "unix"):
        raise ValueError("a / or @ in a password is written %2F and %40")
    login, at, location = authority.rpartition("@")
    return _Parts(match.group(1).lower() if match else None, login if at else None, location, slash + path)


def _host_port(location: str) -> tuple[str, int | None]:
    match = _HOST_PORT.fullmatch(location)
    if match is None:
        raise ValueError("an IPv6 address stands in brackets, [::1]:6379, and nothing else does")
    six, host, port = match.group("six"), (match.group("host") or "").lower(), match.group("port")
    if six is not None:
        host = _ipv6(six)
    elif not _is_name(host):
        raise ValueError(
            "a host is a name (letters, digits, hyphens, dots), an IPv4 address or an IPv6 one in brackets"
        )
    if port is not None and not (_PORT.fullmatch(port) and int(port) <= _MAX_PORT):
        raise ValueError(
            "a port is a number from 1 to 65535; an IPv6 address stands in brackets;"
            " a password ends with @ and has its / : @ percent-encoded"
        )
    return host, None if port is None else int(port)


def _ipv6(text: str) -> str:
    # A zone (%eth0) belongs to one machine's interface, and clients disagree on how it is written.
    if "%" not in text:
        try:
            return str(ipaddress.IPv6Address(text))
        except ValueError:
            pass
    raise ValueError("what stands in the brackets is not an IPv6 address (a zone such as %eth0 is not taken)")


def _is_name(host: str) -> bool:
    labels = host.split(".")
    if len(host) > _MAX_HOST or not all(_LABEL.fullmatch(label) for label in labels):
        return False
    if not labels[-1].isdigit():
        return True
    try:  # a name that ends in a number is an address or a mistake
        ipaddress.IPv4Address(host)
    except ValueError:
        return False
    return True


def _login(text: str) -> tuple[str | None, str]:
    username, colon, password = text.partition(":")
    if not colon or not password:
        raise ValueError("credentials are user:password@ or :password@, neither of them empty")
    if _BAD_ESCAPE.search(text):
        raise ValueError("a % in a password is written %25")
    try:
        return unquote(username, errors="strict") or None, unquote(password, errors="strict")
    except UnicodeDecodeError:  # its own message would quote the password
        raise ValueError("the percent-encoded bytes of the credentials are not UTF-8") from None


def _unix_path(parts: _Parts) -> str:
    if parts.login is not None or parts.location or parts.path in {"", "/"}:
        raise ValueError("a unix socket is written unix:///absolute/path, with three slashes and no credentials")
    path = unquote(parts.path)
    if "\0" in path or len(path.encode()) > _MAX_UNIX_PATH:
        raise ValueError("the path of a unix socket has at most 107 bytes and no zero byte")
    return path


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
