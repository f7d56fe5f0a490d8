"""README.md is true: its example runs as it stands, and what it names is there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


SAY = {
    "s-1": ["1 user Is Berserk 1 in stock?", "stored once: True True"],
    "s-2": [
        "push to worker-3",
        "images: True 3 redis",
        "online: 1",
        "first: ['berserk-1']",
        "turn 1 is there",
        "summarised under fence 1",
    ],
}
EXAMPLES = re.findall(r"^```python\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("session", SAY)
def test_an_example_runs_as_it_stands(real_world, shared_valkey, tmp_path, session):
    (example,) = [each for each in EXAMPLES if f'cache.session("{session}"' in each]
    program = tmp_path / "bot.py"
    program.write_text(example, encoding="utf-8")
    variables = {
        "SESSION_TABLE": real_world.settings.table_name,
        "AWS_ENDPOINT_URL_DYNAMODB": real_world.settings.dynamodb_endpoint,
        "MANGACACHE_CONNECT_TIMEOUT_S": "10",  # a machine that is busy with other tests is no outage
        "MANGACACHE_REDIS_TIMEOUT_S": "10",
        "KEY_PREFIX": real_world.settings.table_name,
        "REDIS_ENDPOINT": f"redis://127.0.0.1:{shared_valkey}" if session != "s-1" else "",
    }
    ran = subprocess.run(
        [sys.executable, "-W", "error", str(program)],
        env=os.environ | variables,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ran.stderr == ""
    assert ran.stdout.splitlines() == SAY[session]


def test_each_example_is_run():
    assert len(EXAMPLES) == len(SAY)


def test_the_commands_it_names_are_in_the_makefile():
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    assert set(re.findall(r"(?:`|^    )make ([a-z]+)", README, re.MULTILINE)) <= targets


def test_the_pages_it_links_to_are_there():
    pages = re.findall(r"\]\((?!https?:)([^)#]+)\)", README)
    assert pages
    assert [page for page in pages if not (ROOT / page).is_file()] == []


def test_ci_runs_what_the_readme_says():
    lines = (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()
    assert [line for line in lines if line.startswith("make ")] == ["make check", "make test"]
