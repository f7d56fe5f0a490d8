"""Writes, first worked out and then done, so that a transaction does all of them or none."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias

from mangacache.testing.dynamodb.errors import condition_failed, invalid
from mangacache.testing.dynamodb.paths import project, tree_of
from mangacache.testing.dynamodb.request import Request
from mangacache.testing.dynamodb.updates import check_keys_unchanged
from mangacache.testing.dynamodb.values import Item, copy_item, normalise_item

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mangacache.testing.dynamodb.table import Key, Table
    from mangacache.testing.dynamodb.updates import Update

_PUT_RETURNS: Final = frozenset({"NONE", "ALL_OLD"})
_UPDATE_RETURNS: Final = frozenset({"NONE", "ALL_OLD", "ALL_NEW", "UPDATED_OLD", "UPDATED_NEW"})


class Write(NamedTuple):
    """A write whose condition holds: what stood there, and what is to stand there.

    Attributes:
        table: the table.
        key: of the item.
        old: the item that stands there, or None.
        new: the item that is to stand there, or None for a delete.
        changes: False for a condition check.
        update: the update expression of an UpdateItem.
    """

    table: Table
    key: Key
    old: Item | None
    new: Item | None
    changes: bool = True
    update: Update | None = None

    def done(self, now_s: float) -> None:
        """Carry it out."""
        if self.changes:
            self.table.write(self.key, self.new, now_s)

    def answer(self, returns: str) -> dict[str, Any]:
        """Return the response for `ReturnValues`."""
        allowed = _PUT_RETURNS if self.update is None else _UPDATE_RETURNS
        if returns not in allowed:
            raise invalid(f"ReturnValues can only be {' or '.join(sorted(allowed))}")
        if returns == "NONE":
            return {}
        item = self.old if returns.endswith("OLD") else self.new
        if item is None:
            return {}
        if returns.startswith("UPDATED") and self.update is not None:
            shown = project(item, tree_of(self.update.paths))
        else:
            shown = copy_item(item)
        return {"Attributes": shown} if shown else {}


Prepared: TypeAlias = Callable[[], Write]
"""A request that is right in itself; called, it tests the condition and works out the write, or is refused then."""


def prepare_put(table: Table, parameters: Mapping[str, Any]) -> Prepared:
    """Check a PutItem.

    Raises:
        Refusal: the item or an expression is refused.
    """
    item = normalise_item(parameters["Item"])
    key = table.check(item)
    condition = _Condition(table, key, Request(parameters))
    return lambda: Write(table, key, condition.checked(), item)


def prepare_delete(table: Table, parameters: Mapping[str, Any]) -> Prepared:
    """Check a DeleteItem; see `prepare_put`."""
    key = table.schema.of_key(normalise_item(parameters["Key"]))
    condition = _Condition(table, key, Request(parameters))
    return lambda: Write(table, key, condition.checked(), None)


def prepare_check(table: Table, parameters: Mapping[str, Any]) -> Prepared:
    """Check a transaction's ConditionCheck; see `prepare_put`."""
    delete = prepare_delete(table, parameters)

    def work_out() -> Write:
        write = delete()
        return write._replace(new=write.old, changes=False)

    return work_out


def prepare_update(table: Table, parameters: Mapping[str, Any]) -> Prepared:
    """Check an UpdateItem, which makes the item where there is none; see `prepare_put`."""
    key_item = normalise_item(parameters["Key"])
    key = table.schema.of_key(key_item)
    request = Request(parameters)
    update = request.update()
    if update is not None:
        check_keys_unchanged(update, table.schema.names)
    condition = _Condition(table, key, request)

    def work_out() -> Write:
        old = condition.checked()
        base = key_item if old is None else old
        new = base if update is None else update.apply(base, request.values)
        table.check(new)
        return Write(table, key, old, new, update=update)

    return work_out


class _Condition:
    """A write's condition, on the item that stands in its place."""

    def __init__(self, table: Table, key: Key, request: Request) -> None:
        self._table = table
        self._key = key
        self._request = request
        self._condition = request.condition()
        request.finish()

    def checked(self) -> Item | None:
        """Return the item that stands there; refused where the condition does not hold on it."""
        old = self._table.get(self._key)
        if self._condition is not None and not self._condition.test(old or {}, self._request.values):
            wanted = self._request.parameters.get("ReturnValuesOnConditionCheckFailure", "NONE") == "ALL_OLD"
            raise condition_failed(copy_item(old) if wanted and old is not None else None)
        return old


PREPARE: Final[dict[str, Callable[[Table, Mapping[str, Any]], Prepared]]] = {
    "Put": prepare_put,
    "Update": prepare_update,
    "Delete": prepare_delete,
    "ConditionCheck": prepare_check,
}
