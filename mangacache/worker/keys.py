"""What an application and a request of the worker carry, each under its typed key."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from aiohttp import web

if TYPE_CHECKING:
    from mangacache import MangaCache, Settings
    from mangacache.clock import Random
    from mangacache.worker.auth.gate import Gate
    from mangacache.worker.caller import Caller
    from mangacache.worker.deadlines import Deadlines
    from mangacache.worker.readiness import Readiness

CACHE: Final[web.AppKey[MangaCache]] = web.AppKey("cache")
"""The instance that answers."""
GATE: Final[web.AppKey[Gate]] = web.AppKey("gate")
"""Who may."""
READINESS: Final[web.AppKey[Readiness]] = web.AppKey("readiness")
"""Whether this worker serves, or leaves."""
SETTINGS: Final[web.AppKey[Settings]] = web.AppKey("settings")
"""The worker's and the library's."""
RANDOM: Final[web.AppKey[Random]] = web.AppKey("random")
"""Where the ids of requests and turns come from."""
DEADLINES: Final[web.AppKey[Deadlines]] = web.AppKey("deadlines")
"""How long requests may take."""

CALLER: Final[web.RequestKey[Caller]] = web.RequestKey("caller")
"""Who asks, once the gate has let the request in."""
REQUEST_ID: Final[web.RequestKey[str]] = web.RequestKey("request_id")
"""By which answers, problems and logs name the request."""
