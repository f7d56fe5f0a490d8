"""`mangacache demo`: servers and workers on this machine, recorded chats through them, and the reports."""

from __future__ import annotations

import os
import sys
import tempfile
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from mangacache.errors import Invalid
from mangacache.replay import SAMPLE, Remote, replay, replay_at_workers
from mangacache.replay.command import CLEAN, Progress, add_options, options_of, print_report, write_json
from mangacache.settings import Settings
from mangacache.tasks import together

if TYPE_CHECKING:
    import argparse
    from collections.abc import AsyncIterator, Awaitable, Callable
    from contextlib import AbstractAsyncContextManager

    from mangacache.local import LocalStack
    from mangacache.local.process import ServerProcess
    from mangacache.replay import Options

_MOST_WORKERS: Final = 8
_NODES: Final = ("--nodes", "2", "--lag", "1")
_LEAST_CLIENTS: Final = 2


def add_demo(
    commands: Any,
    *,
    add_local_options: Callable[[argparse.ArgumentParser], None],
    open_local: Callable[..., AbstractAsyncContextManager[LocalStack]],
    create: Callable[[Settings], Awaitable[object]],
) -> None:
    """Add the subcommand to a command line.

    Args:
        commands: the subparsers.
        add_local_options: adds which local servers there are to be.
        open_local: starts them.
        create: makes the table.
    """
    parser = commands.add_parser("demo", help="start servers and workers on this machine, replay chats, report")
    parser.add_argument("file", nargs="?", type=Path, default=SAMPLE, help="recorded chats; without it a sample")
    add_local_options(parser)
    add_options(parser)
    parser.add_argument("--dax", action="store_true", help="put a DAX emulator in front: two nodes, one 1 s behind")
    parser.add_argument(
        "--serve",
        type=int,
        default=2,
        metavar="N",
        help="then replay them by HTTP and WebSocket through N workers, which have that DAX in any case; 0: not (2)",
    )
    parser.set_defaults(run=partial(_demo, open_local=open_local, create=create))


async def _demo(
    arguments: argparse.Namespace,
    *,
    open_local: Callable[..., AbstractAsyncContextManager[LocalStack]],
    create: Callable[[Settings], Awaitable[object]],
) -> int:
    options = options_of(arguments, prefix="")
    if not 0 <= arguments.serve <= _MOST_WORKERS:
        raise Invalid(f"--serve takes how many workers there are to be, 0 to {_MOST_WORKERS}")
    dax = arguments.dax or arguments.serve > 0
    async with open_local(arguments, redis=not arguments.no_redis, dax=dax, dax_options=_NODES) as stack:
        os.environ.update(stack.environment())  # this process and its workers: a command, not the library
        settings = Settings.from_env()
        print(f"DynamoDB: {stack.engine.meaning}", file=sys.stderr)
        await create(settings)
        engines = stack.describe()
        embedded = settings if arguments.dax else settings.replace(dax_endpoint=None)
        with Progress() as progress:
            figures = await replay(
                arguments.file,
                embedded,
                options,
                engines={name: engine for name, engine in engines.items() if name != "dax" or arguments.dax},
                progress=progress.begin,
            )
        status = print_report(figures)
        if arguments.serve:
            served = await _served(arguments, settings, options, engines=engines)
            print(f"\nThe same chats by HTTP and WebSocket through {arguments.serve} workers, with DAX:\n")
            status = max(status, print_report(served, title="through workers", clean=CLEAN))
            figures["through_workers"] = served
        write_json(arguments.json, figures)
        return status


async def _served(
    arguments: argparse.Namespace, settings: Settings, options: Options, *, engines: dict[str, Any]
) -> dict[str, Any]:
    """Replay through workers, each in a process of its own, from client processes of their own."""
    options = msgspec.structs.replace(
        options, prefix=f"{options.prefix}w-", workers=max(_LEAST_CLIENTS, options.workers)
    )
    async with _workers(arguments.serve) as (public, operators):
        with Progress() as progress:
            figures = await replay_at_workers(
                arguments.file,
                Remote(public),
                options,
                operators=operators,
                max_content_bytes=settings.max_content_bytes,
                engines=engines,
                progress=progress.begin,
            )
    return {"workers": arguments.serve, "client_processes": options.workers, **figures}


@asynccontextmanager
async def _workers(count: int) -> AsyncIterator[tuple[tuple[str, ...], tuple[str, ...]]]:
    """Start workers, and have them leave in order; yields their public and their operators' addresses."""
    from mangacache.local.worker import worker_process  # noqa: PLC0415 - an extra that need not be there

    with tempfile.TemporaryDirectory(prefix="mangacache-") as folder:
        workers = [worker_process(Path(folder), name=f"worker-{number}") for number in range(1, count + 1)]
        async with AsyncExitStack() as stack:
            for worker, _ in workers:
                stack.push_async_callback(worker.stop)
            await together(*(worker.start() for worker, _ in workers))
            yield (
                tuple(_url(worker) for worker, _ in workers),
                tuple(f"http://127.0.0.1:{port}" for _, port in workers),
            )


def _url(worker: ServerProcess) -> str:
    return f"http://127.0.0.1:{worker.port}"
