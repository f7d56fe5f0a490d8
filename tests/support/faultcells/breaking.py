"""What each fault does. Every part is noted with its beginning and its end; whatever it breaks it puts right again."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any

from redis.exceptions import RedisError

from mangacache.testing import Proxy
from mangacache.testing.points import KILLED

if TYPE_CHECKING:
    import random

    from faultcells.crowd import Crowd
    from faultcells.stage import Stage


class Breakage:
    """What a fault is given.

    Attributes:
        seconds: the unit of its length.
        noise: the cell's choices.
    """

    def __init__(self, stage: Stage, crowd: Crowd, noise: random.Random, seconds: float) -> None:
        self.stage = stage
        self.crowd = crowd
        self.noise = noise
        self.seconds = seconds

    @property
    def short(self) -> bool:
        return self.stage.form.name == "short"

    async def for_a_while(self, share: float = 1.0) -> None:
        """Let it last, by the seed from 80 % to 120 % of the share."""
        await asyncio.sleep(self.seconds * share * (0.8 + 0.4 * self.noise.random()))

    def worker(self) -> Any:
        return self.noise.choice(self.stage.workers)


async def killed(b: Breakage) -> None:
    stage = b.stage
    async with stage.wrong("Redis killed"):
        stage.primary.kill()
        await b.for_a_while()
        await stage.primary.restart()


async def old_snapshot(b: Breakage) -> None:
    """It has saved, goes on, is killed, and begins again with what it had saved."""
    stage = b.stage
    async with stage.client() as redis:
        folder = (await redis.config_get("dir"))["dir"]
        await redis.save()
    await b.for_a_while(0.5)  # what is in the snapshot grows old
    async with stage.wrong("Redis restarts from a snapshot"):
        stage.primary.kill()
        await b.for_a_while(0.3)
        await stage.primary.stop()
        stage.primary = await stage.redis_server("again", port=stage.primary.port, folder=Path(folder))
    async with stage.client() as redis:
        stage.notes["keys in the old snapshot"] = await redis.dbsize()


async def stopped(b: Breakage) -> None:
    lengths = (2.0,) if b.short else (2.0, 20.0)
    for seconds in lengths:
        async with b.stage.wrong(f"Redis stands still {seconds:.0f} s"):
            b.stage.primary.pause()
            await asyncio.sleep(seconds)
            b.stage.primary.resume()
        if seconds != lengths[-1]:
            await b.for_a_while(0.5)


async def _in_step(redis: Any) -> None:
    """Wait until a replica follows."""
    async with asyncio.timeout(60):
        while (await redis.info("replication")).get("master_link_status") != "up":  # noqa: ASYNC110 - it does not say
            await asyncio.sleep(0.02)


async def failover(b: Breakage) -> None:
    """The replica hears of everything 300 ms late; then the primary dies, and all go to the replica."""
    stage = b.stage
    lagging = await stage.stack.enter_async_context(Proxy.open(stage.primary.port))
    replica = await stage.redis_server("replica", options=["--replicaof", f"127.0.0.1 {lagging.port}"])
    async with stage.client(replica) as redis:
        await _in_step(redis)
        lagging.delay(0.3, way="down")
        await b.for_a_while(0.3)
        async with stage.wrong("failover to a replica 300 ms behind"):
            stage.primary.kill()
            lagging.cut()
            await redis.replicaof("NO", "ONE")
            stage.primary = replica
            stage.lead_to(replica)
            await b.for_a_while(0.3)


async def split(b: Breakage) -> None:
    """A replica is made a primary; half of the workers are led to it, the others stay, and nobody tells them."""
    stage = b.stage
    old = stage.primary
    replica = await stage.redis_server("replica", options=["--replicaof", f"127.0.0.1 {old.port}"])
    async with stage.client(replica) as redis:
        await _in_step(redis)
        side = b.noise.randrange(2)
        away = [number for number in range(len(stage.workers)) if number % 2 == side]
        async with stage.wrong("two primaries"):
            await redis.replicaof("NO", "ONE")
            stage.lead_to(replica, workers=away)
            await b.for_a_while()
            old.kill()
            stage.primary = replica
            stage.lead_to(replica)


async def flushed(b: Breakage) -> None:
    stage = b.stage
    async with stage.client() as redis:
        async with stage.wrong("FLUSHALL again and again"):
            for _ in range(5):
                await redis.flushall()
                await b.for_a_while(0.1)
        async with stage.wrong("evictions"):
            end_s = stage.clock.monotonic_s() + b.seconds * 0.7
            while stage.clock.monotonic_s() < end_s:
                if (key := await redis.randomkey()) is not None:
                    await redis.unlink(key)
                await asyncio.sleep(0.005)


async def bad_way(b: Breakage) -> None:
    """Each of it in turn; by the seed on the way of one worker, or of all."""
    stage = b.stage

    def ways() -> list[Any]:
        return stage.ways if b.noise.random() < 0.5 else [b.noise.choice(stage.ways)]

    async def part(name: str, act: Any) -> None:
        chosen = ways()
        async with stage.wrong(name):
            for way in chosen:
                act(way)
            await b.for_a_while(0.3)
            for way in chosen:
                way.restore()
        await b.for_a_while(0.1)

    await part("delays", lambda way: way.delay(0.05, jitter_s=0.1))
    await part("resets", lambda way: way.reset(0.03))
    await part("cut one way", lambda way: way.silence(way=b.noise.choice(("up", "down"))))
    await part("lost replies", lambda way: way.lose_replies(40))
    if not b.short:
        await part("little bandwidth", lambda way: way.throttle(100_000))
        await part("cut", lambda way: way.cut())


async def push_cut(b: Breakage) -> None:
    stage = b.stage
    for mark in ("subscription", "tracking"):
        broken = 0
        async with stage.wrong(f"{mark} connections cut"):
            for _ in range(8):
                broken += sum(way.sever(mark) for way in stage.ways)
                await b.for_a_while(0.08)
        stage.notes[f"{mark} connections cut"] = broken


async def dax(b: Breakage) -> None:
    stage = b.stage
    for name, action in (
        ("DAX killed", "kill?node=0"),
        ("DAX stale", "lag?seconds=inf"),
        ("DAX slow until the pool is full", "slow?seconds=3"),
    ):
        async with stage.wrong(name):
            await asyncio.to_thread(stage.ask_dax, action)
            await b.for_a_while(0.5)
            await asyncio.to_thread(stage.ask_dax, "heal")
        await b.for_a_while(0.1)


async def dynamodb(b: Breakage) -> None:
    stage, proxy = b.stage, b.stage.dynamodb
    async with stage.wrong("half throttled"):
        proxy.throttle(0.5)
        await b.for_a_while(0.5)
        proxy.restore()
    await b.for_a_while(0.2)
    async with stage.wrong("no answers"):
        proxy.stop()
        await asyncio.sleep(2.0 if b.short else 10.0)
        proxy.restore()
    await b.for_a_while(0.2)
    async with stage.wrong("5 % of writes done and not answered"):
        proxy.lose_answers(0.05)
        await b.for_a_while(0.5)
        proxy.restore()


async def points(b: Breakage) -> None:
    """Workers are killed in turn, each at another point, and started again."""
    stage = b.stage
    names = ["before_write", "written_before_commit", "committed_before_acknowledge"]
    rounds = 1 if b.short else 3
    happened = 0
    for number, point in enumerate(names * rounds):
        worker = stage.workers[number % len(stage.workers)]
        async with stage.wrong(f"killed: {point}"):
            worker.tell(point=point, action="kill", after=b.noise.randrange(3))
            happened += await worker.ended() == KILLED
            await b.for_a_while(0.1)
            await worker.start()
        await b.for_a_while(0.2)
    stage.notes["killed at fault points"] = happened


async def stopped_worker(b: Breakage) -> None:
    """It stands still in the middle of whatever it holds, and then goes on as if no time had passed."""
    worker = b.worker()
    async with b.stage.wrong("a worker stands still"):
        worker.signal(signal.SIGSTOP)
        await asyncio.sleep(4.0 if b.short else 10.0)
        worker.signal(signal.SIGCONT)


async def sigterm(b: Breakage) -> None:
    stage = b.stage
    statuses = []
    for worker in stage.workers:
        async with stage.wrong(f"worker {worker.number} leaves"):
            began_s = stage.clock.monotonic_s()
            worker.signal(signal.SIGTERM)
            statuses.append([await worker.ended(), round(stage.clock.monotonic_s() - began_s, 2)])
            await worker.start()
        await b.for_a_while(0.2)
    stage.notes["exit status and seconds of each worker that left"] = statuses


async def clocks(b: Breakage) -> None:
    stage = b.stage
    worker = b.worker()
    for by_s in (600, -600):
        async with stage.wrong(f"Redis's clock {by_s:+} s"):
            before = await _redis_time(stage)
            stage.clock_file.write_text(f"{by_s:+}\n")
            stage.notes[f"Redis's clock was stepped by, of {by_s:+} s"] = round(await _redis_time(stage) - before)
            await b.for_a_while(0.5)
            stage.clock_file.write_text("+0\n")
        await b.for_a_while(0.2)
        async with stage.wrong(f"a worker's clock {by_s:+} s"):
            worker.tell(clock_s=by_s)
            await b.for_a_while(0.5)
            worker.tell(clock_s=0)
        await b.for_a_while(0.2)


async def _redis_time(stage: Stage) -> float:
    async with stage.client() as redis:
        seconds, micros = await redis.time()
    return float(seconds) + float(micros) / 1e6


async def poison(b: Breakage) -> None:
    """What no bot should send: each is refused, and whoever shares the worker notices nothing."""
    stage, crowd = b.stage, b.crowd
    kinds = {
        "oversized": b'{"role":"user","content":"' + b"x" * 1_000_000 + b'"}',
        "no JSON": b"{",
        "not UTF-8": b'{"role":"user","content":"\xff\xfe"}',
        "deep": b'{"attributes":' + b"[" * 50_000 + b"]" * 50_000 + b',"role":"user","content":"x"}',
        "a role that is none": b'{"role":"poison","content":"x"}',
        "a lone surrogate": b'{"role":"user","content":"\\ud800"}',
        "a number too big": b'{"role":"user","content":"x","attributes":{"n":1e400}}',
        "a null byte in the name": b'{"role":"user","content":"x","turn_id":"\\u0000"}',
    }
    answers: dict[str, dict[int, int]] = {}
    async with stage.wrong("poison"):
        end_s = stage.clock.monotonic_s() + b.seconds
        while stage.clock.monotonic_s() < end_s:
            for name, body in kinds.items():
                session = (
                    f"poisoned-{b.noise.randrange(3)}"  # of its own: a turn that is taken has no client to know it
                )
                talk = b.noise.choice(crowd.talks)
                status = await talk.raw(
                    "POST", f"/v1/sessions/{session}/turns", data=body, headers={"Content-Type": "application/json"}
                )
                answers.setdefault(name, {}).setdefault(status, 0)
                answers[name][status] += 1
            await asyncio.sleep(0.05)
    stage.notes["answers to poison, by status"] = {
        name: {str(k): v for k, v in each.items()} for name, each in answers.items()
    }
    broken = {name: each for name, each in answers.items() if any(status in {0, 500} for status in each)}
    if broken:
        crowd.complaints[f"poison was answered by {broken}"] += 1


async def two(b: Breakage) -> None:
    """Two different ones, begun together; what needs servers of its own, or workers to itself, is left out."""
    first, second = b.noise.sample(
        [killed, stopped, flushed, bad_way, push_cut, dynamodb, stopped_worker, sigterm, poison], 2
    )
    if {first, second} == {stopped_worker, sigterm}:
        second = bad_way
    b.stage.notes["the two"] = [first.__name__, second.__name__]
    results = await asyncio.gather(first(b), second(b), return_exceptions=True)
    for result in results:
        if isinstance(result, RedisError):
            continue  # it was away by the other one
        if isinstance(result, BaseException):
            raise result
