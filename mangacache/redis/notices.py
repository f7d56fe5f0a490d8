"""What workers tell each other of sessions by pub/sub, and on which channels: numbers, never content.

A session's channel has the session's hash tag, so that in a cluster the script that writes its context may publish on
it (sharded pub/sub). A customer's channel has the customer's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from urllib.parse import quote

import msgspec

from mangacache.model import Version

if TYPE_CHECKING:
    from collections.abc import Sequence

CLOSED: Final = "closed"
DELETED: Final = "deleted"
OWED: Final = "owed"


class Notice(msgspec.Struct, frozen=True, gc=False):
    """That a session has reached a version.

    Attributes:
        version: which.
        turns: how many turns up to the version's number are told of: they follow each other without a hole.
        mark: `CLOSED` where the change of META closed the session, `DELETED` where a delete did, `OWED` where Redis was
            away at the time, so that nothing but the version is known any more; else empty.
    """

    session_id: str
    version: Version
    turns: int
    mark: str = ""


def notice_tail(session_id: str, turns: int, mark: str = "") -> bytes:
    """Return a notice but for the version, which the script that publishes it has in its arguments."""
    return f"{turns} {mark} {session_id}".encode()


def whole_notice(version: Sequence[bytes], tail: bytes) -> bytes:
    """Return what is published: `incarnation number revision turns mark session_id`."""
    return b" ".join((*version, tail))


def decode_notice(payload: bytes) -> Notice | None:
    """Return what was published; None where it is no notice known here: another release's, or somebody else's."""
    try:
        incarnation, number, revision, turns, mark, session_id = payload.decode().split(" ", 5)
        return Notice(session_id, Version(int(incarnation), int(number), int(revision)), int(turns), mark)
    except ValueError:
        return None


def session_channel(prefix: str, session_id: str) -> str:
    """Return the channel on which a session's changes are told."""
    return f"{prefix}session:{{{quote(session_id, safe='')}}}:events"


def customer_channel(prefix: str, customer_id: str) -> str:
    """Return the channel on which the changes of all sessions of a customer are told."""
    return f"{prefix}customer:{{{quote(customer_id, safe='')}}}:events"
