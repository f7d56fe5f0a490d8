"""The one tree of errors. Foreign exceptions are mapped into it once, at the adapter, `from` their cause."""

from __future__ import annotations


class MangaCacheError(Exception):
    """Base of every error this package raises on purpose."""


class Transient(MangaCacheError):
    """What failed may succeed when tried again; nothing acknowledged was lost.

    An append, update or delete that raises this may or may not have happened: repeat it with the same
    `turn_id` (or the same arguments) and it is done once.

    Attributes:
        retry_after_s: seconds to wait before the next try.
    """

    def __init__(self, message: str, *, retry_after_s: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class Rejected(MangaCacheError):
    """Refused before anything was done, because a limit is reached: a mailbox, a rate, degraded reads.

    Attributes:
        retry_after_s: seconds to wait before the next try.
    """

    def __init__(self, message: str, *, retry_after_s: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class Conflict(MangaCacheError):
    """Somebody else changed what this call builds on: load it again and decide anew."""


class VersionGone(Conflict):
    """The token is newer than the source of truth: the table was restored, or the session has expired."""


class Invalid(MangaCacheError, ValueError):
    """The input or the configuration is wrong; nothing was done. The message says what to change."""


class Corrupt(MangaCacheError):
    """Stored bytes cannot be read as what they should be."""


class NotFound(MangaCacheError, LookupError):
    """There is no such session, table or item."""


class Closed(MangaCacheError):
    """The instance is closed or draining, or is used from another process or event loop than its own."""
