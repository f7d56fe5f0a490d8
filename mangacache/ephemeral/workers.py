"""How many workers there are, as each of them last heard from Redis: what a limit is divided by while Redis is away."""

from __future__ import annotations

from hashlib import blake2b
from typing import TYPE_CHECKING, Final

from mangacache.clock import random_id
from mangacache.ephemeral import scripts
from mangacache.errors import MangaCacheError
from mangacache.tasks import TaskOwner

if TYPE_CHECKING:
    from mangacache.clock import Clock, Random
    from mangacache.ephemeral.asking import Asker
    from mangacache.redis import Argument
    from mangacache.settings import Settings
    from mangacache.telemetry import Telemetry

BEAT_S: Final = 5.0
GONE_AFTER_S: Final = 3 * BEAT_S
_SERVICE: Final = "rate limits"


class Workers:
    """This worker among the others: seen every 5 s from its first rate limit on, and gone after 15."""

    def __init__(self, asker: Asker, *, settings: Settings, clock: Clock, random: Random, telemetry: Telemetry) -> None:
        self._asker = asker
        self._expected = settings.rate_limit_workers
        self._clock = clock
        self._telemetry = telemetry
        self.name = random_id(random)[:16]
        self._others: tuple[str, ...] | None = None
        self._tasks = TaskOwner(on_failure=telemetry.count_survived)

    def __repr__(self) -> str:
        return f"<Workers {self.count()}, of which this is {self.name}>"

    def begin(self) -> None:
        """Be seen from now on; called with each rate limit, and does something the first time."""
        if not self._tasks and self._asker.link is not None:
            self._tasks.start(self._beat(), name="be counted among the workers")

    def count(self) -> int:
        """Return how many workers there are, this one included; as many as are expected where none was counted."""
        return self._expected if self._others is None else 1 + len(self._others)

    def share(self, count: int, of: str) -> int:
        """Return this worker's part of `count` units of a key; the parts of all workers make `count`.

        What is left when the units are divided goes to the workers that come first by a hash of the key and their names
        (rendezvous hashing), so that it is not always the same ones. Workers that were never counted cannot be put in
        an order: then it is left out, but for one unit.
        """
        workers = self.count()
        each, left = divmod(count, workers)
        if self._others is None:
            return max(each, 1)
        mine = _place(of, self.name)
        before = sum(_place(of, other) < mine for other in self._others)
        return each + (before < left)

    async def heard(self, *, stays: bool = True) -> None:
        """Say in Redis that this worker is there, or leaves, and hear of the others.

        Raises:
            Transient: Redis cannot be asked.
        """
        key = self._asker.key("workers", "all")
        arguments: list[Argument] = [self.name, int(GONE_AFTER_S * 1000), int(stays)]
        there = await self._asker.run(_SERVICE, scripts.WORKERS_SEEN, key, arguments, repeatable=True)
        self._others = tuple(other for worker in there if (other := worker.decode()) != self.name)

    async def _beat(self) -> None:
        while True:
            try:
                await self.heard()
            except MangaCacheError as error:
                self._telemetry.count_survived("workers_uncounted", error)
            await self._clock.sleep(BEAT_S)

    async def close(self) -> None:
        """Be counted no more."""
        if not self._tasks:
            return
        await self._tasks.cancel()
        link = self._asker.link
        if link is not None and link.up:
            try:
                await self.heard(stays=False)
            except MangaCacheError as error:
                self._telemetry.count_survived("workers_uncounted", error)


def _place(of: str, worker: str) -> bytes:
    return blake2b(f"{of} {worker}".encode(), digest_size=8).digest()
