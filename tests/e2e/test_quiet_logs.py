"""A worker's logs, at their most talkative, hold no word of a message and no credential, whatever is asked of it."""

from __future__ import annotations

import base64
import json

import aiohttp
import pytest
from crossing import ASKED, MARK, bearer
from mangatest import LoopThread
from rolling import create_table
from workers import worker_process

from mangacache.clock import SystemClock
from mangacache.worker.auth.apikeys import ApiKeys, new_key
from mangacache.worker.auth.tokens import Rules, SigningKeys

SECRET = b"a-signing-key-that-no-log-may-hold-0123"
BAD_BODIES = (f'{{"{MARK}"', json.dumps({MARK: MARK}), json.dumps([MARK]), f'"{MARK}')


@pytest.fixture
def credentials(tmp_path):
    made, keys = {}, ApiKeys(())
    for role in ("bot", "operator", "read-only"):
        made[role], kept = new_key(role, role)
        keys = ApiKeys((*keys.keys, kept))
    (tmp_path / "keys.json").write_bytes(ApiKeys(keys.keys[1:]).with_key(keys.keys[0]))
    jwk = {"kty": "oct", "kid": "s1", "alg": "HS256", "k": base64.urlsafe_b64encode(SECRET).decode()}
    (tmp_path / "signing.json").write_text(json.dumps({"keys": [jwk]}))
    signing = SigningKeys.parse((tmp_path / "signing.json").read_bytes())
    rules = Rules(issuer="mangacache", audience="mangacache", longest_s=3600, leeway_s=5)
    made["customer"] = signing.mint("c1", rules=rules, lifetime_s=3000, now_s=SystemClock().time_s())
    made["old customer"] = signing.mint("c1", rules=rules, lifetime_s=60, now_s=1000.0)
    made["nonsense"] = f"nonsense-{MARK}"
    made["nobody's key"] = f"mck_nobody_{MARK}"
    return made


@pytest.fixture
def variables(table, shared_valkey, credentials, tmp_path):
    """The environment of a worker that asks for credentials; `credentials` has written the lists."""
    assert credentials
    made = table | {
        "REDIS_ENDPOINT": f"redis://127.0.0.1:{shared_valkey}",
        "MANGACACHE_WORKER_KEYS": str(tmp_path / "keys.json"),
        "MANGACACHE_WORKER_TOKEN_KEYS": str(tmp_path / "signing.json"),
        "MANGACACHE_LOG_LEVEL": "debug",
    }
    loop = LoopThread()
    try:
        loop.run(create_table(made))
    finally:
        loop.close()
    return made


def _marked(value):
    """Put the mark into every text of a body but a role."""
    if isinstance(value, dict):
        return {name: one if name == "role" else _marked(one) for name, one in value.items()}
    if isinstance(value, list):
        return [_marked(one) for one in value]
    return f"{value} {MARK}" if isinstance(value, str) else value


async def _ask_everything(worker, credentials):
    statuses = set()
    async with aiohttp.ClientSession(worker.public) as http:
        for role, given in credentials.items():
            for (method, path), how in ASKED.items():
                where = path.format(session_id="s1", customer_id="c1", limit="messages")
                headers = bearer(given) | {"Lock-Token": f"lock-{MARK}", "Idempotency-Key": f"key-{role}"}
                headers |= {"Content-Type": "application/json"} if "json" in how else {}
                bodies = [json.dumps(_marked(how["json"])), *BAD_BODIES] if "json" in how else [None]
                for body in bodies:
                    for query in ({}, {"cursor": f"cursor-{MARK}"}) if method == "GET" else ({},):
                        async with http.request(method, where, data=body, headers=headers, params=query) as answer:
                            await answer.read()
                            statuses.add(answer.status)
            async with http.ws_connect("/v1/ws") as ws:
                await ws.send_json({"type": "open", "session_id": "s2", "credential": given, "customer_id": "c1"})
                first = await ws.receive(timeout=60)
                if first.type == aiohttp.WSMsgType.TEXT and json.loads(first.data)["type"] == "ready":
                    await ws.send_json({"type": "append", "id": 1, "role": "user", "content": MARK})
                    await ws.receive(timeout=60)
                    await ws.send_str(f'{{"type": "append", "{MARK}')
                    await ws.receive(timeout=60)
            for page in ("metrics", "state", "dead-letters", "sessions/s1"):
                async with http.get(f"{worker.operator}/{page}", headers=bearer(given)) as answer:
                    await answer.read()
                    statuses.add(answer.status)
    return statuses


async def test_no_log_holds_a_word_of_a_message_or_a_credential(variables, credentials):
    async with worker_process(variables) as worker:
        statuses = await _ask_everything(worker, credentials)
        assert {200, 201, 400, 401, 403, 422} <= statuses
        assert not {status for status in statuses if status >= 500}
        await worker.leave()
    why = {json.loads(line).get("why") for line in worker.complaints if "not_let_in" in line}
    assert why == {"no such API key", "token: its time is over", "token: DecodeError"}
    logged = "".join(worker.complaints) + json.dumps(worker.said)
    assert len(worker.complaints) > 100, "debug has a line for each request"
    secrets = [MARK, SECRET.decode(), base64.urlsafe_b64encode(SECRET).decode().rstrip("="), *credentials.values()]
    secrets += [given.split("_", 2)[2] for given in credentials.values() if given.startswith("mck_")]
    secrets += [part for given in credentials.values() if given.count(".") == 2 for part in given.split(".")[1:]]
    for secret in secrets:
        found = [line for line in worker.complaints if secret in line]
        assert found == [], found[:3]
        assert secret not in logged
