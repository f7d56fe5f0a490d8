"""The table: made idempotently, and checked before it is used."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from mangacache.errors import Invalid, MangaCacheError, NotFound, Transient

if TYPE_CHECKING:
    from mangacache.clock import Clock
    from mangacache.store.requests import Requests
    from mangacache.telemetry import Telemetry

_KEYS: Final = [{"AttributeName": "PK", "KeyType": "HASH"}, {"AttributeName": "SK", "KeyType": "RANGE"}]
_INDEX_KEYS: Final = [
    {"AttributeName": "customer_id", "KeyType": "HASH"},
    {"AttributeName": "last_active_at", "KeyType": "RANGE"},
]
_ATTRIBUTES: Final = [
    {"AttributeName": name, "AttributeType": "S"} for name in ("PK", "SK", "customer_id", "last_active_at")
]
_ACTIVE_WITHIN_S: Final = 300.0
_ASK_EVERY_S: Final = 0.25


class Schema:
    """The table's shape, on any endpoint that speaks DynamoDB's API."""

    def __init__(
        self, requests: Requests, *, table_name: str, index_name: str, clock: Clock, telemetry: Telemetry
    ) -> None:
        self._requests = requests
        self._table_name = table_name
        self._index_name = index_name
        self._clock = clock
        self._telemetry = telemetry

    async def create(self) -> list[str]:
        """Make the table, its index, its ttl and its point-in-time recovery, whichever is missing.

        Returns:
            What was done, a line each; empty where everything stood already.

        Raises:
            Invalid: a table or an index of this name stands there with other keys.
        """
        done = []
        table = await self._describe()
        if table is None:
            await self._create_table()
            done.append(f"table {self._table_name} made, with index {self._index_name}")
        else:
            self._check_keys(table)
            index = self._index(table)
            if index is None:
                await self._create_index()
                done.append(f"index {self._index_name} made")
            else:
                self._check_index(index)
        await self._until_active()
        if await self._enable_ttl():
            done.append("ttl enabled")
        if await self._enable_recovery():
            done.append("point-in-time recovery enabled")
        return done

    async def verify(self) -> None:
        """Check that the table can be used.

        Raises:
            NotFound: there is no such table.
            Invalid: its keys or its index are not as they must be.
        """
        table = await self._describe()
        if table is None:
            raise NotFound(
                f"there is no table {self._table_name!r} at this endpoint: run `mangacache tables create`, "
                "or set SESSION_TABLE"
            )
        self._check_keys(table)
        index = self._index(table)
        if index is None:
            raise Invalid(
                f"table {self._table_name!r} has no index {self._index_name!r}: run `mangacache tables create`, "
                "or set CUSTOMER_INDEX"
            )
        self._check_index(index)

    def _check_index(self, index: dict[str, Any]) -> None:
        if _shape(index["KeySchema"]) != _shape(_INDEX_KEYS):
            raise Invalid(
                f"index {self._index_name!r} has the keys {_shape(index['KeySchema'])}; needed are "
                f"{_shape(_INDEX_KEYS)}: set CUSTOMER_INDEX to another name and run `mangacache tables create`"
            )

    async def _describe(self) -> dict[str, Any] | None:
        try:
            answer = await self._requests.send("DescribeTable", {"TableName": self._table_name})
        except NotFound:
            return None
        table: dict[str, Any] = answer.body["Table"]
        return table

    def _check_keys(self, table: dict[str, Any]) -> None:
        types = {entry["AttributeName"]: entry["AttributeType"] for entry in table["AttributeDefinitions"]}
        found = _shape(table["KeySchema"])
        wrong_types = [name for name, _ in found if types.get(name) != "S"]
        if found != _shape(_KEYS) or wrong_types:
            described = ", ".join(f"{name} ({kind}, type {types.get(name)})" for name, kind in found)
            raise Invalid(
                f"table {self._table_name!r} has the keys {described}; needed are PK (HASH, type S) and SK (RANGE, "
                "type S): set SESSION_TABLE to another name, keys of a table cannot be changed"
            )

    def _index(self, table: dict[str, Any]) -> dict[str, Any] | None:
        indexes = table.get("GlobalSecondaryIndexes") or []
        return next((index for index in indexes if index["IndexName"] == self._index_name), None)

    def _index_definition(self) -> dict[str, Any]:
        return {
            "IndexName": self._index_name,
            "KeySchema": _INDEX_KEYS,
            "Projection": {"ProjectionType": "INCLUDE", "NonKeyAttributes": ["status", "ttl"]},
        }

    async def _create_table(self) -> None:
        parameters = {
            "TableName": self._table_name,
            "KeySchema": _KEYS,
            "AttributeDefinitions": _ATTRIBUTES,
            "BillingMode": "PAY_PER_REQUEST",
            "GlobalSecondaryIndexes": [self._index_definition()],
        }
        try:
            await self._requests.send("CreateTable", parameters)
        except MangaCacheError as error:
            if "ResourceInUseException" not in str(error):  # somebody else was faster: as good
                raise

    async def _create_index(self) -> None:
        await self._requests.send(
            "UpdateTable",
            {
                "TableName": self._table_name,
                "AttributeDefinitions": _ATTRIBUTES,
                "GlobalSecondaryIndexUpdates": [{"Create": self._index_definition()}],
            },
        )

    async def _until_active(self) -> None:
        deadline_s = self._clock.monotonic_s() + _ACTIVE_WITHIN_S
        while True:
            table = await self._describe()
            if table is not None and table["TableStatus"] == "ACTIVE":
                index = self._index(table)
                if index is not None and index.get("IndexStatus", "ACTIVE") == "ACTIVE":
                    return
            if self._clock.monotonic_s() > deadline_s:
                raise Transient(f"table {self._table_name!r} did not become active in {_ACTIVE_WITHIN_S:g} s")
            await self._clock.sleep(_ASK_EVERY_S)

    async def _enable_ttl(self) -> bool:
        answer = await self._requests.send("DescribeTimeToLive", {"TableName": self._table_name})
        described = answer.body.get("TimeToLiveDescription", {})
        if described.get("TimeToLiveStatus") in ("ENABLED", "ENABLING"):
            if described.get("AttributeName", "ttl") != "ttl":
                raise Invalid(
                    f"table {self._table_name!r} takes its ttl from {described['AttributeName']!r}, not from 'ttl': "
                    "disable that first"
                )
            return False
        specification = {"Enabled": True, "AttributeName": "ttl"}
        await self._requests.send(
            "UpdateTimeToLive", {"TableName": self._table_name, "TimeToLiveSpecification": specification}
        )
        return True

    async def _enable_recovery(self) -> bool:
        name = {"TableName": self._table_name}
        try:
            answer = await self._requests.send("DescribeContinuousBackups", name)
            described = answer.body["ContinuousBackupsDescription"].get("PointInTimeRecoveryDescription", {})
            if described.get("PointInTimeRecoveryStatus") == "ENABLED":
                return False
            specification = {"PointInTimeRecoveryEnabled": True}
            await self._requests.send(
                "UpdateContinuousBackups", {**name, "PointInTimeRecoverySpecification": specification}
            )
        except (MangaCacheError, KeyError) as error:
            # Local engines have no backups; on AWS the message tells which right is missing.
            self._telemetry.count_survived("point_in_time_recovery_unavailable", error, table=self._table_name)
            return False
        return True


def _shape(schema: list[dict[str, str]]) -> list[tuple[str, str]]:
    return [(entry["AttributeName"], entry["KeyType"]) for entry in schema]
