"""An in-memory double of DAX: two caches a node, in front of a DynamoDB or its double."""

from __future__ import annotations

from mangacache.testing.dax.conversation import ClientOptions
from mangacache.testing.dax.double import DaxCounters, MemoryDax
from mangacache.testing.dax.errors import DaxClientError, DaxServiceError
from mangacache.testing.dax.options import DaxOptions

__all__ = ["ClientOptions", "DaxClientError", "DaxCounters", "DaxOptions", "DaxServiceError", "MemoryDax"]
