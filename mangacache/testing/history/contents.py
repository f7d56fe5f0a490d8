"""Which turn stands at which number: duplicates, phantoms, mismatches, and windows with holes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mangacache.testing.history.operations import UNRECORDED, WRITES, SeenTurn, place_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mangacache.model import Version
    from mangacache.testing.history.operations import Operation
    from mangacache.testing.history.sessions import Point, SessionOperations
    from mangacache.testing.history.violations import Findings


class Contents:
    """What one session held, as far as its operations tell.

    Attributes:
        first_append: for each turn_id the append that began first, refused ones left out.
        numbers: for each incarnation, the turn at each number.
        tellers: for each (incarnation, number), the operation that told it first.
        places: for each incarnation, the number of each turn_id.
    """

    def __init__(self, findings: Findings, *, turns_expire: bool) -> None:
        self._findings = findings
        self._turns_expire = turns_expire
        self._digests: dict[str, set[int]] = {}
        self._refused: dict[str, Operation] = {}
        self._before: frozenset[str] = frozenset()
        self._oldest: dict[int, int] = {}
        self.first_append: dict[str, Operation] = {}
        self.numbers: dict[int, dict[int, SeenTurn]] = {}
        self.tellers: dict[int, Operation] = {}
        self.places: dict[int, dict[str, int]] = {}

    def learn(self, session: SessionOperations) -> None:
        """Take in what the session's operations tell: what was there, what was appended, acknowledged and read."""
        if session.first_state is not None:
            self._stood_before(session.first_state)
        for append in session.appends:
            self._appended(append)
        for append in session.acknowledged:
            if append.version is not None:
                for turn in append.turns:
                    # A repeat is told the number of a turn that may have been stored with another content.
                    stored = SeenTurn(turn.number, turn.turn_id) if turn.turn_id in append.repeats else turn
                    self._place(append.version.incarnation, stored, append)
        self._read(session.told)

    def _stood_before(self, state: Operation) -> None:
        """What was stored before the first operation, nobody need have appended."""
        self._before = frozenset(turn.turn_id for turn in state.turns)
        if state.version is not None and state.turns:
            self._oldest[state.version.incarnation] = state.turns[0].number

    def _appended(self, append: Operation) -> None:
        for turn in append.turns:
            if append.outcome == "failed":
                self._refused.setdefault(turn.turn_id, append)
            else:
                self.first_append.setdefault(turn.turn_id, append)
                self._digests.setdefault(turn.turn_id, set()).add(turn.digest)

    def _read(self, told: Sequence[Point]) -> None:
        """Look at each different window once: the first to return tells of it."""
        seen: set[tuple[int, int, int]] = set()
        for _, _, _, read in told:
            version, window = read.version, read.turns
            if version is None or read.kind in WRITES:
                continue
            key = (id(window), id(version), read.asked)
            if key in seen:
                continue
            seen.add(key)
            numbers = self.numbers.get(version.incarnation)
            if window:
                if numbers is None:
                    numbers = self.numbers[version.incarnation] = {}
                first, last = window[0].number, window[-1].number
                if window != tuple(map(numbers.get, range(first, last + 1))):
                    if not self._is_dense(read):
                        continue
                    for turn in window:
                        if numbers.get(turn.number) != turn:
                            self._place(version.incarnation, turn, read)
                if last != version.number:
                    self._hole(f"the answer is at number {version.number} and its turns end at {last}", read)
                    continue
            if len(window) < read.asked or read.kind == "state":
                self._check_length(read, version)

    def _is_dense(self, read: Operation) -> bool:
        numbers = [turn.number for turn in read.turns]
        if numbers == list(range(numbers[0], numbers[-1] + 1)):
            return True
        self._hole(f"the turns returned are not dense: {', '.join(map(str, numbers))}", read)
        return False

    def _check_length(self, read: Operation, version: Version) -> None:
        """An answer has as many turns as were asked for, or all there are."""
        stored = version.number - self._oldest.get(version.incarnation, 1) + 1
        least = stored if read.kind == "state" else min(read.asked, stored)
        if len(read.turns) < least and not self._turns_expire:
            self._hole(f"{least} turns stand at number {version.number}, {len(read.turns)} were returned", read)

    def _hole(self, sentence: str, read: Operation) -> None:
        self._findings.add("hole", sentence, (read,))

    def _place(self, incarnation: int, turn: SeenTurn, teller: Operation) -> None:
        """Put a turn where the teller says it stands, or compare it with what stands there."""
        numbers = self.numbers.setdefault(incarnation, {})
        place = place_of(incarnation, turn.number)
        standing = numbers.get(turn.number)
        if standing is None:
            numbers[turn.number], self.tellers[place] = turn, teller
            self._check_origin(turn, teller)
            self._check_once(incarnation, turn, teller)
        elif standing.turn_id != turn.turn_id:
            both = (self.tellers[place], teller)
            appends = all(operation.kind == "append" for operation in both)
            self._findings.add(
                "duplicate" if appends else "mismatch",
                f"number {turn.number} is {standing.turn_id!r} and is {turn.turn_id!r}",
                both,
            )
        elif standing.digest == UNRECORDED != turn.digest:
            numbers[turn.number], self.tellers[place] = turn, teller
            self._check_origin(turn, teller)
        elif turn.digest not in (standing.digest, UNRECORDED):
            self._findings.add(
                "mismatch",
                f"turn {turn.turn_id!r}, number {turn.number}, has two contents",
                (self.tellers[place], teller),
            )

    def _check_origin(self, turn: SeenTurn, teller: Operation) -> None:
        """What a read returns, somebody has begun to append before, with this content."""
        if teller.kind == "append" or turn.turn_id in self._before:
            return
        append = self.first_append.get(turn.turn_id)
        if append is None:
            refused = self._refused.get(turn.turn_id)
            how = "whose append was refused" if refused else "that nobody has appended"
            operations = (teller,) if refused is None else (refused, teller)
            self._findings.add("phantom", f"turn {turn.turn_id!r} was returned, {how}", operations)
        elif not self._was_given(turn):
            self._findings.add("mismatch", f"turn {turn.turn_id!r} was appended with another content", (append, teller))

    def _was_given(self, turn: SeenTurn) -> bool:
        given = self._digests.get(turn.turn_id, set())
        return turn.digest == UNRECORDED or turn.digest in given or UNRECORDED in given

    def _check_once(self, incarnation: int, turn: SeenTurn, teller: Operation) -> None:
        places = self.places.setdefault(incarnation, {})
        other = places.setdefault(turn.turn_id, turn.number)
        if other != turn.number:
            self._findings.add(
                "duplicate",
                f"turn {turn.turn_id!r} is number {other} and number {turn.number}",
                (self.tellers[place_of(incarnation, other)], teller),
            )
