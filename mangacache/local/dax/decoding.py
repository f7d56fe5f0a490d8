"""Requests out of their bytes: which methods there are, and what arguments each has."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NoReturn

from mangacache.local.dax import requests
from mangacache.local.dax.limits import Malformed
from mangacache.local.dax.requests import Options, Request

if TYPE_CHECKING:
    from collections.abc import Callable

    from mangacache.local.dax.cursor import Cursor

SERVICE: Final = 1
"""The only service, which each request begins with."""

_CAPACITIES: Final = {0: "NONE", 1: "TOTAL", 2: "INDEXES"}
_METRICS: Final = {0: "NONE", 1: "SIZE"}
_RETURNS: Final = {1: "NONE", 2: "ALL_OLD", 3: "UPDATED_OLD", 4: "ALL_NEW", 5: "UPDATED_NEW"}
_SELECTS: Final = {1: "ALL_ATTRIBUTES", 2: "ALL_PROJECTED_ATTRIBUTES", 3: "COUNT", 4: "SPECIFIC_ATTRIBUTES"}
_OPERATIONS: Final = {2: "Put", 7: "Delete", 9: "Update", 12: "ConditionCheck"}
_RETURNS_OLD: Final = {1: False, 2: True}


def _one_of(cursor: Cursor, meanings: dict[int, Any], what: str) -> Any:
    number = cursor.integer()
    try:
        return meanings[number]
    except KeyError:
        raise Malformed(f"{what} is {number}, not one of {sorted(meanings)}") from None


def _skipped(cursor: Cursor) -> None:
    """Pass over names and values of expressions: the compiled expressions hold them all."""
    cursor.skip()


def _octets(cursor: Cursor) -> bytes:
    return cursor.blob()


_OPTIONS: Final[dict[int, tuple[str | None, Callable[[Cursor], Any]]]] = {
    0: ("projection", _octets),
    1: (None, _skipped),
    2: ("consistent_read", lambda cursor: cursor.boolean()),
    3: ("consumed_capacity", lambda cursor: _one_of(cursor, _CAPACITIES, "ReturnConsumedCapacity")),
    4: ("condition", _octets),
    5: (None, _skipped),
    6: ("collection_metrics", lambda cursor: _one_of(cursor, _METRICS, "ReturnItemCollectionMetrics")),
    7: ("return_values", lambda cursor: _one_of(cursor, _RETURNS, "ReturnValues")),
    8: ("update", _octets),
    9: ("start_key", _octets),
    10: ("filter", _octets),
    11: ("index", lambda cursor: cursor.name()),
    13: ("limit", lambda cursor: cursor.integer()),
    14: ("forward", lambda cursor: cursor.boolean()),
    15: ("select", lambda cursor: _one_of(cursor, _SELECTS, "Select")),
    16: ("segment", lambda cursor: cursor.integer()),
    17: ("total_segments", lambda cursor: cursor.integer()),
    19: ("token", lambda cursor: cursor.name()),
}


def _options(cursor: Cursor) -> Options:
    """Read a request's options. The condition comes twice, as its text and compiled: the last one counts."""
    if cursor.null():
        return requests.NO_OPTIONS
    given: dict[str, Any] = {}
    for _ in cursor.pairs():
        number = cursor.integer()
        try:
            name, read = _OPTIONS[number]
        except KeyError:
            raise Malformed(f"there is no option {number}") from None
        value = read(cursor)
        if name is not None:
            given[name] = value
    return Options(**given)


def _optional(cursor: Cursor) -> bytes | None:
    return None if cursor.null() else cursor.blob()


def _authorize(cursor: Cursor) -> Request:
    return requests.AuthorizeConnection(
        cursor.text(),
        cursor.text(),
        cursor.blob(),
        None if cursor.null() else cursor.text(),
        None if cursor.null() else cursor.text(),
    )


def _batch_get(cursor: Cursor) -> Request:
    tables: dict[str, requests.TableGets] = {}
    for _ in cursor.pairs():
        table = cursor.name()
        _fixed(cursor, 3, "what is wanted of a table")
        tables[table] = requests.TableGets(
            cursor.boolean(), _optional(cursor), tuple([cursor.blob() for _ in cursor.elements()])
        )
    return requests.BatchGetItem(tables, _options(cursor))


def _fixed(cursor: Cursor, wanted: int, what: str) -> None:
    if cursor.length() != wanted:
        raise Malformed(f"{what} is not a list of {wanted}")


