"""The source of truth: the table, its items, and the decisions by which they are written."""

from mangacache.store.store import Store, open_transport
from mangacache.store.transport import Transport

__all__ = ["Store", "Transport", "open_transport"]
