"""How a recorder says windows of turns shortly: each turn once, and again only where it looks different."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from mangacache.testing.history.operations import SeenTurn, turn_digest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mangacache.model import Turn

_KEPT_TURNS: Final = 256
_KEPT_SESSIONS: Final = 10_000


class Windows:
    """What a file has said of each session's turns. What is forgotten here is merely said again."""

    def __init__(self) -> None:
        self._said: dict[str, tuple[int, dict[int, Turn | SeenTurn]]] = {}

    def said(
        self, session: str, incarnation: int, turns: Sequence[Turn] | Sequence[SeenTurn]
    ) -> tuple[int, int, tuple[SeenTurn, ...], tuple[SeenTurn, ...]]:
        """Return how to say `turns`: first and last number, what is new; or all of them, where they are no window."""
        if not turns:
            return 0, 0, (), ()
        first, last = turns[0].number, turns[-1].number
        if first < 1 or [turn.number for turn in turns] != list(range(first, last + 1)):
            return 0, 0, (), tuple(map(_seen, turns))
        known = self._known(session, incarnation)
        news = [turn for turn in turns if known.get(turn.number) != turn]
        if news:
            known.update({turn.number: turn for turn in news})
            if len(known) > _KEPT_TURNS:
                kept = dict(list(known.items())[-_KEPT_TURNS // 4 :])
                known.clear()
                known.update(kept)
        return first, last, tuple(map(_seen, news)), ()

    def _known(self, session: str, incarnation: int) -> dict[int, Turn | SeenTurn]:
        said = self._said.get(session)
        if said is not None and said[0] == incarnation:
            return said[1]
        if len(self._said) >= _KEPT_SESSIONS:
            self._said.clear()
        known: dict[int, Turn | SeenTurn] = {}
        self._said[session] = (incarnation, known)
        return known


def _seen(turn: Turn | SeenTurn) -> SeenTurn:
    if isinstance(turn, SeenTurn):
        return turn
    return SeenTurn(turn.number, turn.turn_id, turn_digest(turn.role, turn.content))
