"""A worker process of the race tests: appends its share, reporting each acknowledgement before the next.

Started as `python race_worker.py JSON`; prints a line of JSON an acknowledgement. With `loss` it works through a
network that loses requests and replies; the parent kills it whenever it likes.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "support"))

from mangatest import Lossy

from mangacache import MangaCache, Settings, Transient
from mangacache.store import open_transport


async def main(plan):
    settings = Settings(
        table_name=plan["table"],
        dynamodb_endpoint=plan["endpoint"],
        retry_base_s=0.002,
        request_deadline_s=3.0,
    )
    noise = random.Random(plan["seed"])
    turn_ids = list(plan["turn_ids"])
    noise.shuffle(turn_ids)
    async with open_transport(settings) as transport:
        lossy = Lossy(transport, seed=plan["seed"], share=plan["loss"])
        async with MangaCache.open(settings, transport=lossy) as cache:

            async def append(turn_id):
                while True:
                    try:
                        done = await cache.session("race").append(
                            role="user", content=turn_id, turn_id=turn_id, after=plan["after"]
                        )
                    except Transient:
                        continue
                    print(json.dumps([turn_id, done.number, done.duplicate]), flush=True)
                    return

            print(json.dumps("ready"), flush=True)
            await asyncio.to_thread(sys.stdin.readline)  # all workers start together
            await asyncio.gather(*map(append, turn_ids))
            await lossy.settle()


if __name__ == "__main__":
    asyncio.run(main(json.loads(sys.argv[1])))
