"""Commands to run, servers they start, tables and files they work on."""

from __future__ import annotations

import json
import os
import subprocess
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import pytest
from commands import PROGRAM, Local, clean_environ, variables_for
from mangatest import HANG_GUARD_S

from mangacache.cli import main

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path


@pytest.fixture
def local() -> Iterator[Callable[..., Local]]:
    """Start `mangacache local`; whatever a test leaves running is ended."""
    started: list[Local] = []

    def start(*arguments: str, **options: Any) -> Local:
        started.append(Local(*arguments, **options))
        return started[-1]

    yield start
    for one in started:
        one.end()


@pytest.fixture
def mangacache(capsys: pytest.CaptureFixture[str]) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run the command to its end, in this process: an exception that it does not map is the test's to report."""

    def run(*arguments: object, **variables: str) -> subprocess.CompletedProcess[str]:
        capsys.readouterr()
        with patch.dict(os.environ, clean_environ(**variables), clear=True):
            try:
                status = main(list(map(str, arguments)))
            except SystemExit as end:  # argparse's
                status = int(end.code or 0)
        return subprocess.CompletedProcess(arguments, status, *capsys.readouterr())

    return run


@pytest.fixture
def process() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run the command to its end, as a process."""

    def run(*arguments: object, program: Sequence[str] = PROGRAM, **variables: str) -> Any:
        return subprocess.run(
            [*program, *map(str, arguments)],
            capture_output=True,
            text=True,
            env=clean_environ(**variables),
            timeout=HANG_GUARD_S,
            check=False,
        )

    return run


@pytest.fixture
def table(dynoxide: str) -> dict[str, str]:
    """The variables that name a table of this test's own, not made yet."""
    return variables_for(dynoxide)


@pytest.fixture
def chats(tmp_path: Path) -> Callable[..., Path]:
    """Write a file of chats: so many conversations of so many messages, each a user's turn and a reply."""

    def write(conversations: int, *, messages: int = 3, name: str = "chats.jsonl", at: bool = True) -> Path:
        path = tmp_path / name
        lines = []
        for i in range(conversations):
            said = [
                {"role": role, "content": f"{role} {i} {j}", "at": 5 * j if at else None}
                for j in range(messages)
                for role in ("user", "assistant")
            ]
            lines.append(json.dumps({"session_id": f"s-{i}", "customer_id": f"c-{i % 7}", "turns": said}))
        path.write_text("\n".join(lines) + "\n")
        return path

    return write
