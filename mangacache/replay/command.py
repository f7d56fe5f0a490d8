"""`mangacache replay`, and what `mangacache demo` shares with it: options, progress, the report for people."""

from __future__ import annotations

import json
import secrets
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from mangacache.errors import Invalid
from mangacache.replay import BY, Options, Remote, is_clean, replay, replay_at_workers, rows
from mangacache.settings import Settings

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Sequence

CLEAN = "Every turn was stored, in order, once, and read back as it was said."


def add_replay(commands: Any) -> None:
    """Add the subcommand to a command line."""
    parser = commands.add_parser("replay", help="replay recorded chats through the servers that are configured")
    parser.add_argument("file", type=Path, help="recorded chats: .jsonl or .jsonl.gz")
    add_options(parser)
    parser.add_argument("--config", type=Path, help="a TOML file of settings, overlaid by the environment")
    at = parser.add_argument_group("through workers")
    at.add_argument("--workers-at", metavar="URL,URL", help="of `mangacache serve`: replay through these workers")
    at.add_argument(
        "--by", choices=BY, default="both", help="how they are talked to: half of the sessions by each (both)"
    )
    at.add_argument("--credential-file", type=Path, help="holds the key or token that they ask for")
    at.add_argument("--operators-at", metavar="URL,URL", help="their operators' ports, for what they sent")
    parser.set_defaults(run=_replay)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add how to replay."""
    parser.add_argument("--concurrency", type=int, default=64, metavar="N", help="messages under way at once (64)")
    parser.add_argument("--limit", type=int, metavar="N", help="replay only the first N conversations")
    parser.add_argument(
        "--workers",
        type=int,
        default=1,
        metavar="N",
        help="processes that take a session's messages in turn (1)",
    )
    parser.add_argument(
        "--timing",
        choices=("full", "recorded"),
        default="full",
        help="as fast as it goes, or at the recorded seconds on a faster clock",
    )
    parser.add_argument(
        "--speed", type=float, default=60.0, metavar="X", help="recorded seconds that pass in one second (60)"
    )
    parser.add_argument("--no-redis", action="store_true", help="leave Redis out")
    parser.add_argument("--json", type=Path, metavar="OUT", help="write the report to a file")
    parser.add_argument(
        "--prefix",
        help="put before every session id; by default a new one, so that a replay meets no earlier one",
    )


async def _replay(arguments: argparse.Namespace) -> int:
    options = options_of(arguments, prefix=f"replay-{secrets.token_hex(3)}-")
    with Progress() as progress:
        if arguments.workers_at is not None:
            remote = Remote(_urls(arguments.workers_at), arguments.by, _credential(arguments.credential_file))
            operators = _urls(arguments.operators_at) if arguments.operators_at is not None else ()
            figures = await replay_at_workers(
                arguments.file, remote, options, operators=operators, progress=progress.begin
            )
        else:
            settings = Settings.load(arguments.config)
            figures = await replay(arguments.file, settings, options, progress=progress.begin)
    write_json(arguments.json, figures)
    return print_report(figures)


def _urls(given: str) -> tuple[str, ...]:
    return tuple(url.strip() for url in given.split(",") if url.strip())


def _credential(path: Path | None) -> str | None:
    if path is None:
        return None
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise Invalid(f"--credential-file: {path} cannot be read: {error}") from error


def options_of(arguments: argparse.Namespace, *, prefix: str) -> Options:
    """Return how to replay.

    Raises:
        Invalid: a number out of its range, or a report that could not be written in the end.
    """
    if arguments.json is not None and not arguments.json.parent.is_dir():
        raise Invalid(f"--json: there is no folder {arguments.json.parent}: make it first")
    if arguments.json is not None and arguments.json.is_dir():
        raise Invalid(f"--json: {arguments.json} is a folder: name a file in it")
    return Options(
        concurrency=arguments.concurrency,
        limit=arguments.limit,
        workers=arguments.workers,
        recorded=arguments.timing == "recorded",
        speed=arguments.speed,
        prefix=prefix if arguments.prefix is None else arguments.prefix,
        redis=not arguments.no_redis,
    )


def write_json(path: Path | None, figures: dict[str, Any]) -> None:
    """Write a report to a file, where one is wanted.

    Raises:
        Invalid: it cannot be written.
    """
    if path is None:
        return
    try:
        path.write_text(json.dumps(figures, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    except OSError as error:
        raise Invalid(f"--json: the report cannot be written to {path}: {error.strerror}") from error


def print_report(figures: dict[str, Any], *, title: str = "mangacache replay", clean: str = CLEAN) -> int:
    """Print a report, and in words whether all was well; returns the exit status."""
    _print_table(list(rows(figures)), title=title)
    if is_clean(figures):
        print(clean)
        return 0
    print("Something is wrong: see mismatches, lost and duplicates.")
    return 1


def _print_table(lines: Sequence[tuple[str, str]], *, title: str) -> None:
    if find_spec("rich") is None or not sys.stdout.isatty():
        width = max(len(name) for name, _ in lines)
        for name, value in lines:
            print(f"{name:<{width}}  {value}")
        return
    from rich.console import Console  # noqa: PLC0415 - an extra that need not be there
    from rich.table import Table  # noqa: PLC0415

    table = Table(title=title, title_justify="left")
    table.add_column("figure")
    table.add_column("value", justify="right")
    for name, value in lines:
        table.add_row(name, value)
    Console().print(table)


class Progress:
    """A progress bar where there is a terminal and rich to draw it."""

    def __init__(self) -> None:
        self._bar: Any = None
        if sys.stderr.isatty() and find_spec("rich") is not None:
            from rich.console import Console  # noqa: PLC0415 - an extra that need not be there
            from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn  # noqa: PLC0415
            from rich.progress import Progress as Bar  # noqa: PLC0415

            self._bar = Bar(
                TextColumn("messages"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeRemainingColumn(),
                console=Console(stderr=True),
            )

    def __enter__(self) -> Self:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def begin(self, total: int) -> Callable[[], None]:
        """Return what to call after each of `total` messages."""
        if self._bar is None:
            return lambda: None
        task = self._bar.add_task("messages", total=total)
        return lambda: self._bar.advance(task)
