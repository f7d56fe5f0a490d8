"""The services' Lua scripts; the header of each says keys, arguments, replies and invariant."""

from __future__ import annotations

from importlib.resources import files
from typing import Final

from mangacache.redis import Script


def _script(name: str) -> Script:
    return Script.of(name, files(__package__).joinpath(f"{name}.lua").read_text(encoding="utf-8"))


RATE_LIMIT: Final = _script("rate_limit")
WORKERS_SEEN: Final = _script("workers_seen")
CONNECTION_PUT: Final = _script("connection_put")
CONNECTION_GET: Final = _script("connection_get")
CONNECTION_DROP: Final = _script("connection_drop")
CONNECTIONS_LIST: Final = _script("connections_list")
PRESENCE_SEEN: Final = _script("presence_seen")
PRESENCE_GONE: Final = _script("presence_gone")
PRESENCE_LOOK: Final = _script("presence_look")
PRESENCE_PAGE: Final = _script("presence_page")
TRENDING_ADD: Final = _script("trending_add")
TRENDING_TOP: Final = _script("trending_top")
LOCK_TAKE: Final = _script("lock_take")
LOCK_LEAVE: Final = _script("lock_leave")
LOCK_EXTEND: Final = _script("lock_extend")
