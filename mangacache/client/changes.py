"""Changes of META whose answer was lost: what may be sent again, and what is known of one that may not.

A change that was not acknowledged may have been made, and may be made yet. Sent again it would overwrite what somebody
else wrote meanwhile. So only what a worker refuses by itself the second time is sent again: a change that names the
revision it builds on, a summary that names the turn it reaches. Of anything else the session is read: where it is as
it was to be, that is the answer; else nobody knows, and `Transient` says so.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import msgspec

from mangacache.client.calling import Request
from mangacache.client.values import WireContext, WireUpdated, read
from mangacache.errors import Conflict, MangaCacheError, Transient
from mangacache.model import Attribute, Consistency, Updated, Version

if TYPE_CHECKING:
    from mangacache.client.calling import Caller
    from mangacache.model import Context

_AS_IT_IS: Final[dict[str, str | int | float | None]] = {"turns": 1, "consistency": Consistency.STRONG.name}


class Wish(msgspec.Struct, frozen=True, kw_only=True):
    """What META is to be.

    Attributes:
        attributes, remove, status: as they were asked for.
        of: the version that it builds on; None for any.
    """

    attributes: Mapping[str, Attribute] = {}
    remove: tuple[str, ...] = ()
    status: str | None = None
    of: Version | None = None

    def stands(self, context: Context) -> bool:
        """Tell whether META is so: by this change, or by one that came to the same."""
        meta, version = context.meta, context.version
        if meta is None:
            return False
        if self.of is not None and (version.incarnation, version.revision) != (
            self.of.incarnation,
            self.of.revision + 1,
        ):
            return False
        said = read(dict[str, Any], msgspec.json.encode(dict(self.attributes)))  # as an answer would say it
        return (
            (self.status is None or meta.status == self.status)
            and meta.attributes.keys().isdisjoint(self.remove)
            and all(name in meta.attributes and meta.attributes[name] == value for name, value in said.items())
        )


class Summed(msgspec.Struct, frozen=True, kw_only=True):
    """What the summary is to be.

    Attributes:
        text: what it says.
        upto: the turn it reaches; None leaves that to the worker, and then nothing tells it from an older one.
    """

    text: str
    upto: int | None

    def stands(self, context: Context) -> bool:
        """Tell whether this summary is the newest."""
        summary = context.summary
        return summary is not None and self.upto is not None and (summary.upto, summary.text) == (self.upto, self.text)


async def changed(caller: Caller, request: Request, wish: Wish | Summed, *, session_id: str, path: str) -> Updated:
    """Make a change once.

    Args:
        caller: asks the workers.
        request: the change; it is sent again only where it is `repeatable`.
        wish: what is to be there afterwards.
        session_id: whose.
        path: of the session.

    Raises:
        Transient: no worker has said whether it was made, and the session is not as it would be.
        Conflict: an answer was lost, and the session has been changed by others since; or as the worker says.
    """
    attempts = caller.begin(request)
    try:
        answer = await caller.call(request, attempts)
        return read(WireUpdated, answer.body).value()
    except (Transient, Conflict) as error:
        if not attempts.unsure:
            raise
        asked = Request(method="GET", path=f"{path}/context", key=request.key, query=_AS_IT_IS, headers=_who(request))
        found = await _found(caller, asked, session_id, deadline_s=attempts.deadline_s)
        if found is not None and found.meta is not None and wish.stands(found):
            return Updated(found.version, found.meta, found.degraded)
        if isinstance(error, Conflict):
            raise Conflict(
                "the answer to this change was lost, and the session is not as the change would have left it: whether "
                f"it was made is unknown. Load the session and decide anew ({error})"
            ) from error
        raise


def _who(request: Request) -> dict[str, str]:
    return {name: value for name, value in request.headers.items() if name == "Customer-Id"}


async def _found(caller: Caller, asked: Request, session_id: str, *, deadline_s: float) -> Context | None:
    """Return the session as the source of truth has it; None where that cannot be read in what is left of the time."""
    try:
        answer = await caller.call(asked, caller.begin(asked, deadline_s=deadline_s))
        return read(WireContext, answer.body).value(session_id)
    except MangaCacheError:
        return None  # the change's own error says more
