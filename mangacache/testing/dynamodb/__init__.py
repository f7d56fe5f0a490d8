"""An in-memory double of DynamoDB, with the face of aioboto3's low-level client."""

from __future__ import annotations

from mangacache.testing.dynamodb.database import MemoryDynamoDB

__all__ = ["MemoryDynamoDB"]
