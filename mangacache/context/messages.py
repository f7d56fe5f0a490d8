"""What a decision about a context asks for, and what it hears: the effects and outcomes of the context protocol."""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING, TypeAlias, TypeVar

import msgspec

from mangacache.model import Version
from mangacache.store.snapshot import Snapshot

if TYPE_CHECKING:
    from mangacache.store.effects import Load

R = TypeVar("R")


class Lease(msgspec.Struct, frozen=True):
    """The right to fill, under one epoch."""

    token: str
    epoch: int


# Effects


class Get(msgspec.Struct, frozen=True):
    """Ask Redis for what is newer than `have`, at `least` or newer.

    Outcome: `Held`, `Busy`, `Lease`, `Spoilt` or `Away`.
    """

    least: Version
    have: Snapshot | None


class Fill(msgspec.Struct, frozen=True):
    """Put in what was read since the lease was given. Outcome: `Filled`, `Overtaken`, `Restart` or `Away`."""

    lease: Lease
    snapshot: Snapshot


class Observe(msgspec.Struct, frozen=True):
    """Say which version was read in DynamoDB. Outcome: `Told` or `Away`."""

    version: Version


class Release(msgspec.Struct, frozen=True):
    """Give a lease back unused. Outcome: None."""

    lease: Lease


class Pause(msgspec.Struct, frozen=True):
    """Wait before asking again. Outcome: True, or False where the deadline is too near for it."""

    seconds: float


class Admit(msgspec.Struct, frozen=True):
    """Ask the limiter for a read while Redis is away, for the reason `why`. Outcome: None.

    Raises:
        Rejected: too many a second.
    """

    why: str


# Outcomes


class Held(msgspec.Struct, frozen=True):
    """Redis holds the session at `snapshot`.

    Attributes:
        age_s: how long ago it was filled.
    """

    snapshot: Snapshot
    age_s: float


class Busy(msgspec.Struct, frozen=True):
    """Another worker fills, for at most so long."""

    left_s: float


class Spoilt(msgspec.Struct, frozen=True):
    """What Redis holds cannot be read here."""


class Away(msgspec.Struct, frozen=True):
    """Redis cannot be asked, or its answer may not be used, for the reason `why`."""

    why: str


class Filled(msgspec.Struct, frozen=True):
    """The context is in Redis."""


class Overtaken(msgspec.Struct, frozen=True):
    """The context was not taken, and Redis knows which version was read."""


class Restart(msgspec.Struct, frozen=True):
    """The epoch is another one now: what began under the old one begins again."""


class Told(msgspec.Struct, frozen=True):
    """Redis knows."""


Effect: TypeAlias = "Get | Fill | Observe | Release | Pause | Admit | Load"
Outcome: TypeAlias = (
    "Held | Busy | Lease | Spoilt | Away | Filled | Overtaken | Restart | Told | Snapshot | bool | None"
)
Steps: TypeAlias = Generator[Effect, Outcome, R]


class Reading(msgspec.Struct, frozen=True):
    """What a read found.

    Attributes:
        snapshot: the session.
        source: `redis` or `dynamodb`.
        strong: whether it was read strongly in DynamoDB, so that it may replace what memory holds.
        age_s: how long before the read its turns were last read strongly.
        degraded: Redis was away, so that LATEST does not hold.
    """

    snapshot: Snapshot
    source: str
    strong: bool
    age_s: float = 0.0
    degraded: bool = False
