"""One operation being recorded: from its beginning to what came of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Self, TypeAlias

from mangacache.errors import Invalid, NotFound, Rejected
from mangacache.model import Appended, Context, Deleted, Updated, Version
from mangacache.testing.history.operations import meta_digest, summary_digest
from mangacache.testing.history.records import Gave, Record, Saw, Wrote

if TYPE_CHECKING:
    from collections.abc import Sequence
    from threading import Lock
    from types import TracebackType
    from typing import Protocol

    from mangacache.model import Turn
    from mangacache.testing.history.operations import Outcome, SeenTurn
    from mangacache.testing.history.windows import Windows

    class Log(Protocol):
        """Where a call's end is written."""

        windows: Windows

        @property
        def lock(self) -> Lock:
            """Held while a record is made that builds on earlier ones, and written."""

        def now_ns(self) -> int:
            """Return the time that the record carries."""

        def write(self, record: Record) -> None:
            """Write one record."""


Result: TypeAlias = "Appended | Sequence[Appended] | Updated | Deleted | Context"

_NOTHING_DONE: Final = (Rejected, Invalid, NotFound)


class Call:
    """One operation, begun. Say what came of it once, by `done` or one of the others; a `with` block sees to errors.

    A write that leaves the block by `Rejected`, `Invalid` or `NotFound` is recorded as having done nothing; by any
    other exception, or without a word, as unknown. A read that raises has failed.
    """

    __slots__ = ("_asked", "_ended", "_log", "_serial", "_session", "_writes")

    def __init__(self, log: Log, serial: int, *, session: str, writes: bool, asked: int) -> None:
        self._log = log
        self._serial = serial
        self._session = session
        self._writes = writes
        self._asked = asked
        self._ended = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._ended:
            return
        if not self._writes or isinstance(error, _NOTHING_DONE):
            self.failed()
        else:
            self.unknown()

    def done(self, result: Result, *, degraded: bool = False) -> None:
        """Record the result of a call of `Session`.

        Args:
            result: what the call returned.
            degraded: the worker cannot keep the level's promise; what `Session` returns says so itself.
        """
        if isinstance(result, Context):
            self.saw(
                result.version,
                result.turns,
                stale=result.stale or result.degraded or degraded,
                source=result.source,
                meta=meta_digest(result.meta),
                summary=summary_digest(result.summary),
            )
        elif isinstance(result, Updated):
            self.wrote(result.version, stale=result.degraded or degraded, meta=meta_digest(result.meta))
        elif isinstance(result, Deleted):
            self.wrote(result.version, made=result.existed, stale=result.degraded or degraded)
        else:
            results = (result,) if isinstance(result, Appended) else tuple(result)
            version = Version()
            for appended in results:
                version = version.join(appended.version)
            self.wrote(
                version,
                numbers=tuple(appended.number for appended in results),
                repeats=tuple(appended.number for appended in results if appended.duplicate),
                stale=degraded or any(appended.degraded for appended in results),
            )

    def wrote(
        self,
        version: Version,
        *,
        numbers: Sequence[int] = (),
        repeats: Sequence[int] = (),
        made: bool = True,
        stale: bool = False,
        meta: int | None = None,
    ) -> None:
        """Record that a write has succeeded, of whatever bot.

        Args:
            version: the token handed out.
            numbers: of an append, one number a turn.
            repeats: those of the numbers under which the turn had been stored before.
            made: False where a delete found nothing.
            stale: the worker was degraded.
            meta: digest of META as it is now.
        """
        now_ns = self._end()
        token = str(version)
        self._log.write(Wrote(self._serial, now_ns, token, tuple(numbers), tuple(repeats), made, stale, meta))

    def saw(
        self,
        version: Version,
        turns: Sequence[Turn] | Sequence[SeenTurn],
        *,
        stale: bool = False,
        source: str = "",
        meta: int | None = None,
        summary: int | None = None,
    ) -> None:
        """Record what a read has returned, of whatever bot.

        Args:
            version: of the answer.
            turns: oldest first.
            stale: the answer says that it is older than its level promises.
            source: the tier that answered.
            meta: digest of META.
            summary: digest of the summary.
        """
        now_ns = self._end()
        log, token = self._log, str(version)
        with log.lock:
            first, last, news, odd = log.windows.said(self._session, version.incarnation, turns)
            log.write(
                Saw(self._serial, now_ns, token, first, last, news, odd, self._asked, stale, source, meta, summary)
            )

    def failed(self) -> None:
        """Record that the operation was refused, and has certainly changed nothing."""
        self._gave("failed")

    def unknown(self) -> None:
        """Record that nobody can say whether the operation took effect, or ever will."""
        self._gave("unknown")

    def _gave(self, outcome: Outcome) -> None:
        now_ns = self._end()
        self._log.write(Gave(self._serial, now_ns, outcome))

    def _end(self) -> int:
        now_ns = self._log.now_ns()
        if self._ended:
            raise Invalid("this operation has ended already: begin another one for the next call")
        self._ended = True
        return now_ns
