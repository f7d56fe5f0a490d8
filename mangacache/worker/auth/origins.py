"""Which web sites' scripts may open a socket: a browser sends cookies and reaches loopback for any of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from mangacache.worker.caller import Forbidden

if TYPE_CHECKING:
    from collections.abc import Mapping

ANY: Final = "*"


def check_origin(headers: Mapping[str, str], allowed: str) -> None:
    """Refuse a browser's request for a socket from a site that is not allowed; what is no browser names no site.

    Args:
        headers: of the request.
        allowed: the setting `worker_origins`: sites, `https://shop.example`, with commas between them.

    Raises:
        Forbidden: the site is not among them.
    """
    origin = headers.get("Origin")
    if origin is None:
        return
    sites = {site.strip().rstrip("/").lower() for site in allowed.split(",")} - {""}
    if ANY not in sites and origin.lower() not in sites:
        raise Forbidden("this site may not open a socket here: worker_origins lists those that may")
