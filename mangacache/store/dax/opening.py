"""Opening the door to DAX: configuration errors raise, a cluster that is away does not."""

from __future__ import annotations

from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING

from mangacache.store.dax.client import check_installed, connect
from mangacache.store.dax.door import DaxDoor
from mangacache.store.dax.threads import Threads
from mangacache.store.dax.transport import DaxTransport, Stalled

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from typing import Any

    from mangacache.clock import Clock, Random
    from mangacache.settings import Settings
    from mangacache.store.transport import Transport
    from mangacache.telemetry import Telemetry


@asynccontextmanager
async def open_dax(
    settings: Settings,
    *,
    clock: Clock,
    random: Random,
    telemetry: Telemetry,
    transport: Transport | None = None,
) -> AsyncIterator[DaxDoor | None]:
    """Open the door to the cluster that `dax_endpoint` names, and close it at the end; None where none is named.

    Args:
        settings: which cluster, with which limits.
        clock: for deadlines and the breaker.
        random: for the breaker.
        telemetry: hears of everything.
        transport: another way to DAX, which its owner closes.

    Raises:
        Invalid: no client installed, no credentials, or such as the cluster refuses.
        NotFound: the cluster does not know the table.
    """
    if transport is not None:
        door = DaxDoor(transport, table_name=settings.table_name, clock=clock, random=random, telemetry=telemetry)
        try:
            await door.open()
            yield door
        finally:
            await door.close()
        return
    address = settings.dax
    if address is None:
        yield None
        return
    check_installed()
    own = dax_transport(partial(connect, address, settings), settings, clock=clock, telemetry=telemetry)
    door = DaxDoor(own, table_name=settings.table_name, clock=clock, random=random, telemetry=telemetry)

    async def first_connection() -> None:
        """Wait for the client's start, which may take longer than a call; what takes still longer goes on beside."""
        limit_s = 2 * settings.connect_timeout_s + settings.dax_timeout_s
        try:
            async with clock.timeout(limit_s):
                await own.connected()
        except TimeoutError as error:
            raise Stalled(f"DAX at {address} could not be connected to within {limit_s:g} s", sent=False) from error

    try:
        await door.open(first_connection)
        yield door
    finally:
        await door.close()
        await own.close()


def dax_transport(
    make_client: Callable[[], Any], settings: Settings, *, clock: Clock, telemetry: Telemetry
) -> DaxTransport:
    """Return the adapter for a client that blocks.

    Args:
        make_client: called in a thread, at the first request.
        settings: its limits.
        clock: for deadlines.
        telemetry: hears of waits and orphans.
    """
    timeout_s = settings.dax_timeout_s
    threads = Threads(
        settings.dax_threads, limit=settings.dax_calls, timeout_s=timeout_s, clock=clock, telemetry=telemetry
    )
    telemetry.watch_depth("dax_threads", lambda: threads.under_way)
    return DaxTransport(make_client, threads=threads, clock=clock, timeout_s=timeout_s)
