"""A lock that is held by whoever shows its token: nobody renews it meanwhile, and any worker may.

`Locks.session` holds a lock for a block of code in this process. Who asks a worker over HTTP has no such block: the
lock is theirs for its lease, and they prolong it or give it back by the token, at whichever worker. What the lock is
worth is the same: the fence, claimed by the same order of steps.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

import msgspec

from mangacache.ephemeral import scripts
from mangacache.ephemeral.asking import shown
from mangacache.errors import Conflict, Invalid

if TYPE_CHECKING:
    from mangacache.ephemeral.seeking import Means

_SERVICE: Final = "locks"
_TOKEN: Final = re.compile(r"([0-9a-f]{32})\.([0-9a-f]{32})\.([1-9a-f][0-9a-f]{0,15})\.([1-9a-f][0-9a-f]{0,7})\.([rf])")


class Lent(msgspec.Struct, frozen=True):
    """A session's lock in the hands of whoever has its token.

    Attributes:
        lock_token: by which it is prolonged and given back, at any worker.
        fence: to be named by each write that is done under it.
        ttl_s: after so many seconds it ends by itself.
        source: `redis`, or `fence` where Redis could not be asked: the next who claims it has it at once.
    """

    lock_token: str
    fence: int
    ttl_s: float
    source: str


class Hold(msgspec.Struct, frozen=True):
    """What a lock's token says.

    Attributes:
        holder: by which Redis knows the holder.
        claim_id: of the claim that raised the fence.
        fence: that it raised it to.
        lease_ms: how long the lock is held from each renewal on.
        by_redis: whether Redis holds it, or the fence alone is the lock.
    """

    holder: str
    claim_id: str
    fence: int
    lease_ms: int
    by_redis: bool

    def __str__(self) -> str:
        kind = "r" if self.by_redis else "f"
        return f"{self.holder}.{self.claim_id}.{self.fence:x}.{self.lease_ms:x}.{kind}"

    @classmethod
    def parse(cls, token: str) -> Hold:
        """Return what a token says.

        Raises:
            Invalid: it is none.
        """
        found = _TOKEN.fullmatch(token)
        if found is None:
            raise Invalid(f"{shown(token)} is no lock token: pass `lock_token` of the lock as it is")
        holder, claim_id, fence, lease_ms, kind = found.groups()
        return cls(holder, claim_id, int(fence, 16), int(lease_ms, 16), kind == "r")

    def lent(self) -> Lent:
        """Return the lock as its holder is told of it."""
        return Lent(str(self), self.fence, self.lease_ms / 1000, "redis" if self.by_redis else "fence")


async def prolong(session_id: str, hold: Hold, means: Means) -> None:
    """Hold a lock for a whole lease from now on.

    Raises:
        Conflict: it is another's, or its lease has ended.
        Transient: whether it is still held could not be found out.
    """
    if hold.by_redis:
        key = means.asker.key("lock:session", session_id)
        reply = await means.asker.run(
            _SERVICE, scripts.LOCK_EXTEND, key, (hold.holder, hold.lease_ms), repeatable=True
        )  # fmt: skip
        ours = reply == 1
    else:
        ours = await means.store.fences.current(session_id) == (hold.fence, hold.claim_id)
    if not ours:
        raise Conflict(
            f"the lock of session {session_id!r} is not held by this token any more: its lease has ended, or it was"
            " given back. Take it again, load the session and decide anew"
        )


async def give_back(session_id: str, hold: Hold, means: Means) -> bool:
    """End a hold, where it is one, and wake who is next; tell whether it was.

    Raises:
        Transient: Redis cannot be asked: the lock ends with its lease.
    """
    if not hold.by_redis:
        return False  # there is nothing to end: the next claim has it anyway
    key = means.asker.key("lock:session", session_id)
    reply = await means.asker.run(_SERVICE, scripts.LOCK_LEAVE, key, (hold.holder,), repeatable=True)
    return bool(reply == 1)
