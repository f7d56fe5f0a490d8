"""For tests of bots and of this package: in-memory doubles of the services it stands on.

They are held to the real engines by the same conformance suite, refuse what the services refuse, and raise
`NotImplementedError` for what they do not model: a double that guesses makes a test lie.
"""

from __future__ import annotations

from mangacache.testing.dax import MemoryDax
from mangacache.testing.dynamodb import MemoryDynamoDB
from mangacache.testing.history import (
    HistoryRecorder,
    Operation,
    Promises,
    Report,
    SeenTurn,
    Violation,
    check_history,
    read_history,
    record_state,
)
from mangacache.testing.points import FaultPoints
from mangacache.testing.proxy import DynamoProxy, Proxy
from mangacache.testing.redis import MemoryRedis

__all__ = [
    "DynamoProxy",
    "FaultPoints",
    "HistoryRecorder",
    "MemoryDax",
    "MemoryDynamoDB",
    "MemoryRedis",
    "Operation",
    "Promises",
    "Proxy",
    "Report",
    "SeenTurn",
    "Violation",
    "check_history",
    "read_history",
    "record_state",
]
