"""Proxies on whose way everything may go wrong: TCP for any server, and one that understands DynamoDB's requests."""

from __future__ import annotations

from mangacache.testing.proxy.control import ControlPort
from mangacache.testing.proxy.dynamodb import DynamoProxy
from mangacache.testing.proxy.tcp import Proxy
from mangacache.testing.proxy.ways import Way

__all__ = ["ControlPort", "DynamoProxy", "Proxy", "Way"]
