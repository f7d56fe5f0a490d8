"""Which web sites' pages may ask, and by which names a worker may be asked that asks nobody who he is.

A browser sends what any page tells it to, also to loopback: a page of any site can post there, and one whose own name
is made to lead there (DNS rebinding) reads the answers too. The first names its site in `Origin`, or is told of in
`Sec-Fetch-Site`; the second is found out by `Host`, which has the page's name. What is no browser sends neither of the
former, and asks by the name or address that it was given.
"""

from __future__ import annotations

import ipaddress
import re
from typing import TYPE_CHECKING, Final

from multidict import MultiMapping

from mangacache.settings import is_loopback
from mangacache.worker.caller import Forbidden

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

ANY: Final = "*"
_HOST: Final = re.compile(r"(?:\[(?P<address>[0-9a-f:.]+)\]|(?P<name>[^\s:/?#@,\[\]]+?)\.?)(?::[0-9]*)?")
_BY_THE_USER: Final = frozenset({"none", "same-origin"})
"""What `Sec-Fetch-Site` says where somebody typed the address, or a page of this worker's own asks: it has none."""
_SHOWN: Final = 100


class Sites:
    """The web sites of the setting `worker_origins`: `https://shop.example`, with commas between them, or `*`.

    Attributes:
        all: whether pages of any site may ask.
        hosts: the names of those that are listed.
    """

    def __init__(self, listed: str) -> None:
        self._listed = frozenset({site.strip().rstrip("/").lower() for site in listed.split(",")} - {""})
        self.all = ANY in self._listed
        self.hosts = frozenset(host_of(site.partition("://")[2]) for site in self._listed) - {None}

    def check_origin(self, headers: Mapping[str, str]) -> bool:
        """Refuse the page of a site that is not listed; tell whether one that is asks.

        Raises:
            Forbidden: the site is not among them.
        """
        named = _all(headers, "Origin")
        for origin in named:
            if not self.all and origin.lower() not in self._listed:
                raise Forbidden(
                    f"a web page of {origin[:_SHOWN]!a} may not ask this worker: worker_origins lists those that may"
                )
        return bool(named)


class Surroundings:
    """Tells a request of somebody on this machine from one that a web page had a browser send.

    Args:
        sites: whose pages may ask all the same.
        bound: where the worker listens, names or addresses; where that is every address, each of them is its own.
    """

    def __init__(self, sites: Sites, bound: Iterable[str]) -> None:
        self._sites = sites
        own = {host.lower() for host in bound}
        self._own = frozenset(host for host in own if not _is_everywhere(host))
        self._everywhere = len(self._own) < len(own)

    def check(self, headers: Mapping[str, str]) -> None:
        """Refuse what a web page asks.

        Raises:
            Forbidden: a page of another site asks, or by a name that is not this machine's.
        """
        if self._sites.all:
            return
        listed = self._sites.check_origin(headers)
        for site in _all(headers, "Sec-Fetch-Site"):
            if not listed and site.lower() not in _BY_THE_USER:
                raise Forbidden(
                    "a web page of another site may not ask this worker, which asks nobody for a credential: type the"
                    " address into the browser, or give the worker keys (worker_keys)"
                )
        for host in _all(headers, "Host"):
            if not self._answers_to(host_of(host)):
                raise Forbidden(
                    "this worker asks nobody for a credential, so it is asked by this machine's own names only, not as"
                    f" {host[:_SHOWN]!a}: ask localhost or 127.0.0.1, or list http://NAME in worker_origins, or give"
                    " the worker keys (worker_keys)"
                )

    def _answers_to(self, host: str | None) -> bool:
        if host is None:
            return False
        if is_loopback(host) or host in self._own or host in self._sites.hosts:
            return True
        # No page can have an address for its name but that of who sent it, so that none of them is made to lead here.
        return self._everywhere and _is_address(host) and not _is_everywhere(host)


def check_origin(headers: Mapping[str, str], allowed: str) -> None:
    """Refuse a browser's request from a site that is not allowed; what is no browser names no site.

    Args:
        headers: of the request.
        allowed: the setting `worker_origins`.

    Raises:
        Forbidden: the site is not among them.
    """
    Sites(allowed).check_origin(headers)


def host_of(given: str) -> str | None:
    """Return the name or address of a `Host`, without its port, in lower case; None where it is none."""
    found = _HOST.fullmatch(given.strip().lower())
    return (found["address"] or found["name"]) if found is not None else None


def _all(headers: Mapping[str, str], name: str) -> list[str]:
    """Return all that headers of one name say: which of two would count elsewhere is anybody's guess."""
    if isinstance(headers, MultiMapping):
        return list(headers.getall(name, ()))
    return [headers[name]] if name in headers else []


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _is_everywhere(host: str) -> bool:
    """Tell whether a host stands for every address of a machine: it leads to loopback, and is nobody's name."""
    return not host or (_is_address(host) and ipaddress.ip_address(host).is_unspecified)
