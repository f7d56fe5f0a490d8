"""At the end of a replay: every session read back strongly and compared turn by turn."""

from __future__ import annotations

from collections import Counter, deque
from typing import TYPE_CHECKING, Final

import msgspec

from mangacache.model import Consistency
from mangacache.tasks import TaskOwner

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mangacache.client import WorkerClient
    from mangacache.model import Turn
    from mangacache.replay.conversations import Conversation
    from mangacache.service import MangaCache

_LANES: Final = 32


class Verdict(msgspec.Struct):
    """What was found.

    Attributes:
        verified: turns that are stored as they were said, at their place.
        mismatches: stored turns that differ from what was said, and contexts that differ from history.
        lost: turns that were acknowledged and are not there.
        duplicates: turns stored more than once.
    """

    verified: int = 0
    mismatches: int = 0
    lost: int = 0
    duplicates: int = 0


async def verify(cache: MangaCache | WorkerClient, sessions: Sequence[tuple[str, Conversation]]) -> Verdict:
    """Compare every session with its conversation; `cache` must not be the one that wrote them."""
    verdict = Verdict()
    waiting = deque(sessions)
    failures: list[BaseException] = []
    tasks = TaskOwner(on_failure=lambda _, error: failures.append(error))

    async def lane() -> None:
        while waiting and not failures:
            await _verify_one(cache, *waiting.popleft(), verdict)

    for _ in range(min(_LANES, len(sessions))):
        tasks.start(lane(), name="verify replayed sessions")
    await tasks.settle()
    if failures:
        raise failures[0]
    return verdict


async def _verify_one(
    cache: MangaCache | WorkerClient, session_id: str, conversation: Conversation, verdict: Verdict
) -> None:
    session = cache.session(session_id, customer_id=conversation.customer_id)
    stored: list[Turn] = []
    cursor: str | None = ""
    while cursor is not None:
        page = await session.history(after=cursor, limit=500)
        stored.extend(page.turns)
        cursor = page.newer
    compare(stored, conversation, verdict)
    context = await session.context(turns=32, consistency=Consistency.STRONG)
    if context.turns != tuple(stored[-32:]) or context.meta is None:
        verdict.mismatches += 1


def compare(stored: Sequence[Turn], conversation: Conversation, verdict: Verdict) -> None:
    """Add to `verdict` what is right and wrong with one session's stored turns."""
    expected = {f"t{i}": (i, said) for i, said in enumerate(conversation.turns, start=1)}
    counts = Counter(turn.turn_id for turn in stored)
    verdict.duplicates += sum(count - 1 for count in counts.values())
    verdict.lost += sum(turn_id not in counts for turn_id in expected)
    for turn in stored:
        number, said = expected.get(turn.turn_id, (0, None))
        if said is not None and (turn.number, turn.role, turn.content) == (number, said.role, said.content):
            verdict.verified += 1
        else:
            verdict.mismatches += 1
