"""Counts requests to DynamoDB as they pass, apart for each session's first message."""

from __future__ import annotations

from collections import Counter
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mangacache.store import Transport

first_message: Final[ContextVar[bool]] = ContextVar("first_message", default=False)
"""Set while a session's first message is handled; tasks started for it inherit it."""


class CountingTransport:
    """A transport that counts what passes through another one.

    Attributes:
        requests: by operation, all of them.
        steady: the same without what first messages caused.
    """

    def __init__(self, inner: Transport) -> None:
        self._inner = inner
        self.requests: Counter[str] = Counter()
        self.steady: Counter[str] = Counter()

    async def request(self, operation: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
        """Count and pass on."""
        # A replay changes META by touches alone, so an update is one.
        name = "Touch" if operation == "UpdateItem" else operation
        self.requests[name] += 1
        if not first_message.get():
            self.steady[name] += 1
        return await self._inner.request(operation, parameters)
