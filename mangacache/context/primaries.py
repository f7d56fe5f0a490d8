"""The primaries that a cache is kept in, as the epoch item names them: one, or in a cluster one for each slot.

All pure. What stands in the item is a text: a single server's identity, or `<identity>=<slots>` for each primary of a
cluster, `;` between them. Whoever is admitted under an epoch is in it, with every slot that it said were its own; two
primaries never share a slot in it. So a worker that meets another primary for a slot than anybody did before it raises
the epoch, as it does where a single server is another one than before.
"""

from __future__ import annotations

from hashlib import sha256
from typing import TYPE_CHECKING, Final, Self

import msgspec

from mangacache.errors import Transient
from mangacache.redis import slot_of
from mangacache.redis.slots import named, ranges

if TYPE_CHECKING:
    from collections.abc import Mapping

_SHORT: Final = 16
"""Of a hash: the item is read twice a second by every worker."""


class Primary(msgspec.Struct, frozen=True):
    """A primary, as one of its connections shows it.

    Attributes:
        identity: tells this primary, at this time of its life, from every other one.
        slots: those it says are its own; None where it is no node of a cluster, and has all keys.
    """

    identity: str
    slots: frozenset[int] | None

    @classmethod
    def of(cls, info: Mapping[str, str]) -> Self:
        """Return the primary that a server's INFO describes.

        Raises:
            Transient: it is no primary, or does not say who it is.
        """
        if info.get("role") != "master":
            raise Transient(f"Redis answers as {info.get('role', 'nothing known')}, not as a primary")
        parts = [info[name] for name in ("run_id", "master_replid") if info.get(name)]
        if not parts:
            raise Transient("Redis does not tell its run_id (INFO server): its identity cannot be checked")
        identity = "/".join(parts)
        if info.get("cluster_enabled") != "1":
            return cls(identity, None)
        slots = frozenset(slot for part in ranges(info.get("cluster_slots", "")) for slot in part)
        return cls(sha256(identity.encode()).hexdigest()[:_SHORT], slots)

    def serves(self, key: str) -> bool:
        """Tell whether a key is kept there."""
        return self.slots is None or slot_of(key) in self.slots

    def is_in(self, noted: str) -> bool:
        """Tell whether the item names it, with all its slots."""
        if self.slots is None:
            return noted == self.identity
        return self.slots <= _parsed(noted).get(self.identity, frozenset()) or not self.slots

    def follows(self, noted: str) -> bool:
        """Tell whether it may be noted without a raise: nobody can have met another primary for its slots."""
        if self.slots is None or "=" not in noted:
            return not noted
        others = (slots for identity, slots in _parsed(noted).items() if identity != self.identity)
        return all(self.slots.isdisjoint(slots) for slots in others)

    def noted_in(self, noted: str) -> str:
        """Return what the item is to name: this primary, and what is left of the others."""
        if self.slots is None:
            return self.identity
        found = {identity: slots - self.slots for identity, slots in _parsed(noted).items()}
        found[self.identity] = found.get(self.identity, frozenset()) | self.slots
        return ";".join(f"{identity}={named(slots)}" for identity, slots in sorted(found.items()) if slots)


def _parsed(noted: str) -> dict[str, frozenset[int]]:
    found: dict[str, frozenset[int]] = {}
    for part in noted.split(";"):
        identity, is_of_cluster, slots = part.partition("=")
        if is_of_cluster:
            found[identity] = frozenset(slot for each in ranges(slots) for slot in each)
    return found
