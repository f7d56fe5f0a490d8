"""What the model's tests share: where it lies, and the table of what was explored at the end of a run."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

EXPLORED = pytest.StashKey[list]()


def pytest_configure(config):
    config.stash[EXPLORED] = []


@pytest.fixture
def explored(request, record_property):
    """Put what a search found into the report of the run."""

    def record(name, states, result):
        record_property("states", states)
        request.config.stash[EXPLORED].append((name, states, result))

    return record


def pytest_terminal_summary(terminalreporter, config):
    lines = config.stash[EXPLORED]
    if not lines:
        return
    terminalreporter.section("the model")
    for name, states, result in lines:
        terminalreporter.line(f"{name:<76} {states:>11,} states  {result}")
    terminalreporter.line(f"{'all':<76} {sum(states for _, states, _ in lines):>11,} states")
