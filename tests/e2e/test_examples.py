"""The example bots, run as a reader would: processes that are typed into, on real servers and real workers."""

from __future__ import annotations

import asyncio
import importlib
import re
import sys
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from commands import clean_environ
from mangatest import HANG_GUARD_S
from workers import worker_process

from mangacache import Context, MangaCache, Meta, Settings, Summary, Turn, Version
from mangacache.client import WorkerClient

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"
PATIENT = {
    "MANGACACHE_CONNECT_TIMEOUT_S": "10",  # a machine that is busy with other tests is no outage
    "MANGACACHE_REDIS_TIMEOUT_S": "10",
    "MANGACACHE_LOOP_LAG_LIMIT_S": "60",
}


@pytest.fixture
def variables(mangacache, table, shared_valkey):
    """What a bot or a worker is told of a table of this test's own."""
    told = table | PATIENT | {"REDIS_ENDPOINT": f"redis://127.0.0.1:{shared_valkey}", "AWS_REGION": "us-east-1"}
    told["KEY_PREFIX"] = f"{told['SESSION_TABLE']}:"
    assert mangacache("tables", "create", **told).returncode == 0
    return told


@pytest.fixture
def example(monkeypatch):
    """Import an example as its own folder's module."""
    monkeypatch.syspath_prepend(str(EXAMPLES))
    yield importlib.import_module
    for name in ("manga_shop", "embedded_bot", "websocket_bot", "customer"):
        sys.modules.pop(name, None)


class Typed:
    """A program that is typed into."""

    def __init__(self, process):
        self.process = process

    async def line(self):
        async with asyncio.timeout(HANG_GUARD_S):
            line = (await self.process.stdout.readline()).decode()
        assert line, (await self.process.stderr.read()).decode()
        return line.rstrip("\n")

    async def say(self, text):
        self.process.stdin.write(f"{text}\n".encode())
        await self.process.stdin.drain()
        return await self.line()

    async def leave(self):
        """Type no more, and return what it still says."""
        async with asyncio.timeout(HANG_GUARD_S):
            rest, complaint = await self.process.communicate(b"")
        assert (self.process.returncode, complaint.decode()) == (0, "")
        return rest.decode().splitlines()


@asynccontextmanager
async def running(program, *arguments, variables):
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-W", "error", str(EXAMPLES / program), *arguments),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=clean_environ(**variables),
    )
    try:
        yield Typed(process)
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def test_the_embedded_bot_answers_by_what_was_said_before_and_knows_it_when_it_is_started_again(variables):
    async with running("embedded_bot.py", "s-1", "c-1", variables=variables) as bot:
        assert (await bot.say("Hello")).startswith("Welcome to the manga shop!")
        assert await bot.say("Is Berserk in stock?") == "Berserk is here: 7 copies, up to volume 42."
        assert await bot.say("How much is it?") == "Each volume of Berserk is 14.99."
        assert await bot.say("Anything similar?") == "Who reads Berserk often takes Vagabond next."
        assert await bot.leave() == ["Trending: Berserk"]
    async with running("embedded_bot.py", "s-1", "c-1", variables=variables) as bot:
        assert (await bot.say("Hello")).startswith("Welcome back! Last time we spoke of Vagabond.")
        await bot.leave()
    async with MangaCache.open(Settings.from_env(variables)) as cache:
        context = await cache.session("s-1").context(turns=32)
    assert [turn.role for turn in context.turns] == ["user", "assistant"] * 5
    assert context.summary.text == "Talked about Berserk; asked for stock, price, suggestion."
    assert context.summary.upto == 8


async def test_a_message_that_is_delivered_twice_is_answered_twice_and_stored_once(variables, example):
    async with MangaCache.open(Settings.from_env(variables)) as cache:
        bot = example("embedded_bot").Bot(cache)
        for _ in range(2):
            await bot.answer("s-1", "c-1", "Is Vagabond available?", message_id="m-1")
        context = await cache.session("s-1").context()
    assert [turn.turn_id for turn in context.turns] == ["m-1", "m-1/reply"]


