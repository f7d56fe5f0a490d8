"""Looks at every part at once, each within its own time, and judges what was seen."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from mangacache.diagnosis.findings import Finding, unlooked
from mangacache.diagnosis.judging.clocks import judge_clocks
from mangacache.diagnosis.judging.dax import judge_dax
from mangacache.diagnosis.judging.process import judge_credentials, judge_machine
from mangacache.diagnosis.judging.redis import judge_redis
from mangacache.diagnosis.judging.settings import judge_settings
from mangacache.diagnosis.judging.table import judge_table
from mangacache.errors import MangaCacheError
from mangacache.tasks import together

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from mangacache.clock import Clock
    from mangacache.diagnosis.facts import Expected, Looking
    from mangacache.settings import Settings

WITHIN_S: Final = 15.0
"""How long one part may take: the longest time-outs of the settings, and a busy machine."""


@dataclass(frozen=True, slots=True)
class Part:
    """One part of an installation.

    Attributes:
        name: what its findings' ids begin with.
        look: gathers its facts.
        judge: (facts, settings, expected) to findings.
    """

    name: str
    look: Callable[[Looking], Awaitable[Any]]
    judge: Callable[[Any, Settings, Expected], Iterable[Finding]]


PARTS: Final = (
    Part("credentials", lambda looking: looking.credentials(), judge_credentials),
    Part("table", lambda looking: looking.table(), judge_table),
    Part("redis", lambda looking: looking.redis(), judge_redis),
    Part("dax", lambda looking: looking.dax(), judge_dax),
    Part("clock", lambda looking: looking.clocks(), judge_clocks),
    Part("limits", lambda looking: looking.machine(), judge_machine),
)


async def examine(
    looking: Looking, settings: Settings, expected: Expected, *, clock: Clock, within_s: float = WITHIN_S
) -> list[Finding]:
    """Return what is to be said, by part; a part that cannot be looked at in time says so, and the others go on."""
    found = await together(*(_examined(part, looking, settings, expected, clock, within_s) for part in PARTS))
    return [*judge_settings(settings, expected), *(finding for findings in found for finding in findings)]


async def _examined(  # noqa: PLR0917 - one call in one place
    part: Part, looking: Looking, settings: Settings, expected: Expected, clock: Clock, within_s: float
) -> list[Finding]:
    try:
        async with clock.timeout(within_s):
            facts = await part.look(looking)
    except TimeoutError:
        why = f"it took longer than {within_s:g} s"
        return [unlooked(part.name, why, remedy="look again; a service that hangs like this holds up workers, too")]
    except MangaCacheError as error:
        return [unlooked(part.name, str(error), remedy="see what it says")]
    except Exception as error:  # noqa: BLE001 - one part's surprise must not hide what the others found
        return [
            unlooked(part.name, f"{type(error).__name__}: {error}", remedy="this is a bug of the doctor's: report it")
        ]
    return list(part.judge(facts, settings, expected))
