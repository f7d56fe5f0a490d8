"""The package weakened in one rule, for worker processes: which cell must see it."""

from __future__ import annotations

import importlib.util
import shutil
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[3]


@dataclass(frozen=True)
class Planted:
    """A mutant of `tests/mutants/mutants.py`, and the fault under which it is caught.

    Attributes:
        missing: what the package does without, by the mutant's own words.
        fault: of the short form.
    """

    rule: str
    missing: str
    fault: str

    @property
    def name(self):
        return f"without {self.missing}"


PLANTED = (
    Planted("R5", "COMMIT", "13-sigterm"),
    Planted("L", "the fence in a write's condition", "01-killed"),
    Planted("R2", "the token at memory's answer", "12-stopped-worker"),
    Planted("R5", "the wait for COMMIT before the acknowledgement", "07-proxy"),
    Planted("R1", "the look for the turn_id in the window", "11-points"),
    Planted("R6", "the identity at each new connection", "04-failover"),
    Planted("R1", "the same number after a time-out", "10-dynamodb"),
    Planted("R7", "the wait after a new epoch", "05-split"),
)


def plant(planted, folder):
    """Copy the package into a folder, weakened; return the folder."""
    spec = importlib.util.spec_from_file_location("mutants_of_rules", ROOT / "tests" / "mutants" / "mutants.py")
    module = importlib.util.module_from_spec(spec)
    import sys

    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    (mutant,) = [one for one in module.MUTANTS if (one.rule, one.missing) == (planted.rule, planted.missing)]
    shutil.copytree(ROOT / "mangacache", folder / "mangacache", ignore=shutil.ignore_patterns("__pycache__"))
    path = folder / "mangacache" / mutant.file
    path.write_text(mutant.applied(path.read_text(encoding="utf-8")), encoding="utf-8")
    return folder
