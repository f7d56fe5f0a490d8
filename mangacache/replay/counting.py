"""Counts what is sent to DynamoDB and Redis as it passes, apart for each session's first message."""

from __future__ import annotations

from collections import Counter
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final

import hiredis

from mangacache.context.scripts import COMMIT, TOLD
from mangacache.store.epochs import PARTITION

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from mangacache.redis import Admission, Argument, Changes, Link, Script
    from mangacache.store import Transport

first_message: Final[ContextVar[bool]] = ContextVar("first_message", default=False)
"""Set while a session's first message is handled; tasks started for it inherit it."""

_TURNS_FROM: Final = 7
"""Where the encoded turns begin among COMMIT's arguments."""
_TOLD_ADDS: Final = 3
"""How many arguments follow them where the write is told to listeners as well."""


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
        # A replay changes META by touches alone, so an update is one; the cache's epoch is read by the clock.
        name = "Touch" if operation == "UpdateItem" else operation
        if str(parameters.get("Key", {}).get("PK", {}).get("S", "")).startswith(PARTITION):
            name = "Epoch"
        self.requests[name] += 1
        if not first_message.get():
            self.steady[name] += 1
        return await self._inner.request(operation, parameters)


class CountingLink:
    """A link that counts what passes through another one, without what first messages caused.

    Attributes:
        round_trips: commands, by script.
        commit_bytes: of COMMIT commands that carry turns, whole.
        turn_bytes: of the turns in them, encoded.
        turns: how many.
    """

    def __init__(self, inner: Link) -> None:
        self._inner = inner
        self.round_trips: Counter[str] = Counter()
        self.commit_bytes = self.turn_bytes = self.turns = 0

    def admit_with(self, admission: Admission) -> None:
        """Pass on."""
        self._inner.admit_with(admission)

    def watch_with(self, changes: Changes) -> None:
        """Pass on."""
        self._inner.watch_with(changes)

    @property
    def up(self) -> bool:
        """Pass on."""
        return self._inner.up

    async def run(
        self,
        script: Script,
        key: str,
        arguments: Sequence[Argument],
        *,
        more_keys: Sequence[str] = (),
        tag: int | None = None,
        repeatable: bool = False,
        watch: bool = False,
    ) -> Any:
        """Count and pass on."""
        if not first_message.get():
            self.round_trips[script.name] += 1
            if script in (COMMIT, TOLD) and (turns := _turns_of(script, arguments)):
                packed = hiredis.pack_command(("EVALSHA", script.sha, 1, key, *arguments))  # type: ignore[arg-type]
                self.commit_bytes += len(packed)
                self.turn_bytes += sum(map(len, turns))
                self.turns += len(turns)
        return await self._inner.run(
            script, key, arguments, more_keys=more_keys, tag=tag, repeatable=repeatable, watch=watch
        )

    async def call(
        self, *command: Argument, key: str | None = None, tag: int | None = None, repeatable: bool = False
    ) -> Any:
        """Count and pass on."""
        if not first_message.get():
            self.round_trips[str(command[0]).lower()] += 1
        return await self._inner.call(*command, key=key, tag=tag, repeatable=repeatable)

    def drop(self) -> None:
        """Pass on."""
        self._inner.drop()

    async def close(self) -> None:
        """Pass on."""
        await self._inner.close()


def _turns_of(script: Script, arguments: Sequence[Argument]) -> list[bytes]:
    turns = arguments[_TURNS_FROM : len(arguments) - (_TOLD_ADDS if script is TOLD else 0)]
    return [turn for turn in turns if isinstance(turn, bytes)]
