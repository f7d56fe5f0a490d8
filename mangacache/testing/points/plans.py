"""Which fault point does what, and when: plain decisions, and the words in which a process is told."""

from __future__ import annotations

from typing import Final, Literal, TypeAlias

import msgspec

from mangacache.errors import Invalid

Point: TypeAlias = Literal[
    "before_write",
    "written_before_commit",
    "committed_before_acknowledge",
    "before_read",
    "read_before_fill",
    "before_get",
    "leased_before_read",
    "filled_before_answer",
]
"""Where something may happen; each is passed once a call.

- `before_write`: a turn, a change of META or a summary is about to be sent to DynamoDB.
- `written_before_commit`: DynamoDB has done it; Redis has not been told.
- `committed_before_acknowledge`: Redis has been told; the caller has not.
- `before_read`: something is about to be read in DynamoDB.
- `read_before_fill`: it has been read; nobody has been told.
- `before_get`: a context is about to be asked for in Redis.
- `leased_before_read`: Redis has answered, with the context or with a lease to fill it.
- `filled_before_answer`: a context was put into Redis; the caller has no answer.
"""

Action: TypeAlias = Literal["kill", "stop", "delay", "raise"]
"""`kill` ends the process at once, `stop` stops it (SIGSTOP), `delay` waits, `raise` fails the call."""

POINTS: Final[tuple[Point, ...]] = Point.__args__  # type: ignore[attr-defined] # what a Literal holds
ACTIONS: Final[tuple[Action, ...]] = Action.__args__  # type: ignore[attr-defined] # the same


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What is to happen at a point.

    Attributes:
        point: where.
        action: what.
        after: how often the point is passed before.
        times: how often it happens then.
        seconds: of a delay.
    """

    point: Point
    action: Action
    after: int = 0
    times: int = 1
    seconds: float = 1.0

    def __post_init__(self) -> None:
        if self.point not in POINTS:
            raise Invalid(f"there is no fault point {self.point!r}: there are {', '.join(POINTS)}")
        if self.action not in ACTIONS:
            raise Invalid(f"a fault point does not {self.action!r}: it does {', '.join(ACTIONS)}")
        if self.after < 0 or self.times < 1 or not self.seconds >= 0:
            raise Invalid("a plan passes a point 0 times or more, happens at least once, and delays by 0 s or more")


def parse_plans(text: str) -> list[Plan]:
    """Return the plans of a text: `written_before_commit=kill after 3, before_read=delay 0.5 times 10`.

    Raises:
        Invalid: it is none.
    """
    return [_parsed(part.strip()) for part in text.split(",") if part.strip()]


def _parsed(text: str) -> Plan:
    point, _, rest = text.partition("=")
    words = rest.split()
    given: dict[str, float] = {}
    if len(words) > 1 and words[0] == "delay" and words[1] not in _NAMES:
        given["seconds"] = _number(words.pop(1), text)
    pairs = words[1:]
    if not words or len(pairs) % 2 or any(name not in _NAMES for name in pairs[::2]):
        raise Invalid(
            f"{text!r} is no plan: write written_before_commit=kill after 3, or before_read=delay 0.5 times 10"
        )
    given |= {name: int(_number(value, text)) for name, value in zip(pairs[::2], pairs[1::2], strict=True)}
    try:
        return msgspec.convert({"point": point.strip(), "action": words[0], **given}, Plan)
    except msgspec.ValidationError as error:
        raise Invalid(
            f"{text!r} is no plan ({error}): points are {', '.join(POINTS)}; they {', '.join(ACTIONS)}"
        ) from error


_NAMES: Final = frozenset({"after", "times"})


def _number(word: str, text: str) -> float:
    try:
        return float(word)
    except ValueError as error:
        raise Invalid(f"{word!r} in {text!r} is no number") from error
