"""One request to one worker over HTTP: what it answered as the library's own values, what went wrong as an error."""

from __future__ import annotations

import asyncio

import aiohttp
import msgspec

from mangacache.client.problems import error_of, read_problem
from mangacache.client.sessions import customer_headers, escaped
from mangacache.client.values import Allowance, Lock, WireAppends, WireContext, WireUpdated, read

TIME_OUT_S = 3.0


class Unreachable(Exception):
    """The worker could not be asked, or was gone before it answered: what it did, nobody knows."""


class Late(Exception):
    """The worker did not answer in time."""


class Untimed(Exception):
    """The worker asked to be asked again, and did not say when."""


class Talk:
    """One worker, as clients see it."""

    def __init__(self, http: aiohttp.ClientSession, url: str) -> None:
        self._http = http
        self.url = url

    async def context(self, session_id, *, at_least=None, consistency, rate_limit=None, customer_id=None):
        query = {"turns": "20", "consistency": consistency.name}
        if at_least is not None:
            query["at_least"] = str(at_least)
        if consistency.max_age_s is not None:
            query["age_s"] = str(consistency.max_age_s)
        if rate_limit is not None:
            query["rate_limit"] = rate_limit
        body = await self._ask("GET", f"/v1/sessions/{escaped(session_id)}/context", query=query, customer=customer_id)
        return read(WireContext, body).value(session_id)

    async def append(self, session_id, *, role, content, turn_id, after=None, customer_id=None):
        said = {"role": role, "content": content, "turn_id": turn_id}
        if after is not None:
            said["after"] = str(after)
        body = await self._ask("POST", f"/v1/sessions/{escaped(session_id)}/turns", body=said, customer=customer_id)
        (done,) = read(WireAppends, body).turns
        return done.value()

    async def update(self, session_id, attributes, *, customer_id=None):
        body = await self._ask(
            "PATCH", f"/v1/sessions/{escaped(session_id)}", body={"attributes": attributes}, customer=customer_id
        )
        return read(WireUpdated, body).value()

    async def summarise(self, session_id, text, *, fence, customer_id=None):
        body = await self._ask(
            "PUT",
            f"/v1/sessions/{escaped(session_id)}/summary",
            body={"text": text, "fence": fence},
            customer=customer_id,
        )
        return read(WireUpdated, body).value()

    async def lock(self, session_id, *, customer_id=None):
        return read(Lock, await self._ask("POST", f"/v1/sessions/{escaped(session_id)}/lock", customer=customer_id))

    async def unlock(self, session_id, lock, *, customer_id=None):
        headers = {"Lock-Token": lock.lock_token}
        await self._ask("DELETE", f"/v1/sessions/{escaped(session_id)}/lock", headers=headers, customer=customer_id)

    async def take(self, customer_id, limit):
        path = f"/v1/customers/{escaped(customer_id)}/rate-limits/{limit}"
        return read(Allowance, await self._ask("POST", path, body={"cost": 1}, customer=customer_id))

    async def metrics(self, operator_url):
        async with self._http.get(f"{operator_url}/metrics", timeout=aiohttp.ClientTimeout(total=TIME_OUT_S)) as answer:
            return await answer.text()

    async def raw(self, method, path, *, data=b"", headers=None):
        """Send whatever it is, and return the status."""
        try:
            async with self._http.request(
                method, f"{self.url}{path}", data=data, headers=headers, timeout=aiohttp.ClientTimeout(total=TIME_OUT_S)
            ) as answer:
                await answer.read()
                return answer.status
        except (aiohttp.ClientError, OSError, TimeoutError):
            return 0

    async def _ask(self, method, path, *, query=None, body=None, headers=None, customer=None):
        headers = {**(headers or {}), **customer_headers(customer)}
        data = None
        if body is not None:
            data = msgspec.json.encode(body)
            headers["Content-Type"] = "application/json"
        try:
            async with asyncio.timeout(TIME_OUT_S):
                async with self._http.request(
                    method, f"{self.url}{path}", params=query, data=data, headers=headers
                ) as answer:
                    said = await answer.read()
                    status, after = answer.status, answer.headers.get("Retry-After")
        except TimeoutError as error:
            raise Late(path) from error
        except (aiohttp.ClientError, OSError) as error:
            raise Unreachable(f"{path}: {error!r}") from error
        if status < 400:
            return said
        problem = read_problem(status, said, retry_after=after)
        if status in {429, 503} and problem.retry_after_s is None:
            raise Untimed(f"{path}: {said!r:.300}")
        raise error_of(problem)
