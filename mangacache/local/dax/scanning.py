"""Finding the end of an item in bytes that come in pieces, without reading any byte twice."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from mangacache.local.dax.cbor import BYTES, MAP, TAG, TEXT
from mangacache.local.dax.limits import Malformed

if TYPE_CHECKING:
    from mangacache.local.dax.limits import Limits

_IN_HEAD: Final = 24
_INDEFINITE: Final = 31
_SIZES: Final = {24: 1, 25: 2, 26: 4, 27: 8}
_BREAK: Final = 0xFF
_OPEN: Final = -1


class Scan:
    """Looks for the end of a number of items.

    Args:
        limits: of sizes.
        items: how many are wanted.
        position: where the first begins.

    Attributes:
        position: how far the bytes are read; where the items end, once `run` says so.
    """

    __slots__ = ("_left", "_limits", "_strings", "position")

    def __init__(self, limits: Limits, items: int, position: int = 0) -> None:
        self._limits = limits
        self._left = [items]
        self._strings = [0]
        self.position = position

    def want(self, items: int) -> None:
        """Look for more items, after the end of those before."""
        self._left.append(items)
        self._strings.append(0)

    def run(self, data: bytes | bytearray) -> bool:
        """Go on in `data`, which begins with the same bytes as before.

        Returns:
            Whether the end was found; if not, bytes are missing.

        Raises:
            Malformed: no bytes that may follow would make items of these.
        """
        left = self._left
        while left:
            if left[-1] == 0:
                self._close()
            elif self.position >= len(data):
                return False
            elif data[self.position] == _BREAK:
                self._end_of_open()
            elif not self._item(data):
                return False
        return True

    def _item(self, data: bytes | bytearray) -> bool:
        """Go over a head, and over a string to its end; False while bytes of it are missing."""
        first = data[self.position]
        kind, value = first >> 5, first & 0x1F
        after = self.position + 1
        if value == _INDEFINITE:
            value = _OPEN
        elif value >= _IN_HEAD:
            start, after = after, after + _size(first)
            value = int.from_bytes(data[start:after], "big")
        if self._strings[-1] and (kind != self._strings[-1] or value < 0):
            raise Malformed(f"byte {first:#04x} begins no piece of a string")
        whole_string = BYTES <= kind <= TEXT and value >= 0
        if whole_string and after <= len(data):
            after += self._checked(value)
        if after > len(data):
            return False
        self.position = after
        if kind != TAG and self._left[-1] > 0:
            self._left[-1] -= 1
        if BYTES <= kind <= MAP and not whole_string:
            self._enter(kind, value)
        elif value < 0:
            raise Malformed(f"byte {first:#04x} begins no item")
        return True

    def _close(self) -> None:
        self._left.pop()
        self._strings.pop()

    def _end_of_open(self) -> None:
        if self._left[-1] != _OPEN:
            raise Malformed(f"a break stands at byte {self.position}, where an item is due")
        self._close()
        self.position += 1

    def _checked(self, length: int) -> int:
        if length > self._limits.string_bytes:
            raise Malformed(f"a string has {length} bytes, more than {self._limits.string_bytes} (string_bytes)")
        return length

    def _enter(self, kind: int, count: int) -> None:
        if len(self._left) > self._limits.depth:
            raise Malformed(f"lists and maps stand in each other more than {self._limits.depth} deep (depth)")
        if count > self._limits.elements:
            raise Malformed(f"a list or map has {count} elements, more than {self._limits.elements} (elements)")
        self._left.append(count * 2 if kind == MAP and count > 0 else count)
        self._strings.append(kind if kind <= TEXT else 0)


def _size(first: int) -> int:
    """Return how many bytes of a head follow its first."""
    size = _SIZES.get(first & 0x1F)
    if size is None:
        raise Malformed(f"byte {first:#04x} begins no item")
    return size
