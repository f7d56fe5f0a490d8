"""The source of truth: what the sessions ask of DynamoDB."""

from __future__ import annotations

from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

import aioboto3
from aiobotocore.config import AioConfig
from aiobotocore.session import get_session
from botocore.exceptions import BotoCoreError

from mangacache.clock import random_id, timestamp
from mangacache.errors import Invalid
from mangacache.store.adoption import Adoption
from mangacache.store.customers import Customers
from mangacache.store.dax.eventual import Eventual
from mangacache.store.dax.forgetting import Forgetting
from mangacache.store.dax.pages import PagesByNumber
from mangacache.store.dax.reading import DaxReads
from mangacache.store.direct import direct_transport
from mangacache.store.effects import (
    Begin,
    Bury,
    Change,
    Done,
    Effect,
    Load,
    LookBack,
    Outcome,
    Put,
    Stamp,
    Steps,
    Sweep,
    Tail,
    Touch,
)
from mangacache.store.epochs import Epochs
from mangacache.store.fences import Fences
from mangacache.store.loading import Loader
from mangacache.store.requests import Requests
from mangacache.store.schema import Schema
from mangacache.store.transport import AioTransport, Transport, no_credentials
from mangacache.store.whole import EVENT, refuse_what_is_not_whole
from mangacache.store.windows import Windows
from mangacache.store.writing import SEAL_S, Writer
from mangacache.telemetry import Telemetry

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from mangacache.clock import Clock, Random
    from mangacache.settings import Settings
    from mangacache.store.dax.door import DaxDoor

R = TypeVar("R")

_DAY_S: Final = 86_400


class Store:
    """One table, through one transport.

    Args:
        transport: the door to DynamoDB.
        dax: the door to DAX, where there is one.

    Attributes:
        loader: strong reads.
        windows: reads for contexts, at DynamoDB's version, partly through DAX.
        eventual: reads through DAX that may be old; None without DAX.
        writer: conditional writes.
        schema: the table's shape.
        customers: the index.
        adoption: foreign sessions.
        epochs: the generation of the context cache.
        breakers: of DynamoDB, and of DAX where there is one, by name.
        fences: claims of sessions' locks.
    """

    def __init__(
        self,
        transport: Transport,
        *,
        settings: Settings,
        clock: Clock,
        random: Random,
        telemetry: Telemetry,
        dax: DaxDoor | None = None,
    ) -> None:
        self._clock = clock
        self._random = random
        self._retention_s = settings.retention_days * _DAY_S
        self._telemetry = telemetry
        requests = Requests(transport, settings=settings, clock=clock, random=random, telemetry=telemetry)
        self.breakers = {"dynamodb": requests.breaker} | ({"dax": dax.breaker} if dax is not None else {})
        table_name = settings.table_name
        reads = DaxReads(dax, table_name) if dax is not None else None
        self.loader = Loader(requests, table_name, PagesByNumber(reads) if reads is not None else None)
        self.windows = Windows(self.loader, reads if _fills_by_number(settings) else None)
        self.eventual = Eventual(reads, ttl_s=settings.dax_ttl_s, clock=clock) if reads is not None else None
        self.writer = Writer(
            requests,
            self.loader,
            table_name,
            clock=clock,
            compress_from_bytes=settings.compress_from_bytes,
            forgetting=Forgetting(dax, table_name) if dax is not None else None,
            puts=dax if settings.dax_writes == "puts" else None,
        )
        self.schema = Schema(
            requests,
            table_name=table_name,
            index_name=settings.customer_index,
            clock=clock,
            telemetry=telemetry,
        )
        self.customers = Customers(requests, table_name=table_name, index_name=settings.customer_index)
        self.adoption = Adoption(self.loader, self.writer)
        self.epochs = Epochs(requests, table_name=table_name, key_prefix=settings.key_prefix)
        self.fences = Fences(self.loader, self.writer)

    def stamp(self) -> Stamp:
        """Return now, and when what is written now expires."""
        now_s = self._clock.time_s()
        turn_expires_at = int(now_s) + self._retention_s
        return Stamp(
            now_s=now_s,
            at=timestamp(now_s),
            turn_expires_at=turn_expires_at,
            meta_expires_at=turn_expires_at + _DAY_S,
            seal_expires_at=int(now_s) + SEAL_S,
            nonce=random_id(self._random),
        )

    async def run(self, session_id: str, steps: Steps[R]) -> R:
        """Drive a decision to its end: perform each effect it asks for, and tell it the outcome."""
        try:
            effect = next(steps)
            while True:
                effect = steps.send(await self.perform(session_id, effect))
        except StopIteration as end:
            return cast("R", end.value)
        finally:
            steps.close()

    async def perform(self, session_id: str, effect: Effect) -> Outcome:  # noqa: PLR0911 - one return an effect
        """Perform one effect and return its outcome; see `effects.py` for what each means."""
        match effect:
            case Put():
                return self._counted(await self.writer.put(session_id, effect))
            case Load():
                return await self.loader.load(session_id)
            case Tail(known):
                return await self.loader.tail(session_id, known)
            case LookBack(incarnation, first, last, turn_ids):
                return await self.loader.look_back(session_id, incarnation, first=first, last=last, turn_ids=turn_ids)
            case Begin():
                return self._counted(await self.writer.begin(session_id, effect))
            case Touch():
                self._telemetry.touches.inc()
                return await self.writer.touch(session_id, effect)
            case Change():
                return await self.writer.change(session_id, effect)
            case Bury():
                return await self.writer.bury(session_id, effect)
            case Sweep(incarnation):
                return await self._sweep(session_id, incarnation)
        raise AssertionError(effect)

    def _counted(self, outcome: Outcome) -> Outcome:
        if not isinstance(outcome, Done):
            self._telemetry.collisions.inc()
        return outcome

    async def _sweep(self, session_id: str, incarnation: int) -> bool:
        """Sweep now; a failure is survived, because META says that it is still to be done."""
        try:
            return await self.writer.sweep(
                session_id,
                incarnation,
                seal_expires_at=self.stamp().seal_expires_at,
                retention_s=self._retention_s,
            )
        except Exception as error:  # noqa: BLE001 - whatever it is, the delete itself is done and durable
            self._telemetry.count_survived("sweep_failed", error)
            return False


