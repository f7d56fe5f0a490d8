"""Reading CBOR out of whole bytes, one item after another, within limits."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final, NoReturn

from mangacache.local.dax.cbor import (
    ARRAY,
    BYTES,
    MAP,
    NEGATIVE,
    NEGATIVE_BIG,
    POSITIVE_BIG,
    SIMPLE,
    TAG,
    TEXT,
    UNSIGNED,
)
from mangacache.local.dax.limits import DEFAULT_LIMITS, Limits, Malformed
from mangacache.local.dax.scanning import Scan

if TYPE_CHECKING:
    from collections.abc import Iterator

_IN_HEAD: Final = 24
_INDEFINITE: Final = 31
_SIZES: Final = (1, 2, 4, 8)
_BREAK: Final = 0xFF
_NULLS: Final = frozenset({0xF6, 0xF7})
_FALSE: Final = 0xF4
_TRUE: Final = 0xF5
_FLOATS: Final = {0xF9: struct.Struct(">e"), 0xFA: struct.Struct(">f"), 0xFB: struct.Struct(">d")}
_KINDS: Final = {
    UNSIGNED: "a number",
    NEGATIVE: "a negative number",
    BYTES: "a byte string",
    TEXT: "a text",
    ARRAY: "a list",
    MAP: "a map",
    TAG: "a tag",
    SIMPLE: "a simple value or a float",
}


class Truncated(Malformed):
    """The bytes end within an item: more of them may make it whole, where more can come."""


class Budget:
    """How many elements the lists, maps and sets of one request may still have.

    Args:
        limits: with the elements.
    """

    __slots__ = ("_elements", "_left")

    def __init__(self, limits: Limits) -> None:
        self._elements = self._left = limits.elements

    def spend(self, count: int) -> None:
        """Take in `count` elements more.

        Raises:
            Malformed: they are too many.
        """
        self._left -= count
        if self._left < 0:
            raise Malformed(f"a request's lists, maps and sets have more than {self._elements} elements (elements)")


class Cursor:
    """A place in bytes.

    Args:
        data: all of the bytes.
        limits: of sizes.
        budget: of elements; shared by all bytes of one request.
        position: where to begin.

    Attributes:
        data: see above.
        position: of the next item.
        limits: see above.
        budget: see above.
    """

    __slots__ = ("budget", "data", "limits", "position")

    def __init__(
        self, data: bytes, limits: Limits = DEFAULT_LIMITS, budget: Budget | None = None, position: int = 0
    ) -> None:
        self.data = data
        self.limits = limits
        self.budget = budget if budget is not None else Budget(limits)
        self.position = position

    def nested(self, data: bytes) -> Cursor:
        """Return a cursor on bytes that were found in these."""
        return Cursor(data, self.limits, self.budget)

    @property
    def ended(self) -> bool:
        """Whether nothing is left."""
        return self.position >= len(self.data)

    def finish(self, what: str) -> None:
        """Refuse bytes that are left.

        Raises:
            Malformed: there are.
        """
        if self.position < len(self.data):
            raise Malformed(f"{len(self.data) - self.position} bytes are left over after {what}")

    def peek(self) -> int:
        """Return the next item's first byte, which says what it is.

        Raises:
            Truncated: there is none.
        """
        try:
            return self.data[self.position]
        except IndexError:
            raise Truncated("the bytes end where an item is due") from None

    def head(self) -> tuple[int, int]:
        """Read a head: its major type, and its value, -1 where the length is left open."""
        first = self.peek()
        small = first & 0x1F
        if small < _IN_HEAD:
            self.position += 1
            return first >> 5, small
        if small == _INDEFINITE:
            self.position += 1
            return first >> 5, -1
        try:
            size = _SIZES[small - _IN_HEAD]
        except IndexError:
            raise Malformed(f"byte {first:#04x} begins no item") from None
        start = self.position + 1
        end = start + size
        if end > len(self.data):
            raise Truncated("the bytes end within the head of an item")
        self.position = end
        return first >> 5, int.from_bytes(self.data[start:end], "big")

    def wrong(self, wanted: str, first: int) -> NoReturn:
        """Refuse an item of another kind than what is due.

        Raises:
            Malformed: always.
        """
        raise Malformed(f"{wanted} is due at byte {self.position}, not {_KINDS[first >> 5]} ({first:#04x})")

    def null(self) -> bool:
        """Read a null if it is next."""
        if self.peek() in _NULLS:
            self.position += 1
            return True
        return False

    def boolean(self) -> bool:
        """Read true or false; also 1 or 0, as some options are sent."""
        first = self.peek()
        if first in {_FALSE, _TRUE}:
            self.position += 1
            return first == _TRUE
        if first in {0, 1}:
            self.position += 1
            return bool(first)
        return self.wrong("true or false", first)

    def integer(self) -> int:
        """Read a whole number, however big within the limit."""
        first = self.peek()
        if first < _IN_HEAD:
            self.position += 1
            return first
        if first >> 5 > NEGATIVE and first not in {0xC2, 0xC3}:
            self.wrong("a whole number", first)
        major, value = self.head()
        if major == TAG:
            return self.big(value)
        if value < 0:
            raise Malformed(f"byte {first:#04x} begins no item")
        return value if major == UNSIGNED else -1 - value

    def big(self, tag: int) -> int:
        """Read what follows the tag of a number beyond 64 bits."""
        octets = self.blob()
        if len(octets) > self.limits.number_bytes:
            raise Malformed(f"a number has {len(octets)} bytes, more than {self.limits.number_bytes} (number_bytes)")
        magnitude = int.from_bytes(octets, "big")
        if tag == POSITIVE_BIG:
            return magnitude
        if tag == NEGATIVE_BIG:
            return -1 - magnitude
        raise Malformed(f"tag {tag} is not that of a whole number")

    def floating(self) -> float:
        """Read a number of 16, 32 or 64 bits."""
        first = self.peek()
        packer = _FLOATS.get(first)
        if packer is None:
            self.wrong("a floating number", first)
        if self.position + 1 + packer.size > len(self.data):
            raise Truncated("the bytes end within a floating number")
        (number,) = packer.unpack_from(self.data, self.position + 1)
        self.position += 1 + packer.size
        return float(number)

    def blob(self) -> bytes:
        """Read a byte string."""
        return self._string(BYTES)

    def text(self) -> str:
        """Read a text."""
        return decoded(self._string(TEXT))

    def name(self) -> str:
        """Read a name, which is sent as a text or as the bytes of one."""
        return decoded(self._string(BYTES if self.peek() >> 5 == BYTES else TEXT))

    def _string(self, wanted: int) -> bytes:
        first = self.peek()
        if first >> 5 != wanted:
            self.wrong(_KINDS[wanted], first)
        _, length = self.head()
        return self._take(length) if length >= 0 else self._pieces(wanted)

    def _take(self, length: int) -> bytes:
        if length > self.limits.string_bytes:
            raise Malformed(f"a string has {length} bytes, more than {self.limits.string_bytes} (string_bytes)")
        start = self.position
        end = start + length
        if end > len(self.data):
            raise Truncated("the bytes end within a string")
        self.position = end
        return self.data[start:end]

    def _pieces(self, wanted: int) -> bytes:
        """Read the pieces of a string whose length is left open; each is a string of its own, of the same kind."""
        pieces: list[bytes] = []
        total = 0
        while (first := self.peek()) != _BREAK:
            if first >> 5 != wanted or first & 0x1F == _INDEFINITE:
                self.wrong(f"a piece of {_KINDS[wanted][2:]}", first)
            self.budget.spend(1)
            pieces.append(self._take(self.head()[1]))
            total += len(pieces[-1])
            if total > self.limits.string_bytes:
                raise Malformed(f"a string has more than {self.limits.string_bytes} bytes (string_bytes)")
        self.position += 1
        return b"".join(pieces)

    def elements(self, major: int = ARRAY) -> Iterator[int]:
        """Read a list's or a map's head, then stop at each element, which the caller reads: for a map twice an item.

        Yields:
            The place of the element, from 0.
        """
        first = self.peek()
        if first >> 5 != major:
            self.wrong(_KINDS[major], first)
        _, count = self.head()
        if count >= 0:
            self.budget.spend(count)
            yield from range(count)
            return
        place = 0
        while self.peek() != _BREAK:
            self.budget.spend(1)
            yield place
            place += 1
        self.position += 1

    def pairs(self) -> Iterator[int]:
        """Read a map's head, then stop at each of its names."""
        return self.elements(MAP)

    def length(self) -> int | None:
        """Read a list's head: how many elements follow, or None where that is left open and a break ends them."""
        first = self.peek()
        if first >> 5 != ARRAY:
            self.wrong("a list", first)
        _, count = self.head()
        if count < 0:
            return None
        self.budget.spend(count)
        return count

    def skip(self) -> None:
        """Read one item, whatever it is, and forget it."""
        scan = Scan(self.limits, 1, self.position)
        if not scan.run(self.data):
            raise Truncated("the bytes end within an item")
        self.position = scan.position


def decoded(octets: bytes) -> str:
    """Return the text that bytes hold.

    Raises:
        Malformed: they are not UTF-8.
    """
    try:
        return octets.decode()
    except UnicodeDecodeError as error:
        raise Malformed(f"a text is not UTF-8: {error.reason} at its byte {error.start}") from error
