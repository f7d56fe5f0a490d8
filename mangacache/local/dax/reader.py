"""The bytes of a connection, as they come, to whole requests."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from mangacache.local.dax.cursor import Cursor, Truncated
from mangacache.local.dax.decoding import arguments_of, read_request
from mangacache.local.dax.limits import DEFAULT_LIMITS, Limits, Malformed
from mangacache.local.dax.scanning import Scan

if TYPE_CHECKING:
    from mangacache.local.dax.requests import Request


MAGIC: Final = "J7yne5G"
_MAGIC_ITEMS: Final = 1
_ITEMS_AFTER_MAGIC: Final = 4
_METHOD_ITEMS: Final = 2
_TEXT: Final = 3


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

    Feed it chunks of any size, and take what `next` gives until it gives None. The work is in proportion to
    the bytes, however they are cut: a request that is not whole is read once more when it is.

    Args:
        limits: of one request.
    """

    def __init__(self, limits: Limits = DEFAULT_LIMITS) -> None:
        self._limits = limits
        self._data = b""
        self._position = 0
        self._behind = bytearray()
        self._part = bytearray()
        self._scan: Scan | None = None
        self._beginning = True
        self._greeted = False
        self._error: Malformed | None = None

    @property
    def buffered(self) -> int:
        """How many bytes wait: of requests not yet taken, or not yet whole. 0 at a clean end of a connection."""
        return len(self._part) + len(self._data) - self._position + len(self._behind)

    def feed(self, data: bytes) -> None:
        """Take in what came from the peer."""
        if self._scan is not None:
            self._part += data
        elif self._position >= len(self._data) and not self._behind:
            self._data, self._position = data, 0
        else:
            self._behind += data

    def next(self) -> Prelude | Request | None:
        """Return the prelude, then each request once it is whole, or None while bytes are missing.

        Raises:
            Malformed: the bytes are not the protocol's, or pass a limit; from now on every call raises it.
        """
        if self._error is not None:
            raise self._error
        try:
            return self._next()
        except Malformed as error:
            self._error = error
            raise

    def _next(self) -> Prelude | Request | None:
        scanned = self._scan is not None
        if self._scan is not None and not self._whole(self._scan):
            return None
        if self._position >= len(self._data):
            if not self._behind:
                return None
            self._data, self._position, self._behind = bytes(self._behind), 0, bytearray()
        cursor = Cursor(self._data, self._limits, position=self._position)
        try:
            taken = read_request(cursor) if self._greeted else _prelude(cursor)
        except Truncated:
            if scanned:
                raise
            self._wait()
            return self._next()
        self._check_size(cursor.position - self._position)
        self._position = cursor.position
        self._greeted = True
        return taken

    def _wait(self) -> None:
        """Begin to look for the end of what is not whole, from its beginning."""
        self._part = bytearray(self._data[self._position :]) + self._behind
        self._data, self._position, self._behind = b"", 0, bytearray()
        self._beginning = True
        self._scan = Scan(self._limits, _METHOD_ITEMS if self._greeted else _MAGIC_ITEMS)

    def _whole(self, scan: Scan) -> bool:
        """Go on looking; once the end is found, the bytes are ready to be read."""
        if not self._found(scan):
            self._check_size(len(self._part))
            return False
        self._data, self._part, self._scan = bytes(self._part), bytearray(), None
        return True

    def _found(self, scan: Scan) -> bool:
        if not scan.run(self._part):
            return False
        if self._beginning:
            self._beginning = False
            cursor = Cursor(bytes(self._part[: scan.position]), self._limits)
            scan.want(arguments_of(cursor) if self._greeted else _greeting(cursor))
            return scan.run(self._part)
        return True

    def _check_size(self, size: int) -> None:
        if size > self._limits.request_bytes:
            raise Malformed(f"a request has more than {self._limits.request_bytes} bytes (request_bytes)")


def _greeting(cursor: Cursor) -> int:
    """Read the text that every client begins with, and return how many items follow."""
    magic = cursor.text()
    if magic != MAGIC:
        raise Malformed(f"a connection begins with {MAGIC!r}, not {magic!r:.40}: the peer is no client of DAX's")
    return _ITEMS_AFTER_MAGIC


def _prelude(cursor: Cursor) -> Prelude:
    _greeting(cursor)
    _zero(cursor, "the layering")
    session = None if cursor.null() else cursor.text() if cursor.peek() >> 5 == _TEXT else cursor.blob()
    headers: dict[str, str] = {}
    for _ in cursor.pairs():
        name = cursor.text()
        headers[name] = cursor.text()
    _zero(cursor, "the client's mode")
    return Prelude(session, headers)


def _zero(cursor: Cursor, what: str) -> None:
    number = cursor.integer()
    if number != 0:
        raise Malformed(f"{what} is {number!s:.30}: only 0 is known")
