"""docs/dax.md is true: its four scenarios are run by the real client against the emulator, as they stand there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from daxes import MovableClock, emulated, real_client

PAGE = (Path(__file__).parents[2] / "docs" / "dax.md").read_text(encoding="utf-8")
SCENARIOS = {
    title: [tuple(cell.strip() for cell in row.strip("|").split("|")) for row in rows.strip().splitlines()[2:]]
    for title, rows in re.findall(r"^### (\d\. .*?)\n\n((?:\|.*\|\n)+)", PAGE, re.MULTILINE)
}
PARTITION = {"S": "SESSION#s"}


def _key(number):
    return {"PK": PARTITION, "SK": {"S": f"TURN#0001-{number:010}"}}


def _item(number):
    return {**_key(number), "content": {"S": f"turn {number}"}}


def _said(items):
    return ", ".join(item["content"]["S"] for item in sorted(items, key=lambda item: item["SK"]["S"])) or "nothing"


class Stage:
    """A table, DAX before it, and whoever does what the page says."""

    def __init__(self, table_name, dynamodb, client, emulator, clock):
        self._table_name = table_name
        self._dynamodb = dynamodb
        self._client = client
        self._emulator = emulator
        self._clock = clock

    async def do(self, what):
        """Carry a line out, and return what came back and who answered."""
        before = self._counts()
        for pattern, act in self.ACTS.items():
            if match := re.fullmatch(pattern, what):
                came_back = await act(self, *match.groups())
                return came_back, self._who(before, self._counts(), what)
        raise AssertionError(f"the page says {what!r}, which nobody here understands")

    async def _get(self, number, consistent):
        answer = self._client.get_item(
            TableName=self._table_name, Key=_key(int(number)), ConsistentRead=consistent is not None
        )
        return _said([answer["Item"]] if "Item" in answer else [])

    async def _get_many(self, numbers):
        keys = [_key(int(number)) for number in numbers.split()]
        answer = self._client.batch_get_item(RequestItems={self._table_name: {"Keys": keys}})
        return _said(answer["Responses"][self._table_name])

    async def _query(self, consistent):
        answer = self._client.query(
            TableName=self._table_name,
            KeyConditionExpression="PK = :pk AND begins_with(SK, :turn)",
            ExpressionAttributeValues={":pk": PARTITION, ":turn": {"S": "TURN#"}},
            ConsistentRead=consistent is not None,
        )
        return _said(answer["Items"])

    async def _put(self, number):
        self._client.put_item(TableName=self._table_name, Item=_item(int(number)))
        return "done"

    async def _delete(self, number):
        self._client.delete_item(TableName=self._table_name, Key=_key(int(number)))
        return "done"

    async def store(self, number):
        await self._dynamodb.request("PutItem", {"TableName": self._table_name, "Item": _item(int(number))})
        return "done"

    async def _wait(self, seconds):
        self._clock.moved_s += int(seconds)
        return "done"

    ACTS = {  # noqa: RUF012 - never changed
        r"get turn (\d+)(, consistent)?": _get,
        r"get turns ([\d ]+)": _get_many,
        r"query the turns(, consistent)?": _query,
        r"put turn (\d+) through DAX": _put,
        r"delete turn (\d+) through DAX": _delete,
        r"store turn (\d+) in DynamoDB": store,
        r"wait (\d+) s": _wait,
    }

    def _counts(self):
        status = self._emulator.status()
        passed_on = {name: count for name, count in status["passed_on"].items() if name != "DescribeTable"}
        items, queries = status["items"], status["queries"]
        return {
            "item cache": items["hits"] + items["negative_hits"],
            "query cache": queries["hits"] + queries["negative_hits"],
            "DynamoDB": sum(passed_on.values()),
        }

    @staticmethod
    def _who(before, after, what):
        who = [name for name in before if after[name] > before[name]]
        if what.startswith("store"):
            assert who == [], "DAX was to hear nothing of it"
            return "DynamoDB"
        return " and ".join(who) or "nobody"


def test_the_page_has_four_scenarios_of_rows_that_say_something():
    assert [title.split(".")[0] for title in SCENARIOS] == ["1", "2", "3", "4"]
    assert all(len(rows) >= 5 and all(len(row) == 3 for row in rows) for rows in SCENARIOS.values())


@pytest.mark.parametrize("title", SCENARIOS)
async def test_a_scenario_goes_as_the_page_says(real_world, title):
    clock = MovableClock()
    with (
        emulated(real_world.settings.dynamodb_endpoint, clock=clock) as emulator,
        real_client(emulator.endpoint) as client,
    ):
        async with real_world.transport() as dynamodb:
            stage = Stage(real_world.settings.table_name, dynamodb, client, emulator, clock)
            for number in (1, 2):
                await stage.store(number)
            seen = [(what, *await stage.do(what)) for what, _, _ in SCENARIOS[title]]
    assert seen == SCENARIOS[title]


def test_what_the_page_names_is_there():
    root = Path(__file__).parents[2]
    for name in re.findall(r"`((?:tests|bench)/[\w/]+\.py)`", PAGE):
        assert (root / name).is_file(), name
    for target in re.findall(r"\]\(([\w/.-]+\.md)(?:#[\w-]+)?\)", PAGE):
        assert (root / "docs" / target).is_file(), target
    settings = (root / "docs" / "settings.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`(dax_[a-z_]+)[=`]", PAGE)) - {"dax_away", "dax_back"}
    assert {"dax_fills", "dax_writes", "dax_ttl_s"} <= named
    for name in named:
        assert f"| `{name}` |" in settings, name
