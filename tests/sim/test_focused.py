"""Seeds that look at one thing each: what the mutants of the runtime are caught by, in a bounded number of them."""

from __future__ import annotations

import pytest

from mangacache.testing.simulation import run

SEEDS = 40
FOCUSED = {
    "many_who_leave": {"kinds": [], "crowded": True},
    "two_primaries": {"kinds": ["redis has two primaries", "redis fails over to a replica that lags"]},
    "a_way_that_is_cut": {"kinds": ["the way to redis is cut"]},
}


@pytest.mark.parametrize("focus", FOCUSED)
def test_focused_seeds_find_nothing(focus):
    for seed in range(SEEDS):
        result = run(seed, **FOCUSED[focus])
        assert result.clean, result.text()
