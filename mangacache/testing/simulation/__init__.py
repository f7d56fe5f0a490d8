"""A simulator that owns time: the whole service on virtual clocks, with every choice made by a seed.

`simulate` runs a story of your own; `run` runs the package's own workload, with faults, and checks its history. See
`docs/simulation.md`.
"""

from __future__ import annotations

from mangacache.testing.simulation.clock import SimulatedClock
from mangacache.testing.simulation.loop import SimulatedLoop, Stuck
from mangacache.testing.simulation.network import Network, Way
from mangacache.testing.simulation.processes import Process
from mangacache.testing.simulation.runs import Result, run
from mangacache.testing.simulation.tracing import Trace
from mangacache.testing.simulation.world import Died, RemoteCall, Worker, World, simulate

__all__ = [
    "Died",
    "Network",
    "Process",
    "RemoteCall",
    "Result",
    "SimulatedClock",
    "SimulatedLoop",
    "Stuck",
    "Trace",
    "Way",
    "Worker",
    "World",
    "run",
    "simulate",
]
