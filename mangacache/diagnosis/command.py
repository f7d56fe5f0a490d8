"""`mangacache doctor`: its options, and what they do."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from mangacache.clock import SystemClock
from mangacache.diagnosis.examining import WITHIN_S, examine
from mangacache.diagnosis.facts import Expected
from mangacache.diagnosis.findings import counted, exit_status
from mangacache.diagnosis.gathering import Edge
from mangacache.diagnosis.inspection.command import add_inspect
from mangacache.diagnosis.showing import show
from mangacache.errors import Invalid
from mangacache.settings import Settings

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Sequence

    from mangacache.diagnosis.findings import Finding


def add_diagnoses(commands: Any, *, emulator_status: Callable[[int], dict[str, Any]]) -> None:
    """Add what only looks: `mangacache doctor` and `mangacache inspect`.

    Args:
        commands: the subparsers of the command line.
        emulator_status: asks a DAX emulator, by its fault port.
    """
    parser = commands.add_parser(
        "doctor", help="look at everything that is configured, say what is wrong and what to do"
    )
    _add_doctor_options(parser)
    parser.set_defaults(run=partial(doctor, emulator_status=emulator_status))
    add_inspect(commands)


def _add_doctor_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", type=Path, help="a TOML file of settings, overlaid by the environment")
    parser.add_argument("--json", action="store_true", help="write JSON, and nothing else, to the standard output")
    parser.add_argument("--sessions", type=int, default=50_000, metavar="N", help="open at once in a process (50000)")
    parser.add_argument(
        "--connections",
        type=int,
        default=2_000,
        metavar="N",
        help="of customers, WebSockets, at once in a process (2000)",
    )
    parser.add_argument(
        "--stop-timeout", type=float, default=30.0, metavar="S", help="ECS's stopTimeout of the task definition (30)"
    )
    parser.add_argument("--within", type=float, default=WITHIN_S, metavar="S", help="for each part, seconds (15)")
    parser.add_argument(
        "--dax-status", type=int, metavar="PORT", help="where a DAX emulator stands for DAX: its fault port"
    )


async def doctor(arguments: argparse.Namespace, emulator_status: Callable[[int], dict[str, Any]] | None = None) -> int:
    """Examine what the settings name, say what was found, and return 1 for problems, 2 for what was not looked at.

    Args:
        arguments: of the command line.
        emulator_status: asks a DAX emulator, by its fault port.

    Raises:
        Invalid: the settings or the options are wrong.
    """
    if arguments.sessions < 1 or arguments.connections < 0 or arguments.within <= 0 or arguments.stop_timeout < 0:
        raise Invalid("--sessions, --connections, --within and --stop-timeout are numbers above 0")
    settings = Settings.load(arguments.config)
    clock = SystemClock()
    expected = Expected(
        sessions=arguments.sessions, connections=arguments.connections, stop_timeout_s=arguments.stop_timeout
    )
    port: int | None = arguments.dax_status
    asks = (lambda: emulator_status(port)) if emulator_status is not None and port is not None else None
    edge = Edge(settings, clock=clock, emulator_status=asks)
    findings = await examine(edge, settings, expected, clock=clock, within_s=arguments.within)
    if arguments.json:
        sys.stdout.write(as_json(findings))
    else:
        show(findings)
    return exit_status(findings)


def as_json(findings: Sequence[Finding]) -> str:
    """Return findings as JSON, with the exit status that they make."""
    document = {
        "status": exit_status(findings),
        "counts": counted(findings),
        "findings": [finding.plain() for finding in findings],
    }
    return msgspec.json.format(msgspec.json.encode(document)).decode() + "\n"
