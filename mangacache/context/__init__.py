"""The context cache: kept by the write, shared by workers, never older than it says."""

from mangacache.context.cache import RedisContexts
from mangacache.context.tier import Confirmed, ContextTier, Found, NoTier
from mangacache.context.watching import Memory

__all__ = ["Confirmed", "ContextTier", "Found", "Memory", "NoTier", "RedisContexts"]
