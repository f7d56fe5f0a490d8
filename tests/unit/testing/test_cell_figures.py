"""The figures of the fault cells are what they are called, and the page says when it is not of a whole run."""

from __future__ import annotations

import json
import re

import pytest
from faultcells import figures
from faultcells.cells import full_cells
from faultcells.crowd import LIMIT_UNITS, LIMIT_WINDOW_S, Sample
from faultcells.faults import FAULTS
from faultcells.page import write_page


def _calls(times, *, outcome="ok", kind="append", source=""):
    return [Sample(at_s - 0.01, at_s, kind, outcome, source, 0) for at_s in times]


def _steady(from_s, to_s, per_s=10):
    """Return the times of so many calls a second."""
    return [from_s + (number + 0.5) / per_s for number in range(round((to_s - from_s) * per_s))]


def test_a_course_knows_when_it_was_well_how_long_it_was_out_and_when_it_was_back():
    samples = _calls(_steady(0, 3)) + _calls(_steady(5, 9)) + _calls([3.05, 4.05], outcome="transient")
    course = figures.Course(samples, began_s=0.0, ended_s=9.0)
    assert course.rate(0, 3) == pytest.approx(10)
    assert course.longest_outage_s() == pytest.approx(2.1)
    assert course.back_s(4.0, 10) == pytest.approx(1.0)
    assert course.availability()[30] == 0.0
    assert course.availability()[31] is None
    assert course.availability()[0] == 1.0


def test_what_does_not_come_back_is_said_to_never():
    course = figures.Course(_calls(_steady(0, 3)), began_s=0.0, ended_s=9.0)
    assert course.back_s(4.0, 10) is None


def test_the_hit_ratio_counts_reads_that_were_answered_without_the_table():
    samples = _calls([0.1, 0.2, 0.3], kind="read", source="redis") + _calls([0.4], kind="read", source="dynamodb")
    course = figures.Course(samples, began_s=0.0, ended_s=2.0)
    assert course.hit_ratio() == [0.75, None]


def test_only_what_was_certainly_admitted_within_a_window_is_over_the_limit():
    inside = [("c", number / 100, number / 100 + 0.001) for number in range(LIMIT_UNITS + 2)]
    assert figures.over_admitted(inside) == 2
    late = [("c", at_s, at_s + LIMIT_WINDOW_S + 1) for _, at_s, _ in inside]
    assert figures.over_admitted(late) == 0, "each may have been admitted long after it was asked for"
    others = [(f"c{number}", began_s, ended_s) for number, (_, began_s, ended_s) in enumerate(inside)]
    assert figures.over_admitted(others) == 0


def test_the_bound_of_nothing_in_many_is_the_rule_of_three():
    assert figures.bound_95(0, 1_000_000) == pytest.approx(3e-6, rel=0.01)
    assert figures.bound_95(1, 1_000_000) > figures.bound_95(0, 1_000_000)
    assert figures.bound_95(0, 0) is None


@pytest.mark.parametrize(("values", "share", "expected"), [([], 0.5, None), ([1], 0.99, 1), (range(1, 101), 0.99, 99)])
def test_percentiles(values, share, expected):
    assert figures.percentile(values, share) == expected


def test_the_full_form_is_every_fault_twice_on_each_server_and_the_clocks_on_valkey_alone():
    cells = [cell for cell in full_cells(FAULTS) if cell.policy == "available"]
    assert len(FAULTS) == 16
    assert len(cells) == len(set(cells)) == 2 * (2 * 15 + 1)
    assert {cell.server for cell in cells if cell.fault == "14-clocks"} == {"valkey"}


def test_the_full_form_breaks_redis_under_hold_too():
    held = [cell for cell in full_cells(FAULTS) if cell.policy == "hold"]
    assert [cell.fault[:2] for cell in held] == ["01", "02", "03", "04", "05", "06", "07", "08"]
    assert len({cell.name for cell in full_cells(FAULTS)}) == len(full_cells(FAULTS))


def _row(fault):
    latency = {"read": {"p50_ms": 1.0, "p99_ms": 2.0, "calls": 3}, "append": {"p50_ms": 1.0, "p99_ms": 2.0, "calls": 3}}
    return {
        "fault": fault.name,
        "title": fault.title,
        "server": "valkey",
        "seed": 1,
        "policy": "available",
        "form": "full",
        "at": "2026-11-25 12:00",
        "operations": 1000,
        "acknowledged": 600,
        "lost": 0,
        "duplicates": 0,
        "violations": {},
        "bound_95": 0.003,
        "calls": {"append": {"ok": 600, "transient": 2}},
        "refused_durable": {},
        "longest_outage_s": 1.5,
        "back_s": 0.7,
        "latency": {"before": latency, "during": latency, "after": latency},
        "dynamodb_reads_per_s": {"healthy": 1, "fault": 2},
        "over_admissions": 0,
        "fences": {"stale tried": 3, "stale refused": 3},
        "reconnects": 2,
        "memory_mb": 90.0,
        "loop_lag_s": 0.01,
        "parts": [["it", 1.0, 2.0]],
        "found": {"noted": 1},
        "environment": {"python": "3.11", "cores": 2, "load_after": 3.0},
        "course": {
            "good": [1] * 40,
            "bad": [0] * 40,
            "dynamodb_reads": [0] * 40,
            "hit_ratio": [1.0, None, 0.5, 1.0],
            "availability": [1.0, None, 0.5, 1.0] * 10,
        },
    }


def test_the_page_says_that_it_is_not_of_a_whole_run_and_draws_what_there_is(tmp_path):
    results = tmp_path / "faults-2026-11-25.json"
    results.write_text(json.dumps([_row(fault) for fault in FAULTS[:2]]), encoding="utf-8")
    write_page(results, tmp_path)
    page = (tmp_path / "reliability.md").read_text(encoding="utf-8")
    assert "2 of the 70 cells" in page
    assert "not a whole run" in page
    assert "2,000 operations checked" in page
    assert page.count("Not in this run.") == len(FAULTS) - 2
    drawn = re.findall(r"\(reliability/(\S+\.svg)\)", page)
    assert [(tmp_path / "reliability" / name).exists() for name in drawn] == [True, True]
    assert "<!--" not in page
