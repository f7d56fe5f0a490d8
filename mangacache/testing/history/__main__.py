"""`python -m mangacache.testing.history FILES...`: check what processes recorded, print a report.

The exit status is 0 where nothing was found, 1 where something was, 2 where the files cannot be checked.
"""

from __future__ import annotations

import argparse
import gc
import resource
import sys
from typing import TYPE_CHECKING, Any

from mangacache.clock import SystemClock
from mangacache.errors import MangaCacheError
from mangacache.testing.history.checker import check_history
from mangacache.testing.history.promises import Promises
from mangacache.testing.history.reading import read_history

if TYPE_CHECKING:
    from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Check files and return the exit status."""
    options = _parser().parse_args(arguments)
    gc.disable()  # a history is millions of objects without a circle among them
    clock = SystemClock()
    try:
        start_s = clock.monotonic_s()
        history = read_history(*options.files)
        read_s = clock.monotonic_s()
        report = check_history(
            history,
            promises=Promises(
                session_age_s=options.session_age_s,
                unpromised=options.unpromised,
                per_client=not options.tokens_only,
                turns_expire=options.turns_expire,
            ),
            limit=options.limit,
        )
        end_s = clock.monotonic_s()
    except (MangaCacheError, OSError) as error:
        sys.stderr.write(f"{error}\n")
        return 2
    finally:
        gc.enable()
    sys.stdout.write(report.text() + "\n")
    if options.times:
        sys.stdout.write(
            f"read in {read_s - start_s:.2f} s, checked in {end_s - read_s:.2f} s: "
            f"{report.operations / (end_s - start_s):,.0f} operations a second, "
            f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:,.0f} MB at most\n"
        )
    return 0 if report.clean else 1


class _AddGap(argparse.Action):
    """Adds WORKER:FROM_NS:TO_NS to a mapping of gaps."""

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, option: str | None = None
    ) -> None:
        worker, *times = str(values).rsplit(":", 2)
        try:
            from_ns, to_ns = map(int, times)
        except ValueError:
            parser.error(f"{option} takes WORKER:FROM_NS:TO_NS, the times in whole nanoseconds, not {values!r}")
        gaps = dict(getattr(namespace, self.dest))
        gaps[worker] = (*gaps.get(worker, ()), (from_ns, to_ns))
        setattr(namespace, self.dest, gaps)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m mangacache.testing.history", description="Check what processes recorded."
    )
    parser.add_argument(
        "files", nargs="+", metavar="FILE", help="of a HistoryRecorder; those of all processes together"
    )
    parser.add_argument(
        "--session-age-s", type=float, default=1.0, metavar="S", help="how old a SESSION answer may be (default 1)"
    )
    parser.add_argument(
        "--unpromised",
        action=_AddGap,
        default={},
        metavar="WORKER:FROM_NS:TO_NS",
        help="when this worker (* is all) could not promise LATEST; may be given several times",
    )
    parser.add_argument("--tokens-only", action="store_true", help="hold clients to the tokens they gave, not to more")
    parser.add_argument("--turns-expire", action="store_true", help="turns may have expired during the history")
    parser.add_argument(
        "--limit", type=int, default=10, metavar="N", help="violations of each name to tell (default 10)"
    )
    parser.add_argument("--times", action="store_true", help="say how long it took, and how much memory")
    return parser


if __name__ == "__main__":
    sys.exit(main())
