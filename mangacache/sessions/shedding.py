"""Sheds sessions where memory is short: from 80 % of the limit on, until 75 %."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from mangacache.sessions.memory import Memory
    from mangacache.sessions.residents import Residents

HIGH: Final = 0.80
LOW: Final = 0.75
_GROWN: Final = 1.01
"""Memory that was given back to Python is not always given back to the kernel: after one shedding there is another only
where the process has grown beyond what it was, else it would shed itself empty for nothing."""
_KIB: Final = 1_024


class Shedding:
    """Looks at memory now and then, and says how much must leave.

    Attributes:
        used_bytes, limit_bytes: as of the last look.
        sheddings: how often it began.
    """

    def __init__(self, memory: Memory, residents: Residents) -> None:
        self._memory = memory
        self._residents = residents
        self._mark = 0.0
        self.used_bytes = 0
        self.limit_bytes = 0
        self.sheddings = 0

    def look(self) -> None:
        """Have sessions leave where memory is short."""
        self.used_bytes, self.limit_bytes = self._memory.used_bytes(), self._memory.limit_bytes()
        if not self.limit_bytes:
            return
        if self.used_bytes <= HIGH * self.limit_bytes:
            self._mark = 0.0
            return
        if self._residents.owed_kib > 0 or self.used_bytes < self._mark:
            return
        self._mark = self.used_bytes * _GROWN
        self.sheddings += 1
        self._residents.owed_kib = int(self.used_bytes - LOW * self.limit_bytes) // _KIB
