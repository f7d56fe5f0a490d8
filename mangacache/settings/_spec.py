"""What one setting is: its names, unit, range and meaning; and how a value given for it is judged."""

from __future__ import annotations

import dataclasses
import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias, TypeVar

from mangacache.settings._addresses import conceal

if TYPE_CHECKING:
    from collections.abc import Callable

Value: TypeAlias = str | int | float | None
_V = TypeVar("_V", bound=Value)

_WHOLE: Final = re.compile(r"-?(?:0|[1-9][0-9]{0,17})")
_DECIMAL: Final = re.compile(r"-?(?:0|[1-9][0-9]{0,17})(?:\.[0-9]{1,18})?")
_SHOWN: Final = 80

ENV_PREFIX: Final = "MANGACACHE_"


@dataclass(frozen=True, slots=True, kw_only=True)
class Spec:
    """One setting's metadata; the documentation, the example file and every check are made from it.

    Attributes:
        name: the field of `Settings` and the key in the TOML file.
        env: the environment's names for it; the first that is set and not empty counts.
        default: the value where none is given; its type is the setting's type (None: optional text).
        unit: what a number counts.
        low: the least value, included.
        high: the greatest value, included.
        doc: what it is, in one sentence.
        breaks: what goes wrong when it is wrong.
        allowed: what a text may be, in words.
        pattern: the whole text matches it.
        normalise: returns an endpoint as it is kept, or raises ValueError that quotes nothing of it.
        at_least: the setting that this one may not be below; judged by `check`, which sees both.
        example: a value for the example file where the default is None.
    """

    name: str = ""
    env: tuple[str, ...] = ()
    default: Value
    unit: str = ""
    low: float = -math.inf
    high: float = math.inf
    doc: str
    breaks: str
    allowed: str = ""
    pattern: str = ""
    normalise: Callable[[str], str] | None = None
    at_least: str = ""
    example: str = ""

    @property
    def label(self) -> str:
        """The field and its first environment name, as every message shows them."""
        return f"{self.name} ({self.env[0]})"

    @property
    def may_be_empty(self) -> bool:
        """Whether an empty text is a value of its own, rather than no value."""
        return bool(self.pattern) and re.fullmatch(self.pattern, "") is not None

    @property
    def range(self) -> str:
        """What is allowed, in words."""
        if isinstance(self.default, str | None):
            return self.allowed
        kind = "whole number" if isinstance(self.default, int) else "number"
        least = f", at least {self.at_least}" if self.at_least else ""
        return f"{kind}{f' of {self.unit}' if self.unit else ''}, {self.low:.10g} to {self.high:.10g}{least}"

    def read(self, text: str) -> Value:
        """Return the value that a variable's `text` stands for, not yet judged by `accept`.

        Raises:
            ValueError: it is no number, in the only way a number is written here.
        """
        if isinstance(self.default, str | None):
            return text
        if isinstance(self.default, int):
            if not _WHOLE.fullmatch(text):
                raise ValueError("write plain digits: no fraction, underscore, comma, exponent, unit or space")
            return int(text)
        if not _DECIMAL.fullmatch(text):
            raise ValueError(
                "write a plain decimal such as 0.5: no underscore, comma, exponent, unit, space, nan or inf"
            )
        return float(text)

    def accept(self, value: object) -> Value:
        """Return `value` as the field keeps it.

        Raises:
            ValueError: what to do about it; nothing of an endpoint is quoted.
        """
        if isinstance(self.default, str | None):
            return self._accept_text(value)
        whole = isinstance(self.default, int)
        if isinstance(value, bool) or not isinstance(value, int if whole else int | float):
            raise ValueError(f"give a {'whole number' if whole else 'number'}, without quotes")  # noqa: TRY004 - one kind of refusal
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError("give a finite number")
        if value < self.low:
            raise ValueError(f"raise it, or leave it out for {self.default}")
        if value > self.high:
            raise ValueError(f"lower it, or leave it out for {self.default}")
        return value if whole else float(value)

    def show(self, value: object) -> str:
        """Return what a message may show of `value`: short, and never a credential."""
        if self.normalise is not None and isinstance(value, str):
            value = conceal(value)
        elif not isinstance(value, str | int | float | None):
            return f"a {type(value).__name__}"  # a table or a list may hold anything
        text = repr(value) if not isinstance(value, int) or value.bit_length() < _SHOWN else "a huge number"
        return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 4]}...{text[-1]}"

    def _accept_text(self, value: object) -> str | None:
        if self.default is None and (value is None or value == ""):
            return None
        if not isinstance(value, str):
            raise ValueError("give a text, in quotes")  # noqa: TRY004 - one kind of refusal
        if self.normalise is not None:
            return self.normalise(value)
        if not re.fullmatch(self.pattern, value):
            raise ValueError(f"correct it, or leave it out for {self.default!r}")
        return value


def setting(
    default: _V,
    doc: str,
    *,
    breaks: str,
    env: tuple[str, ...] = (),
    unit: str = "",
    span: tuple[float, float] = (-math.inf, math.inf),
    at_least: str = "",
    allowed: str = "",
    pattern: str = "",
    normalise: Callable[[str], str] | None = None,
    example: str = "",
) -> _V:
    """Declare one field of `Settings`; `spec_of` adds the names. The parameters are `Spec`'s attributes."""
    spec = Spec(
        env=env,
        default=default,
        unit=unit,
        low=span[0],
        high=span[1],
        doc=doc,
        breaks=breaks,
        allowed=allowed,
        pattern=pattern,
        normalise=normalise,
        at_least=at_least,
        example=example,
    )
    declared: _V = dataclasses.field(default=default, metadata={"spec": spec})
    return declared


def spec_of(declared: dataclasses.Field[Value]) -> Spec:
    """Return the metadata of a field that `setting` declared, with its names filled in."""
    spec: Spec = declared.metadata["spec"]
    return dataclasses.replace(spec, name=declared.name, env=spec.env or (f"{ENV_PREFIX}{declared.name.upper()}",))
