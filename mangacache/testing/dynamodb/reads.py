"""Query and Scan: a page at a time, as the service cuts them."""

from __future__ import annotations

import operator
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

from mangacache.testing.dynamodb.errors import invalid, mistyped
from mangacache.testing.dynamodb.paths import project
from mangacache.testing.dynamodb.request import Request
from mangacache.testing.dynamodb.values import Item, copy_item, normalise_item, scalar, type_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from mangacache.testing.dynamodb.conditions import KeyTerm
    from mangacache.testing.dynamodb.table import Index, KeySchema, Partitions, Place, Table
    from mangacache.testing.dynamodb.values import AttributeValue, Scalar

_RELATIONS: Final[dict[str, Callable[[Any, Any], bool]]] = {
    "=": operator.eq,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_SELECTS: Final = frozenset({"ALL_ATTRIBUTES", "ALL_PROJECTED_ATTRIBUTES", "COUNT", "SPECIFIC_ATTRIBUTES"})


def query(table: Table, parameters: Mapping[str, Any], page_bytes: int) -> dict[str, Any]:
    """Answer a Query."""
    view = _View(table, parameters)
    request = Request(parameters)
    partition, in_range = _key_test(view.schema, request.key_condition().terms, request.values)
    start = view.start(parameters.get("ExclusiveStartKey"))
    if start is not None and start[0] != partition:
        raise invalid("The provided starting key is outside query boundaries based on provided conditions")
    backwards = not parameters.get("ScanIndexForward", True)
    entries = view.entries.walk(partition, after=start and start[1], backwards=backwards)
    # Every item of an ordered partition that is out of range costs nothing: the service seeks.
    return view.page((entry for entry in entries if in_range(entry[0][0])), request, page_bytes)


def scan(table: Table, parameters: Mapping[str, Any], page_bytes: int) -> dict[str, Any]:
    """Answer a Scan."""
    view = _View(table, parameters)
    return view.page(
        view.entries.scan(view.start(parameters.get("ExclusiveStartKey"))), Request(parameters), page_bytes
    )


class _View:
    """The table, or one of its indexes, as a request reads it."""

    def __init__(self, table: Table, parameters: Mapping[str, Any]) -> None:
        self._table = table
        self._index: Index | None = None
        if parameters.get("IndexName") is not None:
            self._index = table.index(parameters["IndexName"])
            if parameters.get("ConsistentRead"):
                raise invalid("Consistent reads are not supported on global secondary indexes")
        self.schema: KeySchema = table.schema if self._index is None else self._index.schema
        self.entries: Partitions = table.items if self._index is None else self._index.entries
        self._select = parameters.get("Select")
        if self._select is not None and self._select not in _SELECTS:
            raise invalid(f"Unknown Select: {self._select}")
        if self._select == "ALL_ATTRIBUTES" and self._index is not None:
            raise invalid("Select type ALL_ATTRIBUTES is not supported for this index: it does not project all of them")

    def start(self, key: Mapping[str, Any] | None) -> tuple[Scalar, Place] | None:
        """Return the place an ExclusiveStartKey names."""
        if key is None:
            return None
        item = normalise_item(key)
        names = dict.fromkeys((*self.schema.names, *self._table.schema.names))
        types = {**self._table.schema.types, **self.schema.types}
        if set(item) != set(names) or any(type_of(item[name]) != types[name] for name in names):
            raise invalid("The provided starting key is invalid")
        table_key = tuple(scalar(item[name]) for name in self._table.schema.names)
        if self._index is None:
            return table_key[0], table_key[1:]
        return self._index.place(item, table_key)

    def page(self, entries: Iterator[tuple[Place, Item, int]], request: Request, page_bytes: int) -> dict[str, Any]:
        """Return one page: at most `Limit` items looked at, and no more bytes than a page holds."""
        parameters = request.parameters
        chosen, projection = request.filter(), request.projection()
        request.finish()
        limit = parameters.get("Limit")
        if limit is not None and limit < 1:
            raise mistyped(f"Invalid value for parameter Limit, value: {limit}, valid min value: 1")
        found: list[Item] = []
        last: Item | None = None
        looked_at = read_bytes = 0
        answer: dict[str, Any] = {}
        for _, item, size in entries:
            read_bytes += size
            if last is not None and read_bytes > page_bytes:
                answer["LastEvaluatedKey"] = self._key_of(last)
                break
            last = item
            looked_at += 1
            if chosen is None or chosen.test(item, request.values):
                found.append(copy_item(item) if projection is None else project(item, projection.tree))
            if looked_at == limit:
                answer["LastEvaluatedKey"] = self._key_of(last)
                break
        if self._select != "COUNT":
            answer["Items"] = found
        return {**answer, "Count": len(found), "ScannedCount": looked_at}

    def _key_of(self, item: Item) -> Item:
        names = (*self.schema.names, *self._table.schema.names)
        return copy_item({name: item[name] for name in dict.fromkeys(names)})


def _key_test(
    schema: KeySchema, terms: tuple[KeyTerm, ...], values: Mapping[str, AttributeValue]
) -> tuple[Scalar, Callable[[Any], bool]]:
    """Return the partition a key condition names, and a test of the sort key's value."""
    hash_name, *range_name = schema.names
    by_name = {term.attribute: term for term in terms}
    wanted = by_name.pop(hash_name, None)
    if wanted is None or len(by_name) != len(terms) - 1:
        raise invalid(f"Query condition missed key schema element: {hash_name}")
    if wanted.relation != "=":
        raise invalid("Query key condition not supported")
    if any(name not in range_name for name in by_name):
        raise invalid(f"Query condition missed key schema element: {' '.join(range_name) or hash_name}")
    for term in terms:
        for name in term.values:
            _check_key_value(term, values[name], schema.types[term.attribute])
    partition = scalar(values[wanted.values[0]])
    for term in by_name.values():
        return partition, _range_test(term, values)
    return partition, lambda _: True


def _check_key_value(term: KeyTerm, value: AttributeValue, wanted: str) -> None:
    if type_of(value) != wanted:
        raise invalid("One or more parameter values were invalid: Condition parameter type does not match schema type")
    if value[wanted] in ("", b""):
        raise invalid(
            "One or more parameter values are not valid. The AttributeValue for a key attribute cannot contain an "
            f"empty string value. Key: {term.attribute}"
        )


def _range_test(term: KeyTerm, values: Mapping[str, AttributeValue]) -> Callable[[Any], bool]:
    """Return the sort key's condition; what it compares with is of the key's type, as has been checked."""
    given: list[Any] = [scalar(values[name]) for name in term.values]
    if term.relation == "BETWEEN":
        low, high = given
        if low > high:
            raise invalid(
                "Invalid KeyConditionExpression: The BETWEEN operator requires upper bound to be greater than or "
                f"equal to lower bound; lower bound operand: {values[term.values[0]]}, "
                f"upper bound operand: {values[term.values[1]]}"
            )
        return lambda key: bool(low <= key <= high)
    (wanted,) = given
    if term.relation == "begins_with":
        if isinstance(wanted, Decimal):
            raise invalid(
                "Invalid KeyConditionExpression: Incorrect operand type for operator or function; "
                "operator or function: begins_with, operand type: N"
            )
        return lambda key: bool(key.startswith(wanted))
    holds = _RELATIONS[term.relation]
    return lambda key: bool(holds(key, wanted))
