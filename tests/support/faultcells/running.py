"""Runs one cell: healthy load, the fault, recovery; then reads back what is stored, checks the history, adds up."""

from __future__ import annotations

import asyncio
import os
import platform
import random
import subprocess
import tempfile
import time
from pathlib import Path

from faultcells import figures
from faultcells.breaking import Breakage
from faultcells.crowd import Crowd
from faultcells.faults import AWAY, BY_NAME
from faultcells.meters import Meters
from faultcells.stage import Stage
from mangacache import MangaCache
from mangacache.testing import HistoryRecorder, check_history, read_history, record_state

BACK_WITHIN_S = 20.0
WARM_S = 1.5
DATABASE_AWAY_TAIL_S = 3.0
"""How long after DynamoDB is well again a durable call may still end that began before."""


class Failed(AssertionError):
    """Something did not hold in a cell."""


async def run_cell(cell, form, *, package=None, keep=None):
    """Run a cell and return its figures.

    Args:
        cell: which.
        form: how long.
        package: the folder of a weakened copy of the package, which the workers run instead.
        keep: a folder for the histories; else they go with the cell's other files.
    """
    with tempfile.TemporaryDirectory(prefix="mangacache-cell-") as made:
        folder = Path(made)
        histories = Path(keep) if keep else folder / "histories"
        histories.mkdir(parents=True, exist_ok=True)
        fault = BY_NAME[cell.fault]
        noise = random.Random(f"{cell.fault}-{cell.seed}")
        load_before = os.getloadavg()[0]
        async with Stage.open(form, fault, cell, folder, package=package) as stage:
            crowd = Crowd(stage.talks, form, seed=cell.seed, folder=histories)
            meters = Meters(stage)
            await crowd.begin()
            await asyncio.sleep(WARM_S)
            meters.start()
            began_s = stage.clock.monotonic_s()
            await asyncio.sleep(form.before_s * (0.9 + 0.2 * noise.random()))
            breakage = Breakage(stage, crowd, noise, form.fault_s)
            try:
                await fault.breaks(breakage)
            except BaseException as error:
                error.add_note(_said(stage))
                crowd.stopping = True
                raise
            healed_s = stage.clock.monotonic_s()
            await asyncio.sleep(form.after_s)
            await _await_recovery(crowd, stage, began_s, healed_s)
            ended_s = stage.clock.monotonic_s()
            await meters.stop()
            await crowd.end()
            for worker in stage.workers:
                if not worker.runs:
                    raise Failed(f"worker {worker.number} has ended by itself: {_said(stage)}")
            await _read_back(stage, crowd, histories)
            report = await asyncio.to_thread(_checked, histories)
            result = _result(cell, form, stage, crowd, meters=meters, report=report, times=(began_s, healed_s, ended_s))
            result["environment"] = _environment(load_before)
            return result


def _said(stage):
    return "\n".join(f"worker {worker.number}: {''.join(worker.complaints[-20:])}" for worker in stage.workers)


async def _await_recovery(crowd, stage, began_s, healed_s):
    """Go on until the throughput is back, or too long has passed."""
    while True:
        now_s = stage.clock.monotonic_s()
        course = figures.Course(crowd.samples, began_s=began_s, ended_s=now_s)
        healthy = course.rate(began_s, stage.parts[0][1])
        if course.back_s(healed_s, healthy) is not None or now_s - healed_s > BACK_WITHIN_S + 2:
            return
        await asyncio.sleep(0.5)


async def _read_back(stage, crowd, histories):
    with HistoryRecorder(histories / "state.history", worker="state") as recorder:
        async with MangaCache.open(stage.direct_settings) as cache:
            for name in crowd.sessions:
                await record_state(recorder, cache.session(name))


def _checked(histories):
    return check_history(read_history(*sorted(histories.glob("*.history"))))


