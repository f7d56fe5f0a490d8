"""The context cache: kept by the write, shared by workers, never older than it says."""

from mangacache.context.cache import RedisContexts
from mangacache.context.tier import Confirmed, ContextTier, Found, NoTier

__all__ = ["Confirmed", "ContextTier", "Found", "NoTier", "RedisContexts"]
