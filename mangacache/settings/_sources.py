"""Reads settings from the environment and a TOML file, and judges them all before it complains of any."""

from __future__ import annotations

import difflib
import tomllib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from mangacache.errors import Invalid
from mangacache.settings._spec import ENV_PREFIX, Spec, Value

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

CONFIG_VARIABLE: Final = "MANGACACHE_CONFIG"
OTHER_VARIABLES: Final = frozenset({CONFIG_VARIABLE, "MANGACACHE_DYNOXIDE"})
"""Names with our prefix that are no setting: the file to read, and the local DynamoDB's program."""


@dataclass(slots=True)
class Draft:
    """What was found so far: raw values by field, where each was found, and what is wrong.

    `unread` are the fields whose text was no value at all: they are complained of once.
    """

    values: dict[str, object] = field(default_factory=dict)
    sources: dict[str, str] = field(default_factory=dict)
    unread: set[str] = field(default_factory=set)
    variables: dict[str, str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    def put(self, name: str, value: object, source: str) -> None:
        """Take `value` for the field, over what another source gave."""
        self.values[name] = value
        self.sources[name] = source


def read_file(path: Path, specs: Sequence[Spec], draft: Draft) -> None:
    """Put what the TOML file at `path` says into `draft`; a file that cannot be read is a problem too."""
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        draft.problems.append(f"file {path}: {error.strerror or error}; correct the path (or {CONFIG_VARIABLE})")
        return
    except UnicodeDecodeError:
        draft.problems.append(f"file {path}: not UTF-8; save it as UTF-8")
        return
    except tomllib.TOMLDecodeError as error:
        draft.problems.append(f"file {path}: not TOML: {_without_excerpt(error)}; correct that line")
        return
    names = [spec.name for spec in specs]
    for key, value in table.items():
        if key in names:
            draft.put(key, value, "file")
            continue
        wanted = next((spec.name for spec in specs if key in spec.env), None) or nearest(key, names)
        draft.problems.append(f"{key!r:.80} in {path}: no such setting; {_advice(wanted)}")


def read_environment(environ: Mapping[str, str], specs: Sequence[Spec], draft: Draft) -> None:
    """Put what the environment says into `draft`, over what is there.

    An empty variable counts as not set (compose files make them), except where the empty text is a value.
    """
    for spec in specs:
        set_here = (name for name in spec.env if name in environ and (environ[name] or spec.may_be_empty))
        variable = next(set_here, None)
        if variable is None:
            continue
        text = environ[variable]
        try:
            draft.put(spec.name, spec.read(text), "environment")
        except ValueError as reason:
            draft.unread.add(spec.name)
            draft.problems.append(_refusal(spec, variable, f"{spec.show(text)} from the environment", reason))
        draft.variables[spec.name] = variable
    known = {name: spec for spec in specs for name in spec.env}
    prefixed = [name for name in known if name.startswith(ENV_PREFIX)]
    by_field = {f"{ENV_PREFIX}{spec.name.upper()}": spec.env[0] for spec in specs}
    for name in sorted(environ):
        if name.startswith(ENV_PREFIX) and name not in known and name not in OTHER_VARIABLES:
            wanted = by_field.get(name) or nearest(name, prefixed)
            draft.problems.append(f"{name!r:.80} in the environment: no such setting; {_advice(wanted)}")


def check(draft: Draft, specs: Sequence[Spec]) -> dict[str, Value]:
    """Return each sound value, the default where none was given; add what is wrong to `draft.problems`."""
    sound: dict[str, Value] = {}
    for spec in specs:
        if spec.name in draft.unread:  # complained of already
            continue
        value = draft.values.get(spec.name, spec.default)
        try:
            sound[spec.name] = spec.accept(value)
        except ValueError as reason:
            given = f"{spec.show(value)}{_origin(draft, spec)}"
            draft.problems.append(_refusal(spec, draft.variables.get(spec.name), given, reason))
    by_name = {spec.name: spec for spec in specs}
    for spec in specs:
        value, least = sound.get(spec.name), sound.get(spec.at_least)
        if isinstance(value, int | float) and isinstance(least, int | float) and value < least:
            other = by_name[spec.at_least]
            draft.problems.append(
                f"{spec.label}: {value}{_origin(draft, spec)} is refused; allowed: {spec.range},"
                f" which is {least}; raise it to {least} or more, or lower {other.label}"
            )
    return sound


def complain(problems: Sequence[str]) -> None:
    """Raise one error that lists all `problems`, if there are any.

    Raises:
        Invalid: one line for each problem.
    """
    if problems:
        count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        raise Invalid(f"{count} in the settings:\n" + "\n".join(f"- {problem}" for problem in problems))


def nearest(name: str, names: Iterable[str]) -> str | None:
    """Return the one of `names` that `name` was most likely meant to be."""
    folded = {known.lower(): known for known in names}
    found = difflib.get_close_matches(name.lower(), folded, n=1, cutoff=0.6)
    return folded[found[0]] if found else None


def _advice(wanted: str | None) -> str:
    return f"did you mean {wanted}?" if wanted else "remove it (docs/settings.md lists them all)"


def _origin(draft: Draft, spec: Spec) -> str:
    source = draft.sources.get(spec.name)
    if source is not None:
        return f" from the {source}"
    return "" if spec.name in draft.values else ", the default,"


def _refusal(spec: Spec, variable: str | None, given: str, reason: ValueError) -> str:
    return f"{spec.name} ({variable or spec.env[0]}): {given} is refused; allowed: {spec.range}; {reason}"


def _without_excerpt(error: tomllib.TOMLDecodeError) -> str:
    """Return where the fault is, without what stands there: it may be part of a password."""
    _, bracket, place = str(error).rpartition("(at ")
    return f"at {place.removesuffix(')')}" if bracket else "it ends too early"