def _result(cell, form, stage, crowd, *, meters, report, times):
    began_s, healed_s, ended_s = times
    first_s = stage.parts[0][1]
    course = figures.Course(crowd.samples, began_s=began_s, ended_s=ended_s)
    healthy = course.rate(began_s, first_s)
    acknowledged = sum(sample.outcome == "ok" and sample.kind in figures.DURABLE for sample in crowd.samples)
    reads_healthy = figures.between(meters.rows, "reads", began_s, first_s)
    reads_after = figures.between(meters.rows, "reads", first_s, healed_s + 5)
    violations = dict(report.counts)
    lost = violations.get("lost acknowledgement", 0)
    duplicates = violations.get("duplicate", 0)
    lags = [lag for row in meters.processes for lag in row["lag_s"] if lag is not None]
    memory = [value for row in meters.processes for value in row["memory_mb"] if value is not None]
    return {
        "fault": cell.fault,
        "title": BY_NAME[cell.fault].title,
        "server": cell.server,
        "seed": cell.seed,
        "policy": cell.policy,
        "form": form.name,
        "at": time.strftime("%Y-%m-%d %H:%M", time.gmtime()),
        "seconds": round(ended_s - began_s, 1),
        "operations": report.operations,
        "acknowledged": acknowledged,
        "lost": lost,
        "duplicates": duplicates,
        "violations": violations,
        "stories": [violation.story() for violation in report.violations[:5]],
        "bound_95": figures.bound_95(sum(violations.values()), report.operations),
        "notes_of_the_check": list(report.notes),
        "calls": figures.counted(crowd.samples),
        "complaints": dict(crowd.complaints),
        "refused_durable": _refused_durable(cell, crowd, stage),
        "healthy_per_s": round(healthy, 1),
        "longest_outage_s": course.longest_outage_s(),
        "back_s": course.back_s(healed_s, healthy),
        "half_back_s": course.back_s(healed_s, healthy / 2),
        "latency": {
            "before": course.latencies(began_s, first_s),
            "during": course.latencies(first_s, healed_s),
            "after": course.latencies(healed_s, ended_s),
        },
        "dynamodb_reads_per_s": {"healthy": round(reads_healthy, 1), "fault": round(reads_after, 1)},
        "over_admissions": figures.over_admitted(crowd.takes),
        "fences": dict(crowd.fences),
        "reconnects": meters.rows[-1]["connections"] - meters.rows[0]["connections"] if meters.rows else 0,
        "memory_mb": round(max(memory, default=0.0), 1),
        "loop_lag_s": round(max(lags, default=0.0), 4),
        "parts": [[name, round(a - began_s, 2), round(b - began_s, 2)] for name, a, b in stage.parts],
        "healed_s": round(healed_s - began_s, 2),
        "found": stage.notes,
        "course": {
            "good": course.good,
            "bad": course.bad,
            "availability": course.availability(),
            "hit_ratio": course.hit_ratio(),
            "dynamodb_reads": figures.by_tenth(meters.rows, "reads", course),
        },
    }


def _refused_durable(cell, crowd, stage):
    """Return how durable calls failed that should not have: by kind and outcome."""
    excused = BY_NAME[cell.fault].excused | (AWAY if cell.policy == "hold" else frozenset())
    gone = {"unreachable", "late", "closed"}  # the worker itself was gone, or stood still
    found: dict[str, int] = {}
    for sample in crowd.samples:
        if sample.kind not in figures.DURABLE or sample.outcome in figures.NO_FAILURE or sample.outcome in gone:
            continue
        if sample.outcome in excused and _in_parts(stage, sample):
            continue
        key = f"{sample.kind}: {sample.outcome}"
        found[key] = found.get(key, 0) + 1
    return found


def _in_parts(stage, sample):
    return any(
        sample.returned_s >= began_s and sample.invoked_s <= ended_s + DATABASE_AWAY_TAIL_S
        for _, began_s, ended_s in stage.parts
    )


def _environment(load_before):
    return {
        "commit": _commit(),
        "python": platform.python_version(),
        "cores": os.cpu_count(),
        "load_before": round(load_before, 2),
        "load_after": round(os.getloadavg()[0], 2),
    }


def _commit():
    """Return which commit is broken here, None where that can't be told."""
    try:
        described = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return described.stdout.strip()


def broken_in(result, *, share="back_s"):
    """Return what did not hold in a cell, one sentence each.

    Args:
        result: of the cell.
        share: `half_back_s` asks for half of the healthy throughput only, where the machine has other work to do.
    """
    found = [f"{count} times {name}" for name, count in result["violations"].items()]
    found += [f"{count} times {what}" for what, count in result["complaints"].items()]
    found += [f"{count} durable calls failed: {what}" for what, count in result["refused_durable"].items()]
    if accepted := result["fences"].get("stale accepted"):
        found.append(f"{accepted} writes with a stale fence were accepted")
    if result[share] is None or result[share] > BACK_WITHIN_S:
        found.append(f"its throughput was not back within {BACK_WITHIN_S:.0f} s: {share} is {result[share]}")
    return found
