"""Sorted sets, for the double's scripts: members by score, those of one score by their bytes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mangacache.testing.redis.keyspace import WrongType

if TYPE_CHECKING:
    from mangacache.testing.redis.keyspace import Keyspace


class SortedSet:
    """A sorted set; each method is as Redis's command of the same name, and `keep` makes it so."""

    def __init__(self, scores: dict[bytes, int] | None = None) -> None:
        self._scores: dict[bytes, int] = dict(scores or {})

    @classmethod
    def of(cls, db: Keyspace, key: str) -> SortedSet:
        """Return a copy of what is kept under a key; an empty one where there is nothing."""
        found = db.value(key)
        if found is None:
            return cls()
        if not isinstance(found, cls):
            raise WrongType(f"WRONGTYPE {key} holds no sorted set")
        return cls(found._scores)  # noqa: SLF001 - its own class

    def keep(self, db: Keyspace, key: str, ttl_ms: int | None = None) -> None:
        """Keep it under a key, or delete the key where nothing is left in it."""
        if not self._scores:
            db.delete(key)
            return
        db.keep(key, self)
        if ttl_ms is not None:
            db.pexpire(key, ttl_ms)

    def ranked(self) -> list[tuple[bytes, int]]:
        """Return members and scores, the least first."""
        return sorted(self._scores.items(), key=lambda each: (each[1], each[0]))

    def zcard(self) -> int:
        """Return how many members there are."""
        return len(self._scores)

    def zscore(self, member: bytes) -> int | None:
        """Return a member's score."""
        return self._scores.get(member)

    def zadd(self, member: bytes, score: int) -> None:
        """Set a member's score."""
        self._scores[member] = score

    def zrem(self, *members: bytes) -> int:
        """Remove members; return how many there were."""
        return sum(self._scores.pop(member, None) is not None for member in members)

    def after(self, score: int) -> list[bytes]:
        """Return the members with more than a score, the least first."""
        return [member for member, its in self.ranked() if its > score]

    def upto(self, score: int) -> list[bytes]:
        """Return the members with at most a score, the least first."""
        return [member for member, its in self.ranked() if its <= score]
