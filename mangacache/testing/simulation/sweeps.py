"""Many seeds, on all cores."""

from __future__ import annotations

import gc
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from mangacache.testing.simulation.runs import OPERATIONS, run

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_AT_ONCE: Final = 20


@dataclass
class Swept:
    """What came of some seeds.

    Attributes:
        seeds: how many were run.
        operations: of all clients.
        virtual_s: how much time passed in them.
        processor_s: how long processors were at it.
        failed: those with findings, each with its text.
    """

    seeds: int = 0
    operations: int = 0
    virtual_s: float = 0.0
    processor_s: float = 0.0
    failed: list[tuple[int, str]] = field(default_factory=list)

    def add(self, other: Swept) -> None:
        """Take in another part."""
        self.seeds += other.seeds
        self.operations += other.operations
        self.virtual_s += other.virtual_s
        self.processor_s += other.processor_s
        self.failed += other.failed


def swept(seeds: range, *, operations: int = OPERATIONS, kinds: Sequence[str] | None = None) -> Swept:
    """Run seeds one after the other in this process."""
    done, began_s = Swept(), time.process_time()
    for seed in seeds:
        result = run(seed, operations=operations, kinds=kinds)
        done.seeds += 1
        done.operations += result.operations
        done.virtual_s += result.virtual_s
        if not result.clean:
            done.failed.append((seed, result.text()))
    done.processor_s = time.process_time() - began_s
    return done


def sweep(
    seeds: range, *, jobs: int, operations: int = OPERATIONS, kinds: Sequence[str] | None = None
) -> Iterator[Swept]:
    """Run seeds on several cores, and yield what came of each part."""
    parts = [seeds[place : place + _AT_ONCE] for place in range(0, len(seeds), _AT_ONCE)]
    if jobs == 1:
        _begin()
        for part in parts:
            yield _part(part, operations, kinds)
        return
    with ProcessPoolExecutor(jobs, initializer=_begin) as pool:
        yield from pool.map(_part, parts, [operations] * len(parts), [kinds] * len(parts))


def _begin() -> None:
    run(0, operations=OPERATIONS)  # loads what is loaded when it is first needed
    gc.collect()
    gc.freeze()  # what stays is not looked through again after each part


def _part(seeds: range, operations: int, kinds: Sequence[str] | None) -> Swept:
    began_s = time.process_time()
    gc.disable()
    done = swept(seeds, operations=operations, kinds=kinds)
    gc.collect()
    done.processor_s = time.process_time() - began_s
    return done
