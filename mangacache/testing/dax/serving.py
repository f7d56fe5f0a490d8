"""What a node does with a request, as plain decisions: what it answers from its caches, what it asks DynamoDB.

Each operation is a generator: it yields the requests for DynamoDB, is sent their answers or thrown their errors, and
returns the reply. Nothing here waits or talks to anybody, so the coroutine client and the threaded one share it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final, TypeAlias

from botocore.exceptions import BotoCoreError, ClientError, ParamValidationError

from mangacache.testing.dax.door import Door, Parameters, Steps
from mangacache.testing.dax.errors import DaxError, malformed, refused, unreachable
from mangacache.testing.dax.node import Node
from mangacache.testing.dax.reading import Reads
from mangacache.testing.dax.writing import Writes
from mangacache.testing.dynamodb.errors import Refusal, raised

if TYPE_CHECKING:
    from mangacache.clock import Clock
    from mangacache.testing.dax.cluster import Cluster
    from mangacache.testing.dax.tables import Tables

_Handler: TypeAlias = Callable[[Node, Parameters], Steps]

WRITES: Final = frozenset({"PutItem", "UpdateItem", "DeleteItem", "BatchWriteItem", "TransactWriteItems"})
OPERATIONS: Final = WRITES | {"BatchGetItem", "GetItem", "Query", "Scan", "TransactGetItems"}


class Serving:
    """The operations of DAX.

    Args:
        cluster: whose nodes serve.
        tables: what is known of tables.
        clock: what time is read from.
        whole: answer as DAX's wire needs it, for a server that projects the items itself: whole attributes where parts
            of them were asked for, the items of the caches uncopied (they are not to be changed), key attributes as
            they are stored, and batches of writes done to the end.

    Attributes:
        door: to DynamoDB.
    """

    def __init__(self, cluster: Cluster, tables: Tables, clock: Clock, *, whole: bool = False) -> None:
        self.door = Door(tables)
        reads = Reads(self.door, cluster, tables, clock, whole=whole)
        self._writes = Writes(self.door, cluster, tables, clock, whole=whole)
        self._handlers: dict[str, _Handler] = {
            "BatchGetItem": reads.batch_get_item,
            "BatchWriteItem": self._writes.batch_write_item,
            "DeleteItem": self._writes.delete_item,
            "GetItem": reads.get_item,
            "PutItem": self._writes.put_item,
            "Query": reads.query,
            "Scan": reads.scan,
            "TransactGetItems": reads.transact_get_items,
            "TransactWriteItems": self._writes.transact_write_items,
            "UpdateItem": self._writes.update_item,
        }

    def steps(self, node: Node, operation: str, parameters: Parameters) -> Steps:
        """Do one operation on one node; its errors are as they came from DynamoDB, and not yet the client's."""
        yield from self._writes.read_back(node)
        return (yield from self._handlers[operation](node, parameters))

    def serve(self, node: Node, operation: str, parameters: Parameters) -> Steps:
        """Do one operation on one node.

        Raises:
            DaxServiceError: refused by the service, or nothing was heard from it.
            DaxClientError: refused by the client.
            NotImplementedError: `MemoryDynamoDB` does not model it.
        """
        try:
            return (yield from self.steps(node, operation, parameters))
        except DaxError:
            raise
        except ParamValidationError as error:
            raise malformed(str(error)) from error
        except ClientError as error:
            raise refused(operation, error) from error
        except Refusal as refusal:
            raise refused(operation, raised(refusal, operation)) from refusal
        except (BotoCoreError, OSError) as error:
            raise unreachable(operation, error) from error
