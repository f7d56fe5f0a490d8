"""Where lists of keys come from: a file, read again when it changes, or a secret in an environment variable."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Final, Generic, TypeVar

from mangacache.errors import Invalid

if TYPE_CHECKING:
    from collections.abc import Callable

    from mangacache.clock import Clock

T = TypeVar("T")

ENVIRONMENT: Final = "env:"
LOOK_EVERY_S: Final = 1.0
"""How often a file is looked at, at most: a change is known so much later."""
_MOST_BYTES: Final = 4_194_304

_Stamp = tuple[int, int, int]


class Source(Generic[T]):
    """One list, always as it was last sound.

    Args:
        where: a path, or `env:NAME` for the content of the environment variable of that name.
        what: it is, for messages.
        parse: reads it; raises `Invalid`.
        clock: says when to look again.
        on_failure: told of a file that has become unreadable or unsound; the last sound list holds on.

    Raises:
        Invalid: there is no such thing, or it is unsound from the start.
    """

    def __init__(
        self,
        where: str,
        what: str,
        parse: Callable[[bytes], T],
        *,
        clock: Clock,
        on_failure: Callable[[str, BaseException], None],
    ) -> None:
        self._where = where
        self._what = what
        self._parse = parse
        self._clock = clock
        self._on_failure = on_failure
        self._looked_at_s = clock.monotonic_s()
        self._stamp = None if where.startswith(ENVIRONMENT) else self._look()
        self._value = parse(read(where, what))

    def __repr__(self) -> str:
        return f"<Source {self._what}: {self._value!r}>"

    @property
    def value(self) -> T:
        """The list. Looking costs a stat call a second, which never waits for a network where files are local."""
        now_s = self._clock.monotonic_s()
        if self._stamp is not None and now_s - self._looked_at_s >= LOOK_EVERY_S:
            self._looked_at_s = now_s
            self._again()
        return self._value

    def _again(self) -> None:
        try:
            stamp = self._look()
            if stamp != self._stamp:
                self._value = self._parse(read(self._where, self._what))
                self._stamp = stamp
        except Invalid as error:
            self._on_failure("credentials_not_reloaded", error)

    def _look(self) -> _Stamp:
        try:
            found = Path(self._where).stat()
        except OSError as error:
            raise Invalid(f"{self._what} cannot be read: {error.strerror}") from None
        return found.st_mtime_ns, found.st_size, found.st_ino


def read(where: str, what: str) -> bytes:
    """Return the text of a list.

    Raises:
        Invalid: there is no such file or variable, or it is far too large.
    """
    if where.startswith(ENVIRONMENT):
        name = where.removeprefix(ENVIRONMENT)
        text = os.environ.get(name)
        if not text:
            raise Invalid(f"{what}: the environment has no {name}")
        return text.encode("utf-8", "surrogateescape")
    try:
        with Path(where).open("rb") as file:
            content = file.read(_MOST_BYTES + 1)
    except OSError as error:
        raise Invalid(f"{what} cannot be read: {error.strerror}") from None
    if len(content) > _MOST_BYTES:
        raise Invalid(f"{what} is larger than {_MOST_BYTES} bytes: it is something else")
    return content
