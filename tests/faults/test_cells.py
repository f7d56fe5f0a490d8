"""The short form of the faults: eight of them on real workers, and weakened workers that they must catch.

`make faults` runs every fault, long; with FAULT_MUTANTS=1 all weakened workers are run here, else two of them.
"""

from __future__ import annotations

import os

import pytest
from faultcells.cells import SHORT, SHORT_FAULTS, Cell
from faultcells.mutants import PLANTED, plant
from faultcells.running import broken_in, run_cell

ALWAYS = 2
SEEDS = (1, 2, 3)
"""A weakened worker is caught where there is something to catch: under the first seed as a rule, else the next."""


@pytest.mark.parametrize("fault", SHORT_FAULTS)
async def test_nothing_promised_is_broken_whatever_else_is(fault):
    result = await run_cell(Cell(fault, 1, "valkey"), SHORT)
    assert broken_in(result, share="half_back_s") == [], "\n".join(result["stories"])
    assert result["acknowledged"] > 0
    assert result["parts"], "something was wrong meanwhile"


@pytest.mark.parametrize(
    "planted", PLANTED if os.environ.get("FAULT_MUTANTS") else PLANTED[:ALWAYS], ids=lambda planted: planted.name
)
async def test_workers_that_are_weakened_are_caught(planted, tmp_path):
    package = plant(planted, tmp_path)
    caught = []
    for seed in SEEDS:
        result = await run_cell(Cell(planted.fault, seed, "valkey"), SHORT, package=package)
        caught += list(result["violations"])
        caught += ["a stale fence"] * result["fences"].get("stale accepted", 0)
        if caught:
            break
    print(f"{planted.name}: {caught}")
    assert caught, f"{planted.name}: not noticed"
