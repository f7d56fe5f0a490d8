"""An in-memory double of Redis: the package's scripts, links with faults, servers that die, lag and split."""

from __future__ import annotations

import mangacache.testing.redis.locks
import mangacache.testing.redis.services  # noqa: F401 - what it knows beside the context's scripts
from mangacache.testing.redis.double import MemoryLink, MemoryRedis
from mangacache.testing.redis.faults import LinkFaults

__all__ = ["LinkFaults", "MemoryLink", "MemoryRedis"]
