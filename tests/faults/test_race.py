"""Worker processes race on one session of a real engine; what is stored is compared with what they were told."""

from __future__ import annotations

import asyncio
import json
import random
import sys
from pathlib import Path

import pytest

WORKER = Path(__file__).parent / "race_worker.py"
HANG_GUARD_S = 240


class Racer:
    """One worker process and what it was told."""

    def __init__(self, process):
        self.process = process
        self.acked: list[tuple[str, int, bool]] = []

    @classmethod
    async def start(cls, world, *, turn_ids, seed, loss, after):
        plan = {
            "endpoint": world.settings.dynamodb_endpoint,
            "table": world.settings.table_name,
            "turn_ids": turn_ids,
            "seed": seed,
            "loss": loss,
            "after": after,
        }
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            str(WORKER),
            json.dumps(plan),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        racer = cls(process)
        assert json.loads(await process.stdout.readline()) == "ready"
        return racer

    async def run(self, *, kill_after=None):
        """Let it go; kill it after so many acknowledgements."""
        self.process.stdin.write(b"\n")
        while line := await self.process.stdout.readline():
            if not line.endswith(b"\n"):
                break
            self.acked.append(tuple(json.loads(line)))
            if kill_after is not None and len(self.acked) >= kill_after:
                self.process.kill()
        self.process.stdin.close()
        return await self.process.wait()


async def _race(world, shares, *, seed=0, loss=0.0, kills=(), after=None):
    """Run a worker for each share of turn_ids; `kills` maps a worker to its last acknowledgement."""
    racers = []
    try:
        async with asyncio.timeout(HANG_GUARD_S):
            for i, turn_ids in enumerate(shares):
                racers.append(await Racer.start(world, turn_ids=turn_ids, seed=seed * 100 + i, loss=loss, after=after))
            kills = dict(kills)
            statuses = await asyncio.gather(*(racer.run(kill_after=kills.get(i)) for i, racer in enumerate(racers)))
    finally:
        for racer in racers:
            if racer.process.returncode is None:
                racer.process.kill()
                await racer.process.wait()
    assert [status for i, status in enumerate(statuses) if i not in kills] == [0] * (len(shares) - len(kills))
    return racers


async def _stored(world):
    async with world.cache() as cache:
        return (await cache.session("race").history(limit=1000)).turns


def _check(stored, racers):
    """No hole, no double, and everything acknowledged stands where it was acknowledged."""
    assert [turn.number for turn in stored] == list(range(1, len(stored) + 1))
    places = {turn.turn_id: turn.number for turn in stored}
    assert len(places) == len(stored)
    acked = [ack for racer in racers for ack in racer.acked]
    assert [(turn_id, number) for turn_id, number, _ in acked if places.get(turn_id) != number] == []
    return places


async def test_four_workers_append_32_turns_to_one_session_at_once(real_world):
    shares = [[f"w{w}-{i}" for i in range(8)] for w in range(4)]
    racers = await _race(real_world, shares)
    stored = await _stored(real_world)
    assert len(stored) == 32
    _check(stored, racers)
    assert not any(duplicate for racer in racers for _, _, duplicate in racer.acked)


async def test_every_append_sent_twice_through_different_workers_in_random_order_is_stored_once(real_world):
    turn_ids = [f"t{i}" for i in range(32)]
    shares = [[t for i, t in enumerate(turn_ids) if w in (i % 4, (i + 1) % 4)] for w in range(4)]
    racers = await _race(real_world, shares, seed=3)
    stored = await _stored(real_world)
    assert len(stored) == 32
    _check(stored, racers)
    assert sum(len(racer.acked) for racer in racers) == 64


@pytest.mark.parametrize("seed", range(3))
async def test_replies_lost_and_workers_killed_leave_no_hole_no_double_and_nothing_acknowledged_missing(
    real_world, seed
):
    """Two of four workers are killed on the way; others take their turns over, as a client's retry would."""
    noise = random.Random(seed)
    turn_ids = [f"t{i}" for i in range(40)]
    shares = [[t for i, t in enumerate(turn_ids) if w in (i % 4, (i + 1) % 4)] for w in range(4)]
    kills = {0: noise.randrange(1, 10), 1: noise.randrange(1, 10)}
    racers = await _race(real_world, shares, seed=seed, loss=0.25, kills=kills)
    _check(await _stored(real_world), racers)
    # Now up to 40 turns have been stored since the first try: such a retry carries the token from before it.
    racers += await _race(real_world, [turn_ids], seed=seed + 50, loss=0.25, after="0.0.0")
    places = _check(await _stored(real_world), racers)
    assert set(places) == set(turn_ids)
