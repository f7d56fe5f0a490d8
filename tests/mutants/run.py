"""Plants mutants of the context protocol and shows which test catches each: `make mutants`.

Each mutant is planted in a copy of the package, never in the checkout, and the tests of its rule are run on the copy.
First they are run on a copy without any mutant: a test that fails there would catch everything.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import shutil
import signal
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from mutants import MUTANTS

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "mutants.md"
END_WITHIN_S = 240
_TABLE = "<!-- the table of `make mutants ARGS=--page` -->\n"
_END = "<!-- its end -->\n"
_LEFT_OUT = shutil.ignore_patterns(".hypothesis", ".pytest_cache")
_FAILED = re.compile(r"^(?:FAILED|ERROR) (\S+?::)?(\S+)", re.MULTILINE)


@dataclass(frozen=True)
class Outcome:
    """How a run of tests ended.

    Attributes:
        passed: all of them.
        failed: the first that did not; `hang` where the run did not end.
        tests: how many were run.
        said: the end of what pytest printed.
    """

    passed: bool
    failed: str
    tests: int
    seconds: float
    said: str


def planted(folder, mutant, *, source=ROOT):
    """Copy what the tests need into a folder, with a mutant in it; None is none."""
    for name in ("mangacache", "tests", "pyproject.toml"):
        if (source / name).is_dir():
            shutil.copytree(source / name, folder / name, ignore=_LEFT_OUT)
        else:
            shutil.copy2(source / name, folder / name)
    if mutant is not None:
        path = folder / "mangacache" / mutant.file
        path.write_text(mutant.applied(path.read_text(encoding="utf-8")), encoding="utf-8")


async def tried(mutant, tests, *, source=ROOT):
    """Run tests on a copy with a mutant in it, until the first one fails."""
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="mangacache-mutant-", ignore_cleanup_errors=True) as folder:
        planted(Path(folder), mutant, source=source)
        outcome = Outcome(passed=True, failed="", tests=0, seconds=0.0, said="")
        for path, chosen in tests:
            outcome = await _pytest(Path(folder), path, chosen, before=outcome.tests)
            if not outcome.passed:
                break
        return Outcome(outcome.passed, outcome.failed, outcome.tests, time.monotonic() - started, outcome.said)


async def _pytest(folder, path, chosen, *, before):
    command = [sys.executable, "-m", "pytest", path, "-x", "-q", "--tb=short", "-p", "no:cacheprovider"]
    process = await asyncio.create_subprocess_exec(
        *command,
        *(("-k", chosen) if chosen else ()),
        cwd=folder,  # first on the path of modules, before the checkout
        env={**os.environ, "MANGACACHE_TEST_GUARD_S": "10", "PYTHONDONTWRITEBYTECODE": "1"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        async with asyncio.timeout(END_WITHIN_S):
            printed, _ = await process.communicate()
    except TimeoutError:
        return Outcome(passed=False, failed=f"hang of {path}", tests=before, seconds=0.0, said="")
    finally:
        if process.returncode is None:
            os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
    said = printed.decode(errors="replace")
    run = before + sum(int(count) for count in re.findall(r"(\d+) (?:passed|failed|error)", said))
    failure = _FAILED.search(said)
    if process.returncode not in (0, 1):  # neither all passed nor some failed: what was asked for could not be run
        raise RuntimeError(f"pytest ended with status {process.returncode} on {path} -k {chosen!r}:\n{said[-3000:]}")
    failed = failure[2] if failure else ""
    return Outcome(process.returncode == 0, failed, run, 0.0, said[-3000:])


def _union(mutants):
    """Return the tests of all mutants, each file's once."""
    chosen = {}
    for path, names in (tests for mutant in mutants for tests in mutant.tests):
        chosen.setdefault(path, []).append(names)
    return [(path, " or ".join(dict.fromkeys(names))) for path, names in chosen.items()]


