"""From a request on the wire to its reply: what lies between the bytes and the semantics, still without I/O.

Each request is a generator, as in the double: it yields what is to be asked of DynamoDB, and returns the reply.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator
from typing import TYPE_CHECKING, Any, TypeAlias

from botocore.exceptions import BotoCoreError, ClientError, ParamValidationError

from mangacache.errors import Invalid, NotFound, Rejected
from mangacache.local.dax.calls import call_of
from mangacache.local.dax.failures import failure_of, failure_of_response, reply_failure, unreachable
from mangacache.local.dax.keys import KeyAttribute, KeySchema
from mangacache.local.dax.replies import reply_endpoints, reply_key_schema, reply_list, reply_list_id, reply_to_call
from mangacache.local.dax.requests import (
    AuthorizeConnection,
    DefineAttributeList,
    DefineAttributeListId,
    DefineKeySchema,
    Endpoints,
    tables_of,
)
from mangacache.testing.dax.door import Ask
from mangacache.testing.dax.errors import DaxServiceError
from mangacache.testing.dynamodb.errors import Refusal, raised

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from structlog.typing import FilteringBoundLogger

    from mangacache.local.dax.attribute_lists import AttributeLists
    from mangacache.local.dax.calls import Call
    from mangacache.local.dax.failures import Failure
    from mangacache.local.dax.replies import Endpoint
    from mangacache.local.dax.requests import DataRequest, Request
    from mangacache.testing.dax.cluster import Cluster
    from mangacache.testing.dax.faults import DaxFaults
    from mangacache.testing.dax.node import Node
    from mangacache.testing.dax.serving import Serving
    from mangacache.testing.dax.tables import Tables

Reply: TypeAlias = Generator[Ask, dict[str, Any], bytes]
"""The work on one request: what DynamoDB is asked out, its answers in, the reply's bytes at the end."""


class Answering:
    """Answers requests, for all nodes of a cluster.

    Args:
        cluster: whose caches answer.
        serving: the semantics, answering with whole items.
        tables: what is known of tables.
        lists: the attribute lists.
        faults: what is to go wrong.
        log: hears of what cannot be answered as it should.

    Attributes:
        received: how many requests of each kind came.
    """

    def __init__(
        self,
        cluster: Cluster,
        serving: Serving,
        tables: Tables,
        *,
        lists: AttributeLists,
        faults: DaxFaults,
        log: FilteringBoundLogger,
    ) -> None:
        self._cluster = cluster
        self._serving = serving
        self._tables = tables
        self._lists = lists
        self._faults = faults
        self._log = log
        self._schemas: dict[str, KeySchema] = {}
        self.received: Counter[str] = Counter()

    def answer(self, node: Node, request: Request, endpoints: Callable[[], Iterable[Endpoint]]) -> Reply:
        """Answer one request on one node.

        Args:
            node: that was asked.
            request: any but the one for authorization, to which there is no reply.
            endpoints: gives what is told to who asks for them.
        """
        kind = type(request).__name__
        self.received[kind] += 1
        self._cluster.settle()
        try:
            return (yield from self._answered(node, kind, request, endpoints))
        except Exception as error:  # noqa: BLE001 - whatever it is, one request fails, with a reply
            return reply_failure(self._failure(kind, error))

    def _answered(self, node: Node, kind: str, request: Request, endpoints: Callable[[], Iterable[Endpoint]]) -> Reply:
        match request:
            case Endpoints():
                reply = reply_endpoints(endpoints())
            case DefineAttributeListId():
                reply = reply_list_id(self._lists.id_of(request.names))
            case DefineAttributeList():
                reply = reply_list(self._lists.names_of(request.id))
            case DefineKeySchema():
                yield from self._serving.door.learn(node, [request.table])
                reply = reply_key_schema(self._schema_of(request.table))
            case AuthorizeConnection():
                raise AssertionError("a request without a reply")
            case _:
                reply = yield from self._data(node, kind, request)
        return reply

    def _failure(self, kind: str, error: Exception) -> Failure:
        """Return the refusal that an error means; those that should not be are logged."""
        match error:
            case _UnknownTable():
                failure = failure_of("ResourceNotFoundException", str(error))
            case NotFound():
                self._log.warning("dax_list_unknown", request=kind, reason=str(error))
                failure = unreachable(str(error))
            case Rejected():
                failure = failure_of("LimitExceededException", str(error))
            case Invalid() | ParamValidationError():
                self._log.warning("dax_request_refused", request=kind, reason=str(error))
                failure = failure_of("ValidationException", str(error))
            case ClientError():  # of ours, as of a fault; DynamoDB's own have been told by now, but those on tables
                detail = error.response.get("Error", {})
                failure = failure_of(str(detail.get("Code", "")), str(detail.get("Message", "")))
            case BotoCoreError() | OSError():
                self._log.warning("dax_dynamodb_unanswered", request=kind, reason=f"{type(error).__name__}: {error}")
                failure = unreachable(f"DynamoDB did not answer: {error}")
            case _:
                self._log.error("dax_request_failed", request=kind, exc_info=error)
                failure = unreachable(f"the emulator itself failed: {type(error).__name__}")
        return failure

    def _data(self, node: Node, kind: str, request: DataRequest) -> Reply:
        self._faults.check(kind)
        yield from self._serving.door.learn(node, tables_of(request))
        call = call_of(request, self._schema_of, self._lists.names_of)
        try:
            answer = yield from self._serving.steps(node, call.operation, call.parameters)
        except DaxServiceError:
            raise
        except ClientError as error:
            return self._refused(error, call)
        except Refusal as refusal:
            return self._refused(raised(refusal, kind), call)
        return reply_to_call(call, answer, self._schema_of, self._lists.id_of)

    def _refused(self, error: ClientError, call: Call) -> bytes:
        return reply_failure(failure_of_response(error.response, call, self._schema_of, self._lists.id_of))

    def _schema_of(self, table: str) -> KeySchema:
        types = self._tables.key_types(table)
        if types is None:
            raise _UnknownTable(f"Requested resource not found: Table: {table} not found")
        known = self._schemas.get(table)
        if known is None or {each.name: each.type for each in known.attributes} != types:
            attributes = tuple(KeyAttribute(name, kind) for name, kind in types.items())  # type: ignore[arg-type]
            known = self._schemas[table] = KeySchema(attributes)
        return known


class _UnknownTable(NotFound):
    """A table that DynamoDB does not have."""
