"""Watches turns: one that takes too long is logged with where it stands, and cut off where it takes far too long."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from mangacache.sessions.message import CUT_OFF, SLOW

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterator, Sequence
    from types import FrameType

    from mangacache.sessions.mailbox import Mailboxes
    from mangacache.sessions.message import Message
    from mangacache.settings import Settings
    from mangacache.telemetry import Telemetry

_FRAMES: Final = 24
_LOOKS: Final = 200
_OVERDUE_AFTER_S: Final = 0.25


class Watch:
    """Looks at the turns that are under way, longest first.

    A turn that is cut off may hold a durable write whose outcome nobody knows. So its sender hears `Transient`, which
    says so; memory forgets the session, and reads it strongly before the next message has its turn.
    """

    def __init__(self, mailboxes: Mailboxes, *, settings: Settings, telemetry: Telemetry) -> None:
        self._mailboxes = mailboxes
        self._slow_s = settings.turn_slow_s
        self._limit_s = max(settings.turn_limit_s, settings.turn_slow_s)
        self._telemetry = telemetry

    def look(self) -> None:
        """Log and cut off whom that concerns; refuse messages behind them whose deadline has passed."""
        now_s = self._mailboxes.now_s
        longest = next(iter(self._mailboxes.running), None)
        if longest is None or now_s - longest.began_s < min(_OVERDUE_AFTER_S, self._slow_s):
            return
        self._mailboxes.expire_waiting(_LOOKS)
        for message in tuple(self._mailboxes.running)[:_LOOKS]:
            lasts_s = now_s - message.began_s
            if lasts_s < self._slow_s:
                return
            if message.stuck < SLOW:
                message.stuck = SLOW
                self._telemetry.turns.labels("slow").inc()
                self._telemetry.log.warning(
                    "turn_slow", what=message.what, seconds=round(lasts_s, 1), stack=stack_of(message)
                )
            if lasts_s >= self._limit_s and message.stuck < CUT_OFF and not message.long and message.task is not None:
                message.stuck = CUT_OFF
                self._telemetry.turns.labels("cut_off").inc()
                self._telemetry.log.error("turn_cut_off", what=message.what, seconds=round(lasts_s, 1))
                message.task.cancel()


def stack_of(message: Message) -> Sequence[str]:
    """Return where a turn stands, outermost first: `file:line in function`."""
    if message.turn is None:
        return ()
    frames = _frames(message.turn.coroutine)
    return [f"{f.f_code.co_filename}:{f.f_lineno} in {f.f_code.co_name}" for f in frames][:_FRAMES]


def _frames(coroutine: Coroutine[Any, Any, Any]) -> Iterator[FrameType]:
    """Follow what a suspended coroutine waits for: asyncio itself shows its outermost frame only."""
    waits: Any = coroutine
    while waits is not None:
        frame = getattr(waits, "cr_frame", None) or getattr(waits, "gi_frame", None) or getattr(waits, "ag_frame", None)
        if frame is not None:
            yield frame
        waits = (
            getattr(waits, "cr_await", None) or getattr(waits, "gi_yieldfrom", None) or getattr(waits, "ag_await", None)
        )
