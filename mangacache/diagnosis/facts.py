"""What was seen of an installation, before anybody has judged it: plain values, gathered at the edge.

Where something could not be seen, an `Unseen` with the reason stands in its place.
"""

from __future__ import annotations

from typing import Any, Protocol, TypeAlias

import msgspec

KINDS = frozenset(
    {"session", "lock:session", "conn", "session_conn", "customer_conn", "rate", "online", "trending", "workers"}
)
"""What comes after the prefix in each of our keys in Redis, up to the brace."""


class Expected(msgspec.Struct, frozen=True, kw_only=True):
    """What one process is to carry, as the operator says.

    Attributes:
        sessions: open at once.
        connections: sockets of customers at once.
        stop_timeout_s: after how long the platform kills a process that it has told to stop: ECS's `stopTimeout`.
    """

    sessions: int = 50_000
    connections: int = 2_000
    stop_timeout_s: float = 30.0


class Unseen(msgspec.Struct, frozen=True):
    """Something that could not be seen.

    Attributes:
        why: in words.
        kind: `unreachable`, `refused` (credentials or rights) or `unsupported`.
    """

    why: str
    kind: str = "unreachable"


class TableFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What DynamoDB says of the table.

    Attributes:
        where: the endpoint, in words.
        description: DescribeTable's `Table`; None where there is no such table.
        ttl: DescribeTimeToLive's description.
        recovery: the status of point-in-time recovery.
        reads: what came of one strong read of an item: its milliseconds.
    """

    where: str
    description: dict[str, Any] | Unseen | None
    ttl: dict[str, Any] | Unseen | None = None
    recovery: str | Unseen | None = None
    reads: float | Unseen | None = None


class Sample(msgspec.Struct, frozen=True, kw_only=True):
    """Some of a server's keys, as SCAN came by them.

    Attributes:
        looked_at: how many.
        whole: whether they were all.
        ours: how many begin with our prefix.
        ours_for_ever: those of them without a TTL, by name.
        strange: those of them of a kind that this release does not write, by name.
        others_for_ever: how many of the others have no TTL.
    """

    looked_at: int
    whole: bool
    ours: int
    ours_for_ever: tuple[str, ...] = ()
    strange: tuple[str, ...] = ()
    others_for_ever: int = 0


class NodeFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What one server says.

    Attributes:
        address: in words, without a password.
        info: INFO's fields.
        config: CONFIG GET's, or why it was not answered.
        sample: of its keys.
    """

    address: str
    info: dict[str, str]
    config: dict[str, str] | Unseen
    sample: Sample | Unseen


class RedisFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What Redis says.

    Attributes:
        address: of `redis_endpoint`, without a password; None where none is configured.
        tls: whether it is spoken to encrypted.
        leaves: whether what is said leaves this machine.
        nodes: the server, or each primary of a cluster; or why there is none.
        managed: whether the address is one of ElastiCache's.
    """

    address: str | None
    tls: bool = False
    leaves: bool = False
    nodes: tuple[NodeFacts, ...] | Unseen = ()
    managed: bool = False


class DaxFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of the DAX cluster.

    Attributes:
        address: None where none is configured.
        leaves: whether what is said leaves this machine.
        tls: whether it is spoken to encrypted.
        answer_ms: of one consistent read through it.
        nodes: how many there are.
        ttls_s: of items and of queries.
        ttls_from: who said so.
    """

    address: str | None
    leaves: bool = False
    tls: bool = False
    answer_ms: float | Unseen | None = None
    nodes: int | Unseen | None = None
    ttls_s: tuple[float, float] | Unseen | None = None
    ttls_from: str = ""


class Offset(msgspec.Struct, frozen=True, kw_only=True):
    """How far another clock is ahead of this machine's: between these bounds, whatever the way there took.

    Attributes:
        least_s, most_s: the bounds; below 0 it is behind.
    """

    least_s: float
    most_s: float

    @classmethod
    def of(cls, at_s: float, *, step_s: float, sent_s: float, heard_s: float) -> Offset:
        """Return the offset of a clock that said `at_s` some time between two moments of ours.

        Args:
            at_s: what it said.
            step_s: how much it leaves off: an HTTP date is cut to the second.
            sent_s: when it was asked, by this machine's clock.
            heard_s: when the answer was there, by the same.
        """
        return cls(least_s=at_s - heard_s, most_s=at_s + step_s - sent_s)

    @property
    def certain_s(self) -> float:
        """The part of the offset that no delay explains, without its sign."""
        return max(self.least_s, -self.most_s, 0.0)


class ClockFacts(msgspec.Struct, frozen=True, kw_only=True):
    """Three clocks.

    Attributes:
        dynamodb: by the date of an answer.
        redis: by TIME; None where no Redis is configured.
        stepped_s: by how much this machine's wall clock was set while it was looked at.
    """

    dynamodb: Offset | Unseen
    redis: Offset | Unseen | None
    stepped_s: float = 0.0


class CredentialFacts(msgspec.Struct, frozen=True, kw_only=True):
    """Where the AWS credentials come from; nothing of them.

    Attributes:
        method: the provider's name; empty where none has any.
        ends_in_s: None where they do not expire.
        problem: why they could not be had.
    """

    method: str = ""
    ends_in_s: float | None = None
    problem: str = ""


class MachineFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What the process may use; 0 is no limit, or one that cannot be told.

    Attributes:
        files, files_hard: RLIMIT_NOFILE.
        threads: RLIMIT_NPROC, or the container's `pids.max`, whichever is less.
        memory_bytes: the container's limit, else the machine's.
        cpus: the container's quota, else the machine's.
        modules: which of the optional modules are there.
    """

    files: int = 0
    files_hard: int = 0
    threads: int = 0
    memory_bytes: int = 0
    cpus: float = 0.0
    modules: frozenset[str] = frozenset()


class Looking(Protocol):
    """Who gathers the facts; each method only reads, and may take its time."""

    async def table(self) -> TableFacts:
        """Look at the table."""

    async def redis(self) -> RedisFacts:
        """Look at Redis."""

    async def dax(self) -> DaxFacts:
        """Look at DAX."""

    async def clocks(self) -> ClockFacts:
        """Compare the clocks."""

    async def credentials(self) -> CredentialFacts:
        """Look for the AWS credentials."""

    async def machine(self) -> MachineFacts:
        """Look at what the process may use."""


Facts: TypeAlias = TableFacts | RedisFacts | DaxFacts | ClockFacts | CredentialFacts | MachineFacts
