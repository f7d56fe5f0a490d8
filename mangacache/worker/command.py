"""`mangacache serve`: what belongs to a process and not to a library, around `serve`."""

from __future__ import annotations

import faulthandler
import resource
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mangacache.collector import freeze
from mangacache.settings import Settings
from mangacache.telemetry import logger
from mangacache.worker.draining import EXIT_BY_S
from mangacache.worker.logs import logging_to
from mangacache.worker.process import serve
from mangacache.worker.signals import Signals, Stop

if TYPE_CHECKING:
    import argparse


def add_serve(commands: Any) -> None:
    """Add the subcommand to a command line."""
    parser = commands.add_parser("serve", help="serve bots and gateways by HTTP and WebSocket, until SIGTERM")
    parser.add_argument("--config", type=Path, help="a TOML file of settings, overlaid by the environment")
    parser.set_defaults(run=_serve)


async def _serve(arguments: argparse.Namespace) -> int:
    settings = Settings.load(arguments.config)
    with logging_to(level=settings.log_level, form=settings.log_format):
        raise_files_limit()
        stop = Stop()
        stop.on_asked(_be_gone_in_time)
        with Signals(stop):
            try:
                return await serve(settings, stop=stop, warmed_up=_warmed_up)
            finally:
                faulthandler.cancel_dump_traceback_later()


def raise_files_limit() -> None:
    """Allow this process as many open files as it may have: each connection of a customer's is one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    except (OSError, ValueError) as error:  # macOS says "unlimited", and does not take it
        logger().warning("files_limit_stays", files=soft, allowed=hard, error=str(error))
    else:
        logger().info("files_limit", files=hard, before=soft)


def _warmed_up() -> None:
    logger().info("warmed_up", objects_frozen=freeze())


def _be_gone_in_time() -> None:
    """End this process by then, whatever hangs, with the stack of each thread: not even Python need run for that."""
    faulthandler.dump_traceback_later(EXIT_BY_S, exit=True, file=sys.stderr)
