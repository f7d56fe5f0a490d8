"""`mangacache serve`: what belongs to a process and not to a library, around `serve`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from mangacache.collector import freeze
from mangacache.settings import Settings
from mangacache.worker.process import serve

if TYPE_CHECKING:
    import argparse


def add_serve(commands: Any) -> None:
    """Add the subcommand to a command line."""
    parser = commands.add_parser("serve", help="serve bots and gateways by HTTP and WebSocket, until SIGTERM")
    parser.add_argument("--config", type=Path, help="a TOML file of settings, overlaid by the environment")
    parser.set_defaults(run=_serve)


async def _serve(arguments: argparse.Namespace) -> int:
    return await serve(Settings.load(arguments.config), warmed_up=freeze)
