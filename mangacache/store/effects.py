"""What a decision asks of the store, and what it hears back.

The decisions (`append.py`, `changes.py`, `deletion.py`) are plain generators: they yield an effect, are sent its
outcome, and return a result. They do no input or output, so every path can be driven by hand.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import TypeAlias, TypeVar

import msgspec

from mangacache.model import Summary, Turn
from mangacache.store.items import MetaRecord
from mangacache.store.snapshot import Snapshot
from mangacache.store.values import Typed

R = TypeVar("R")


class Draft(msgspec.Struct, frozen=True):
    """A checked turn that has no number yet, with its free attributes as the item will hold them."""

    turn: Turn
    typed_attributes: Typed


class Load(msgspec.Struct, frozen=True):
    """Read the session strongly. Outcome: `Snapshot`."""


class Tail(msgspec.Struct, frozen=True):
    """Read strongly what follows `known`. Outcome: (`Snapshot`, every turn read); `Load` if a seal was met."""

    known: Snapshot


class LookBack(msgspec.Struct, frozen=True):
    """Look for turn_ids among the turns `first`..`last`. Outcome: a dict turn_id -> number."""

    incarnation: int
    first: int
    last: int
    turn_ids: frozenset[str]


class Put(msgspec.Struct, frozen=True):
    """Store turns under the numbers from `first` on, if none of them is taken. Outcome: `Done` or `Refused`.

    Attributes:
        nonce: makes a transaction's request token this call's own; the same when the request is repeated.
    """

    incarnation: int
    first: int
    drafts: tuple[Draft, ...]
    nonce: str


class Begin(msgspec.Struct, frozen=True):
    """Store META and turns together, if META still is `previous`. Outcome: `Done` or `Refused`."""

    meta: MetaRecord
    previous: MetaRecord | None
    first: int
    drafts: tuple[Draft, ...]
    nonce: str


class Touch(msgspec.Struct, frozen=True):
    """Raise META's last_number, last_active_at and ttl, outside the version. Outcome: `Done` or `Refused`."""

    incarnation: int
    number: int
    last_active_at: str
    expires_at: int


class Change(msgspec.Struct, frozen=True):
    """Change META from `revision` to the next one. Outcome: `Done` with the new META's item, or `Refused`.

    Attributes:
        sets: attributes to set, typed.
        removes: names of attributes to remove.
        summary: stored in the same transaction, where there is one.
        fence: what META's fence must be, where the change is made under a lock.
    """

    incarnation: int
    revision: int
    change_id: str
    sets: Typed
    removes: tuple[str, ...] = ()
    summary: Summary | None = None
    fence: int | None = None


class Bury(msgspec.Struct, frozen=True):
    """Seal number `sealed` and make META a tombstone, if META still is of `previous`'s incarnation."""

    incarnation: int
    sealed: int
    tombstone: MetaRecord
    previous: MetaRecord | None
    nonce: str


class Sweep(msgspec.Struct, frozen=True):
    """Overwrite what incarnations below `incarnation` have left. Outcome: True when all of it is done."""

    incarnation: int


class Done(msgspec.Struct, frozen=True):
    """It was done; `item` is what an update left."""

    item: Typed = {}


class Refused(msgspec.Struct, frozen=True):
    """A condition did not hold.

    Attributes:
        items: for each place, META first: None where its condition held, else the item that stood there, `{}`
            where nothing stood.
        in_doubt: an earlier try of the same request had no answer, so this may be our own doing.
    """

    items: tuple[Typed | None, ...]
    in_doubt: bool


Effect: TypeAlias = "Load | Tail | LookBack | Put | Begin | Touch | Change | Bury | Sweep"
Outcome: TypeAlias = "Snapshot | Done | Refused | dict[str, int] | bool | tuple[Snapshot, tuple[Turn, ...]]"
Steps: TypeAlias = Generator[Effect, Outcome, R]


class Stamp(msgspec.Struct, frozen=True):
    """When and by what rule something is stored.

    Attributes:
        now_s: wall clock, seconds since 1970.
        at: the same as ISO 8601.
        turn_expires_at: ttl of a turn or summary stored now.
        meta_expires_at: ttl of META written now: a day longer, so that META outlives its turns.
        seal_expires_at: ttl of a seal, an hour.
        nonce: random, by which what this call sends is told from what other calls send.
    """

    now_s: float
    at: str
    turn_expires_at: int
    meta_expires_at: int
    seal_expires_at: int
    nonce: str
