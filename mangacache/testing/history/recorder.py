"""The recorder: what a process asks and is told, in a file that a kill cannot take away."""

from __future__ import annotations

import os
import threading
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

from mangacache.clock import Clock, SystemClock
from mangacache.errors import Closed
from mangacache.model import Consistency, NewTurn, Version
from mangacache.testing.history.calls import Call
from mangacache.testing.history.operations import WRITES, Kind, Level, Operation, turn_digest
from mangacache.testing.history.reading import read_recorded
from mangacache.testing.history.records import FORMAT, Began, Head, Record, framed
from mangacache.testing.history.windows import Windows

if TYPE_CHECKING:
    from collections.abc import Sequence
    from os import PathLike

_LEVELS: Final[dict[str, Level]] = {
    "strong": "strong",
    "latest": "latest",
    "session": "session",
    "eventual": "eventual",
}
_BOOT: Final = Path("/proc/sys/kernel/random/boot_id")


class HistoryRecorder:
    """Records what one process asks of its sessions, and what it is told.

    Each record is handed to the kernel by one write, before an operation begins and after it has ended. So a process
    that is killed loses nothing: what it had not been told is there as begun, and may or may not have happened. (Only
    the machine's own crash can lose records: nothing is forced to the disk.)

    Use one recorder a process, from any of its threads and tasks. Files of several processes of one machine are
    checked together.

    Args:
        path: the file, which is appended to; None keeps the records in memory, for tests within one process.
        worker: what to call this process.
        clock: its `monotonic_s` gives the times; the processes of one machine share the system's.
    """

    def __init__(
        self, path: str | PathLike[str] | None = None, *, worker: str = "", clock: Clock | None = None
    ) -> None:
        self._clock = clock or SystemClock()
        self._process = os.getpid()
        self._serials = count(1)
        self._lock = threading.Lock()
        self._memory = bytearray()
        self._file: int | None = None
        self._path = None if path is None else Path(path)
        if path is not None:
            self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        self._closed = False
        self.worker = worker or f"worker-{self._process}"
        self.windows = Windows()
        self.write(Head(FORMAT, self.worker, self._process, _machine()))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<HistoryRecorder of {self.worker!r}{', closed' if self._closed else ''}>"

    def append(
        self,
        session: str,
        *,
        client: str,
        turn_id: str,
        role: str,
        content: str,
        after: Version | str | None = None,
    ) -> Call:
        """Begin an append of one turn."""
        return self._begin("append", session, client, token=after, turns=((turn_id, turn_digest(role, content)),))

    def append_many(
        self, session: str, *, client: str, turns: Sequence[NewTurn], after: Version | str | None = None
    ) -> Call:
        """Begin an append of several turns; each needs a turn_id, by which it is found again."""
        given = tuple((turn.turn_id or "", turn_digest(turn.role, turn.content)) for turn in turns)
        return self._begin("append", session, client, token=after, turns=given)

    def update(self, session: str, *, client: str, if_version: Version | str | None = None) -> Call:
        """Begin a change of META: `update`, `close` or `summarise`."""
        return self._begin("update", session, client, token=if_version)

    def delete(self, session: str, *, client: str) -> Call:
        """Begin a delete."""
        return self._begin("delete", session, client)

    def read(
        self,
        session: str,
        *,
        client: str,
        consistency: Consistency = Consistency.SESSION,
        at_least: Version | str | None = None,
        turns: int = 20,
    ) -> Call:
        """Begin a read of the context."""
        level, max_age_s = _LEVELS[consistency.name], consistency.max_age_s
        max_age_ns = None if max_age_s is None else round(max_age_s * 1e9)
        return self._begin("read", session, client, level=level, max_age_ns=max_age_ns, token=at_least, asked=turns)

    def state(self, session: str, *, client: str = "state") -> Call:
        """Begin a strong read of everything stored: before the first operation on a session, or after its last one."""
        return self._begin("state", session, client, level="strong")

    def _begin(
        self,
        kind: Kind,
        session: str,
        client: str,
        *,
        level: Level = "",
        max_age_ns: int | None = None,
        token: Version | str | None = None,
        asked: int = 0,
        turns: tuple[tuple[str, int], ...] = (),
    ) -> Call:
        serial = next(self._serials)
        call = Call(self, serial, session=session, writes=kind in WRITES, asked=asked)
        given = "" if token is None else str(token)
        now_ns = self.now_ns()
        self.write(Began(serial, kind, session, client, now_ns, level, max_age_ns, given, asked, turns))
        return call

    def now_ns(self) -> int:
        """Return the time on the clock that the records carry."""
        return int(self._clock.monotonic_s() * 1e9)

    def write(self, record: Record) -> None:
        """Hand a record to the kernel.

        Raises:
            Closed: the recorder is closed, or belongs to the process that this one was forked from.
            OSError: the file cannot be written.
        """
        if self._closed:
            raise Closed(f"the recorder of {self.worker!r} is closed")
        if os.getpid() != self._process:
            raise Closed(f"the recorder of {self.worker!r} belongs to process {self._process}: open one a process")
        data = framed(record)
        if self._file is None:
            self._memory += data
            return
        written = os.write(self._file, data)
        while written < len(data):  # a disk that is nearly full
            written += os.write(self._file, data[written:])

    @property
    def lock(self) -> threading.Lock:
        """Held while a record is made that builds on earlier ones, and written."""
        return self._lock

    def operations(self) -> list[Operation]:
        """Return what has been recorded so far; what has not ended is open. Several recorders' lists may be joined."""
        data = bytes(self._memory) if self._path is None else self._path.read_bytes()
        return read_recorded([(self.worker, data)]).operations

    def close(self) -> None:
        """Close the file; operations under way stay open in the history."""
        if not self._closed:
            self._closed = True
            if self._file is not None:
                os.close(self._file)


def _machine() -> str:
    """Return what tells this boot of this machine from any other, where the system says it."""
    try:
        return _BOOT.read_text(encoding="ascii").strip()
    except OSError:
        return ""
