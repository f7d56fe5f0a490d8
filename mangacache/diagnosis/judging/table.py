"""What is wrong with the table."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from mangacache.diagnosis.facts import Unseen
from mangacache.diagnosis.findings import note, ok, problem, warning

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mangacache.diagnosis.facts import Expected, TableFacts
    from mangacache.diagnosis.findings import Finding
    from mangacache.settings import Settings

_KEYS: Final = [("PK", "HASH"), ("SK", "RANGE")]
_INDEX_KEYS: Final = [("customer_id", "HASH"), ("last_active_at", "RANGE")]
_LISTED: Final = frozenset({"status", "ttl"})
_CREATE: Final = "run `mangacache tables create`"
_SLOW_READ_MS: Final = 50.0


def judge_table(facts: TableFacts, settings: Settings, _expected: Expected) -> Iterator[Finding]:
    """Iterate over what is to be said of the table."""
    table, name = facts.description, settings.table_name
    if isinstance(table, Unseen):
        yield _unseen_table(facts, table)
        return
    if table is None:
        yield problem(
            "table.exists",
            f"there is no table {name!r} at {facts.where}",
            breaks="nothing can be read or written: no process opens",
            remedy=f"{_CREATE}, or set SESSION_TABLE (and AWS_REGION) to where the table is",
        )
        return
    status = table.get("TableStatus", "ACTIVE")
    if status in {"ACTIVE", "UPDATING"}:
        yield ok("table.exists", f"table {name!r} at {facts.where}, {status}")
    else:
        yield problem(
            "table.exists",
            f"table {name!r} is {status}",
            breaks="requests are refused until it is ACTIVE",
            remedy="wait, or see in the AWS console why it stays so",
        )
    yield _keys(table, name)
    yield from _index(table, settings.customer_index)
    yield _ttl(facts.ttl)
    yield _recovery(facts.recovery)
    yield from _capacity(table)
    yield _reads(facts.reads)


def _unseen_table(facts: TableFacts, why: Unseen) -> Finding:
    if why.kind == "refused":
        return problem(
            "table.exists",
            f"{facts.where} refuses: {why.why}",
            breaks="nothing can be read or written",
            remedy="see `credentials`; the role needs dynamodb:DescribeTable, GetItem, Query, PutItem, UpdateItem,"
            " DeleteItem, BatchGetItem, BatchWriteItem and ConditionCheckItem on the table and its index",
        )
    return problem(
        "table.exists",
        f"{facts.where} does not answer: {why.why}",
        breaks="nothing can be read or written",
        remedy="check AWS_REGION and DYNAMODB_ENDPOINT; in a VPC without a NAT a gateway endpoint for DynamoDB is"
        " needed",
    )


def _shape(schema: list[dict[str, str]]) -> list[tuple[str, str]]:
    return [(entry["AttributeName"], entry["KeyType"]) for entry in schema]


def _shown(shape: list[tuple[str, str]]) -> str:
    return ", ".join(f"{name} ({kind})" for name, kind in shape)


def _keys(table: dict[str, Any], name: str) -> Finding:
    found = _shape(table["KeySchema"])
    types = {entry["AttributeName"]: entry["AttributeType"] for entry in table["AttributeDefinitions"]}
    wrong = [f"{key} has type {types.get(key)}" for key, _ in found if types.get(key) != "S"]
    if found == _KEYS and not wrong:
        return ok("table.keys", f"keys {_shown(found)}")
    return problem(
        "table.keys",
        f"table {name!r} has the keys {_shown(found)}{''.join(f', {one}' for one in wrong)}",
        breaks="no process opens: sessions are kept under PK (HASH) and SK (RANGE), both of type S",
        remedy="keys of a table cannot be changed: set SESSION_TABLE to another name and run `mangacache tables"
        " create`",
    )


def _index(table: dict[str, Any], name: str) -> Iterator[Finding]:
    indexes = table.get("GlobalSecondaryIndexes") or []
    index = next((one for one in indexes if one["IndexName"] == name), None)
    if index is None:
        others = ", ".join(one["IndexName"] for one in indexes) or "none"
        yield problem(
            "table.index",
            f"there is no index {name!r}; there are: {others}",
            breaks="no process opens: a customer's sessions could be neither listed nor forgotten",
            remedy=f"{_CREATE}, or set CUSTOMER_INDEX",
        )
        return
    found = _shape(index["KeySchema"])
    if found != _INDEX_KEYS:
        yield problem(
            "table.index",
            f"index {name!r} has the keys {_shown(found)}",
            breaks=f"no process opens: needed are {_shown(_INDEX_KEYS)}",
            remedy="set CUSTOMER_INDEX to another name and run `mangacache tables create`",
        )
        return
    status = index.get("IndexStatus", "ACTIVE")
    if status == "ACTIVE" and not index.get("Backfilling"):
        yield ok("table.index", f"index {name!r} with keys {_shown(found)}")
    else:
        yield warning(
            "table.index",
            f"index {name!r} is {status}{', backfilling' if index.get('Backfilling') else ''}",
            breaks="lists of a customer's sessions are not whole, and `forget_customer` could miss some",
            remedy="wait until it is ACTIVE",
        )
    yield _projection(index, name)


def _projection(index: dict[str, Any], name: str) -> Finding:
    projection = index.get("Projection", {})
    kind = projection.get("ProjectionType", "KEYS_ONLY")
    missing = sorted(_LISTED - set(projection.get("NonKeyAttributes") or []))
    if kind == "ALL":
        return note(
            "table.index-projection",
            f"index {name!r} projects every attribute",
            breaks="each change of META is written twice whole, and costs more than it need",
            remedy="an index that includes `status` and `ttl` alone is enough: `mangacache tables create` makes such"
            " a one",
        )
    if kind == "INCLUDE" and not missing:
        return ok("table.index-projection", "the index includes status and ttl")
    return warning(
        "table.index-projection",
        f"index {name!r} projects {kind.lower().replace('_', ' ')}, without {', '.join(missing)}",
        breaks="lists of a customer's sessions show expired ones, and every status as active",
        remedy="set CUSTOMER_INDEX to another name and run `mangacache tables create`",
    )


def _ttl(ttl: dict[str, Any] | Unseen | None) -> Finding:
    if isinstance(ttl, Unseen) or ttl is None:
        return _not_seen("table.ttl", ttl, "dynamodb:DescribeTimeToLive")
    status, attribute = ttl.get("TimeToLiveStatus", "DISABLED"), ttl.get("AttributeName", "ttl")
    if status in {"ENABLED", "ENABLING"} and attribute == "ttl":
        return ok("table.ttl", f"items expire by `ttl` ({status.lower()})")
    seen = f"items expire by {attribute!r}" if status in {"ENABLED", "ENABLING"} else f"TTL is {status.lower()}"
    return problem(
        "table.ttl",
        seen,
        breaks="nothing is ever deleted: retention_days is not kept, and the table grows for ever"
        " (expired items are not shown all the same)",
        remedy=_CREATE
        if status not in {"ENABLED", "ENABLING"}
        else f"disable the TTL on {attribute!r}, then {_CREATE}",
    )


def _recovery(status: str | Unseen | None) -> Finding:
    if isinstance(status, Unseen) or status is None:
        return _not_seen("table.recovery", status, "dynamodb:DescribeContinuousBackups")
    if status == "ENABLED":
        return ok("table.recovery", "point-in-time recovery is enabled")
    return problem(
        "table.recovery",
        f"point-in-time recovery is {status.lower()}",
        breaks="what a bad release or a wrong hand deletes is gone: there is nothing to restore from",
        remedy=f"{_CREATE}, which enables it, or enable it in the AWS console",
    )


def _not_seen(check: str, why: Unseen | None, right: str) -> Finding:
    if why is not None and why.kind == "unsupported":
        return note(check, f"cannot be seen: {why.why}", remedy="a local engine need not have it; AWS has")
    return warning(
        check,
        f"cannot be seen: {why.why if why is not None else 'it was not asked for'}",
        breaks="whether it is on stays unsaid",
        remedy=f"allow {right} to whoever runs this, or look in the AWS console",
    )


def _capacity(table: dict[str, Any]) -> Iterator[Finding]:
    mode = table.get("BillingModeSummary", {}).get("BillingMode", "PROVISIONED")
    given = table.get("ProvisionedThroughput", {})
    if mode == "PAY_PER_REQUEST":
        limits = table.get("OnDemandThroughput") or {}
        most = limits.get("MaxWriteRequestUnits", -1)
        if most is not None and most > 0:
            yield warning(
                "table.capacity",
                f"on demand, with at most {most} write units a second",
                breaks=f"above {most // 2} messages a second (two writes each) appends are throttled",
                remedy="raise or remove the table's maximum throughput",
            )
        else:
            yield ok("table.capacity", "on demand: a new table takes 4,000 writes a second at once, 2,000 messages")
    else:
        writes = int(given.get("WriteCapacityUnits", 0))
        yield warning(
            "table.capacity",
            f"provisioned: {writes} write and {given.get('ReadCapacityUnits', 0)} read units a second",
            breaks=f"above {writes // 2} messages a second (two writes each) appends are throttled: they wait, then"
            " raise"
            " Transient",
            remedy="switch the table to on-demand (PAY_PER_REQUEST), or let auto scaling follow well ahead of the load",
        )
    if table.get("DeletionProtectionEnabled") is False:
        yield note(
            "table.deletion-protection",
            "deletion protection is off",
            breaks="the table can be deleted by one call",
            remedy="enable it in production",
        )


def _reads(reads: float | Unseen | None) -> Finding:
    if isinstance(reads, Unseen) or reads is None:
        why = reads.why if reads is not None else "it was not tried"
        return problem(
            "table.reads",
            f"an item cannot be read: {why}",
            breaks="nothing can be read",
            remedy="the role needs dynamodb:GetItem and dynamodb:Query on the table",
        )
    if reads > _SLOW_READ_MS:
        return note(
            "table.reads",
            f"one strong read took {reads:.0f} ms",
            breaks="a session that no cache holds waits for several of them",
            remedy="run in the table's region, with a gateway endpoint; a first request pays for its connection",
        )
    return ok("table.reads", f"one strong read took {reads:.1f} ms")
