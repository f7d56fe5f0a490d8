"""The two faces: clients of coroutines, and of plain calls that block, for a pool of threads."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, NoReturn, Self

from mangacache.testing.dax.requests import method_of
from mangacache.testing.dax.serving import OPERATIONS

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from mangacache.testing.dax.conversation import ClientOptions, Conversations
    from mangacache.testing.dax.door import Answer
    from mangacache.testing.dax.driving import Driver

_METHODS: Final = {method_of(operation): operation for operation in OPERATIONS}
_TABLE_METHODS: Final = frozenset({"create_table", "delete_table", "describe_table", "list_tables", "update_table"})


def _operation(name: str) -> str:
    """Return the operation of a method; there is none of any other name."""
    if name not in _METHODS:
        raise AttributeError(f"MemoryDax's clients have no {name!r}; they have: {', '.join(sorted(_METHODS))}")
    return _METHODS[name]


def _no_tables(**_: object) -> NoReturn:
    raise NotImplementedError("DAX has no operations on tables: use a client of DynamoDB")


class MemoryDaxClient:
    """A client of the double with coroutine methods: `await client.get_item(TableName=..., Key=...)` and the like."""

    def __init__(self, conversations: Conversations, driver: Driver, options: ClientOptions) -> None:
        self._conversations = conversations
        self._driver = driver
        self._options = options

    def __getattr__(self, name: str) -> Callable[..., Awaitable[Answer]]:
        if name in _TABLE_METHODS:
            return _no_tables
        operation = _operation(name)

        async def call(**parameters: object) -> Answer:
            return await self._driver.drive(self._conversations.begin(operation, parameters, self._options))

        call.__name__ = name
        return call

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        return None


class MemoryDaxSyncClient:
    """A client of the double with the methods of `amazondax.AmazonDaxClient`, which block; any thread may call them.

    Args:
        conversations: with the cluster.
        driver: that carries them out.
        options: of this client.
        loop: where they are carried out while the calling thread waits; without it, in the calling thread.
    """

    def __init__(
        self,
        conversations: Conversations,
        driver: Driver,
        options: ClientOptions,
        *,
        loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        self._conversations = conversations
        self._driver = driver
        self._options = options
        self._loop = loop

    def __getattr__(self, name: str) -> Callable[..., Answer]:
        if name in _TABLE_METHODS:
            return _no_tables
        operation = _operation(name)

        def call(**parameters: object) -> Answer:
            conversation = self._conversations.begin(operation, parameters, self._options)
            if self._loop is None:
                return self._driver.drive_now(conversation)
            return asyncio.run_coroutine_threadsafe(self._driver.drive(conversation), self._loop).result()

        call.__name__ = name
        return call

    def close(self) -> None:
        """Do nothing; the real client ends its connections."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
