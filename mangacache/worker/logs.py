"""Logs of the worker's process: a line of JSON for each event, or words for people; nothing that is personal.

The package itself configures nothing: its events go to the standard library's logger `mangacache`. Here the process
that serves gives all loggers one format on its standard error: ours, aiohttp's, botocore's, asyncio's.

Those of others are heard from `warning` on, whatever `log_level` says: at `debug`, the AWS client writes what it sends,
and that is what customers say.
"""

from __future__ import annotations

import logging
import re
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, TextIO

import msgspec
import structlog

if TYPE_CHECKING:
    from collections.abc import Iterator, MutableMapping

    from structlog.typing import Processor

_OURS: Final = "mangacache"
_TAG: Final = re.compile(r":\{[^}]*\}")


@contextmanager
def logging_to(stream: TextIO | None = None, *, level: str = "info", form: str = "auto") -> Iterator[None]:
    """Have every logger of this process write to a stream while the block runs.

    Args:
        stream: by default the standard error.
        level: from which on ours are heard; `log_level`.
        form: `json`, `pretty`, or `auto`: pretty on a terminal.
    """
    stream = stream if stream is not None else sys.stderr
    pretty = form == "pretty" or (form == "auto" and stream.isatty())
    handler = logging.StreamHandler(stream)
    handler.setFormatter(_formatter(pretty=pretty, colors=pretty and stream.isatty()))
    root, ours = logging.getLogger(), logging.getLogger(_OURS)
    before = root.level, ours.level
    root.addHandler(handler)
    wanted = logging.getLevelNamesMapping()[level.upper()]
    root.setLevel(max(wanted, logging.WARNING))
    ours.setLevel(wanted)
    logging.captureWarnings(capture=True)
    try:
        yield
    finally:
        logging.captureWarnings(capture=False)
        root.removeHandler(handler)
        root.setLevel(before[0])
        ours.setLevel(before[1])


def _formatter(*, pretty: bool, colors: bool) -> logging.Formatter:
    rendering: list[Processor] = [structlog.stdlib.ProcessorFormatter.remove_processors_meta]
    if pretty:
        plain = structlog.dev.plain_traceback  # the other one shows what variables hold
        rendering.append(structlog.dev.ConsoleRenderer(colors=colors, exception_formatter=plain))
    else:
        rendering += [structlog.processors.format_exc_info, structlog.processors.JSONRenderer(serializer=_encoded)]
    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[
            structlog.stdlib.add_log_level,
            structlog.stdlib.add_logger_name,
            structlog.stdlib.ExtraAdder(),
            _without_ids,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
        ],
        processors=rendering,
    )


def _without_ids(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Take out whose a key of Redis's is: `mc:rate:{customer}:messages` stands in errors that are survived."""
    for name, value in event.items():
        if isinstance(value, str) and "{" in value:
            event[name] = _TAG.sub(":{*}", value)
    return event


def _encoded(event: Any, **_: Any) -> str:
    return msgspec.json.encode(event, enc_hook=repr).decode()
