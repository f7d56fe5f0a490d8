"""What a rate limit is, what asking one comes to, and how limits are written in the settings."""

from __future__ import annotations

import re
from typing import Final

import msgspec

from mangacache.ephemeral.asking import shown
from mangacache.errors import Invalid

MAX_LIMIT: Final = 10_000
MIN_WINDOW_S: Final = 0.001
MAX_WINDOW_S: Final = 86_400
_NAME: Final = re.compile(r"[a-z0-9_]{1,32}")
_WRITTEN: Final = re.compile(r"([a-z0-9_]{1,32})=([1-9][0-9]{0,4})/([1-9][0-9]{0,4})")


class Limit(msgspec.Struct, frozen=True):
    """So many units in any window of so many seconds.

    Attributes:
        name: 1 to 32 of a-z 0-9 _.
        count: 1 to 10,000 units.
        window_s: 0.001 to 86,400 seconds.

    Raises:
        Invalid: it is no limit.
    """

    name: str
    count: int
    window_s: float = 60

    def __post_init__(self) -> None:
        if type(self.name) is not str or not _NAME.fullmatch(self.name):
            raise Invalid(f"a limit's name is 1 to 32 of a-z 0-9 _, not {shown(self.name)}")
        if type(self.count) is not int or self.count not in range(1, MAX_LIMIT + 1):
            raise Invalid(f"the limit {self.name!r} must be 1 to {MAX_LIMIT:,} units, not {shown(self.count)}")
        if type(self.window_s) not in (int, float) or not MIN_WINDOW_S <= self.window_s <= MAX_WINDOW_S:
            raise Invalid(
                f"the limit {self.name!r} must have a window of {MIN_WINDOW_S} to {MAX_WINDOW_S:,} seconds,"
                f" not {shown(self.window_s)}"
            )


class Decision(msgspec.Struct, frozen=True):
    """What became of a request for units.

    Attributes:
        allowed: whether they were there; they are taken then, unless it was only asked.
        limit: units in a window.
        remaining: units that are left now.
        retry_after_s: after which the units will be there, if nobody takes any; 0 where they are.
        source: who decided: `redis`; `local`, this worker by itself with its share of the limit, since Redis is away;
            `closed`: Redis is away, and nothing is allowed meanwhile.
    """

    allowed: bool
    limit: int
    remaining: int
    retry_after_s: float
    source: str


def parsed_limits(text: str) -> dict[str, Limit]:
    """Return the limits that a text such as `messages=30/60, images=5/3600` names (units / seconds).

    Raises:
        Invalid: it names none, or one twice.
    """
    limits: dict[str, Limit] = {}
    for part in text.split(","):
        written = _WRITTEN.fullmatch(part.strip())
        if written is None:
            raise Invalid(f"{part.strip()!a:.60} is no limit: write name=units/seconds, messages=30/60")
        name, count, window_s = written.groups()
        if name in limits:
            raise Invalid(f"the limit {name!r} is written twice")
        limits[name] = Limit(name, int(count), int(window_s))
    return limits
