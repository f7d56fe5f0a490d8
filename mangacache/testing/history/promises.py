"""What is promised, to whom, and when: which answers a check may hold against which others."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

import msgspec

from mangacache.errors import Invalid

if TYPE_CHECKING:
    from mangacache.testing.history.operations import Operation

EVERY_WORKER: Final = "*"
_NS: Final = 10**9


class Promises(msgspec.Struct, frozen=True, kw_only=True):
    """What a history is held to.

    Attributes:
        session_age_s: how old a SESSION answer may be (`near_max_age_s`); None does not look.
        unpromised: for each worker (`"*"` is all of them) the times [from_ns, to_ns) in which it cannot promise LATEST:
            it is cut off from Redis and its policy is AVAILABLE. What it reads then is not held to be the latest;
            what it acknowledges then, others may miss until the time ends. Tokens hold all the same, and so does what
            is read strongly.
        per_client: hold each client to all that it has seen, where the call carries a token or claims STRONG or LATEST;
            False holds only to the tokens that were given. Without tokens SESSION and EVENTUAL promise nothing to a
            client that changes its worker.
        turns_expire: turns may have expired: a window may be short, numbers and revisions may jump.
    """

    session_age_s: float | None = 1.0
    unpromised: Mapping[str, Sequence[tuple[int, int]]] = {}
    per_client: bool = True
    turns_expire: bool = False


class Timing:
    """Turns the promises into times: from when an answer must know, and from when what it tells must be known."""

    def __init__(self, promises: Promises) -> None:
        age_s = promises.session_age_s
        self._session_age_ns = None if age_s is None else round(age_s * _NS)
        everywhere = promises.unpromised.get(EVERY_WORKER, ())
        self._everywhere = _merged(everywhere)
        self._gaps = {
            worker: _merged((*gaps, *everywhere))
            for worker, gaps in promises.unpromised.items()
            if worker != EVERY_WORKER
        }
        self.has_gaps = any(promises.unpromised.values())

    def must_know_from(self, read: Operation) -> int | None:
        """Return the time before which all that was told must be known to this read; None if nothing need be.

        Without regard to the levels STRONG and `state`, which are held to everything at any time.
        """
        if read.stale:
            return None
        if read.level == "latest":
            start_ns = read.invoked_ns
        elif read.level == "session":
            if self._session_age_ns is None:
                return None
            start_ns = read.invoked_ns - self._session_age_ns
        elif read.max_age_ns is not None:
            start_ns = read.invoked_ns - read.max_age_ns
        else:
            return None
        if self.has_gaps and self._gap_over(read.worker, start_ns, read.returned_ns or start_ns) is not None:
            return None
        return start_ns

    def known_from(self, operation: Operation) -> int | None:
        """Return the time from which others must know what this operation was told; None if never."""
        if operation.stale:
            return None
        returned_ns = operation.returned_ns
        if self.has_gaps and returned_ns is not None:
            gap = self._gap_over(operation.worker, operation.invoked_ns, returned_ns)
            return returned_ns if gap is None else max(gap, returned_ns)
        return returned_ns

    def _gap_over(self, worker: str, from_ns: int, to_ns: int) -> int | None:
        """Return the end of the last gap of `worker` that touches the time between; None if there is none."""
        gaps = self._gaps.get(worker, self._everywhere)
        place = bisect_left(gaps, to_ns + 1, key=_begin) - 1
        return gaps[place][1] if place >= 0 and gaps[place][1] > from_ns else None


def _begin(gap: tuple[int, int]) -> int:
    return gap[0]


def _merged(gaps: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return the gaps in order, those that overlap as one."""
    merged: list[tuple[int, int]] = []
    for begin_ns, end_ns in sorted(gaps):
        if end_ns < begin_ns:
            raise Invalid(f"a time in which LATEST is not promised ends at {end_ns} before it begins at {begin_ns}")
        if merged and begin_ns <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(merged[-1][1], end_ns))
        else:
            merged.append((begin_ns, end_ns))
    return merged
