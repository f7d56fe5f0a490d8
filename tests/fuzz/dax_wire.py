"""Fuzz DAX's wire for as long as is said: `.venv/bin/python tests/fuzz/dax_wire.py --seconds 600`.

The memory of the process is limited, so an input that makes the wire take much of it is found as well. What is found is
written to files, which then belong into a test. Exits with 1 if there was anything.
"""

from __future__ import annotations

import argparse
import resource
import sys
from hashlib import sha256
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

from daxfuzz import Fuzzer

MEMORY_BYTES = 2 << 30


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, help="how long; without it --executions says when it ends")
    parser.add_argument("--executions", type=int, help="how many inputs are tried")
    parser.add_argument("--seed", type=int, default=1, help="of all that is chosen (%(default)s)")
    parser.add_argument("--traced", type=float, default=0.1, help="the part whose lines are watched (%(default)s)")
    parser.add_argument("--found", type=Path, default=Path("found"), help="folder for inputs that crash (%(default)s)")
    asked = parser.parse_args()
    if asked.seconds is None and asked.executions is None:
        parser.error("say how long: --seconds or --executions")
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    report = Fuzzer(asked.seed, traced=asked.traced).run(executions=asked.executions, seconds=asked.seconds)
    print(report)
    print(f"most memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024} MiB")
    for what, (trace, data) in report.crashes.items():
        asked.found.mkdir(parents=True, exist_ok=True)
        path = asked.found / sha256(data).hexdigest()[:16]
        path.write_bytes(data)
        print(f"\n{what}: {path}\n{trace}")
    return 1 if report.crashes else 0


if __name__ == "__main__":
    sys.exit(main())
