"""What the process has: credentials, and what the kernel and its container let it use."""

from __future__ import annotations

import os
import resource
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import aioboto3
from aiobotocore.session import get_session
from botocore.exceptions import BotoCoreError

from mangacache.diagnosis.facts import CredentialFacts, MachineFacts
from mangacache.sessions.memory import ProcessMemory

if TYPE_CHECKING:
    from mangacache.clock import Clock
    from mangacache.settings import Settings

_PROC: Final = Path("/proc")
_CGROUP: Final = Path("/sys/fs/cgroup")
_MODULES: Final = ("uvloop", "hiredis", "amazondax", "rich")


async def look_at_credentials(settings: Settings, *, clock: Clock) -> CredentialFacts:
    """Return where the credentials come from, as the store looks for them."""
    try:
        session = aioboto3.Session(botocore_session=get_session(), region_name=settings.region)
        credentials: Any = await session.get_credentials()
        if credentials is None:
            return CredentialFacts()
        await credentials.get_frozen_credentials()
    except BotoCoreError as error:
        return CredentialFacts(problem=f"{type(error).__name__}: {error}")
    except Exception as error:  # noqa: BLE001 - a provider may raise anything, and its own words may quote a secret
        return CredentialFacts(problem=f"the AWS credentials could not be had ({type(error).__name__})")
    end = getattr(credentials, "_expiry_time", None)  # botocore shows it nowhere else
    return CredentialFacts(
        method=str(credentials.method or "unknown"),
        ends_in_s=None if end is None else end.timestamp() - clock.time_s(),
    )


async def look_at_machine(*, proc: Path = _PROC, cgroup: Path = _CGROUP) -> MachineFacts:
    """Return what this process may use; that of another machine's process is seen there alone."""
    files, files_hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    group = _own_group(proc, cgroup)
    return MachineFacts(
        files=_bounded(files),
        files_hard=_bounded(files_hard),
        threads=_least(_bounded(resource.getrlimit(resource.RLIMIT_NPROC)[0]), _pids(group)),
        memory_bytes=ProcessMemory(proc=proc, cgroup=cgroup).limit_bytes(),
        cpus=_cpus(group),
        modules=frozenset(name for name in _MODULES if find_spec(name) is not None),
    )


def _bounded(limit: int) -> int:
    return 0 if limit == resource.RLIM_INFINITY else limit


def _least(*limits: int) -> int:
    return min((limit for limit in limits if limit), default=0)


def _own_group(proc: Path, cgroup: Path) -> Path:
    """Return the folder of the process's cgroup (version 2); in a container it is mounted as the root."""
    try:
        for line in (proc / "self" / "cgroup").read_text(encoding="ascii").splitlines():
            if line.startswith("0::"):
                own = cgroup / line.removeprefix("0::").lstrip("/")
                return own if own.is_dir() else cgroup
    except OSError:
        pass
    return cgroup


def _pids(group: Path) -> int:
    try:
        return int((group / "pids.max").read_text(encoding="ascii"))
    except (OSError, ValueError):  # not there, or `max`
        return 0


def _cpus(group: Path) -> float:
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = (group / "cpu.max").read_text(encoding="ascii").split()
        return min(float(usable), int(quota) / int(period))
    except (OSError, ValueError):  # not there, or `max`
        return float(usable)
