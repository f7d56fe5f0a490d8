"""The page on the simulator is right: its example runs, and what it names exists."""

from __future__ import annotations

import re
from pathlib import Path

from mangacache.testing import simulation
from mangacache.testing.simulation.__main__ import _arguments

PAGE = (Path(__file__).parents[2] / "docs" / "simulation.md").read_text(encoding="utf-8")


def test_the_example_runs():
    example = re.search(r"<!-- example -->\n```python\n(.*?)```", PAGE, re.DOTALL).group(1)
    exec(compile(example, "docs/simulation.md", "exec"), {})  # noqa: S102 - our own page


def test_the_commands_are_understood():
    commands = re.findall(r"python -m mangacache\.testing\.simulation((?: --\w+(?: \d+)?)+)", PAGE)
    assert len(commands) >= 3
    for words in commands:
        _arguments(words.split())


def test_what_the_room_offers_is_there():
    assert all(hasattr(simulation, name) for name in simulation.__all__)
    assert sorted(simulation.__all__) == simulation.__all__
