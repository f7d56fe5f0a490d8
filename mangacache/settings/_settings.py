"""The settings as one object: from the environment, a file or arguments, and checked whenever it is made."""

from __future__ import annotations

import dataclasses
import functools
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Self

from mangacache.settings._addresses import DaxAddress, RedisAddress, parse_dax, parse_redis
from mangacache.settings._fields import Fields
from mangacache.settings._sources import (
    CONFIG_VARIABLE,
    Draft,
    check,
    complain,
    nearest,
    read_environment,
    read_file,
)
from mangacache.settings._spec import Spec, Value, spec_of

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Settings(Fields):
    """Everything an operator may set, checked when it is made: one `Invalid` lists all that is wrong.

    Equality and hash are of the values; where each came from is beside them, for `describe`.
    """

    _sources: Mapping[str, str] = dataclasses.field(default_factory=dict, init=False, compare=False)

    def __post_init__(self) -> None:
        given = {spec.name: getattr(self, spec.name) for spec in specs()}
        draft = Draft(values={spec.name: given[spec.name] for spec in specs() if given[spec.name] is not spec.default})
        sound = check(draft, specs())
        complain(draft.problems)
        for spec in specs():
            object.__setattr__(self, spec.name, sound[spec.name])
            if sound[spec.name] != spec.default:
                draft.sources[spec.name] = "argument"
        object.__setattr__(self, "_sources", draft.sources)

    def __repr__(self) -> str:
        return f"Settings({', '.join(f'{name}={value!r}' for name, value, _ in describe(self))})"

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None) -> Self:
        """Return the settings that the environment gives.

        Raises:
            Invalid: it lists everything that is wrong.
        """
        return cls._assemble(None, environ)

    @classmethod
    def from_toml(cls, path: str | os.PathLike[str], environ: Mapping[str, str] | None = None) -> Self:
        """Return the settings of a TOML file, overlaid by the environment.

        Raises:
            Invalid: it lists everything that is wrong in both; or the file cannot be read.
        """
        return cls._assemble(Path(path), environ)

    @classmethod
    def load(cls, path: str | os.PathLike[str] | None = None, environ: Mapping[str, str] | None = None) -> Self:
        """Return the settings of `path`, else of the file `MANGACACHE_CONFIG` names, else as `from_env`.

        Raises:
            Invalid: it lists everything that is wrong.
        """
        environ = os.environ if environ is None else environ
        path = path or environ.get(CONFIG_VARIABLE) or None
        return cls._assemble(Path(path) if path else None, environ)

    def replace(self, **changes: Value) -> Self:
        """Return a copy with `changes`, checked like any other.

        Raises:
            Invalid: it lists everything that is wrong, unknown names included.
        """
        names = [spec.name for spec in specs()]
        unknown = [name for name in changes if name not in names]
        values = {name: changes.get(name, getattr(self, name)) for name in names}
        draft = Draft(values=dict(values))
        for name in unknown:
            wanted = nearest(name, names)
            draft.problems.append(f"{name}: no such setting" + (f"; did you mean {wanted}?" if wanted else ""))
        check(draft, specs())
        complain(draft.problems)
        copy = type(self)(**values)
        kept = {name: source for name, source in self._sources.items() if name not in changes}
        object.__setattr__(copy, "_sources", kept | dict.fromkeys(changes, "argument"))
        return copy

    @property
    def redis(self) -> RedisAddress | None:
        """The parsed `redis_endpoint`."""
        return None if self.redis_endpoint is None else parse_redis(self.redis_endpoint)

    @property
    def dax(self) -> DaxAddress | None:
        """The parsed `dax_endpoint`."""
        return None if self.dax_endpoint is None else parse_dax(self.dax_endpoint)

    def source_of(self, name: str) -> str:
        """Return where the value came from: environment, file, argument (given in code) or default."""
        return self._sources.get(name, "default")

    @classmethod
    def _assemble(cls, path: Path | None, environ: Mapping[str, str] | None) -> Self:
        draft = Draft()
        if path is not None:
            read_file(path, specs(), draft)
        read_environment(os.environ if environ is None else environ, specs(), draft)
        values = check(draft, specs())
        complain(draft.problems)
        made = cls(**values)  # type: ignore[arg-type]  # `check` has judged the types
        object.__setattr__(made, "_sources", draft.sources)
        return made


class Described(NamedTuple):
    """One setting as it may be shown; `source` is environment, file, argument (given in code) or default."""

    name: str
    value: Value
    source: str


@functools.cache
def specs() -> tuple[Spec, ...]:
    """Return the metadata of every setting, in the order of the fields."""
    return tuple(spec_of(field) for field in dataclasses.fields(Fields))


def describe(settings: Settings) -> list[Described]:
    """Return every setting with its value and where it came from; no value holds a credential."""
    shown = []
    for spec in specs():
        value = getattr(settings, spec.name)
        if spec.name == "redis_endpoint" and (redis := settings.redis) and redis.password is not None:
            value = str(redis)  # the one value that may hold a credential
        shown.append(Described(spec.name, value, settings.source_of(spec.name)))
    return shown
