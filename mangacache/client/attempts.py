"""Which worker is asked, and whether, when and where again: decisions without I/O.

A worker that could not be reached, or says that it is leaving, is let be for a while, and another one is asked at once.
What a worker refuses for the time being concerns what stands behind all of them: it is waited for, as long as it says.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from zlib import crc32

import msgspec

from mangacache.errors import Closed, Invalid, MangaCacheError, Rejected, Transient

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mangacache.clock import Random

_MOST_DOUBLINGS: Final = 16
_AGAIN: Final = "try again with the same arguments and turn_id"
_LOOK: Final = "read what is there before you try again, for it may have been done"


class Patience(msgspec.Struct, frozen=True, kw_only=True):
    """How long a call is tried.

    Attributes:
        deadline_s: all attempts together; a wait that would end later is not begun.
        attempt_s: one attempt, from connecting to the last byte.
        backoff_s: the most that is waited before the second attempt; it doubles with each further one.
        most_backoff_s: the most that is waited before any attempt, unless a worker asks for more.
    """

    deadline_s: float = 30.0
    attempt_s: float = 10.0
    backoff_s: float = 0.1
    most_backoff_s: float = 5.0

    def __post_init__(self) -> None:
        if min(self.attempt_s, self.deadline_s, self.backoff_s) <= 0 or self.backoff_s > self.most_backoff_s:
            raise Invalid("a client's times are above 0, and its back-off is at most its greatest back-off")

    def wait_s(self, failures: int, random: Random) -> float:
        """Return how long to wait after so many failures: exponential, with full jitter."""
        most_s: float = min(self.most_backoff_s, self.backoff_s * 2 ** min(failures - 1, _MOST_DOUBLINGS))
        return random.random() * most_s


class _Standing:
    """What is known of one worker."""

    __slots__ = ("away_until_s", "failures", "url")

    def __init__(self, url: str) -> None:
        self.url = url
        self.failures = 0
        self.away_until_s = 0.0


class Workers:
    """The workers that a client knows, and which of them are let be for now.

    Args:
        urls: where they are; one may stand for a load balancer.
        patience: by which a worker that failed is let be.
        random: for the jitter.
        in_turn: ask them in turn; else a session's calls go to the same one while it answers, whose memory is warm.
    """

    def __init__(self, urls: Sequence[str], *, patience: Patience, random: Random, in_turn: bool = False) -> None:
        cleaned = [url.rstrip("/") for url in urls]
        if not cleaned or any(not url.startswith(("http://", "https://")) for url in cleaned):
            raise Invalid(f"a client takes its workers' URLs, http:// or https://, not {list(urls)!r:.200}")
        self._workers = [_Standing(url) for url in dict.fromkeys(cleaned)]
        self._patience = patience
        self._random = random
        self._in_turn = in_turn
        self._turn = 0

    def __len__(self) -> int:
        return len(self._workers)

    def __repr__(self) -> str:
        return f"<Workers {', '.join(worker.url for worker in self._workers)}>"

    def choose(self, key: str, now_s: float) -> tuple[str, float]:
        """Return whom to ask about `key`, and after how many seconds: after none, while one of them is there."""
        count = len(self._workers)
        first = self._turn % count if self._in_turn else crc32(key.encode("utf-8", "replace")) % count
        self._turn += self._in_turn
        order = self._workers[first:] + self._workers[:first]
        chosen = next((each for each in order if each.away_until_s <= now_s), None)
        if chosen is None:
            chosen = min(order, key=lambda each: each.away_until_s)
        return chosen.url, max(0.0, chosen.away_until_s - now_s)

    def answered(self, url: str) -> None:
        """Note that a worker is there."""
        for worker in self._workers:
            if worker.url == url:
                worker.failures, worker.away_until_s = 0, 0.0

    def lost(self, url: str, now_s: float, *, after_s: float | None = None) -> None:
        """Note that a worker was not there, or will not be until `after_s` from now."""
        for worker in self._workers:
            if worker.url == url:
                worker.failures += 1
                waits_s = after_s if after_s is not None else self._patience.wait_s(worker.failures, self._random)
                worker.away_until_s = max(worker.away_until_s, now_s + waits_s)

    def leaves(self, url: str, now_s: float, *, after_s: float) -> None:
        """Note that a worker leaves: the others are asked. Where there is but one, it stands for many, who stay."""
        if len(self) > 1:
            self.lost(url, now_s, after_s=after_s)


class Attempts:
    """The attempts of one call.

    Args:
        workers: whom to ask.
        key: whom it is about.
        repeatable: whether it may be done twice: what is unknown to have been done is tried again only then.
        now_s: the time at which the call begins.
        deadline_s: when it ends, where it is a part of another one.

    Attributes:
        unsure: an attempt ended without an answer, so that the call may have been done.
        count: attempts that failed.
        deadline_s: when it ends.
    """

    def __init__(
        self,
        workers: Workers,
        *,
        key: str,
        repeatable: bool,
        patience: Patience,
        random: Random,
        now_s: float,
        deadline_s: float | None = None,
    ) -> None:
        self._workers = workers
        self._key = key
        self._repeatable = repeatable
        self._patience = patience
        self._random = random
        self.deadline_s = deadline_s if deadline_s is not None else now_s + patience.deadline_s
        self._not_before_s = now_s
        self._error: MangaCacheError | None = None
        self.unsure = False
        self.count = 0

    def next(self, now_s: float) -> tuple[str, float]:
        """Return the worker to ask next, and after how many seconds; one attempt is made in any case.

        Raises:
            MangaCacheError: what the last attempt met, where the next one would begin after the deadline.
        """
        url, wait_s = self._workers.choose(self._key, now_s)
        wait_s = max(wait_s, self._not_before_s - now_s, 0.0)
        if now_s + wait_s < self.deadline_s:
            return url, wait_s
        if self._error is not None:
            raise self._error
        return url, 0.0

    def left_s(self, now_s: float) -> float:
        """Return how long the next attempt may take."""
        return max(0.001, min(self._patience.attempt_s, self.deadline_s - now_s))

    def lost(self, url: str, now_s: float, *, sent: bool, why: str) -> None:
        """Take in that no answer came; `sent` says that the request may have reached the worker.

        Raises:
            Transient: it may have been done, and may not be done twice.
        """
        self.count += 1
        self._workers.lost(url, now_s)
        done = "whether it was done is unknown" if sent or self.unsure else "nothing was done"
        then = _AGAIN if self._repeatable or not (sent or self.unsure) else _LOOK
        self._error = Transient(f"{url} gave no answer ({why}); {done}: {then}")
        self.unsure = self.unsure or sent
        if sent and not self._repeatable:
            raise self._error

    def turned_away(self, url: str, error: MangaCacheError, now_s: float, *, retry_after_s: float | None) -> None:
        """Take in that a worker takes nobody in now: it leaves, or is full. Another one may have room."""
        self.count += 1
        self._error = error
        self._workers.lost(url, now_s, after_s=retry_after_s)

    def refused(self, url: str, error: MangaCacheError, now_s: float, *, retry_after_s: float | None) -> None:
        """Take in an error that a worker answered with: it is tried again where that may help.

        Raises:
            MangaCacheError: `error`, where it would not.
        """
        if isinstance(error, Closed):
            self.turned_away(url, error, now_s, retry_after_s=retry_after_s)
            return
        self.count += 1
        self._error = error
        self._workers.answered(url)
        self.unsure = self.unsure or isinstance(error, Transient)
        if not isinstance(error, Rejected) and not (isinstance(error, Transient) and self._repeatable):
            raise error
        jitter_s = self._patience.wait_s(self.count, self._random)
        self._not_before_s = now_s + max(error.retry_after_s, 0.0) + jitter_s
