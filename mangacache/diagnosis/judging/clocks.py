"""What is wrong with the clocks.

An HTTP date is cut to the second and an answer takes its way, so an offset is known between two bounds only. What is
judged is what no delay and no cutting explains; a clock that may be right is taken for right.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from mangacache.diagnosis.facts import Unseen
from mangacache.diagnosis.findings import note, ok, problem, warning

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mangacache.diagnosis.facts import ClockFacts, Expected, Offset
    from mangacache.diagnosis.findings import Finding
    from mangacache.settings import Settings

_REFUSED_FROM_S: Final = 300.0
"""DynamoDB refuses a signature that is so far off."""
_NEAR_S: Final = 240.0
_FELT_S: Final = 5.0
_STEP_S: Final = 0.5
_REMEDY: Final = "keep this machine's clock by chrony (on AWS: the Amazon Time Sync Service, 169.254.169.123)"


def judge_clocks(facts: ClockFacts, _settings: Settings, _expected: Expected) -> Iterator[Finding]:
    """Iterate over what is to be said of the clocks."""
    if isinstance(facts.dynamodb, Unseen):
        yield note("clock.dynamodb", f"cannot be compared: {facts.dynamodb.why}", remedy="see `table.exists`")
    else:
        yield _dynamodb(facts.dynamodb)
    if isinstance(facts.redis, Unseen):
        yield note("clock.redis", f"cannot be compared: {facts.redis.why}", remedy="see `redis.reachable`")
    elif facts.redis is not None:
        yield _redis(facts.redis)
    if abs(facts.stepped_s) >= _STEP_S:
        yield warning(
            "clock.steady",
            f"this machine's clock was set by {facts.stepped_s:+.1f} s while it was looked at",
            breaks="turns are stamped out of order, and customers' tokens end early or late",
            remedy=f"{_REMEDY}; it slews, where others step",
        )
    else:
        yield ok("clock.steady", "this machine's clock ran evenly meanwhile")


def _dynamodb(offset: Offset) -> Finding:
    seen = f"DynamoDB's clock is {_between(offset)} this machine's"
    if offset.certain_s >= _NEAR_S:
        return problem(
            "clock.dynamodb",
            seen,
            breaks=f"from {_REFUSED_FROM_S:.0f} s on DynamoDB refuses every signature, DAX and ElastiCache's IAM do"
            " too;"
            " items expire early or late by as much",
            remedy=_REMEDY,
        )
    if offset.certain_s >= _FELT_S:
        return warning(
            "clock.dynamodb",
            seen,
            breaks="created_at and ttl are stamped wrong by as much, customers' tokens end early or late",
            remedy=_REMEDY,
        )
    return ok("clock.dynamodb", seen)


def _redis(offset: Offset) -> Finding:
    seen = f"Redis's clock is {_between(offset)} this machine's"
    if offset.certain_s >= _FELT_S:
        return warning(
            "clock.redis",
            seen,
            breaks="leases, limits, presence and the age of contexts go by Redis's clock alone and are right; but"
            " trending"
            " puts titles into the buckets of this machine's, and times that were stored cannot be compared",
            remedy=f"{_REMEDY}, and Redis's machine's too",
        )
    return ok("clock.redis", seen)


def _between(offset: Offset) -> str:
    low, high = offset.least_s, offset.most_s
    return (
        f"{low:+.3f} to {high:+.3f} s from"
        if max(abs(low), abs(high)) < _FELT_S
        else f"{low:+.1f} to {high:+.1f} s from"
    )
