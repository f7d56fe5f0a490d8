"""What a worker knows of the epoch: a lease that ends by time, and a wait after each change (rule R7).

All pure: the times given are of `clock.monotonic_s`. `PERIOD_S` is the P of the protocol. Every worker must live by the
same one, so it is no setting: a worker that has learned of a new epoch waits until nobody can rely on the old one.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from mangacache.store.epochs import EpochRecord

PERIOD_S: Final = 1.5
POLL_EVERY_S: Final = 0.5


class Standing(Enum):
    """What the knowledge is good for."""

    SURE = "Redis's answers count"
    WAITING = "the epoch is new: somebody may still rely on the old one"
    UNSURE = "the epoch may have been raised unheard"


class EpochKnowledge:
    """What one worker knows of the epoch.

    Attributes:
        record: the newest item read; None before the first.
        waits_until_s: until when a new epoch is waited out.
        sure_until_s: until when the knowledge holds: a read's sending and P.
    """

    __slots__ = ("record", "sure_until_s", "waits_until_s")

    def __init__(self) -> None:
        self.record: EpochRecord | None = None
        self.sure_until_s = float("-inf")
        self.waits_until_s = float("-inf")

    def __repr__(self) -> str:
        return f"<EpochKnowledge {self.record}, waits until {self.waits_until_s}, sure until {self.sure_until_s}>"

    def learn(self, record: EpochRecord, *, sent_at_s: float, now_s: float) -> bool:
        """Take in a strong read of the epoch item; return whether it is another epoch than before.

        A worker that starts has learned of an epoch too, unless it is known to be settled.
        """
        before = self.record
        if before is not None and record.epoch < before.epoch:
            return False  # a read that was overtaken by a later one
        self.record = record
        self.sure_until_s = max(self.sure_until_s, sent_at_s + PERIOD_S)
        if before is not None and before.epoch == record.epoch:
            if record.settled and not before.settled:
                self.waits_until_s = min(self.waits_until_s, now_s)
            return False
        self.waits_until_s = now_s if record.settled else now_s + PERIOD_S
        return True

    def standing(self, now_s: float) -> Standing:
        """Return what the knowledge is good for now."""
        if self.record is None or now_s >= self.sure_until_s:
            return Standing.UNSURE
        return Standing.WAITING if now_s < self.waits_until_s else Standing.SURE

    def should_settle(self, now_s: float) -> bool:
        """Tell whether this worker may note that nobody relies on the epoch before this one any more.

        Whoever held the old epoch learned it by a read sent before the raise, so P after this worker heard of the
        raise their knowledge has ended.
        """
        return self.record is not None and not self.record.settled and now_s >= self.waits_until_s
