"""The end of every bench: measure, print, write, and say in one line why there is nothing to print."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from _common import run, write_json
from _processes import ClientFailed

from mangacache.errors import MangaCacheError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Coroutine


def report(
    bench: Coroutine[Any, Any, dict[str, Any]],
    given: argparse.Namespace,
    *,
    show: Callable[[dict[str, Any]], None],
    wrong: Callable[[dict[str, Any]], int] = lambda _: 0,
) -> int:
    """Run a bench, print its figures and write them where `--json` says.

    Args:
        bench: what measures.
        given: the options that every bench takes.
        show: prints the figures.
        wrong: counts what must not have happened.

    Returns:
        The process's exit status: 0 measured, 1 measured and something was wrong, 2 not measured, 130 interrupted.
    """
    name = Path(sys.argv[0]).name
    try:
        figures = run(bench, loop=given.loop)
    except (MangaCacheError, ClientFailed) as error:
        print(f"{name}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"{name}: interrupted", file=sys.stderr)
        return 130
    show(figures)
    write_json(given.json, figures)
    return 1 if wrong(figures) else 0
