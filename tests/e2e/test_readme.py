"""README.md is true: its example runs as it stands, and what it names is there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_example_runs_as_it_stands(real_world, tmp_path):
    (example,) = re.findall(r"^```python\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
    program = tmp_path / "bot.py"
    program.write_text(example, encoding="utf-8")
    variables = {
        "SESSION_TABLE": real_world.settings.table_name,
        "AWS_ENDPOINT_URL_DYNAMODB": real_world.settings.dynamodb_endpoint,
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
    assert ran.stdout.splitlines() == ["1 user Is Berserk 1 in stock?", "stored once: True True"]


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