def _fills_by_number(settings: Settings) -> bool:
    if settings.dax_fills == "auto":
        return settings.redis_endpoint is None
    return settings.dax_fills == "numbers"


@asynccontextmanager
async def open_transport(settings: Settings, *, telemetry: Telemetry | None = None) -> AsyncIterator[Transport]:
    """Open the door to DynamoDB that `dynamodb_transport` names.

    Both stand on aioboto3's low-level client, tuned, its own retries off: `Requests` knows better what may be
    repeated.

    Args:
        settings: which door, to where, with which limits.
        telemetry: hears of failures that are survived.

    Raises:
        Invalid: there are no AWS credentials, or they have expired.
    """
    core = get_session()
    try:
        session = aioboto3.Session(botocore_session=core, region_name=settings.region)
    except BotoCoreError as error:  # a profile that is not there, or a file of them that cannot be read
        raise Invalid(f"the AWS configuration cannot be used: {error}") from error
    async with AsyncExitStack() as stack:
        credentials = await _credentials(session)
        config = AioConfig(
            connect_timeout=settings.connect_timeout_s,
            read_timeout=settings.request_timeout_s,
            max_pool_connections=settings.max_connections,
            retries={"total_max_attempts": 1, "mode": "standard"},
            parameter_validation=False,  # our own types are checked; it costs 5 % of a request
            user_agent="mangacache",  # else it is put together anew for each request, 12 % of it
        )
        client: Any = await stack.enter_async_context(
            session.client("dynamodb", endpoint_url=settings.dynamodb_endpoint, config=config)
        )
        client.meta.events.register(EVENT, refuse_what_is_not_whole)
        transport: Transport = AioTransport(client)
        if settings.dynamodb_transport == "direct":
            transport = await stack.enter_async_context(
                direct_transport(
                    client,
                    credentials,
                    settings=settings,
                    rare=transport,
                    ca_file=core.get_config_variable("ca_bundle"),
                    telemetry=telemetry if telemetry is not None else Telemetry(),
                )
            )
        yield transport


async def _credentials(session: aioboto3.Session) -> Any:
    try:
        credentials = await session.get_credentials()
    except BotoCoreError as error:
        raise Invalid(f"the AWS credentials could not be had: {error}") from error
    if credentials is None:
        raise no_credentials()
    return credentials