async def run(mutants, *, jobs, source):
    """Yield each mutant with the outcome of its tests, in their order, several at once."""
    room = asyncio.Semaphore(jobs)

    async def one(mutant):
        async with room:
            return mutant, await tried(mutant, mutant.tests, source=source)

    async with asyncio.TaskGroup() as group:
        for task in [group.create_task(one(mutant)) for mutant in mutants]:
            yield await task


def _line(mutant, outcome):
    fate = f"caught by {outcome.failed}" if not outcome.passed else "SURVIVED"
    return f"{mutant.rule:<4} without {mutant.missing:<62} {outcome.tests:>3} tests {outcome.seconds:6.1f} s  {fate}"


def _report(mutant, outcome):
    return {
        "rule": mutant.rule,
        "missing": mutant.missing,
        "file": mutant.file,
        "tests": [f"{path} -k {names!r}" if names else path for path, names in mutant.tests],
        "caught": not outcome.passed,
        "by": outcome.failed,
        "tests_run": outcome.tests,
        "seconds": round(outcome.seconds, 2),
    }


async def main(arguments):
    """Plant what is chosen in copies of the package as it is now, whatever is edited meanwhile."""
    with tempfile.TemporaryDirectory(prefix="mangacache-mutants-") as source:
        planted(Path(source), None)
        return await _all(arguments, Path(source))


async def _all(arguments, source):
    chosen = [
        mutant
        for mutant in MUTANTS
        if (mutant.quick or not arguments.quick) and (not arguments.rule or mutant.rule in arguments.rule)
    ]
    started = time.monotonic()
    control = await tried(None, _union(chosen), source=source)
    if not control.passed:
        print(f"Without any mutant {control.failed} fails: nothing is shown.\n{control.said}")
        return 2
    print(f"Without any mutant {control.tests} tests pass in {control.seconds:.1f} s.", flush=True)
    reports = []
    async for mutant, outcome in run(chosen, jobs=arguments.jobs, source=source):
        print(_line(mutant, outcome), flush=True)
        reports.append(_report(mutant, outcome))
    survivors = [report for report in reports if not report["caught"]]
    seconds = time.monotonic() - started
    print(f"{len(reports) - len(survivors)} of {len(reports)} mutants caught in {seconds:.0f} s.")
    if arguments.page:
        _page(reports)
    if arguments.json:
        result = {"caught": len(reports) - len(survivors), "planted": len(reports), "seconds": round(seconds, 1)}
        _write(arguments.json, {**result, "mutants": reports})
    return 1 if survivors or not reports else 0


def _write(path, result):
    Path(path).write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _page(reports):
    """Write the table of the documentation anew, in the order of the list of mutants."""
    text = PAGE.read_text(encoding="utf-8")
    head, _, rest = text.partition(_TABLE)
    _, _, tail = rest.partition(_END)
    places = {(mutant.rule, mutant.missing): place for place, mutant in enumerate(MUTANTS)}
    rows = ["| rule | without | where | caught by |", "|---|---|---|---|"]
    for report in sorted(reports, key=lambda report: places[report["rule"], report["missing"]]):
        by = f"`{report['by']}`" if report["caught"] else "**nothing**"
        rows.append(f"| {report['rule']} | {report['missing']} | `{report['file']}` | {by} |")
    PAGE.write_text("".join([head, _TABLE, "\n", "\n".join(rows), "\n", _END, tail]), encoding="utf-8")


def _arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a few mutants only, at most a minute")
    parser.add_argument("--json", metavar="OUT", help="write the table there as well")
    parser.add_argument("--page", action="store_true", help="write the table in docs/mutants.md anew")
    parser.add_argument("--rule", action="append", metavar="R1", help="only the mutants of this rule; repeatable")
    parser.add_argument("--jobs", type=int, default=min(4, os.cpu_count() or 1), help="mutants at once")
    arguments = parser.parse_args()
    if arguments.page and (arguments.quick or arguments.rule):
        parser.error("the page shows all of them: leave --quick and --rule out")
    return arguments


if __name__ == "__main__":
    sys.exit(asyncio.run(main(_arguments())))
