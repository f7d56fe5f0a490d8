"""What workers say that they did, from their operators' ports: the difference between two looks at their metrics."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

from mangacache.errors import Transient
from mangacache.replay.performing import Tally

if TYPE_CHECKING:
    from collections.abc import Sequence

_WITHIN_S: Final = 30.0
_DYNAMODB: Final = "mangacache_dynamodb_requests_total"
_REDIS: Final = "mangacache_redis_calls_total"
_DAX: Final = "mangacache_dax_requests_total"
_WATCHED: Final = {_DYNAMODB: "operation", _REDIS: "script", _DAX: "outcome"}


class Look(Counter[tuple[str, str]]):
    """The counters of all workers together, by name and label."""

    def since(self, before: Look) -> Tally:
        """Return what was sent between two looks."""
        sent = {key: count - before[key] for key, count in self.items() if count > before[key]}
        requests = {label: count for (name, label), count in sent.items() if name == _DYNAMODB}
        requests = {_NAMES.get(name, name): count for name, count in requests.items()}
        return Tally(
            requests,
            steady=requests,
            round_trips=sum(count for (name, _), count in sent.items() if name == _REDIS),
            dax={label: count for (name, label), count in sent.items() if name == _DAX},
        )


_NAMES: Final = {"UpdateItem": "Touch"}


async def look(urls: Sequence[str]) -> Look:
    """Return what the workers with these operators' ports have counted so far.

    Raises:
        Transient: one does not answer.
    """
    found = Look()
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=_WITHIN_S)) as http:
        for url in urls:
            try:
                async with http.get(f"{url.rstrip('/')}/metrics", raise_for_status=True) as response:
                    found.update(read_metrics(await response.text()))
            except (aiohttp.ClientError, TimeoutError) as error:
                raise Transient(f"{url}/metrics does not answer: {error!r}: is it an operator's port?") from error
    return found


def read_metrics(text: str) -> Look:
    """Return the counters that matter here of one worker's metrics."""
    found = Look()
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if (label := _WATCHED.get(sample.name)) is not None:
                found[sample.name, sample.labels[label]] += int(sample.value)
    return found
