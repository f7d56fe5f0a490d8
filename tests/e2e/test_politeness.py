"""A guest in somebody else's process: what was there before it was opened is there after it was closed."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap

import pytest
from commands import clean_environ

PREAMBLE = """
    import asyncio, gc, json, logging, os, signal, sys, threading

    async def use(settings):
        from mangacache import MangaCache

        async with MangaCache.open(settings) as cache:
            session = cache.session("s-1", customer_id="c-1")
            await session.append(role="user", content="hello", turn_id="m-1")
            return (await session.context()).turns[0].content

    def settings():
        from mangacache import Settings

        return Settings.from_env()
"""


@pytest.fixture
async def made(real_world):
    """The variables that name a table that stands."""
    return {
        "AWS_ENDPOINT_URL_DYNAMODB": real_world.settings.dynamodb_endpoint,
        "AWS_ACCESS_KEY_ID": "local",
        "AWS_SECRET_ACCESS_KEY": "local",
        "SESSION_TABLE": real_world.settings.table_name,
    }


@pytest.fixture
def program(made):
    """Run a program of its own, every warning an error; return what it printed, as JSON, having said nothing else."""

    def run(source):
        ended = subprocess.run(
            [sys.executable, "-W", "error", "-c", textwrap.dedent(PREAMBLE) + textwrap.dedent(source)],
            capture_output=True,
            text=True,
            env=clean_environ(**made),
            check=False,
        )
        assert ended.stderr == ""
        return json.loads(ended.stdout)

    return run


def test_logging_signals_and_the_loop_policy_are_as_they_were(program):
    said = program("""
        def globals_of_the_process():
            root = logging.getLogger()
            return {
                "root": [root.level, [repr(handler) for handler in root.handlers], root.disabled],
                "disabled": logging.root.manager.disable,
                "class": repr(logging.getLoggerClass()),
                "factory": repr(logging.getLogRecordFactory()),
                "levels": {n: l.level for n, l in list(logging.root.manager.loggerDict.items())
                           if isinstance(l, logging.Logger) and l.level},
                "signals": {s.name: id(signal.getsignal(s)) for s in signal.valid_signals() if hasattr(s, "name")},
                "wakeup": signal.set_wakeup_fd(-1),
                "policy": repr(type(asyncio.get_event_loop_policy())),
                "excepthook": [sys.excepthook is sys.__excepthook__, sys.unraisablehook is sys.__unraisablehook__],
                "gc": [gc.isenabled(), gc.get_threshold(), gc.get_freeze_count()],
                    "environ": dict(os.environ),
                "recursion": sys.getrecursionlimit(),
            }

        async def main():
            before = globals_of_the_process()
            content = await use(settings())
            return content, before, globals_of_the_process()

        imported_before = globals_of_the_process()
        import mangacache
        imported_after = globals_of_the_process()
        content, before, after = asyncio.run(main())
        import structlog
        print(json.dumps([content, imported_before, imported_after, before, after, structlog.is_configured()]))
    """)
    content, imported_before, imported_after, before, after, configured = said
    assert content == "hello"
    assert imported_after == imported_before
    assert after == before
    assert configured is False


def test_nothing_is_left_after_it_is_closed_and_the_process_ends_by_itself(program):
    said = program("""
        async def main():
            before = {task for task in asyncio.all_tasks()}
            await use(settings())
            return len(asyncio.all_tasks() - before), [t.name for t in threading.enumerate() if not t.daemon]

        tasks, threads_inside = asyncio.run(main())
        print(json.dumps([tasks, threads_inside, [t.name for t in threading.enumerate()]]))
    """)
    assert said == [0, ["MainThread"], ["MainThread"]]


def test_opening_and_closing_fifty_times_leaks_no_task_file_descriptor_or_warning(program):
    said = program("""
        async def main():
            given = settings()
            counts = []
            for _ in range(50):
                await use(given)
                await asyncio.sleep(0)
                counts.append((len(os.listdir("/dev/fd")), len(asyncio.all_tasks()), threading.active_count()))
            return counts

        print(json.dumps(asyncio.run(main())))
    """)
    assert len(said) == 50
    assert {tuple(count) for count in said[2:]} == {tuple(said[2])}


def test_a_fork_that_uses_its_parents_instance_is_told_so(program):
    said = program("""
        import mangacache

        async def main():
            async with mangacache.MangaCache.open(settings()) as cache:
                session = cache.session("s-1")
                await session.append(role="user", content="hello", turn_id="m-1")
                told, tell = os.pipe()
                child = os.fork()
                if child == 0:
                    complaints = []
                    for call in (
                        lambda: cache.session("s-2"),
                        lambda: cache.customer("c-1"),
                        lambda: session.append(role="user", content="again").send(None),
                        lambda: session.context().send(None),
                        lambda: session.delete().send(None),
                        lambda: cache.forget_customer("c-1").send(None),
                    ):
                        try:
                            call()
                        except mangacache.Closed as error:
                            complaints.append(str(error))
                    os.write(tell, json.dumps(complaints).encode())
                    os._exit(0)
                os.close(tell)
                os.waitpid(child, 0)
                with os.fdopen(told) as answer:
                    complaints = json.loads(answer.read())
                again = await session.append(role="user", content="and the parent goes on", turn_id="m-2")
                return complaints, again.number, os.getpid(), child

        print(json.dumps(asyncio.run(main())))
    """)
    complaints, number, parent, child = said
    assert len(complaints) == 6
    (complaint,) = set(complaints)
    assert complaint == (
        f"this MangaCache was opened in process {parent} and is used in {child}, a fork of it: "
        "open one in each process, after the fork"
    )
    assert number == 2


def test_an_instance_and_its_handles_belong_to_one_event_loop(program):
    said = program("""
        import mangacache

        async def main():
            async with mangacache.MangaCache.open(settings()) as cache:
                session, customer = cache.session("s-1"), cache.customer("c-1")

                async def elsewhere():
                    complaints = []
                    calls = [lambda: session.append(role="user", content="x"), lambda: session.context(),
                             lambda: session.history(), lambda: customer.sessions()]
                    for call in calls:
                        try:
                            await call()
                        except mangacache.Closed as error:
                            complaints.append(str(error))
                    try:
                        cache.session("s-2")
                    except mangacache.Closed as error:
                        complaints.append(str(error))
                    return complaints

                return await asyncio.to_thread(lambda: asyncio.run(elsewhere()))

        print(json.dumps(asyncio.run(main())))
    """)
    assert said == ["this MangaCache belongs to another event loop: open one in each loop"] * 5


async def test_two_instances_in_one_process_count_for_themselves(real_world):
    import prometheus_client

    async with real_world.cache() as busy, real_world.cache() as idle:
        await busy.session("s-1").append(role="user", content="hello")
        counted = [
            one.telemetry.value("mangacache_dynamodb_requests_total", operation="TransactWriteItems")
            for one in (busy, idle)
        ]
        assert busy.telemetry.registry is not idle.telemetry.registry
    assert counted == [1, 0]
    assert [m.name for m in prometheus_client.REGISTRY.collect() if m.name.startswith("mangacache")] == []


async def test_instances_do_not_see_each_others_end(real_world):
    async with real_world.cache() as outer:
        async with real_world.cache() as inner:
            await inner.session("s-1").append(role="user", content="hello", turn_id="m-1")
        done = await outer.session("s-1").append(role="user", content="still open", turn_id="m-2")
    assert done.number == 2
