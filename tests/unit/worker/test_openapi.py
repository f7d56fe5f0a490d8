"""The OpenAPI document says what the routes are, and what it says of them holds: schemathesis tries it."""

from __future__ import annotations

import asyncio
import os
import re
import threading
from typing import get_args

import pytest
import schemathesis
from httpworlds import http_world
from hypothesis import HealthCheck, Phase, given, settings
from instances import Instances
from mangatest import LoopThread
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from mangacache.clock import SystemClock
from mangacache.model import ROLES, Meta, Summary, Turn
from mangacache.worker.app import api_routes
from mangacache.worker.asking import OPERATION
from mangacache.worker.shapes import MetaSaid, Role, SummarySaid, TurnSaid

EXAMPLES = int(os.environ.get("OPENAPI_EXAMPLES", "5"))
"""Requests for each of some thirty operations, right ones and wrong ones; the long form is 200."""


class Hasty(SystemClock):
    """A clock whose sleeps of over two seconds, between the passes of a delete, end at once."""

    async def sleep(self, seconds):
        await super().sleep(0 if seconds > 2 else seconds)


class Served:
    """A worker's application, served by a thread of its own."""

    def __init__(self):
        self._loop = LoopThread()
        self._end = None
        self._ready = threading.Event()
        self.url = ""
        self._running = asyncio.run_coroutine_threadsafe(self._serve(), self._loop._loop)
        if not self._ready.wait(60):
            raise AssertionError("it did not start")

    async def _serve(self):
        self._end = asyncio.Event()
        async with Instances.open() as instances, http_world(instances=instances, clock=Hasty()) as world:
            self.url = world.base
            self._ready.set()
            await self._end.wait()

    def close(self):
        self._loop._loop.call_soon_threadsafe(self._end.set)
        self._running.result(60)
        self._loop.close()


@pytest.fixture(scope="module")
def served():
    made = Served()
    yield made
    made.close()


@pytest.fixture(scope="module")
def document(served):
    loaded = schemathesis.openapi.from_url(f"{served.url}/v1/openapi.json")
    loaded.config.generation.update(modes=[GenerationMode.POSITIVE, GenerationMode.NEGATIVE])
    return loaded


async def test_every_route_is_in_the_document_and_the_other_way_round():
    async with http_world() as ask:
        told = (await ask("GET", "/v1/openapi.json")).json
        routed = {(route.method.lower(), route.resource.canonical) for route in ask.runner.app.router.routes()}
    heads = {path for method, path in routed if method == "head"}
    routed -= {("head", path) for path in heads}
    assert {(method, path) for path, methods in told["paths"].items() for method in methods} == routed
    assert len(routed) == len(api_routes()) > 20
    assert heads == {path for method, path in routed if method == "get"}
    assert "Where GET is taken, HEAD is too" in told["info"]["description"]


async def test_each_operation_has_an_id_of_its_own_and_every_reference_leads_somewhere():
    async with http_world() as ask:
        answer = await ask("GET", "/v1/openapi.json")
    told = answer.json
    names = [each["operationId"] for methods in told["paths"].values() for each in methods.values()]
    assert len(set(names)) == len(names)
    for reference in set(re.findall(r'"#/components/(\w+)/(\w+)"', answer.body.decode())):
        assert reference[1] in told["components"][reference[0]]


@pytest.mark.parametrize(("said", "kept"), [(TurnSaid, Turn), (MetaSaid, Meta), (SummarySaid, Summary)])
def test_what_the_library_has_is_described_as_it_is_encoded(said, kept):
    assert said.__struct_fields__ == kept.__struct_fields__


def test_a_turn_may_have_the_librarys_roles():
    assert set(get_args(Role)) == ROLES


def test_each_route_says_for_whom_it_is_but_for_the_document():
    scopes = {getattr(each.handler, OPERATION).path: getattr(each.handler, OPERATION).scope for each in api_routes()}
    assert [path for path, scope in scopes.items() if scope is None] == ["/v1/openapi.json"]


TOLD = {f"{told.method} {told.path}": told for told in (getattr(each.handler, OPERATION) for each in api_routes())}


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE])
@pytest.mark.parametrize("name", TOLD)
def test_what_is_answered_is_what_the_document_says(document, name, mode):
    """No 5xx, but one that the document declares; each answer has the status, the headers and the body it says."""
    told = TOLD[name]
    operation = document[re.sub(r":[^{}]+\}", "}", told.path)][told.method]
    nothing_to_say = "{" not in told.path and told.body is None and not told.query.__struct_fields__
    if nothing_to_say and mode is GenerationMode.NEGATIVE:
        mode = GenerationMode.POSITIVE  # there is nothing that could be said wrongly

    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(generation_mode=mode))
    def holds(case):
        case.call_and_validate(
            checks=[
                not_a_server_error,
                status_code_conformance,
                content_type_conformance,
                response_headers_conformance,
                response_schema_conformance,
            ]
        )

    holds()
