"""The door to DynamoDB: what a node asks it, as effects that whoever drives the node carries out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from botocore.exceptions import ClientError

from mangacache.testing.dax.errors import end_of_stream

if TYPE_CHECKING:
    from collections.abc import Iterable

    from mangacache.testing.dax.node import Node
    from mangacache.testing.dax.tables import Tables

Parameters: TypeAlias = dict[str, Any]
Answer: TypeAlias = dict[str, Any]


class Ask(NamedTuple):
    """A request for DynamoDB."""

    operation: str
    parameters: Parameters


Steps: TypeAlias = Generator[Ask, Answer, Answer]
"""The work on one request: requests for DynamoDB out, their answers in, the reply at the end."""


class Door:
    """Where all requests for DynamoDB pass.

    Args:
        tables: what is known of tables.

    Attributes:
        passed_on: how often DynamoDB was asked for what.
    """

    def __init__(self, tables: Tables) -> None:
        self._tables = tables
        self.passed_on: Counter[str] = Counter()

    def ask(self, node: Node, operation: str, parameters: Parameters) -> Steps:
        """Ask DynamoDB on behalf of `node`, and return the answer without what belongs to the connection.

        Raises:
            DaxServiceError: the node died meanwhile: DynamoDB may have done it, nobody will know.
        """
        life = node.life
        self.passed_on[operation] += 1
        answer = yield Ask(operation, parameters)
        if node.life != life:
            raise end_of_stream(operation)
        return {name: value for name, value in answer.items() if name != "ResponseMetadata"}

    def learn(self, node: Node, tables: Iterable[object]) -> Generator[Ask, Answer, None]:
        """Ask for the keys of tables not yet known; one that does not exist stays unknown, and is refused later."""
        for name in self._tables.unknown(tables):
            try:
                described = yield from self.ask(node, "DescribeTable", {"TableName": name})
            except ClientError as error:
                if error.response["Error"].get("Code") != "ResourceNotFoundException":
                    raise
            else:
                self._tables.learn(described["Table"])