async def test_a_customer_who_types_too_fast_is_told_so_and_nothing_is_stored(variables, example):
    settings = Settings.from_env(variables | {"RATE_LIMITS": "messages=2/60"})
    async with MangaCache.open(settings) as cache:
        bot = example("embedded_bot").Bot(cache)
        said = [await bot.answer("s-1", "c-1", "Hi", message_id=f"m-{number}") for number in range(3)]
        context = await cache.session("s-1").context()
    assert "You type faster than I can read" in said[2]
    assert len(context.turns) == 4


async def test_another_customer_gets_nothing_of_a_session(variables, example):
    async with MangaCache.open(Settings.from_env(variables)) as cache:
        bot = example("embedded_bot").Bot(cache)
        await bot.answer("s-1", "c-1", "Is Vagabond available?", message_id="m-1")
        with pytest.raises(Exception, match="customer"):
            await bot.answer("s-1", "c-2", "How much is it?", message_id="m-2")


async def test_websocket_bots_answer_each_message_once_and_go_on_when_a_worker_leaves(variables):
    """Two bots serve the session, by mistake, and the customer is at yet another worker than one of them."""
    async with worker_process(variables) as first, worker_process(variables) as second:
        one_way, other_way = f"{first.public},{second.public}", f"{second.public},{first.public}"
        async with (
            running("websocket_bot.py", one_way, "s-1", variables=variables) as bot,
            running("websocket_bot.py", other_way, "s-1", variables=variables) as again,
            running("customer.py", other_way, "s-1", "c-1", variables=variables) as customer,
        ):
            assert [await bot.line(), await again.line()] == ["serving s-1"] * 2
            assert (await customer.say("Hello")).startswith("Welcome to the manga shop!")
            assert (await customer.say("Is Yotsuba there?")).startswith("Yotsuba&! is here: 12 copies")
            await first.leave()
            assert await customer.say("How much is it?") == "Each volume of Yotsuba&! is 12.99."
            assert await customer.leave() == []
        async with WorkerClient.open([second.public]) as client:
            context = await client.session("s-1").context(turns=32)
    assert [turn.role for turn in context.turns] == ["user", "assistant"] * 3


def said(*texts, summary=None):
    turns = tuple(Turn(number, f"id-{number}", "user", text, "") for number, text in enumerate(texts, start=1))
    kept = Summary(3, summary, "") if summary is not None else None
    return Context("s", Meta("c", "active", "", "", len(turns)), turns, kept, Version(1, len(turns), 1), "memory")


@pytest.mark.parametrize(
    ("text", "context", "answer"),
    [
        ("Hi", said(), "Welcome to the manga shop!"),
        ("Hi", said(summary="Talked about Berserk; asked for price."), "Welcome back! Last time we spoke of Berserk."),
        ("What does Vagabond cost?", said(), "Each volume of Vagabond is 13.99."),
        ("what does it cost?", said("Have you got Yotsuba&!?"), "Each volume of Yotsuba&! is 12.99."),
        ("how much?", said("berserk", "and a silent voice"), "Each volume of A Silent Voice is 11.99."),
        ("Do you have A Silent Voice?", said(), "A Silent Voice is sold out"),
        ("Where is my parcel?", said("berserk"), "Parcels leave every evening."),
        ("thanks!", said("berserk"), "You are welcome."),
        ("this and that", said(), "I know Berserk"),
    ],
)
def test_the_assistant_answers_by_keywords_and_by_what_was_said_before(example, text, context, answer):
    assert example("manga_shop").reply(text, context).text.startswith(answer)


def test_the_page_names_the_programs_that_are_there():
    page = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    assert set(re.findall(r"docs/examples/(\w+\.py)", page)) <= {path.name for path in EXAMPLES.glob("*.py")}
    assert {name for name in re.findall(r"\]\(([\w.]+)\)", page) if not (EXAMPLES / name).is_file()} == set()
