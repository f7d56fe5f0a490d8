"""The client's side of a request, as plain decisions: which node, how long to wait, whether to send it again."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias

from mangacache.testing.dax.door import Answer, Ask
from mangacache.testing.dax.errors import DaxError, end_of_stream
from mangacache.testing.dax.serving import WRITES

if TYPE_CHECKING:
    from mangacache.clock import Random
    from mangacache.testing.dax.cluster import Cluster
    from mangacache.testing.dax.door import Parameters, Steps
    from mangacache.testing.dax.faults import DaxFaults
    from mangacache.testing.dax.serving import Serving

_FIRST_PAUSE_S: Final = 0.07


class Serve(NamedTuple):
    """Let a node work on a request, to the end, whatever becomes of the caller; the outcome is its reply."""

    operation: str
    steps: Steps


class Wait(NamedTuple):
    """Let time pass."""

    seconds: float


Effect: TypeAlias = Ask | Serve | Wait
Conversation: TypeAlias = Generator[Effect, Any, Answer]


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientOptions:
    """What a client does.

    Attributes:
        node: the node it reads from; None for a random one each time.
        retries: how often it sends a request again. The real client's default is 2, and it does so for writes too.
        read_timeout_s: how long it waits for a reply that a fault holds back.
    """

    node: int | None = None
    retries: int = 0
    read_timeout_s: float = 60.0


class Conversations:
    """Makes conversations with one cluster.

    Args:
        cluster: whose nodes are asked.
        serving: what they do.
        faults: what befalls them.
        random: for pauses.
    """

    def __init__(self, cluster: Cluster, serving: Serving, faults: DaxFaults, random: Random) -> None:
        self._cluster = cluster
        self._serving = serving
        self._faults = faults
        self._random = random

    def begin(self, operation: str, parameters: Parameters, options: ClientOptions) -> Conversation:
        """Return one request of a client, with its retries.

        A write whose reply was lost is sent again like any other; errors of the connection itself (`OSError`) never.

        Raises:
            DaxError: see there.
            OSError: the connection was refused or the reply did not come in time; these are no `ClientError`.
        """
        for attempt in range(options.retries + 1):
            try:
                return (yield from self._attempt(operation, parameters, options))
            except DaxError as error:
                if attempt == options.retries or not error.retryable:
                    raise
                if error.throttle:
                    yield Wait(_FIRST_PAUSE_S * 2**attempt * (1 + self._random.random()))
        raise AssertionError("the last attempt returns or raises")

    def _attempt(self, operation: str, parameters: Parameters, options: ClientOptions) -> Conversation:
        node = self._cluster.route(write=operation in WRITES, pinned=options.node)
        self._faults.check(operation)
        life = node.life
        error: Exception | None = None
        answer: Answer = {}
        try:
            answer = yield Serve(operation, self._serving.serve(node, operation, parameters))
        except DaxError as refusal:
            error = refusal
        delay_s = self._faults.delay_s(node)
        if delay_s > 0:
            yield Wait(min(delay_s, options.read_timeout_s))
        if delay_s >= options.read_timeout_s:
            raise TimeoutError("timed out")
        if node.life != life or self._faults.loses_reply(operation):
            raise end_of_stream(operation) from error
        if error is not None:
            raise error
        return answer
