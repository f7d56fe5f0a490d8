"""The checker bites: plain cache-aside, as users write it, breaks its promises under the same load without any fault.

Its turns have no numbers, so they are numbered afterwards by their order in the table; a read is at the number of its
newest turn.
"""

from __future__ import annotations

import asyncio
import random
import sys
from contextlib import AsyncExitStack
from pathlib import Path
from time import monotonic_ns

from mangatest import HANG_GUARD_S

from mangacache import Version
from mangacache.local.valkey import valkey_process
from mangacache.testing import Operation, Promises, SeenTurn, check_history

sys.path.insert(0, str(Path(__file__).parent.parent.parent / "bench"))

from plain_cache_aside import PlainCacheAside, open_clients

CLIENTS = 24
OPERATIONS = 4000
SESSIONS = ("s0", "s1", "s2", "s3")


async def _client(number, plain, left, seen):
    noise = random.Random(number)
    said = 0
    while left:
        left.pop()
        session = noise.choice(SESSIONS)
        invoked_ns = monotonic_ns()
        if noise.random() < 0.2:
            said += 1
            turn_id = f"c{number}-{said}"
            await plain.append(session, role="user", content="x", turn_id=turn_id)
            seen.append(("append", session, number, invoked_ns, monotonic_ns(), [turn_id]))
        else:
            context = await plain.read(session)
            turn_ids = [turn["turn_id"] for turn in context.turns]
            seen.append(("read", session, number, invoked_ns, monotonic_ns(), turn_ids))


def _operations(seen, order):
    for kind, session, client, invoked_ns, returned_ns, turn_ids in seen:
        numbers = [order[session][turn_id] for turn_id in turn_ids]
        yield Operation(
            kind,
            session,
            f"c{client}",
            "w",
            invoked_ns,
            returned_ns,
            "ok",
            "latest" if kind == "read" else "",
            version=Version(1, max(numbers), 1) if numbers else Version(),
            turns=tuple(SeenTurn(*place) for place in zip(numbers, turn_ids, strict=True)) if kind == "append" else (),
        )


async def test_plain_cache_aside_serves_what_is_stale_and_forgets_a_clients_own_turns(real_world, tmp_path):
    left, seen, order = list(range(OPERATIONS)), [], {}
    async with AsyncExitStack() as stack:
        valkey = valkey_process(folder=tmp_path)
        stack.push_async_callback(valkey.stop)
        await valkey.start()
        clients = open_clients(
            region="us-east-1",
            dynamodb_url=real_world.settings.dynamodb_endpoint,
            redis_url=f"redis://127.0.0.1:{valkey.port}",
            connections=CLIENTS,
        )
        dynamodb, redis = await stack.enter_async_context(clients)
        plain = PlainCacheAside(dynamodb, redis, table_name=real_world.settings.table_name)
        async with asyncio.timeout(HANG_GUARD_S):
            await asyncio.gather(*(_client(number, plain, left, seen) for number in range(CLIENTS)))
    for session in SESSIONS:
        items = [item for item in await real_world.items() if item["PK"]["S"] == f"SESSION#{session}"]
        stored = sorted((item["SK"]["S"], item["turn_id"]["S"]) for item in items if "turn_id" in item)
        order[session] = {turn_id: number for number, (_, turn_id) in enumerate(stored, start=1)}
    report = check_history(_operations(seen, order), promises=Promises(per_client=True))
    print(report.counts, report.operations)
    for violation in report.violations[:2]:
        print(violation.story())
    assert report.operations == OPERATIONS
    assert report.counts["linearizability"] > 0
    assert report.counts["read your writes"] > 0
