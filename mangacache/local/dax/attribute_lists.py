"""The numbers that stand for lists of attribute names on DAX's wire, each of them for ever the same list's.

A client asks once for the number of a list, and for the list of a number, and keeps both without ever asking again,
through an outage too (the Python client 2.1.0 keeps them while the node's address is in the cluster). So a server
that was restarted with an empty register, and counts anew, gives a number away that clients still hold for another
list: they then write one attribute's value under another's name, and nobody is told. Seen with the real client.

Here a number is made of its list: the leading 62 bits of a hash over the names. Whoever gives it out, after any
restart and on any node, gives it to this list and no other; and a number that nobody has asked for yet is unknown,
which is an error and never a guess. A counter with a random epoch would be as safe, but after a restart all that
clients still hold would be lost; these numbers are right again as soon as one client has asked for the list, and a
register kept in a file knows them at once. Of a hundred thousand lists, two have the same number once in a billion
times; the second of them is then refused.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import TYPE_CHECKING, Final

import msgspec

from mangacache.errors import Invalid, NotFound, Rejected

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

EMPTY: Final = 1
"""The list without names, by agreement; clients never ask for it."""
MAX_LISTS: Final = 100_000
MAX_NAMES_BYTES: Final = 409_600
"""An item's largest size, names included: a longer list belongs to no item."""
_BITS: Final = 62
_RESERVED: Final = 16


class AttributeLists:
    """The lists that were asked for so far; one for all nodes of a cluster, and not lost when one of them dies.

    Args:
        file: where they are kept over restarts, a list a line; None forgets them.
        limit: how many there may be; each stays for ever, since a client may come back with its number.

    Raises:
        Invalid: the file cannot be read, or is another one's.
    """

    def __init__(self, *, file: Path | None = None, limit: int = MAX_LISTS) -> None:
        self._file = file
        self._limit = limit
        self._names: dict[int, tuple[str, ...]] = {EMPTY: ()}
        self._ids: dict[tuple[str, ...], int] = {(): EMPTY}
        for names in _kept(file) if file is not None else ():
            self._learn(tuple(names))

    def __len__(self) -> int:
        return len(self._names)

    def id_of(self, names: Sequence[str]) -> int:
        """Return the number of a list, from now on known.

        Raises:
            Invalid: the list belongs to no item.
            Rejected: there are too many lists, or another one has this number.
        """
        key = tuple(names)
        known = self._ids.get(key)
        if known is not None:
            return known
        if sum(len(name.encode()) for name in key) > MAX_NAMES_BYTES:
            raise Invalid(f"a list of attribute names of more than {MAX_NAMES_BYTES} bytes belongs to no item")
        if len(self._ids) >= self._limit:
            raise Rejected(f"more than {self._limit} different lists of attribute names")
        number = self._learn(key)
        if self._file is not None:
            with self._file.open("ab") as kept:
                kept.write(msgspec.json.encode(key) + b"\n")
        return number

    def _learn(self, names: tuple[str, ...]) -> int:
        number = _number(names)
        if self._names.setdefault(number, names) != names:
            raise Rejected("two lists of attribute names have the same number")
        self._ids[names] = number
        return number

    def names_of(self, number: int) -> tuple[str, ...]:
        """Return the list of a number.

        Raises:
            NotFound: nobody has asked for this number since the start.
        """
        names = self._names.get(number)
        if names is None:
            raise NotFound(
                f"attribute list {number} is not known here: the emulator was restarted since the client asked for it; "
                "make a new client, or have the emulator keep its lists in a file (--lists)"
            )
        return names


def _kept(file: Path) -> list[list[str]]:
    """Return what a file keeps; a last line that was cut off was never answered with, and is left out."""
    try:
        file.open("ab").close()
        lines = file.read_bytes().splitlines(keepends=True)
        whole = [msgspec.json.decode(line, type=list[str]) for line in lines if line.endswith(b"\n")]
        if len(whole) < len(lines):
            file.write_bytes(b"".join(lines[: len(whole)]))
    except (OSError, msgspec.MsgspecError) as error:
        raise Invalid(f"{file} cannot be used as a file of attribute lists ({error}): name another") from error
    return whole


def _number(names: tuple[str, ...]) -> int:
    digest = blake2b(digest_size=8)
    for name in names:
        encoded = name.encode()
        digest.update(b"%d:%b" % (len(encoded), encoded))
    number = int.from_bytes(digest.digest()) >> (64 - _BITS)
    return number if number >= _RESERVED else number + _RESERVED