def _batch_write(cursor: Cursor) -> Request:
    tables: dict[str, tuple[tuple[bytes, bytes | None], ...]] = {}
    for _ in cursor.pairs():
        table = cursor.name()
        parts = [cursor.blob() if place % 2 == 0 else _optional(cursor) for place in cursor.elements()]
        if len(parts) % 2:
            raise Malformed(f"the writes of the table {table!r} are no pairs of key and values")
        keys = [part for part in parts[::2] if part is not None]
        tables[table] = tuple(zip(keys, parts[1::2], strict=True))
    return requests.BatchWriteItem(tables, _options(cursor))


def _transact_get(cursor: Cursor) -> Request:
    tables = [cursor.name() for _ in cursor.elements()]
    keys = [cursor.blob() for _ in cursor.elements()]
    projections = _list_or_nulls(cursor, len(tables), _optional)
    if not len(tables) == len(keys) == len(projections):
        _unequal(len(tables), len(keys), len(projections))
    gets = tuple(map(requests.TransactGet, tables, keys, projections))
    return requests.TransactGetItems(gets, _options(cursor))


def _unequal(*lengths: int) -> NoReturn:
    raise Malformed(
        f"the lists of a transaction have {', '.join(map(str, lengths))} elements: they are to have as many"
    )


def _list_or_nulls(cursor: Cursor, length: int, read: Callable[[Cursor], Any]) -> list[Any]:
    if cursor.null():
        return [None] * length
    return [read(cursor) for _ in cursor.elements()]


def _returns_old(cursor: Cursor) -> bool:
    return False if cursor.null() else bool(_one_of(cursor, _RETURNS_OLD, "ReturnValuesOnConditionCheckFailure"))


def _transact_write(cursor: Cursor) -> Request:
    operations = [_one_of(cursor, _OPERATIONS, "an operation of a transaction") for _ in cursor.elements()]
    count = len(operations)
    tables = [cursor.name() for _ in cursor.elements()]
    keys = [cursor.blob() for _ in cursor.elements()]
    values = _list_or_nulls(cursor, count, _optional)
    cursor.skip()  # return values, which DynamoDB has none of in transactions
    returns = [bool(returned) for returned in _list_or_nulls(cursor, count, _returns_old)]
    conditions = _list_or_nulls(cursor, count, _optional)
    updates = _list_or_nulls(cursor, count, _optional)
    lists = (operations, tables, keys, values, returns, conditions, updates)
    if any(len(one) != count for one in lists):
        _unequal(*map(len, lists))
    writes = tuple(map(requests.TransactWrite, operations, tables, keys, values, returns, conditions, updates))
    return requests.TransactWriteItems(writes, _options(cursor))


def _names(cursor: Cursor) -> Request:
    return requests.DefineAttributeListId(tuple([cursor.name() for _ in cursor.elements()]))


_METHODS: Final[dict[int, tuple[int, Callable[[Cursor], Request]]]] = {
    1489122155: (5, _authorize),
    455855874: (0, lambda _: requests.Endpoints()),
    -742646399: (1, lambda cursor: requests.DefineKeySchema(cursor.name())),
    -1230579644: (1, _names),
    670678385: (1, lambda cursor: requests.DefineAttributeList(cursor.integer())),
    263244906: (3, lambda cursor: requests.GetItem(cursor.name(), cursor.blob(), _options(cursor))),
    -2106490455: (4, lambda cursor: requests.PutItem(cursor.name(), cursor.blob(), cursor.blob(), _options(cursor))),
    1013539361: (3, lambda cursor: requests.DeleteItem(cursor.name(), cursor.blob(), _options(cursor))),
    1425579023: (3, lambda cursor: requests.UpdateItem(cursor.name(), cursor.blob(), _options(cursor))),
    -931250863: (3, lambda cursor: requests.Query(cursor.name(), _optional(cursor), _options(cursor))),
    -1875390620: (2, lambda cursor: requests.Scan(cursor.name(), _options(cursor))),
    -697851100: (2, _batch_get),
    116217951: (2, _batch_write),
    1866287579: (4, _transact_get),
    -1160037738: (9, _transact_write),
}


def _method(cursor: Cursor) -> tuple[int, Callable[[Cursor], Request]]:
    service = cursor.integer()
    if service != SERVICE:
        raise Malformed(f"a request begins with the service {SERVICE}, not {service!s:.30}")
    method = cursor.integer()
    try:
        return _METHODS[method]
    except KeyError:
        raise Malformed(f"there is no method {method!s:.30}") from None


def arguments_of(cursor: Cursor) -> int:
    """Read a request's service and method, and return how many items follow.

    Raises:
        Malformed: there are no such.
    """
    return _method(cursor)[0]


def read_request(cursor: Cursor) -> Request:
    """Read a request.

    Raises:
        Malformed: it is none.
        Truncated: it is not whole.
    """
    return _method(cursor)[1](cursor)
