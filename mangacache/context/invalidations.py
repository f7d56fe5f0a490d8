"""The queue of invalidations: what a worker that cannot reach Redis owes the others (section 4 of the protocol)."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

import msgspec

from mangacache.model import Version

if TYPE_CHECKING:
    from collections.abc import Sequence


class _Debt(msgspec.Struct, gc=False):
    """What is owed for one session, since when, and until when it grew; times on `clock.monotonic_s`."""

    version: Version
    since_s: float
    last_s: float
    customer_id: str | None = None


class Invalidations:
    """Sessions whose newest version Redis has not confirmed, oldest debt first; bounded.

    Beyond the bound nothing more is remembered, and only a raise of the epoch pays.

    Args:
        limit: sessions that are remembered.
        deadline_s: how long a debt may stand.
    """

    def __init__(self, *, limit: int, deadline_s: float) -> None:
        self._limit = limit
        self._deadline_s = deadline_s
        self._owed: OrderedDict[str, _Debt] = OrderedDict()
        self._overflow: _Debt | None = None

    def __len__(self) -> int:
        return len(self._owed) + (self._overflow is not None)

    def __repr__(self) -> str:
        return f"<Invalidations {len(self._owed)} owed{', overflowed' if self.overflowed else ''}>"

    @property
    def overflowed(self) -> bool:
        """Whether more was owed than could be remembered."""
        return self._overflow is not None

    @property
    def due_at_s(self) -> float | None:
        """By when the epoch must be raised, on `clock.monotonic_s`; None while nothing is owed."""
        if self._overflow is not None:
            return self._overflow.since_s
        if not self._owed:
            return None
        return next(iter(self._owed.values())).since_s + self._deadline_s

    def owe(self, session_id: str, version: Version, *, now_s: float, customer_id: str | None = None) -> None:
        """Remember a version that was acknowledged and not confirmed; the newest of a session wins."""
        debt = self._owed.get(session_id)
        if debt is not None:
            debt.version = debt.version.join(version)
            debt.last_s = now_s
            debt.customer_id = customer_id if customer_id is not None else debt.customer_id
        elif len(self._owed) < self._limit:
            self._owed[session_id] = _Debt(version, now_s, now_s, customer_id)
        elif self._overflow is None:
            self._overflow = _Debt(Version(), now_s, now_s)
        else:
            self._overflow.last_s = now_s

    def owed(self) -> Sequence[tuple[str, Version]]:
        """Return what is to be sent, oldest first."""
        return [(session_id, debt.version) for session_id, debt in self._owed.items()]

    def customer_of(self, session_id: str) -> str | None:
        """Return whose a session is of which something is owed, where that is known."""
        debt = self._owed.get(session_id)
        return debt.customer_id if debt is not None else None

    def paid(self, session_id: str, version: Version) -> None:
        """Forget a debt that Redis has confirmed, unless more is owed by now."""
        debt = self._owed.get(session_id)
        if debt is not None and version.covers(debt.version):
            del self._owed[session_id]

    def raised(self, *, before_s: float) -> None:
        """Forget what was owed before the raise of the epoch was sent: the new contexts are read after that.

        A debt that grew since then stays, and is as old as the raise: else it would call for another one at once.
        """
        for session_id, debt in list(self._owed.items()):
            if debt.last_s < before_s:
                del self._owed[session_id]
            else:
                debt.since_s = max(debt.since_s, before_s)
        if self._overflow is not None and self._overflow.last_s < before_s:
            self._overflow = None
