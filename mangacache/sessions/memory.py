"""How much memory the process uses, and how much it may: by its own size, its container's, or the machine's."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final, Protocol

_PROC: Final = Path("/proc")
_CGROUP: Final = Path("/sys/fs/cgroup")
_NO_LIMIT: Final = 1 << 60
"""What a cgroup of version 1 says where it has no limit is near to the largest number there is."""


class Memory(Protocol):
    """Where the supervisor learns how memory stands."""

    def used_bytes(self) -> int:
        """Return how much counts against the limit; 0 where that cannot be told."""

    def limit_bytes(self) -> int:
        """Return how much there may be; 0 where that cannot be told."""


class ProcessMemory:
    """What Linux says; nothing elsewhere.

    In a container with a limit, what all its processes use counts, without the pages of files that can be dropped: it
    is their sum for which the kernel ends one of them.

    Args:
        limit_bytes: a limit of one's own, by which only this process is measured; 0 is none.
        proc, cgroup: where the kernel tells.
    """

    def __init__(self, limit_bytes: int = 0, *, proc: Path = _PROC, cgroup: Path = _CGROUP) -> None:
        self._own_limit = limit_bytes
        self._proc = proc
        self._page = os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 4096
        self._group = None if limit_bytes else _limited_group(proc, cgroup)

    def limit_bytes(self) -> int:
        """See `Memory`."""
        if self._own_limit:
            return self._own_limit
        machine = _machine_bytes(self._proc)
        if self._group is None:
            return machine
        limit = _number(self._group / "memory.max") or _number(self._group / "memory.limit_in_bytes")
        return min(limit, machine) if limit and machine else limit or machine

    def used_bytes(self) -> int:
        """See `Memory`."""
        own = self._resident_bytes()
        if self._group is None:
            return own
        whole = _number(self._group / "memory.current") or _number(self._group / "memory.usage_in_bytes")
        return max(own, whole - _droppable_bytes(self._group))

    def _resident_bytes(self) -> int:
        try:
            return int((self._proc / "self" / "statm").read_text(encoding="ascii").split()[1]) * self._page
        except (OSError, ValueError, IndexError):
            return 0


def _limited_group(proc: Path, cgroup: Path) -> Path | None:
    """Return the folder of the nearest cgroup with a limit, of version 2 or 1; None where there is none."""
    try:
        lines = (proc / "self" / "cgroup").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    for line in lines:
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controllers and "memory" not in controllers.split(","):
            continue
        root = cgroup / "memory" if controllers else cgroup
        group = root / path.lstrip("/")
        # In a container its own group may be mounted as the root, while the path is the host's.
        for folder in (group, *group.parents):
            limit = _number(folder / "memory.max") or _number(folder / "memory.limit_in_bytes")
            if 0 < limit < _NO_LIMIT:
                return folder
            if folder == root:
                break
    return None


def _number(path: Path) -> int:
    try:
        return int(path.read_text(encoding="ascii"))
    except (OSError, ValueError):  # not there, or `max`
        return 0


def _droppable_bytes(group: Path) -> int:
    try:
        for line in (group / "memory.stat").read_text(encoding="ascii").splitlines():
            name, _, value = line.partition(" ")
            if name in {"inactive_file", "total_inactive_file"}:
                return int(value)
    except (OSError, ValueError):
        pass
    return 0


def _machine_bytes(proc: Path) -> int:
    try:
        for line in (proc / "meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith("MemTotal:"):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError, IndexError):
        pass
    return 0
