"""One server: a keyspace, an identity, a role, and the scripts it knows."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from mangacache.redis import LinkLost, ScriptFailed
from mangacache.testing.redis.keyspace import ReadOnly
from mangacache.testing.redis.scripts import known

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mangacache.clock import Random
    from mangacache.redis import Argument, Script
    from mangacache.testing.redis.ears import MemoryEar
    from mangacache.testing.redis.keyspace import Keyspace
    from mangacache.testing.redis.line import MemoryLine, Message


class Node:
    """A server, alive or dead.

    Args:
        db: what it keeps.
        random: its identity comes from.

    Attributes:
        lines: the connections that lead to it.
        backlog: what arrived while it stood still; None while it goes on.
        calls: scripts it ran, by name.
        ears: the connections that listen to it.
    """

    def __init__(self, db: Keyspace, random: Random) -> None:
        self.db = db
        self._run_id = f"{random.getrandbits(160):040x}"
        self._replid = f"{random.getrandbits(160):040x}"
        self.alive = True
        self.lines: dict[MemoryLine, None] = {}
        self.backlog: list[Message] | None = None
        self.calls: Counter[str] = Counter()
        self.ears: dict[MemoryEar, None] = {}

    def info(self) -> dict[str, str]:
        """Return what INFO tells of identity and role."""
        role = "slave" if self.db.read_only else "master"
        return {"run_id": self._run_id, "master_replid": self._replid, "role": role}

    def call(self, *command: Argument) -> Any:
        """Refuse a command: the double runs scripts."""
        raise NotImplementedError(f"MemoryRedis does not do {command[0]!s}: it runs scripts, and knows INFO")

    def run(self, script: Script, keys: Sequence[str], arguments: Sequence[Argument]) -> Any:
        """Run a script to its end, as one step.

        Raises:
            LinkLost: it writes, and this is a replica.
            ScriptFailed: an argument is no number.
            NotImplementedError: the script is none of those the double knows.
        """
        function = known(script)
        if function is None:
            raise NotImplementedError(
                f"MemoryRedis does not know the script {script.name!r} ({script.sha}): it does what those do that"
                " were made known to it (testing.redis.scripts), as they are in this release"
            )
        self.calls[script.name] += 1
        try:
            return function(self.db, keys, [_encoded(argument) for argument in arguments])
        except ReadOnly as error:
            said = "READONLY You can't write against a read only replica"
            raise LinkLost(f"{script.name}: {said}", sent=False) from error
        except ValueError as error:
            raise ScriptFailed(f"{script.name} of {keys[0]}: {error}") from error
        finally:
            self._hand_on()

    def _hand_on(self) -> None:
        """Let those hear what was published who had subscribed before."""
        published, self.db.published = self.db.published, []
        for channel, payload in published:
            for ear in tuple(self.ears):
                ear.hear(channel, payload)

    def accept(self, message: Message) -> None:
        """Take a message that has arrived: do it now, later, or never."""
        if self.backlog is not None and self.alive:
            self.backlog.append(message)
        elif self.alive:
            message.carry_out()

    def resume(self) -> None:
        """Do what arrived meanwhile, in order; who sent it may have given up."""
        waiting, self.backlog = self.backlog or [], None
        for message in waiting:
            self.accept(message)
        for ear in tuple(self.ears):
            ear.catch_up()

    def die(self) -> None:
        """Answer nobody any more."""
        self.alive = False
        self.backlog = None
        self.cut()

    def cut(self) -> None:
        """Break every connection to it."""
        for line in list(self.lines):
            line.abort()
        for ear in list(self.ears):
            ear.abort("the connection broke")


def _encoded(argument: Argument) -> bytes:
    if isinstance(argument, bytes):
        return argument
    return (argument if isinstance(argument, str) else repr(argument)).encode()
