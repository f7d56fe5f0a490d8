"""The context cache: for now its seam; the cache in Redis goes behind it."""

from mangacache.context.tier import ContextTier, NoTier

__all__ = ["ContextTier", "NoTier"]
