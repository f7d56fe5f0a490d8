"""DAX, a cache in front of DynamoDB: the adapter of its client, the door with its breaker, and what is read by it."""

from mangacache.store.dax.door import DaxDoor
from mangacache.store.dax.opening import dax_transport, open_dax
from mangacache.store.dax.transport import AioDaxTransport, DaxTransport

__all__ = ["AioDaxTransport", "DaxDoor", "DaxTransport", "dax_transport", "open_dax"]
