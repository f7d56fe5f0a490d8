"""The examples of docs/worker.md run, and answer what stands there."""

from __future__ import annotations

import asyncio
import json
import os
import re
from pathlib import Path

from httpworlds import http_world
from mangatest import HANG_GUARD_S

from mangacache.worker.app import api_routes

PAGE = (Path(__file__).parents[2] / "docs" / "worker.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"```sh\n(.*?)```(?:\n\n```json\n(.*?)```)?", PAGE, re.DOTALL)
VARIES = {"request_id", "created_at", "attributes"}


async def test_each_example_runs_and_answers_what_stands_there():
    assert len(EXAMPLES) > 15
    async with http_world() as world:
        for script, expected in EXAMPLES:
            process = await asyncio.create_subprocess_exec(
                "bash",
                "-euc",
                script,
                env={"PATH": os.environ["PATH"], "WORKER": world.base},
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
            )
            async with asyncio.timeout(HANG_GUARD_S):
                said, complaints = await process.communicate()
            assert (process.returncode, complaints) == (0, b""), script
            if not expected:
                assert b"urn:mangacache:problem" not in said, (script, said)
                continue
            answer, shown = json.loads(said), json.loads(expected)
            assert answer.keys() == shown.keys()
            assert {name: answer[name] for name in shown.keys() - VARIES} == {
                name: shown[name] for name in shown.keys() - VARIES
            }


def test_the_page_names_every_path():
    told = PAGE.replace("manga-42", "{session_id}").replace("kenji", "{customer_id}").replace("messages", "{limit}")
    told = told.replace("{id}", "{session_id}")
    for route in api_routes():
        path = re.sub(r":[^{}]+\}", "}", route.path)
        assert path in told or path.replace("customer_id", "session_id") in told, path
