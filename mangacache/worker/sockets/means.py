"""What every socket of a worker works with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mangacache import MangaCache
    from mangacache.clock import Clock, Random
    from mangacache.tasks import TaskOwner
    from mangacache.worker.sockets.rooms import Rooms
    from mangacache.worker.sockets.upkeep import Upkeep


@dataclass(frozen=True, slots=True, kw_only=True)
class Means:
    """One worker's.

    Attributes:
        cache: the instance.
        rooms: who follows which session.
        upkeep: keeps what Redis knows of the sockets alive.
        clock, random, tasks: time, randomness, and the owner of what runs beside.
        heartbeat_s: how often a client is to give a sign of life.
    """

    cache: MangaCache
    rooms: Rooms
    upkeep: Upkeep
    clock: Clock
    random: Random
    tasks: TaskOwner
    heartbeat_s: float
