"""Histories: recording what a bot asks and is told, and checking that nothing promised was broken."""

from __future__ import annotations

from mangacache.testing.history.calls import Call
from mangacache.testing.history.checker import check_history
from mangacache.testing.history.operations import Operation, SeenTurn, turn_digest
from mangacache.testing.history.promises import Promises
from mangacache.testing.history.reading import RecordedHistory, read_history
from mangacache.testing.history.recorder import HistoryRecorder
from mangacache.testing.history.states import record_state
from mangacache.testing.history.violations import Report, Violation

__all__ = [
    "Call",
    "HistoryRecorder",
    "Operation",
    "Promises",
    "RecordedHistory",
    "Report",
    "SeenTurn",
    "Violation",
    "check_history",
    "read_history",
    "record_state",
    "turn_digest",
]
