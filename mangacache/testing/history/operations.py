"""What a history is made of: operations, each with who, when, what was asked and what came back."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

import msgspec

from mangacache.model import Version

if TYPE_CHECKING:
    from mangacache.model import Meta, Summary

Kind: TypeAlias = Literal["append", "update", "delete", "read", "state"]
Outcome: TypeAlias = Literal["ok", "failed", "unknown"]
Level: TypeAlias = Literal["", "strong", "latest", "session", "eventual"]

WRITES: Final = frozenset({"append", "update", "delete"})
UNRECORDED: Final = 0
"""The digest of what nobody has taken a digest of; it agrees with any other."""


class SeenTurn(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A turn as somebody gave it or got it: its number (0 where none was told), its id, a digest of its content."""

    number: int
    turn_id: str
    digest: int = UNRECORDED


class Operation(msgspec.Struct, frozen=True, gc=False):
    """One operation on one session.

    Attributes:
        kind: `append`; `update` is any change of META; `delete`; `read` returns a context; `state` is a strong read of
            everything that is stored, before the first operation or after the last one.
        client: who asked: the one who carries the tokens.
        worker: who answered.
        invoked_ns: when it began, on a monotonic clock that all workers share.
        returned_ns: when it ended; None where it never did, or where how it ended is unknown.
        outcome: `ok`; `failed` has certainly changed nothing; `unknown` may take effect at any time after it began.
        level: the consistency claimed by a read; "" for a write.
        max_age_ns: how old an EVENTUAL answer may be.
        token: given with the call: `at_least`, `after` or `if_version`.
        version: returned by the call.
        turns: of an append, what was appended; of a read, the turns returned, oldest first.
        repeats: the turn_ids which the append says had been stored before.
        asked: how many turns a read asked for; 0 where its turns were not recorded.
        made: False where a delete found nothing to delete.
        stale: the answer said that it is older than its level promises, or that the worker was degraded.
        source: the tier that answered.
        meta: digest of META's content at the version; None where it was not recorded.
        summary: digest of the summary at the version; None where it was not recorded.
    """

    kind: Kind
    session: str
    client: str
    worker: str
    invoked_ns: int
    returned_ns: int | None = None
    outcome: Outcome = "unknown"
    level: Level = ""
    max_age_ns: int | None = None
    token: Version | None = None
    version: Version | None = None
    turns: tuple[SeenTurn, ...] = ()
    repeats: tuple[str, ...] = ()
    asked: int = 0
    made: bool = True
    stale: bool = False
    source: str = ""
    meta: int | None = None
    summary: int | None = None


def turn_digest(role: str, content: str) -> int:
    """Return 64 bits that stand for a turn's role and content, the same in every process."""
    return _digest(f"{role}\0{content}".encode(errors="surrogatepass"))


def meta_digest(meta: Meta | None) -> int:
    """Return 64 bits that stand for what a bot has put into META: customer, status, free attributes."""
    if meta is None:
        return _digest(b"")
    return _digest(_CANONICAL.encode((meta.customer_id, meta.status, meta.attributes)))


def summary_digest(summary: Summary | None) -> int:
    """Return 64 bits that stand for a summary's text and reach."""
    return _digest(b"" if summary is None else f"{summary.upto}\0{summary.text}".encode(errors="surrogatepass"))


def _digest(data: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest()) or 1


_CANONICAL: Final = msgspec.msgpack.Encoder(order="deterministic")
SHIFT: Final = 48
"""Above so many bits of a place stands its incarnation."""
NOT_HELD: Final = 1 << 96
"""A place above all others: that of an operation in a component which it is not about."""


def place_of(incarnation: int, part: int) -> int:
    """Return one integer that orders (incarnation, number) or (incarnation, revision), the incarnation first."""
    return incarnation << SHIFT | part


def incarnation_of(place: int) -> int:
    """Return the incarnation of a place."""
    return place >> SHIFT


def part_of(place: int) -> int:
    """Return the number, or the revision, of a place."""
    return place & ((1 << SHIFT) - 1)


def turns_place(version: Version) -> int:
    """Return where a version stands in the order of the list of turns."""
    return version.incarnation << SHIFT | version.number


def meta_place(version: Version) -> int:
    """Return where a version stands in the order of META."""
    return version.incarnation << SHIFT | version.revision


def place_text(component: str, place: int) -> str:
    """Return how to call a place of one of the components."""
    what = {"turns": "number", "meta": "revision"}.get(component)
    incarnation = f"incarnation {incarnation_of(place)}"
    return f"{what} {part_of(place)} of {incarnation}" if what else incarnation
