"""Findings for people: a table on a terminal that rich can draw on, plain lines elsewhere."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from typing import TYPE_CHECKING, Final

from mangacache.diagnosis.findings import Severity, counted
from mangacache.diagnosis.printable import printable

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from mangacache.diagnosis.findings import Finding

_MARKS: Final = {
    Severity.OK: ("ok", "green"),
    Severity.NOTE: ("note", "cyan"),
    Severity.WARNING: ("warning", "yellow"),
    Severity.PROBLEM: ("PROBLEM", "bold red"),
}


def show(findings: Sequence[Finding]) -> None:
    """Write findings to the standard output."""
    if sys.stdout.isatty() and find_spec("rich") is not None:
        _draw(findings)
        return
    for line in lines(findings):
        sys.stdout.write(f"{printable(line)}\n")


def lines(findings: Sequence[Finding]) -> Iterator[str]:
    """Iterate over plain lines: a finding each, and under it what breaks and what to do."""
    width = max((len(finding.check) for finding in findings), default=0)
    for finding in findings:
        mark, _ = _MARKS[finding.severity]
        yield f"{mark:<7}  {finding.check:<{width}}  {finding.seen}"
        if finding.breaks:
            yield f"{'':<7}  {'':<{width}}  breaks: {finding.breaks}"
        if finding.remedy:
            yield f"{'':<7}  {'':<{width}}  remedy: {finding.remedy}"
    yield summary(findings)


def summary(findings: Sequence[Finding]) -> str:
    """Return how many findings there are, in words."""
    counts = {name: number for name, number in counted(findings).items() if number}
    words = [f"{number} {name}{'s' if number > 1 and name != 'ok' else ''}" for name, number in counts.items()]
    return f"{len(findings)} checks: {', '.join(words)}."


def _draw(findings: Sequence[Finding]) -> None:
    from rich.console import Console  # noqa: PLC0415 - an extra that need not be there
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    table = Table(title="mangacache doctor", title_justify="left", show_lines=False)
    table.add_column("")
    table.add_column("check", no_wrap=True)
    table.add_column("what was seen, what breaks, what to do")
    for finding in findings:
        mark, style = _MARKS[finding.severity]
        text = Text(printable(finding.seen))
        if finding.breaks:
            text.append(f"\n{finding.breaks}", style="dim")
        if finding.remedy:
            text.append(f"\n-> {finding.remedy}", style="bold")
        table.add_row(Text(mark, style=style), finding.check, text)
    console = Console()
    console.print(table)
    console.print(summary(findings), highlight=False)
