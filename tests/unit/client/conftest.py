"""Workers that a test scripts, and clients of them."""

from __future__ import annotations

import random
from contextlib import asynccontextmanager

import pytest
from scripted_worker import LeapClock, scripted_workers

from mangacache.client import WorkerClient


@pytest.fixture
async def workers():
    async with scripted_workers(2) as both:
        yield both


@pytest.fixture
def clock():
    return LeapClock()


@pytest.fixture
def opened(workers, clock):
    @asynccontextmanager
    async def opened(**options):
        urls = options.pop("urls", [worker.url for worker in workers])
        async with WorkerClient.open(urls, clock=clock, random=random.Random(7), **options) as client:
            yield client

    return opened
