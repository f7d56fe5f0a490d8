"""The command line as its users have it: a process of its own, its status, and what it says."""

from __future__ import annotations

import os
import shlex
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from uuid import uuid4

from mangatest import HANG_GUARD_S

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

PROGRAM = (sys.executable, "-W", "error", "-m", "mangacache.cli")
# What would reach the settings or AWS from whoever runs the tests.
_FOREIGN = ("AWS_", "SESSION_TABLE", "REDIS_", "DAX_", "DYNAMODB_", "MANGACACHE_", "KEY_PREFIX", "CUSTOMER_INDEX")


def clean_environ(**variables: str) -> dict[str, str]:
    """Return this process's environment without anything that the command would take for its own."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith(_FOREIGN)}
    if dynoxide := os.environ.get("MANGACACHE_DYNOXIDE"):
        environ["MANGACACHE_DYNOXIDE"] = dynoxide
    nowhere = {"AWS_EC2_METADATA_DISABLED": "true", "AWS_CONFIG_FILE": os.devnull}
    return environ | nowhere | {"AWS_SHARED_CREDENTIALS_FILE": os.devnull} | variables


def until(condition: Callable[[], Any], what: str) -> None:
    """Wait for a condition."""
    deadline = time.monotonic() + HANG_GUARD_S
    while not condition():
        assert time.monotonic() < deadline, f"still waiting: {what}"
        time.sleep(0.005)


def listens(port: int) -> bool:
    """Tell whether somebody listens on a loopback port."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def gone(pid: int) -> bool:
    """Tell whether a process has ended."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    stat = Path(f"/proc/{pid}/stat")  # ended, and not yet collected by whoever inherited it
    return stat.exists() and stat.read_text().rpartition(")")[2].split()[0] == "Z"


class Local:
    """`mangacache local`, up and running.

    Attributes:
        said: the lines it printed.
        variables: what it told to export.
    """

    def __init__(self, *arguments: str, program: Sequence[str] = (*PROGRAM, "local"), **variables: str) -> None:
        self.process = subprocess.Popen(
            [*program, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=clean_environ(**variables),
            start_new_session=True,
        )
        self.said: list[str] = []
        try:
            assert self.process.stdout is not None
            while "servers run" not in (self.said[-1] if self.said else ""):
                line = self.process.stdout.readline()
                assert line, f"it ended: {self.process.communicate()[1]}"
                self.said.append(line)
        except BaseException:
            self.end()
            raise
        exports = [shlex.split(line)[1] for line in self.said if line.startswith("export ")]
        self.variables = dict(line.split("=", 1) for line in exports)

    @property
    def dynamodb_port(self) -> int:
        return urlsplit(self.variables["AWS_ENDPOINT_URL_DYNAMODB"]).port or 0

    @property
    def redis_port(self) -> int:
        return urlsplit(self.variables["REDIS_ENDPOINT"]).port or 0

    def serves(self) -> bool:
        return listens(self.dynamodb_port) or listens(self.redis_port)

    def end(self, number: int = 9) -> tuple[int, str]:
        """Send a signal; return the status and what it said on its standard error."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        _, complaint = self.process.communicate(timeout=HANG_GUARD_S)
        return self.process.returncode, complaint


def variables_for(endpoint: str) -> dict[str, str]:
    """Return the variables that name a new table at an endpoint."""
    return {
        "AWS_ENDPOINT_URL_DYNAMODB": endpoint,
        "AWS_ACCESS_KEY_ID": "local",
        "AWS_SECRET_ACCESS_KEY": "local",
        "SESSION_TABLE": f"t-{uuid4().hex[:12]}",
    }


def one_line(complaint: str) -> str:
    """Return a complaint that is one line, of the command's own and no traceback."""
    lines = complaint.splitlines()
    assert len(lines) == 1, complaint
    assert lines[0].startswith("mangacache: "), complaint
    return lines[0].removeprefix("mangacache: ")
