"""`mangacache serve` as a process: what it says, its pages, its signals, and how it is gone in time whatever hangs."""

from __future__ import annotations

import json
import shlex
import signal
import sys
from typing import TYPE_CHECKING

import aiohttp
import pytest
from mangatest import LoopThread
from rolling import create_table
from workers import PROGRAM, eventually, worker_process

if TYPE_CHECKING:
    from collections.abc import Iterator

_ON_ASYNCIO = "import sys; sys.modules['uvloop'] = None; sys.argv[0] = 'mangacache'; from mangacache.cli import main"
ON_ASYNCIO = (sys.executable, "-W", "error", "-c", f"{_ON_ASYNCIO}; sys.exit(main())", "serve")
STUCK = """
import sys, time
from mangacache.worker import command, process

async def hang(*_):
    time.sleep(3600)

command.EXIT_BY_S = 0.5
process.Worker.leave = hang
from mangacache.cli import main
sys.exit(main(["serve"]))
"""
WRITING_NOWHERE = """
import errno, os, sys

def refuse(event, given):
    if event == "open":
        path, _, flags = given
        if isinstance(path, int) or path == os.devnull or not flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            return
    elif event not in {"os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.link", "os.symlink", "os.truncate"}:
        return
    os.write(2, f"writes: {event} {given}\\n".encode())
    raise OSError(errno.EROFS, os.strerror(errno.EROFS))

sys.addaudithook(refuse)
from mangacache.cli import main
sys.exit(main(["serve"]))
"""


@pytest.fixture
def variables(table, shared_valkey) -> Iterator[dict[str, str]]:
    """The environment of a worker with a table of its own, and a Redis."""
    endpoint = f"redis://127.0.0.1:{shared_valkey}"
    made = table | {"REDIS_ENDPOINT": endpoint, "KEY_PREFIX": f"{table['SESSION_TABLE']}:"}
    loop = LoopThread()
    try:
        loop.run(create_table(made))
    finally:
        loop.close()
    return made


async def _get(url):
    async with aiohttp.ClientSession() as client, client.get(url) as response:
        return response.status, await response.text()


async def test_a_worker_says_where_it_listens_and_leaves_with_0_when_told(variables):
    async with worker_process(variables) as worker:
        assert await _get(f"{worker.public}/healthz") == (200, '{"status": "alive"}')
        assert await _get(f"{worker.public}/readyz") == (200, '{"status": "ready"}')
        status, text = await _get(f"{worker.operator}/metrics")
        assert status == 200
        assert {"mangacache_sessions", "mangacache_gc_pause_seconds_bucket", "process_open_fds"} <= {
            line.partition("{")[0].partition(" ")[0] for line in text.splitlines()
        }
        assert json.loads((await _get(f"{worker.operator}/state"))[1])["status"] == "open"
        assert await _get(f"{worker.operator}/dead-letters") == (200, "[]")
        assert await worker.leave() == 0, worker.complaints
    assert worker.said[-1] == {"event": "left", "undone": []}
    events = [json.loads(line)["event"] for line in worker.complaints]  # each line of its log is JSON
    course = ["files_limit", "warmed_up", "leaving", "drained", "left"]
    assert [event for event in events if event in course] == course


async def test_the_public_port_shows_nothing_of_the_operator_s(variables):
    async with worker_process(variables) as worker:
        for path in ("metrics", "state", "dead-letters", "sessions/s"):
            assert (await _get(f"{worker.public}/{path}"))[0] == 404


async def test_sigint_is_the_same(variables):
    async with worker_process(variables) as worker:
        worker.signal(signal.SIGINT)
        assert await worker.ended() == 0, worker.complaints


@pytest.mark.parametrize("program", [PROGRAM, ON_ASYNCIO], ids=["uvloop", "asyncio"])
@pytest.mark.parametrize("again", [signal.SIGTERM, signal.SIGINT])
async def test_a_second_signal_ends_it_at_once(variables, program, again):
    async with worker_process(variables | {"MANGACACHE_WORKER_NOTICE_S": "15"}, program=program) as worker:
        worker.signal(signal.SIGTERM)
        await eventually(lambda: any('"leaving"' in line for line in worker.complaints))
        worker.signal(again)
        assert await worker.ended() == 128 + again
    assert worker.complaints[-1] == f"mangacache: {again.name} again: leaving at once\n"
    assert worker.said[-1]["event"] == "listening"


async def test_a_process_that_hangs_is_gone_in_time_and_shows_where_it_stood(variables):
    """Not even the interpreter may have to run for that: here it sleeps in the event loop."""
    async with worker_process(variables, program=(sys.executable, "-c", STUCK)) as worker:
        worker.signal(signal.SIGTERM)
        assert await worker.ended() == 1
    said = "".join(worker.complaints)
    assert "Timeout (0:00:00.500000)!" in said
    assert "in hang" in said


async def test_it_writes_no_file_so_that_nothing_need_be_writable(variables):
    """The task of `config/ecs` has a root that cannot be written to, and no folder besides."""
    nowhere = {"TMPDIR": "/nowhere", "HOME": "/nowhere", "PYTHONDONTWRITEBYTECODE": "1"}
    async with (
        worker_process(variables | nowhere, program=(sys.executable, "-c", WRITING_NOWHERE)) as worker,
        aiohttp.ClientSession(worker.public) as client,
    ):
        for content in ("hello", "é" * 100_000):
            async with client.post("/v1/sessions/s/turns", json={"role": "user", "content": content}) as response:
                assert response.status == 201
        async with client.get("/v1/sessions/s/context?consistency=strong") as response:
            assert len((await response.json())["turns"]) == 2
        assert (await _get(f"{worker.operator}/metrics"))[0] == 200
        assert await worker.leave() == 0, worker.complaints
    assert [line for line in worker.complaints if line.startswith("writes: ")] == []


async def test_what_refuses_to_write_would_see_a_file(variables):
    opens = WRITING_NOWHERE.replace("from mangacache", "import tempfile; tempfile.gettempdir(); from mangacache", 1)
    async with worker_process(variables, program=(sys.executable, "-c", opens), started=False) as worker:
        assert await worker.ended() == 1
    assert any(line.startswith("writes: open ") for line in worker.complaints)


async def test_as_many_files_are_open_as_may_be(variables):
    low = ("sh", "-c", f"ulimit -Sn 256; exec {shlex.join(PROGRAM)}")
    async with worker_process(variables, program=low) as worker:
        assert await worker.leave() == 0
    told = next(json.loads(line) for line in worker.complaints if '"files_limit"' in line)
    assert (told["before"], told["files"] > 256) == (256, True)


async def test_what_is_wrong_with_the_settings_is_one_complaint_and_status_2(variables):
    taken = variables | {"MANGACACHE_WORKER_PORT": "none"}
    async with worker_process(taken, started=False) as worker:
        assert await worker.ended() == 2
    assert worker.complaints[0].startswith("mangacache: ")
    assert not any("Traceback" in line for line in worker.complaints)
