"""The page that shows what was explored, `docs/model.md`: the tests hold it to what they find.

`python -m contextmodel.page`, run in `tests/model`, writes its tables anew; with `MODEL_BOUNDS=large` all of them.
"""

from __future__ import annotations

import re
from pathlib import Path

from contextmodel.bounds import within
from contextmodel.catalogue import ALIVE, ALIVE_LARGER, DEAD_WITHOUT, HOLDS, LARGER, WITHOUT
from contextmodel.exploring import explore, live
from contextmodel.rules import Rules, without

PAGE = Path(__file__).parents[3] / "docs" / "model.md"


def row(name, states):
    """Return a case's line in a table of the page."""
    return f"| {name} | {states:,} |"


def section(rule, found):
    """Return what the page says of a rule that was taken out, with the trace."""
    meaning = re.search(rf"^ +{rule}: (.+)$", Rules.__doc__, re.MULTILINE)
    return f"**`{rule}`**: {meaning[1]}\n\n```\n{found}\n```\n"


def _rows(page, cases, larger, states_of):
    """Return a table's lines; cases out of bounds keep the line they have."""
    run = within(cases, larger)
    for name in {**cases, **larger}:
        if name in run:
            line = row(name, states_of(run[name]))
            print(line, flush=True)
            yield line
        else:
            old = re.search(rf"^\| {re.escape(name)} \| .*$", page, re.MULTILINE)
            yield old[0] if old else row(name, 0)


def _traces():
    for rule, case in WITHOUT.items():
        yield section(rule, explore(without(case, rule)))
    for rule, case in DEAD_WITHOUT.items():
        yield section(rule, live(without(case, rule)))


def _replaced(page, marker, text):
    begin, end = f"<!-- {marker} -->\n", f"<!-- /{marker} -->"
    head, rest = page.split(begin)
    return f"{head}{begin}\n{text}\n\n{end}{rest.split(end)[1]}"


def main():
    """Write the page's tables anew."""
    page = PAGE.read_text(encoding="utf-8")
    held = _rows(page, HOLDS, LARGER, lambda case: explore(case).states)
    alive = _rows(page, ALIVE, ALIVE_LARGER, lambda case: live(case).states)
    head = "| case | states |\n|---|---|\n"
    page = _replaced(page, "held", head + "\n".join(held))
    page = _replaced(page, "alive", head + "\n".join(alive))
    page = _replaced(page, "traces", "\n".join(_traces()).rstrip())
    PAGE.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
