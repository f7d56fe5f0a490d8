"""By which name a request goes in metrics, logs and traces: the pattern of its path, which names nobody."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from aiohttp import web

_HEALTH_PATHS: Final = frozenset({"/healthz", "/readyz"})
_NO_ROUTE: Final = "none"


def route_of(request: web.Request) -> str:
    """Return the pattern of a request's path, `/v1/sessions/{session_id}/turns`; `none` where there is no route."""
    resource = request.match_info.route.resource
    return resource.canonical if resource is not None else _NO_ROUTE


def is_health(path: str) -> bool:
    """Tell whether a path is one that load balancers ask, whatever the worker is doing."""
    return path in _HEALTH_PATHS
