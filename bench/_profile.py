"""Where the CPU of a client goes, by package.

cProfile sees functions; what is wanted is whom to blame. So time in built-in functions and in the standard library
goes to the package that called them, in the shares in which it called them; asyncio and json stay names of their own.
Profiling slows Python down more than C, so shares of packages are good to a few percent, not better; what uvloop and
the kernel do between callbacks is not seen.
"""

from __future__ import annotations

import cProfile
import sysconfig
import time
from collections import defaultdict
from pathlib import Path
from types import CodeType
from typing import TYPE_CHECKING, Any, Final

import mangacache

if TYPE_CHECKING:
    from collections.abc import Awaitable, Mapping

_PACKAGE: Final = str(Path(mangacache.__file__).parent)
_BENCH: Final = str(Path(__file__).resolve().parent)
_SITE: Final = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
_GROUPS: Final = {
    "botocore, aiobotocore": {"botocore", "aiobotocore", "boto3", "aioboto3", "wrapt", "dateutil", "urllib3"},
    "aiohttp": {"aiohttp", "yarl", "multidict", "propcache", "frozenlist", "aiosignal"},
    "redis, hiredis": {"redis", "hiredis"},
    "msgspec": {"msgspec"},
    "prometheus_client": {"prometheus_client"},
}  # fmt: skip
_STANDARD: Final = ""
_OTHER: Final = "other"
_ROUNDS: Final = 12
_SHOWN: Final = 25
_WAITS: Final = ("select.epoll", "select.kqueue", "select.select")


async def profiled(work: Awaitable[Mapping[str, Any]]) -> dict[str, Any]:
    """Run `work` under the profiler and return shares of its time in Python by package, and its largest functions."""
    profile = cProfile.Profile()
    cpu_s = time.process_time()
    profile.enable()
    try:
        result = await work
    finally:
        profile.disable()
    cpu_s = time.process_time() - cpu_s
    return {"messages": result["messages"], **shares_of(profile), "process_cpu_s": round(cpu_s, 3)}


def shares_of(profile: cProfile.Profile) -> dict[str, Any]:
    """Return what a profile shows: shares of the time in Python by package, and the largest functions."""
    entries = profile.getstats()
    by_group = _by_group(entries)
    total_s = sum(by_group.values())
    return {
        "percent": {name: round(100 * spent / total_s, 1) for name, spent in sorted(by_group.items(), key=_largest)},
        "profiled_s": round(total_s, 3),
        "largest_functions": _largest_functions(entries, total_s),
    }


def _by_group(entries: Any) -> dict[str, float]:
    """Return seconds by group, the standard library's and the built-in ones' charged to their callers."""
    callers: dict[Any, dict[Any, float]] = defaultdict(lambda: defaultdict(float))
    for entry in entries:
        for call in entry.calls or ():
            callers[call.code][entry.code] += call.totaltime
    blame = {entry.code: {_group(entry.code): 1.0} for entry in entries}
    passed_on = [code for code, groups in blame.items() if _STANDARD in groups]
    for _ in range(_ROUNDS):  # as deep as calls within the standard library are followed to their origin
        for code in passed_on:
            blame[code] = _from_callers(callers[code], blame)
    spent: dict[str, float] = defaultdict(float)
    for entry in entries:
        if not _is_wait(entry.code):
            for group, share in blame[entry.code].items():
                spent[group or _OTHER] += share * entry.inlinetime
    return dict(spent)


def _from_callers(callers: Mapping[Any, float], blame: Mapping[Any, Mapping[str, float]]) -> dict[str, float]:
    total = sum(callers.values())
    if not total:
        return {_OTHER: 1.0}
    shares: dict[str, float] = defaultdict(float)
    for caller, weight in callers.items():
        for group, share in blame[caller].items():
            shares[group] += share * weight / total
    return dict(shares)


def _group(code: Any) -> str:
    """Return the group a function belongs to; "" for what is charged to its callers."""
    if not isinstance(code, CodeType):
        return next((name for name in ("msgspec", "hiredis") if name in code), _STANDARD).replace(
            "hiredis", "redis, hiredis"
        )
    path = code.co_filename
    if path.startswith(_PACKAGE):
        return "mangacache"
    if path.startswith(_BENCH):
        return "the bench itself"
    for site in _SITE:
        if path.startswith(site):
            package = Path(path).relative_to(site).parts[0]
            return next((name for name, packages in _GROUPS.items() if package in packages), _OTHER)
    parts = Path(path).parts
    return next((name for name in ("asyncio", "json") if name in parts), _STANDARD)


def _is_wait(code: Any) -> bool:
    return isinstance(code, str) and any(name in code for name in _WAITS)


def _largest_functions(entries: Any, total_s: float) -> list[str]:
    found = sorted((entry for entry in entries if not _is_wait(entry.code)), key=lambda entry: -entry.inlinetime)
    return [f"{100 * entry.inlinetime / total_s:.1f} % {_named(entry.code)}" for entry in found[:_SHOWN]]


def _named(code: Any) -> str:
    if not isinstance(code, CodeType):
        return str(code).strip("<>")
    path = code.co_filename
    for folder in (*_SITE, str(Path(_PACKAGE).parent)):
        path = path.removeprefix(f"{folder}/")
    return f"{'/'.join(Path(path).parts[-3:])}:{code.co_name}"


def _largest(pair: tuple[str, float]) -> float:
    return -pair[1]
