"""Runs one server, and ends it when the program that wanted it is gone, however it went.

Started as `python -I -S watchdog.py LIFELINE REPORT -- COMMAND...`; it imports nothing but the standard library. The
parent holds the other end of the pipe LIFELINE. When the parent dies, even by SIGKILL, the kernel closes that end, the
watchdog reads the end of the file, and the server is ended. (The kernel's own parent-death signal follows the thread
that forked, not the process; a server started from a thread would die with it. Here it is used one step further down,
where there is only one thread: should the watchdog be killed, its server goes too.)
"""

from __future__ import annotations

import ctypes
import os
import select
import signal
import sys
import time

GRACE_S = 2.0
PR_SET_PDEATHSIG = 1


def main(arguments: list[str]) -> int:
    """Run the command until it ends or the lifeline breaks; return its exit status, 128 + n for signal n."""
    lifeline, report = int(arguments[0]), int(arguments[1])
    command = arguments[3:]
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides the order
    woken, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    child = os.fork()
    if child == 0:
        _become(command)
    os.write(report, b"%d\n" % child)
    os.close(report)
    while True:
        ready, _, _ = select.select([lifeline, woken], [], [])
        status = _reaped(child, woken)
        if status is not None:
            return status
        if lifeline in ready:
            return _end(child, woken)


def _become(command: list[str]) -> None:
    """Be the server: in a group of its own, and not outliving the watchdog."""
    try:
        os.setpgid(0, 0)
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        if sys.platform == "linux":
            watchdog = os.getppid()
            ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() != watchdog or watchdog == 1:
                os._exit(1)
        os.execvp(command[0], command)  # noqa: S606 - the command is what this program is for
    except BaseException as error:  # noqa: BLE001 - a forked child must not run on into its parent's code
        os.write(2, f"{command[0]}: {error}\n".encode())
        os._exit(127)


def _reaped(child: int, woken: int) -> int | None:
    """Return the child's status if it has ended; it also wakes its parent when it is stopped and when it goes on."""
    if select.select([woken], [], [], 0)[0]:
        os.read(woken, 4096)
    pid, status = os.waitpid(child, os.WNOHANG)
    if pid == 0:
        return None
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


def _end(child: int, woken: int) -> int:
    """Ask the server to end, then make it."""
    os.kill(child, signal.SIGTERM)
    os.kill(child, signal.SIGCONT)  # it hears nothing while it is stopped
    deadline = time.monotonic() + GRACE_S
    while (left := deadline - time.monotonic()) > 0:
        select.select([woken], [], [], left)
        status = _reaped(child, woken)
        if status is not None:
            return status
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    return 128 - os.waitstatus_to_exitcode(status)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
