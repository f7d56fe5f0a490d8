"""The simulated DynamoDB: the in-memory double behind the simulated network, with clients in the form of aioboto3's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from botocore.exceptions import ClientError, ConnectTimeoutError

from mangacache.testing.dynamodb import MemoryDynamoDB

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Awaitable, Callable

    from mangacache.clock import Clock, Random
    from mangacache.testing.simulation.loop import SimulatedLoop
    from mangacache.testing.simulation.network import Network, Way
    from mangacache.testing.simulation.processes import Process

ADDRESS: Final = "dynamodb:443"


class SimulatedDynamoDB:
    """DynamoDB at one address; each request is carried out at one moment, when it arrives.

    Args:
        loop: on which it runs, in a process of its own.
        network: that leads to it.
        clock: its machine's.
        random: which requests it refuses.

    Attributes:
        database: the double.
        process: in which it runs; stop it, and DynamoDB stands still.
        throttles: chance of a request to be refused for load.
        fails: chance of a request to be answered by status 500; half of them are carried out.
    """

    def __init__(self, loop: SimulatedLoop, network: Network, *, clock: Clock, random: Random) -> None:
        self.database = MemoryDynamoDB(clock=clock)
        self.process: Process = loop.process("dynamodb")
        self.throttles = 0.0
        self.fails = 0.0
        self._loop = loop
        self._network = network
        self._random = random

    def client(self) -> SimulatedClient:
        """Return a client; it is at home in whichever process calls it."""
        return SimulatedClient(self)

    def mend(self) -> None:
        """End its own faults."""
        self.throttles = self.fails = 0.0

    async def request(self, method: str, operation: str, parameters: dict[str, Any]) -> dict[str, Any]:
        """Send a request from the calling process, and wait for its answer, which may never come.

        Raises:
            ClientError: refused.
            ConnectTimeoutError: it cannot be reached; nothing was sent.
        """
        loop, network = self._loop, self._network
        process = loop.current
        way = network.way(process, ADDRESS)
        if way.cut:
            raise ConnectTimeoutError(endpoint_url=ADDRESS)
        answer: asyncio.Future[dict[str, Any]] = loop.create_future()
        sent = network.send(way, self.process, self._arrive, operation, parameters, answer, process, way)
        if network.trace is not None:
            network.note(process.name, f"> dynamodb {method} {_about(parameters)}{'' if sent else ' (lost)'}")
        return await answer

    def _arrive(
        self,
        operation: str,
        parameters: dict[str, Any],
        answer: asyncio.Future[dict[str, Any]],
        process: Process,
        way: Way,
    ) -> None:
        outcome = self._outcome(operation, parameters)
        sent = self._network.send(way, process, _tell, answer, outcome)
        if self._network.trace is not None:
            said = outcome.response["Error"]["Code"] if isinstance(outcome, ClientError) else "ok"
            self._network.note("dynamodb", f"> {process.name} {operation} {said}{'' if sent else ' (lost)'}")

    def _outcome(self, operation: str, parameters: dict[str, Any]) -> dict[str, Any] | ClientError:
        chance = self._random.random() if self.throttles or self.fails else 1.0
        if chance < self.throttles:
            return _refused(operation, "ProvisionedThroughputExceededException", 400)
        failed = chance < self.throttles + self.fails
        outcome: dict[str, Any] | ClientError | None = None
        if not failed or chance < self.throttles + self.fails / 2:
            try:
                outcome = self.database.call(operation, parameters)
            except ClientError as error:
                outcome = error
        return _refused(operation, "InternalServerError", 500) if failed or outcome is None else outcome


class SimulatedClient:
    """A client with coroutine methods like aioboto3's: `await client.put_item(TableName=..., Item=...)`."""

    def __init__(self, dynamodb: SimulatedDynamoDB) -> None:
        self._dynamodb = dynamodb

    def __getattr__(self, method: str) -> Callable[..., Awaitable[dict[str, Any]]]:
        operation = "".join(word.capitalize() for word in method.split("_"))

        async def call(**parameters: Any) -> dict[str, Any]:
            return await self._dynamodb.request(method, operation, parameters)

        setattr(self, method, call)  # found without this the next time
        return call


def _tell(answer: asyncio.Future[dict[str, Any]], outcome: dict[str, Any] | ClientError) -> None:
    if answer.done():
        return
    if isinstance(outcome, ClientError):
        answer.set_exception(outcome)
    else:
        answer.set_result(outcome)


def _refused(operation: str, code: str, status: int) -> ClientError:
    response: Any = {"Error": {"Code": code, "Message": "for the test"}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return ClientError(response, operation)


def _about(parameters: dict[str, Any]) -> str:
    """Return what a request is about, for the trace: the item's key, or what a query asks for."""
    if "TransactItems" in parameters:
        return " + ".join(_about(next(iter(entry.values()))) for entry in parameters["TransactItems"])
    key = parameters.get("Key") or parameters.get("Item") or {}
    if "SK" in key:
        return f"{key['PK'].get('S')} {key['SK'].get('S')}"
    values = parameters.get("ExpressionAttributeValues", {})
    return " ".join(str(value.get("S", "")) for value in values.values())
