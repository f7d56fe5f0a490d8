"""The collector: a process that freezes has what it held put out of sight, and pauses are measured."""

from __future__ import annotations

import gc

import pytest

from mangacache.collector import THRESHOLDS, PauseWatch, freeze


@pytest.fixture
def _as_it_was():
    thresholds = gc.get_threshold()
    yield
    gc.unfreeze()
    gc.set_threshold(*thresholds)


@pytest.mark.usefixtures("_as_it_was")
def test_what_is_there_when_a_process_freezes_is_not_looked_at_any_more():
    kept = [[] for _ in range(1000)]
    assert freeze() >= len(kept)
    assert not any(found is kept for found in gc.get_objects())
    assert gc.get_threshold() == THRESHOLDS


class SteppingClock:
    """Each look at it is a second later."""

    def __init__(self):
        self.now_s = 0.0

    def monotonic_s(self):
        self.now_s += 1.0
        return self.now_s


def test_pauses_are_counted_with_their_length_while_the_block_runs():
    enabled = gc.isenabled()
    gc.disable()
    try:
        with PauseWatch(SteppingClock()) as watch:
            gc.collect()
            gc.collect(0)
        gc.collect()
    finally:
        if enabled:
            gc.enable()
    seen = watch.seen()
    assert (seen.pauses, seen.full, seen.total_ms, seen.longest_ms) == (2, 1, 2000.0, 1000.0)
