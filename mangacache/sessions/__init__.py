"""One actor a session: turn-taking, the memory tier, the read and write paths."""

from mangacache.sessions.prefetching import Prefetched, prefetch
from mangacache.sessions.registry import Sessions
from mangacache.sessions.session import Session, delete

__all__ = ["Prefetched", "Session", "Sessions", "delete", "prefetch"]
