"""Which cells there are, and how long their parts are."""

from __future__ import annotations

from dataclasses import dataclass, fields

SERVERS = ("valkey", "redis")


@dataclass(frozen=True)
class Form:
    """How much load a cell has, and for how long.

    Attributes:
        before_s: the healthy time from which the figures before the fault are.
        fault_s: the unit of a fault's length; each makes of it what it needs.
        after_s: how long it goes on when it is healthy again.
        clients: how many chat at once.
        message_every_s: how often each of them says something.
        sessions: that they share.
    """

    name: str
    before_s: float
    fault_s: float
    after_s: float
    clients: int
    message_every_s: float
    sessions: int
    workers: int = 2


SHORT = Form("short", before_s=3.0, fault_s=3.0, after_s=4.0, clients=16, message_every_s=0.4, sessions=12)
FULL = Form("full", before_s=15.0, fault_s=10.0, after_s=30.0, clients=48, message_every_s=0.4, sessions=32, workers=3)
FORMS = {form.name: form for form in (SHORT, FULL)}


@dataclass(frozen=True, order=True)
class Cell:
    """One run.

    Attributes:
        fault: the name of it, see `faults`.
        seed: of every choice.
        server: `valkey` or `redis`.
        policy: of the workers, see the setting `redis_policy`.
    """

    fault: str
    seed: int
    server: str
    policy: str = "available"

    @property
    def name(self) -> str:
        return f"{self.fault}.{self.server}.{self.seed}{'' if self.policy == 'available' else f'.{self.policy}'}"

    @classmethod
    def of(cls, result) -> Cell:
        """Return the cell of a result."""
        return cls(*(result[field.name] for field in fields(cls)))


SHORT_FAULTS = (
    "01-killed",
    "04-failover",
    "05-split",
    "07-proxy",
    "10-dynamodb",
    "11-points",
    "12-stopped-worker",
    "13-sigterm",
)


HOLD_FAULTS = (*SHORT_FAULTS[:4], "02-snapshot", "03-stopped", "06-flushed", "08-push")
"""Those of Redis, where the policies differ."""


def full_cells(faults) -> list[Cell]:
    """Every fault, twice on each server where it can be had; then those of Redis once more under HOLD."""
    available = [
        Cell(fault.name, seed, server)
        for seed in (1, 2)
        for fault in faults
        for server in SERVERS
        if server in fault.servers
    ]
    return available + [Cell(fault.name, 1, "valkey", "hold") for fault in faults if fault.name in HOLD_FAULTS]
