"""How a session is deleted, whoever has written to it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, cast

import msgspec

from mangacache.errors import Transient
from mangacache.model import Deleted
from mangacache.sessions.writing import DEFAULT_POLICY, Policy

if TYPE_CHECKING:
    from mangacache.sessions.registry import Sessions
    from mangacache.store.deletion import Delete

_MAX_ERASURES: Final = 8


async def delete(sessions: Sessions, session_id: str, decision: Delete, *, policy: Policy = DEFAULT_POLICY) -> Deleted:
    """Carry out a delete; what others wrote is erased item by item, and then the life of ours that stands there."""
    for erasures in range(_MAX_ERASURES):
        # A delete reads strongly, whatever is known.
        deleted = await sessions.write(
            session_id,
            lambda known, _: decision.steps(known),
            what="delete",
            policy=policy,
            needs_window=False,
            long=True,
        )
        result = cast("Deleted", deleted)
        if result.swept or result.existed or not (await sessions.store.loader.load(session_id)).has_others:
            return msgspec.structs.replace(result, existed=result.existed or erasures > 0)
        ours_is_left = await sessions.exclusive(
            session_id, lambda: sessions.store.adoption.erase(session_id), what="erase", policy=policy
        )  # fmt: skip
        if not ours_is_left:
            return Deleted(result.version, existed=True, swept=True)
    raise Transient("this session is still being written by others: stop them, then delete it again")
