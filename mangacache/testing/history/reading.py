"""From files back to operations."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from mangacache.errors import Corrupt, Invalid
from mangacache.testing.history.operations import Operation
from mangacache.testing.history.records import FORMAT, Damage, Head, frames
from mangacache.testing.history.runs import Kept, Run

if TYPE_CHECKING:
    from collections.abc import Iterable
    from os import PathLike

_LONGEST_HEAD: Final = 4096


class RecordedHistory(msgspec.Struct, frozen=True):
    """What files hold.

    Attributes:
        operations: in no particular order.
        torn: how often a kill has cut off a last record; nothing is lost by that.
        damage: what else could not be read, one sentence each. Operations may be missing then, and what follows from
            their absence (a phantom, a hole) proves nothing.
    """

    operations: list[Operation]
    torn: int = 0
    damage: tuple[str, ...] = ()


def read_history(*paths: str | PathLike[str]) -> RecordedHistory:
    """Return the operations that one or several processes recorded.

    Raises:
        Corrupt: a file is no history, or of another format.
        Invalid: the files come from different machines or boots, whose clocks cannot be compared.
    """
    return read_recorded((str(path), Path(path).read_bytes()) for path in paths)


def read_recorded(files: Iterable[tuple[str, bytes]]) -> RecordedHistory:
    """Return the operations in the bytes of files, each with its name; see `read_history`."""
    kept, machines = Kept(), dict[str, str]()
    operations: list[Operation] = []
    torn, damage = 0, list[str]()
    for name, data in files:
        parts: list[Damage] = []
        strays = _read(name, data, kept=kept, machines=machines, operations=operations, damage=parts)
        torn += sum(part.torn for part in parts)
        damage += [
            f"{name}: {part.size} bytes from byte {part.offset} on cannot be read" for part in parts if not part.torn
        ]
        if strays:
            damage.append(f"{name}: of {strays} operations the beginning, or the turns, cannot be read")
    return RecordedHistory(operations, torn, tuple(damage))


def _read(
    name: str,
    data: bytes,
    *,
    kept: Kept,
    machines: dict[str, str],
    operations: list[Operation],
    damage: list[Damage],
) -> int:
    """Add what one file holds; return how many operations could not be put together."""
    run: Run | None = None
    strays = 0
    for record in frames(data, damage):
        if isinstance(record, Head):
            _check(record, name, machines)
            strays += run.end() if run is not None else 0
            run = Run(record.worker, kept, operations)
        elif run is None:
            break
        else:
            run.take(record)
    if run is not None:
        return strays + run.end()
    if len(data) > _LONGEST_HEAD or not (damage or not data):
        raise Corrupt(f"{name} is no history: it does not begin with the head that a recorder writes")
    return 0


def _check(head: Head, name: str, machines: dict[str, str]) -> None:
    if head.format != FORMAT:
        raise Corrupt(f"{name} has format {head.format} of a history; this release reads format {FORMAT}")
    if not head.machine:
        return
    machines.setdefault(head.machine, name)
    if len(machines) > 1:
        first, other = machines.values()
        raise Invalid(f"{first} and {other} are from two machines, or two boots of one: their clocks do not compare")
