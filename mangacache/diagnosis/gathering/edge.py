"""The installation that the settings name, looked at for real."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from mangacache.diagnosis.gathering.clocks import look_at_clocks
from mangacache.diagnosis.gathering.dax import look_at_dax
from mangacache.diagnosis.gathering.process import look_at_credentials, look_at_machine
from mangacache.diagnosis.gathering.redis import look_at_redis
from mangacache.diagnosis.gathering.table import look_at_table
from mangacache.diagnosis.patience import patient

if TYPE_CHECKING:
    from collections.abc import Callable

    from mangacache.clock import Clock
    from mangacache.diagnosis.facts import (
        ClockFacts,
        CredentialFacts,
        DaxFacts,
        MachineFacts,
        RedisFacts,
        TableFacts,
    )
    from mangacache.settings import Settings


class Edge:
    """See `Looking`.

    Args:
        settings: what is looked at.
        clock: for deadlines, and this machine's time.
        emulator_status: asks the DAX emulator that stands for the cluster for its status; it blocks.
    """

    def __init__(
        self, settings: Settings, *, clock: Clock, emulator_status: Callable[[], dict[str, Any]] | None = None
    ) -> None:
        self._settings = patient(settings)
        self._clock = clock
        self._emulator_status = emulator_status

    async def table(self) -> TableFacts:
        """See `Looking`."""
        return await look_at_table(self._settings, clock=self._clock)

    async def redis(self) -> RedisFacts:
        """See `Looking`."""
        return await look_at_redis(self._settings, clock=self._clock)

    async def dax(self) -> DaxFacts:
        """See `Looking`."""
        status = None if self._emulator_status is None else await asyncio.to_thread(self._emulator_status)
        return await look_at_dax(self._settings, clock=self._clock, emulator=status)

    async def clocks(self) -> ClockFacts:
        """See `Looking`."""
        return await look_at_clocks(self._settings, clock=self._clock)

    async def credentials(self) -> CredentialFacts:
        """See `Looking`."""
        return await look_at_credentials(self._settings, clock=self._clock)

    async def machine(self) -> MachineFacts:
        """See `Looking`."""
        return await look_at_machine()
