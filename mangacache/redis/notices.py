"""What workers tell each other of sessions by pub/sub, and on which channels: numbers, never content.

A session's channel has the session's hash tag, so that in a cluster the script that writes its context may publish on
it (sharded pub/sub). A customer's channel has the customer's.
"""

from __future__ import annotations

from typing import Final
from urllib.parse import quote

import msgspec

CLOSED: Final = "closed"
DELETED: Final = "deleted"


class Notice(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """That a session has reached a version.

    Attributes:
        incarnation, number, revision: the version.
        first: the least number up to `number` that is known to have been stored with it or before it without a hole;
            `number` + 1 where nothing is said of turns.
        mark: `CLOSED` where the change of META closed the session, `DELETED` where a delete did, else empty.
    """

    session_id: str
    incarnation: int
    number: int
    revision: int
    first: int
    mark: str = ""


_ENCODER: Final = msgspec.msgpack.Encoder()
_DECODER: Final = msgspec.msgpack.Decoder(Notice)


def encode_notice(notice: Notice) -> bytes:
    """Return a notice as it is published."""
    return _ENCODER.encode(notice)


def decode_notice(payload: bytes) -> Notice | None:
    """Return what was published; None where it is no notice known here: another release's, or somebody else's."""
    try:
        return _DECODER.decode(payload)
    except (msgspec.MsgspecError, RecursionError):
        return None


def session_channel(prefix: str, session_id: str) -> str:
    """Return the channel on which a session's changes are told."""
    return f"{prefix}session:{{{quote(session_id, safe='')}}}:events"


def customer_channel(prefix: str, customer_id: str) -> str:
    """Return the channel on which the changes of all sessions of a customer are told."""
    return f"{prefix}customer:{{{quote(customer_id, safe='')}}}:events"
