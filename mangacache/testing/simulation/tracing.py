"""What happened in a simulation, line by line: read by people, and compared by its hash."""

from __future__ import annotations

from hashlib import sha256
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from mangacache.testing.simulation.loop import SimulatedLoop


class Trace:
    """Takes down what happens, with the virtual time and how many callbacks had run.

    Two runs whose traces are equal have run the same callbacks, sent the same messages and got the same answers.

    Args:
        loop: whose time it is.
        show: called with each line as it comes.
    """

    def __init__(self, loop: SimulatedLoop, *, show: Callable[[str], None] | None = None) -> None:
        self._loop = loop
        self._show = show
        self._hash = sha256()
        self._begun_s = loop.time()
        self.lines: list[str] = []

    def note(self, who: str, what: str) -> None:
        """Take a line down."""
        loop = self._loop
        line = f"{loop.time() - self._begun_s:10.6f} {loop.steps:7d}  {who:<10} {what}"
        self._hash.update(line.encode())
        self.lines.append(line)
        if self._show is not None:
            self._show(line)

    @property
    def digest(self) -> str:
        """The hash of all lines so far."""
        return self._hash.hexdigest()
