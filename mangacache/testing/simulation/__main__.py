"""`python -m mangacache.testing.simulation`: run seeds, or one of them again, with its trace."""

from __future__ import annotations

import argparse
import os
import sys
import time

from mangacache.testing.simulation.faults import KINDS
from mangacache.testing.simulation.runs import OPERATIONS, run
from mangacache.testing.simulation.sweeps import Swept, sweep

_SHOWN = 5


def _arguments(words: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m mangacache.testing.simulation",
        description="Run the whole service in virtual time: workers, clients and faults, all by a seed.",
    )
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--seed", type=int, help="run this seed alone, and say what it was like")
    which.add_argument("--seeds", type=int, default=100, metavar="COUNT", help="run so many seeds (default 100)")
    parser.add_argument("--first", type=int, default=0, metavar="SEED", help="the first of them (default 0)")
    parser.add_argument("--trace", action="store_true", help="with --seed: print what happens, line by line")
    parser.add_argument("--operations", type=int, default=OPERATIONS, help=f"a seed (default {OPERATIONS})")
    parser.add_argument("--no-faults", action="store_true", help="let nothing go wrong")
    parser.add_argument("--fault", action="append", choices=list(KINDS), help="only faults of this kind; repeatable")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes (default: one a core)")
    arguments = parser.parse_args(words)
    if arguments.trace and arguments.seed is None:
        parser.error("--trace goes with --seed: the trace of many seeds is nothing to read")
    return arguments


def main(words: list[str] | None = None) -> int:
    """Run what is asked for; return 1 where something was found."""
    arguments = _arguments(words)
    return _one(arguments) if arguments.seed is not None else _many(arguments)


def _kinds(arguments: argparse.Namespace) -> list[str] | None:
    return [] if arguments.no_faults else arguments.fault


def _one(arguments: argparse.Namespace) -> int:
    result = run(
        arguments.seed,
        operations=arguments.operations,
        kinds=_kinds(arguments),
        trace=True,
        show=print if arguments.trace else None,
    )
    print(result.text())
    print(f"trace of {len(result.trace)} lines, {result.digest}")
    return 0 if result.clean else 1


def _many(arguments: argparse.Namespace) -> int:
    seeds = range(arguments.first, arguments.first + arguments.seeds)
    total, began_s = Swept(), time.perf_counter()
    for part in sweep(seeds, jobs=arguments.jobs, operations=arguments.operations, kinds=_kinds(arguments)):
        for seed, text in part.failed[: max(0, _SHOWN - len(total.failed))]:
            print(text)
            print(f"again: python -m mangacache.testing.simulation --seed {seed} --trace\n", flush=True)
        total.add(part)
    elapsed_s = time.perf_counter() - began_s
    rate = total.operations / max(total.processor_s, 1e-9)
    print(
        f"{total.seeds} seeds, {total.operations} operations, {total.virtual_s:.0f} virtual seconds in "
        f"{elapsed_s:.1f} s ({rate:.0f} operations a second of a core): {len(total.failed)} seeds with findings"
    )
    if total.failed:
        print("seeds: " + " ".join(str(seed) for seed, _ in total.failed))
    return 1 if total.failed else 0


if __name__ == "__main__":
    sys.exit(main())
