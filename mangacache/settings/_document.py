"""Makes the page `docs/settings.md` and the example `config/mangacache.toml` from the fields' metadata."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Final

from mangacache.settings._settings import specs
from mangacache.settings._sources import CONFIG_VARIABLE, OTHER_VARIABLES

if TYPE_CHECKING:
    from mangacache.settings._spec import Spec

_GROUPS: Final = {
    "table_name": "Where things are, and how long they stay",
    "context_ttl_s": "Contexts: how long they are kept, and how old they may be",
    "mailbox_size": "Sessions in the process",
    "connect_timeout_s": "Time-outs, retries and the pool",
    "max_content_bytes": "Limits",
    "worker_host": "The worker: `mangacache serve`",
}
"""The first field of each group, and the group's title."""

_WIDTH: Final = 110

_INTRO: Final = f"""\
# Settings

<!-- Made by `python -m mangacache.settings > docs/settings.md`: change mangacache/settings/_fields.py. -->

Each setting is a field of `mangacache.Settings`, a key in a TOML file, and a variable in the environment.

| made by | reads |
|---|---|
| `Settings.from_env()` | the environment |
| `Settings.from_toml(path)` | the file, overlaid by the environment: the environment wins |
| `Settings.load()` | as `from_toml` with the file that `{CONFIG_VARIABLE}` names; else as `from_env` |
| `Settings(table_name="...")`, `settings.replace(...)` | the arguments alone |

Whatever is wrong is listed at once, in one `mangacache.errors.Invalid`: a value out of its range, a key that
no setting has, a variable that begins with `MANGACACHE_` and is none of those below
(besides {{others}}). Passwords are never shown: not in that list, not in
`repr(settings)`, not by `describe(settings)`.

- A number in the environment is plain digits, with a point where the setting is not whole: `300`, `0.5`; not
  `1_000`, `1e3`, `5s`, `nan` or `inf`.
- A variable that is set but empty counts as not set; only an empty `KEY_PREFIX` means no prefix.
- Where several variables are named, the first one that is set counts.
- In a TOML file, an endpoint that is `""` is none.
- A password in a Redis URL is percent-encoded (`/` is `%2F`, `@` is `%40`, `%` is `%25`).
  DynamoDB's and DAX's credentials come from the AWS chain and stand in no setting.

A file with every setting and its default is [`config/mangacache.toml`](../config/mangacache.toml)
(`python -m mangacache.settings toml`).
"""

_TOML_INTRO: Final = """\
# Every setting of mangacache with its default.
# Made by `python -m mangacache.settings toml > config/mangacache.toml` from mangacache/settings/_fields.py.
# Read with MANGACACHE_CONFIG=config/mangacache.toml; the environment wins over this file.
# In your own file keep only what differs: a default that is written down does not follow the next release.
# Better not in a file at all: a password in redis_endpoint; set REDIS_ENDPOINT from a secret.
"""


def markdown() -> str:
    """Return the page that documents every setting."""
    others = " and ".join(f"`{name}`" for name in sorted(OTHER_VARIABLES))
    lines = [_INTRO.format(others=others)]
    for spec in specs():
        if spec.name in _GROUPS:
            lines += [
                f"\n## {_GROUPS[spec.name]}\n",
                "| setting | environment | unit | allowed | default | meaning | what breaks if it is wrong |",
                "|---|---|---|---|---|---|---|",
            ]
        lines.append(_row(spec))
    return "\n".join(lines).replace("\n\n\n", "\n\n") + "\n"


def toml() -> str:
    """Return the example file: every setting once, at its default; one without a default is commented out."""
    lines = [_TOML_INTRO]
    for spec in specs():
        if spec.name in _GROUPS:
            lines.append(f"\n# ---- {_GROUPS[spec.name]} ----\n")
        environment = f"Environment: {', then '.join(spec.env)}."
        unit = f" Unit: {spec.unit}." if spec.unit else ""
        default = "none" if spec.default is None else _toml_value(spec)
        for text in (
            spec.doc,
            f"{environment}{unit} Allowed: {spec.range}. Default: {default}.",
            f"When wrong: {spec.breaks}",
        ):
            lines += textwrap.wrap(text, _WIDTH, initial_indent="# ", subsequent_indent="#   ", break_on_hyphens=False)
        lines.append(
            f"# {spec.name} = {_quoted(spec.example)}\n" if default == "none" else f"{spec.name} = {default}\n"
        )
    return "\n".join(lines).replace("\n\n\n", "\n\n")


def _row(spec: Spec) -> str:
    default = "none" if spec.default is None else f"`{_toml_value(spec)}`"
    environment = ", then ".join(f"`{name}`" for name in spec.env)
    cells = [f"`{spec.name}`", environment, spec.unit, spec.range, default, spec.doc, spec.breaks]
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _toml_value(spec: Spec) -> str:
    return _quoted(spec.default) if isinstance(spec.default, str) else str(spec.default)


def _quoted(text: str) -> str:
    return f'"{text}"'
