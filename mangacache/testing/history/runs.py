"""What one process recorded, put together: the beginning of each operation with its end."""

from __future__ import annotations

from mangacache.model import Version
from mangacache.testing.history.operations import Operation, Outcome, SeenTurn
from mangacache.testing.history.records import Began, Gave, Saw, Wrote


class _Versions(dict[str, Version | None]):
    """The version of each token, parsed once."""

    def __missing__(self, token: str) -> Version:
        version = self[token] = Version.parse(token)
        return version


class _Texts(dict[str, str]):
    """Each text once."""

    def __missing__(self, text: str) -> str:
        self[text] = text
        return text


class _Turns(dict[SeenTurn, SeenTurn]):
    """Each turn once."""

    def __missing__(self, turn: SeenTurn) -> SeenTurn:
        self[turn] = turn
        return turn


class Kept:
    """Equal texts, tokens and turns of a history, each held once: a part of the memory, and compared by identity."""

    def __init__(self) -> None:
        self.versions = _Versions({"": None})
        self.texts = _Texts()
        self.turns = _Turns()


class _Known:
    """The turns of one session, as the recorder had last said them; of another incarnation, it says them all anew."""

    __slots__ = ("_first", "_last", "_window", "turns")

    def __init__(self) -> None:
        self.turns: dict[int, SeenTurn] = {}
        self._first = self._last = 0
        self._window: tuple[SeenTurn, ...] = ()

    def window(self, first: int, last: int, *, changed: bool) -> tuple[SeenTurn, ...] | None:
        """Return the turns from `first` to `last`, the same object while they are the same; None if one is missing."""
        if changed or (first, last) != (self._first, self._last):
            try:
                self._window = tuple(map(self.turns.__getitem__, range(first, last + 1)))
            except KeyError:
                self._first = self._last = 0
                return None
            self._first, self._last = first, last
        return self._window


class Run:
    """Puts together what one process recorded; whole operations are added to `operations`."""

    def __init__(self, worker: str, kept: Kept, operations: list[Operation]) -> None:
        self._worker = worker
        self._texts, self._versions, self._turns = kept.texts, kept.versions, kept.turns
        self._operations = operations
        self._begun: dict[int, Began] = {}
        self._known: dict[str, _Known] = {}
        self._strays = 0

    def take(self, record: Began | Wrote | Saw | Gave) -> None:
        """Take in the next record."""
        if type(record) is Began:
            self._begun[record.serial] = record
            return
        begun = self._begun.pop(record.serial, None)
        if begun is None:
            self._strays += 1
        elif type(record) is Saw:
            self._operations.append(self._saw(begun, record))
        elif type(record) is Wrote:
            self._operations.append(self._wrote(begun, record))
        elif type(record) is Gave:
            self._operations.append(self._gave(begun, record.outcome, record.returned_ns))

    def end(self) -> int:
        """Leave open what never returned; return how many operations, or windows, could not be put together."""
        self._operations += [self._gave(begun, "unknown", None) for begun in self._begun.values()]
        self._begun.clear()
        return self._strays

    def _saw(self, begun: Began, saw: Saw) -> Operation:
        texts, versions = self._texts, self._versions
        turns, asked = saw.odd, saw.asked
        if saw.last:
            known = self._known.get(begun.session)
            if known is None:
                known = self._known[begun.session] = _Known()
            for turn in saw.news:
                known.turns[turn.number] = self._turns[turn]
            window = known.window(saw.first, saw.last, changed=bool(saw.news))
            turns, asked = (window, asked) if window is not None else ((), 0)
            self._strays += window is None
        return Operation(
            begun.kind,
            texts[begun.session],
            texts[begun.client],
            self._worker,
            begun.invoked_ns,
            saw.returned_ns,
            "ok",
            begun.level,
            begun.max_age_ns,
            versions[begun.token],
            versions[saw.version],
            turns,
            (),
            asked,
            True,
            saw.stale,
            texts[saw.source],
            saw.meta,
            saw.summary,
        )

    def _wrote(self, begun: Began, wrote: Wrote) -> Operation:
        texts, versions = self._texts, self._versions
        numbers = wrote.numbers or (0,) * len(begun.turns)
        turns = tuple(
            self._turns[SeenTurn(number, texts[turn_id], digest)]
            for number, (turn_id, digest) in zip(numbers, begun.turns, strict=True)
        )
        return Operation(
            begun.kind,
            texts[begun.session],
            texts[begun.client],
            self._worker,
            begun.invoked_ns,
            wrote.returned_ns,
            "ok",
            token=versions[begun.token],
            version=versions[wrote.version],
            turns=turns,
            repeats=tuple(turn.turn_id for turn in turns if turn.number in wrote.repeats) if wrote.repeats else (),
            made=wrote.made,
            stale=wrote.stale,
            meta=wrote.meta,
        )

    def _gave(self, begun: Began, outcome: Outcome, returned_ns: int | None) -> Operation:
        return Operation(
            begun.kind,
            begun.session,
            begun.client,
            self._worker,
            begun.invoked_ns,
            None if outcome == "unknown" else returned_ns,
            outcome,
            begun.level,
            begun.max_age_ns,
            self._versions[begun.token],
            turns=tuple(SeenTurn(0, turn_id, digest) for turn_id, digest in begun.turns),
        )
