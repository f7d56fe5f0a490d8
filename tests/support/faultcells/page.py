"""Writes the page of the faults, docs/reliability.md, and its plots from the results of a run."""

from __future__ import annotations

import json
from pathlib import Path

from faultcells import figures
from faultcells.cells import Cell, full_cells
from faultcells.faults import FAULTS
from faultcells.plots import draw

TEMPLATE = Path(__file__).with_name("reliability.md.in")
GOAL_S = 2.0


def write_page(results, docs):
    """Write the page and a plot for each fault of which there is a cell.

    Args:
        results: the file of results, of one form.
        docs: the folder of the documentation.
    """
    source = Path(results)
    rows = figures.read_results(source)
    kept = docs / "reliability"
    kept.mkdir(exist_ok=True)
    for old in kept.glob("*.svg"):
        old.unlink()
    parts = []
    for fault in FAULTS:
        cells = [row for row in rows if row["fault"] == fault.name]
        parts.append(_section(fault, cells))
        if cells:
            draw(cells[0], kept / f"{fault.name}.svg")
    (kept / "cells.json").write_text(_kept(rows), encoding="utf-8")
    text = TEMPLATE.read_text(encoding="utf-8")
    for name, said in {"summary": _summary(rows), "table": _table(rows), "faults": "\n".join(parts)}.items():
        text = text.replace(f"<!-- {name} -->", said)
    (docs / "reliability.md").write_text(text, encoding="utf-8")
    print(f"{len(rows)} cells from {source.name} are in {docs / 'reliability.md'}")
    return 0


def _kept(rows):
    """Return the figures without the courses by tenths of a second, which are in the plots."""
    small = [{name: value for name, value in row.items() if name != "course"} for row in rows]
    return "[\n" + ",\n".join(json.dumps(row) for row in small) + "\n]\n"


def _summary(rows):
    operations = sum(row["operations"] for row in rows)
    violations = sum(sum(row["violations"].values()) for row in rows)
    whole, held = len(full_cells(FAULTS)), sum(row["policy"] == "hold" for row in rows)
    forms = sorted({row["form"] for row in rows})
    loads = sorted(row["environment"]["load_after"] for row in rows)
    bound = figures.bound_95(violations, operations)
    whole_run = {Cell.of(row) for row in rows} == set(full_cells(FAULTS)) and forms == ["full"]
    cells = f"{len(rows)} of the {whole} cells of the full form"
    if forms != ["full"]:
        cells = f"{len(rows)} cells with the load of the {' and the '.join(forms)} form (the full form has {whole})"
    warning = "" if whole_run else ": **this is not a whole run of the full form**"
    warning = f", {held} of them under HOLD{warning}" if held else warning
    first, (lowest, highest) = rows[0], (loads[0], loads[-1])
    acknowledged, lost, double = (sum(row[name] for row in rows) for name in ("acknowledged", "lost", "duplicates"))
    refused = sum(sum(row["refused_durable"].values()) for row in rows)
    commits = ", ".join(sorted({row["environment"].get("commit") or "unknown" for row in rows}))
    tried, accepted = (sum(row["fences"].get(f"stale {what}", 0) for row in rows) for what in ("tried", "accepted"))
    return f"""\
This run: {cells}{warning}; made on {first["at"][:10]} of commits {commits},
with Python {first["environment"]["python"]} on {first["environment"]["cores"]} cores that were shared with other work: the load average was {lowest:.0f} to {highest:.0f}. Latencies and times
are those of that machine.

- {operations:,} operations checked, {acknowledged:,} durable writes acknowledged
- {lost} acknowledgements lost, {double} duplicates, {violations} violations of any promise (with 95 % confidence below
  {bound:.2g} an operation)
- durable calls that failed though DynamoDB was well and a worker was there, but for those under HOLD: {refused}
- back to 99 % of the healthy throughput after {_back(rows)}
- writes with a stale fence: {tried} tried, {accepted} accepted"""  # noqa: E501 - a page's text


def _back(rows):
    times = sorted(row["back_s"] for row in rows if row["back_s"] is not None)
    never = len(rows) - len(times)
    late = sum(back_s > GOAL_S for back_s in times)
    said = f"{figures.percentile(times, 0.5)} s in the median, {times[-1]} s at most"
    said += f"; cells that took over {GOAL_S:.0f} s: {late}"
    return said + (f"; {never} did not come back" if never else "")


_HEAD = (
    "| cell | operations | acknowledged | lost, double, violations (95 % bound) | back, s | longest outage, s "
    "| p99 of reads before, during, after, ms | DynamoDB reads/s healthy, fault | over the rate limit "
    "| stale fences refused | reconnects | memory, MB | loop lag, ms |\n" + "|---" * 13 + "|"
)


def _table(rows):
    return "\n".join([_HEAD, *map(_line, rows)])


def _line(row):
    latencies = [row["latency"][when]["read"]["p99_ms"] for when in ("before", "during", "after")]
    reads = row["dynamodb_reads_per_s"]
    violations = sum(row["violations"].values())
    cells = [
        f"{row['fault']}, {row['server']}, seed {row['seed']}{', HOLD' if row['policy'] == 'hold' else ''}",
        f"{row['operations']:,}",
        f"{row['acknowledged']:,}",
        f"{row['lost']}, {row['duplicates']}, {violations} ({row['bound_95']:.1g})",
        "never" if row["back_s"] is None else f"{row['back_s']:.1f}",
        f"{row['longest_outage_s']:.2f}",
        ", ".join("-" if value is None else f"{value:.0f}" for value in latencies),
        f"{reads['healthy']:.0f}, {reads['fault']:.0f}",
        str(row["over_admissions"]),
        f"{row['fences'].get('stale refused', 0)} of {row['fences'].get('stale tried', 0)}",
        str(row["reconnects"]),
        f"{row['memory_mb']:.0f}",
        f"{row['loop_lag_s'] * 1000:.0f}",
    ]
    return "| " + " | ".join(cells) + " |"


def _section(fault, cells):
    head = f"### {fault.name[:2]} {fault.title[0].upper()}{fault.title[1:]}\n"
    if not cells:
        return f"{head}\nNot in this run.\n"
    first = cells[0]
    lines = [head, f"![throughput, errors, hits and availability](reliability/{fault.name}.svg)", ""]
    shaded = ", ".join(f"{name} ({began_s:.1f} to {ended_s:.1f} s)" for name, began_s, ended_s in first["parts"])
    lines.append(f"Drawn: {first['server']}, seed {first['seed']}; shaded: {shaded}.")
    lines.append(f"What failed, of all its cells: {_failed(cells)}.")
    found = {name: value for name, value in first["found"].items() if name != "answers to poison, by status"}
    if found:
        lines.append(f"Seen: {'; '.join(f'{name}: {value}' for name, value in found.items())}.")
    return "\n".join([*lines, ""])


def _failed(cells):
    sums: dict[str, int] = {}
    for cell in cells:
        for kind, outcomes in cell["calls"].items():
            for outcome, count in outcomes.items():
                if outcome != "ok" and kind != "stale fence":
                    sums[f"{kind} {outcome}"] = sums.get(f"{kind} {outcome}", 0) + count
    return ", ".join(f"{count} {what}" for what, count in sorted(sums.items())) or "nothing"
