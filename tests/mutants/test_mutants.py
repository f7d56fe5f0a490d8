"""The mutants fit the code, a few are planted in every run, and one that changes nothing is told from the others."""

from __future__ import annotations

import ast
import asyncio
import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(Path(__file__).parent))

from mutants import GET, MUTANTS, RULES, Mutant  # noqa: E402 - a script beside this file
from run import tried  # noqa: E402


def _name(mutant):
    return f"{mutant.rule} without {mutant.missing}"


@pytest.mark.parametrize("mutant", MUTANTS, ids=_name)
def test_a_mutant_fits_the_code_as_it_is(mutant):
    text = (ROOT / "mangacache" / mutant.file).read_text(encoding="utf-8")
    weakened = mutant.applied(text)
    assert weakened != text
    if mutant.file.endswith(".py"):
        ast.parse(weakened, mutant.file)


def test_a_mutant_whose_place_has_changed_says_so():
    with pytest.raises(ValueError, match="stands 0 times"):
        MUTANTS[0].applied("")


def test_each_mutant_names_the_tests_that_are_to_catch_it_and_nothing_else():
    for mutant in MUTANTS:
        for path, names in mutant.tests:
            assert (ROOT / path).exists(), mutant.missing
            assert names, mutant.missing


def test_no_two_mutants_are_the_same():
    assert len({_name(mutant) for mutant in MUTANTS}) == len(MUTANTS)


def test_each_rule_has_mutants():
    rules = {f"R{number}" for number in range(1, 12)} | {"4", "L", "E", "D", "A", "S"}
    assert {mutant.rule for mutant in MUTANTS} == rules


@pytest.mark.parametrize("mutant", MUTANTS, ids=_name)
def test_a_mutant_stands_in_the_documentation_as_caught(mutant):
    row = f"| {mutant.rule} | {mutant.missing} | `{mutant.file}` | `test_"
    assert row in (ROOT / "docs" / "mutants.md").read_text(encoding="utf-8"), "run `make mutants ARGS=--page`"


def test_the_quick_mutants_are_caught(tmp_path):
    command = [sys.executable, str(Path(__file__).with_name("run.py")), "--quick", "--json", str(tmp_path / "out.json")]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    result = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))
    assert result["caught"] == result["planted"] == sum(mutant.quick for mutant in MUTANTS)
    assert all(report["by"].startswith("test_") for report in result["mutants"])


def test_a_change_that_takes_nothing_away_survives():
    """Else whatever is planted would count as caught."""
    harmless = Mutant(
        "R10", "nothing", GET, (("local key = KEYS[1]", "local key = KEYS[1] "),), ((RULES, "r10_ and valkey"),)
    )
    outcome = asyncio.run(tried(harmless, harmless.tests))
    assert outcome.passed, outcome.said
    assert (outcome.tests, outcome.failed) == (2, "")
