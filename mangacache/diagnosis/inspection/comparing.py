"""Which tiers disagree on a session, and whether they may.

What DynamoDB holds is the truth. It was read twice, before and after the others, so that what was written meanwhile is
no disagreement: a tier may be as old as the first reading and as new as the second.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec

from mangacache.diagnosis.inspection.tiers import Failed, InDax, InMemory, InRedis
from mangacache.model import Version
from mangacache.sessions.copies import MetaCopy

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mangacache.diagnosis.inspection.tiers import Tiers
    from mangacache.sessions.copies import Copy, TurnCopy
    from mangacache.settings import Settings

_NEVER: Final = -1
_WORDS: Final = frozenset({"content", "values", "text"})


class Difference(msgspec.Struct, frozen=True):
    """One disagreement.

    Attributes:
        tier: which differs from DynamoDB.
        what: in which way.
        allowed: whether the guarantees allow for it.
        why: why they do, or what must have happened.
    """

    tier: str
    what: str
    allowed: bool
    why: str


def differences(tiers: Tiers, before: Copy, settings: Settings) -> list[Difference]:
    """Return every disagreement.

    Args:
        tiers: what was found; the table as it was read last.
        before: the table as it was read first.
        settings: how old things may be.
    """
    after = tiers.dynamodb.copy
    found: list[Difference] = []
    if isinstance(tiers.redis, InRedis):
        found += _redis(tiers.redis, before, after, settings)
    if isinstance(tiers.dax, InDax):
        found += _dax(tiers.dax, before, after, settings)
    for memory in tiers.memory:
        if isinstance(memory, InMemory) and memory.remembered is not None:
            found += _memory(memory, before, after, settings)
    return found


def failures(tiers: Tiers) -> list[str]:
    """Return why tiers that are configured, or were asked for, could not be looked at."""
    each = {"redis": tiers.redis, "dax": tiers.dax} | {f"memory {at}": one for at, one in enumerate(tiers.memory)}
    return [f"{name}: {one.why}" for name, one in each.items() if isinstance(one, Failed)]


def _redis(found: InRedis, before: Copy, after: Copy, settings: Settings) -> Iterator[Difference]:
    if found.state != "absent" and found.ttl_ms == _NEVER:
        yield Difference(
            "redis", "the hash has no TTL", allowed=False, why="every key of ours has one: who changed it?"
        )
    if found.state == "damaged":
        yield Difference(
            "redis",
            f"the hash cannot be read: {found.damage}",
            allowed=False,
            why="the next reader takes it for a miss; if it is of a newer release's format, it is that release's",
        )
    if found.state == "filling" and found.lease_left_ms is not None and found.lease_left_ms <= 0:
        yield Difference("redis", "a fill was not finished", allowed=True, why="the next reader takes its lease over")
    if found.copy is None:
        return
    if after.foreign:
        yield Difference("redis", "a session of another writer's is cached", allowed=False, why="such are never cached")
        return
    yield from _versions("redis", found.copy, before, after, behind=_behind_in_redis(settings))
    yield from _parts("redis", found.copy, after)
    if found.age_s is not None and found.age_s > settings.context_max_age_s:
        yield Difference("redis", f"filled {found.age_s:.0f} s ago", allowed=True, why="it is not given any more")


def _behind_in_redis(settings: Settings) -> str:
    return (
        "a write is not in it that nobody acknowledged (its worker died, or writes now), or one acknowledged as"
        " degraded while Redis was away; the next append, a STRONG read, or at the latest"
        f" {settings.context_max_age_s} s after it was filled mend it"
    )


def _memory(found: InMemory, before: Copy, after: Copy, settings: Settings) -> Iterator[Difference]:
    held = found.remembered
    if held is None or held.copy is None:
        return
    tier = f"memory of {found.worker}"
    behind = f"SESSION answers from it for {settings.near_max_age_s:g} s after it was validated; LATEST asks Redis"
    yield from _versions(tier, held.copy, before, after, behind=behind)
    yield from _parts(tier, held.copy, after)


def _dax(found: InDax, before: Copy, after: Copy, settings: Settings) -> Iterator[Difference]:
    behind = (
        f"the item cache may be dax_ttl_s ({settings.dax_ttl_s} s) old; only EVENTUAL readers are given META from it"
    )
    if found.meta is None:
        yield Difference("dax", "META is absent", allowed=True, why=f"{behind}; what is absent is read in DynamoDB")
    elif after.meta is not None:
        held = (found.meta.incarnation, found.meta.revision)
        if held > (after.meta.incarnation, after.meta.revision):
            yield Difference(
                "dax",
                f"META has revision {held[1]}, DynamoDB {after.meta.revision}",
                allowed=False,
                why="the table was restored from a backup: restart the cluster's nodes",
            )
        elif before.meta is not None and held < (before.meta.incarnation, before.meta.revision):
            yield Difference(
                "dax", f"META has revision {held[1]}, DynamoDB {after.meta.revision}", allowed=True, why=behind
            )
    newest = after.turns[-1] if after.turns else None
    if found.newest is not None and newest is not None and found.newest.number == newest.number:
        yield from _turn("dax", found.newest, newest)


def _versions(tier: str, held: Copy, before: Copy, after: Copy, *, behind: str) -> Iterator[Difference]:
    version, least, most = (Version(*one.version) for one in (held, before, after))
    if not most.covers(version):
        yield Difference(
            tier,
            f"it is at {version}, DynamoDB at {most}: ahead",
            allowed=False,
            why="the table was restored from a backup, or another table's workers share this prefix",
        )
    elif not version.covers(least):
        yield Difference(tier, f"it is at {version}, DynamoDB at {most}: behind", allowed=True, why=behind)


def _parts(tier: str, held: Copy, truth: Copy) -> Iterator[Difference]:
    """Iterate over what two copies of the same life say differently of the same thing."""
    if held.version[0] != truth.version[0]:
        return
    known = {turn.number: turn for turn in truth.turns}
    for turn in held.turns:
        if turn.number in known:
            yield from _turn(tier, turn, known[turn.number])
    if held.version[2] != truth.version[2]:
        return
    if held.meta is not None and truth.meta is not None:
        names = _differing(held.meta, truth.meta)
        if names:
            yield _wrong(tier, f"META of the same revision differs in {', '.join(names)}")
    if held.summary is not None and truth.summary is not None:
        names = _differing(held.summary, truth.summary)
        if names:
            yield _wrong(tier, f"the summary of the same revision differs in {', '.join(names)}")


def _turn(tier: str, held: TurnCopy, truth: TurnCopy) -> Iterator[Difference]:
    names = _differing(held, truth)
    if names:
        yield _wrong(tier, f"turn {held.number} differs in {', '.join(names)}")


def _differing(one: Any, other: Any) -> list[str]:
    """Return the fields in which two copies differ; words that one of them was not asked for are no difference.

    META's end is left out: a touch moves it, and a touch is outside the version.
    """
    names = set(one.__struct_fields__) - ({"expires_at"} if isinstance(one, MetaCopy) else set())
    names -= {name for name in _WORDS & names if None in (getattr(one, name), getattr(other, name))}
    return sorted(name for name in names if getattr(one, name) != getattr(other, name))


def _wrong(tier: str, what: str) -> Difference:
    return Difference(
        tier,
        what,
        allowed=False,
        why="neither ever changes once it is stored: somebody wrote past this package, or a codec is wrong",
    )
