"""Breaks everything that can break, on real processes: `make faults`.

python tests/faults/run.py                      the full form: each fault, two seeds, both servers; under HOLD too
python tests/faults/run.py --resume             goes on where it was ended
python tests/faults/run.py --short              the eight faults that the tests run
python tests/faults/run.py --only 04-failover --seed 7 --server redis --form short
python tests/faults/run.py --page               writes docs/reliability.md from the newest results
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

from faultcells.cells import FORMS, SERVERS, SHORT_FAULTS, Cell, full_cells
from faultcells.faults import BY_NAME, FAULTS, faketime_library
from faultcells.figures import read_results
from faultcells.running import broken_in, run_cell

for name, value in (("AWS_ACCESS_KEY_ID", "local"), ("AWS_SECRET_ACCESS_KEY", "local"), ("AWS_REGION", "us-east-1")):
    os.environ.setdefault(name, value)

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "bench" / "results"


def main(arguments=None):
    given = _parser().parse_args(arguments)
    if given.page:
        from faultcells.page import write_page

        return write_page(given.page if isinstance(given.page, str) else str(_newest_of_all()), ROOT / "docs")
    form = FORMS["short" if given.short else given.form]
    cells = _cells(given, form)
    out = _out(given, form)
    done = _done(out)
    left = [cell for cell in cells if cell.name not in done]
    print(f"{len(left)} cells of the {form.name} form, {len(cells) - len(left)} done before; results in {out}")
    status = 0
    for number, cell in enumerate(left, 1):
        if given.until and time.strftime("%H:%M") >= given.until:
            print(f"ended at {given.until}; --resume goes on with {len(left) - number + 1} cells")
            return status
        if BY_NAME[cell.fault].faketime and faketime_library() is None:
            print(f"{cell.name}: left out: libfaketime is missing; install the package libfaketime")
            status = 1
            continue
        began_s = time.monotonic()
        result = asyncio.run(run_cell(cell, form, keep=given.keep))
        broken = broken_in(result)
        _append(out, result)
        status |= bool(broken)
        print(
            f"[{number}/{len(left)}] {cell.name}: {result['operations']} operations, "
            f"{result['acknowledged']} acknowledged, back in {result['back_s']} s, "
            f"{time.monotonic() - began_s:.0f} s: {'; '.join(broken) or 'all holds'}",
            flush=True,
        )
        for story in result["stories"]:
            print(story)
    return status


def _parser():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", action="store_true", help="the eight faults that the tests run, on Valkey")
    parser.add_argument("--form", choices=sorted(FORMS), default="full")
    parser.add_argument("--only", nargs="*", metavar="FAULT", help=", ".join(fault.name for fault in FAULTS))
    parser.add_argument("--seed", type=int, nargs="*", help="instead of 1 and 2")
    parser.add_argument("--server", choices=SERVERS, nargs="*")
    parser.add_argument("--policy", choices=("available", "hold"))
    parser.add_argument("--out", type=Path, help="the file of results")
    parser.add_argument("--resume", action="store_true", help="go on with the newest results of this form")
    parser.add_argument("--until", metavar="HH:MM", help="begin no cell after this time")
    parser.add_argument("--keep", help="a folder to keep the histories in, of one cell")
    parser.add_argument(
        "--page", nargs="?", const=True, metavar="RESULTS", help="write docs/reliability.md and its plots"
    )
    return parser


def _cells(given, form):
    if form.name == "short" and not given.only:
        chosen = [Cell(name, 1, "valkey") for name in SHORT_FAULTS]
    else:
        chosen = full_cells(FAULTS)
        if given.only:
            chosen = [cell for cell in chosen if any(cell.fault.startswith(name) for name in given.only)]
    if given.policy:
        chosen = [cell for cell in chosen if cell.policy == given.policy]
    if given.server:
        chosen = [cell for cell in chosen if cell.server in given.server]
    if given.seed:
        kinds = dict.fromkeys((cell.fault, cell.server, cell.policy) for cell in chosen)
        chosen = [Cell(fault, seed, server, policy) for seed in given.seed for fault, server, policy in kinds]
    return chosen


def _newest(form="full"):
    found = sorted(RESULTS.glob("faults-*.json"))
    found = [path for path in found if ("-short" in path.name) == (form == "short")]
    return found[-1] if found else None


def _newest_of_all():
    return _newest() or _newest("short")


def _out(given, form):
    RESULTS.mkdir(parents=True, exist_ok=True)
    if given.out:
        return given.out
    if given.resume and (newest := _newest(form.name)) is not None:
        return newest
    suffix = "" if form.name == "full" else f"-{form.name}"
    return RESULTS / f"faults-{time.strftime('%Y-%m-%d-%H%M')}{suffix}.json"


def _done(out):
    if not out.exists():
        return set()
    return {Cell.of(row).name for row in read_results(out)}


def _append(out, result):
    """Write the file anew with one cell more, so that it is whole whenever the run is ended."""
    rows = [*(read_results(out) if out.exists() else []), result]
    new = out.with_suffix(".new")
    new.write_text("[\n" + ",\n".join(map(json.dumps, rows)) + "\n]\n", encoding="utf-8")
    new.replace(out)


if __name__ == "__main__":
    sys.exit(main())
