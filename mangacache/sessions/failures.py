"""What is done about a turn that has failed: run again where that is safe, buried, or told to the supervisor."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mangacache.sessions.treatment import MAX_TRIES, DeadLetter, DeadLetters, Treatment, treatment_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from mangacache.clock import Clock, Random
    from mangacache.sessions.message import Message
    from mangacache.settings import Settings
    from mangacache.telemetry import Telemetry


class Failures:
    """Treats the failures of turns by their kinds; see `treatment`.

    Args:
        escalate: told of an error after which nothing can be trusted.

    Attributes:
        dead_letters: what could not be carried out.
    """

    def __init__(
        self,
        *,
        settings: Settings,
        clock: Clock,
        random: Random,
        telemetry: Telemetry,
        escalate: Callable[[str, BaseException], None],
    ) -> None:
        self.dead_letters = DeadLetters()
        self._retry_base_s = settings.retry_base_s
        self._retry_within_s = settings.retry_cap_s
        self._clock = clock
        self._random = random
        self._telemetry = telemetry
        self._escalate = escalate

    def treated(self, message: Message, error: Exception, tries: int, *, lasts_s: float) -> float | None:
        """Return after how long the operation is run again, None where it is not; what is due besides is done.

        Args:
            message: whose turn failed.
            error: by what.
            tries: how often it has been run.
            lasts_s: how long its turn has taken so far.
        """
        treatment = treatment_of(error)
        repeats = treatment is not Treatment.SENDER and message.repeats is not None and message.repeats()
        if treatment is Treatment.TRANSIENT:
            pause_s = self._random.random() * self._retry_base_s * 2.0**tries
            in_time = lasts_s + pause_s < self._retry_within_s
            repeats = repeats and in_time and tries < MAX_TRIES
        elif treatment is Treatment.CONFLICT:
            pause_s, repeats = 0.0, repeats and tries == 1
        elif treatment is Treatment.POISON:
            pause_s, repeats = 0.0, repeats and tries < MAX_TRIES
            if not repeats:
                self._bury(message, error, tries)
        else:
            pause_s, repeats = 0.0, False
        if treatment is Treatment.FATAL:
            self._bury(message, error, tries)
            self._escalate(message.what, error)
        if not repeats:
            return None
        self._telemetry.turns.labels(f"{treatment.value}_again").inc()
        return pause_s

    def _bury(self, message: Message, error: Exception, tries: int) -> None:
        said = f"{type(error).__name__}: {error}"[:300]
        self.dead_letters.add(
            DeadLetter(message.actor.session_id, message.what, said, tries, self._clock.time_s())
        )  # fmt: skip
        self._telemetry.turns.labels("dead_letter").inc()
        self._telemetry.log.error("dead_letter", what=message.what, tries=tries, error=said)
