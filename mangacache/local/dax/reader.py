"""The bytes of a connection, as they come, to whole requests."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from mangacache.local.dax.limits import DEFAULT_LIMITS, Limits

if TYPE_CHECKING:
    from mangacache.local.dax.requests import Request


class Prelude(msgspec.Struct, frozen=True):
    """What a client says once, right after it has connected; there is no reply to it.

    Attributes:
        session: of the client's pool, as bytes, or text by some clients.
        headers: about the client: `UserAgent`.
    """

    session: bytes | str | None
    headers: dict[str, str]


class Reader:
    """Cuts a connection's bytes into its prelude and its requests; does no I/O.

    Feed it chunks of any size, and after each take what `next` gives until it gives None. The work is in proportion to
    the bytes, however they are cut.

    Args:
        limits: of one request.
    """

    def __init__(self, limits: Limits = DEFAULT_LIMITS) -> None:
        raise NotImplementedError

    @property
    def buffered(self) -> int:
        """How many bytes wait: of requests not yet taken, or not yet whole. 0 at a clean end of a connection."""
        raise NotImplementedError

    def feed(self, data: bytes) -> None:
        """Take in what came from the peer."""
        raise NotImplementedError

    def next(self) -> Prelude | Request | None:
        """Return the prelude, then each request once it is whole, or None while bytes are missing.

        Raises:
            Malformed: the bytes are not the protocol's, or pass a limit; from now on every call raises it.
        """
        raise NotImplementedError
