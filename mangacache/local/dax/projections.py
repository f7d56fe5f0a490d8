"""Compiled projections: their paths, and what of a stored item they select."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

from mangacache.local.dax.limits import DEFAULT_LIMITS, Limits

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

Path: TypeAlias = tuple[str | int, ...]
"""An attribute's name, then names in maps and indexes in lists."""


def decode_projection(data: bytes, limits: Limits = DEFAULT_LIMITS) -> tuple[Path, ...]:
    """Return the paths of a compiled projection.

    Raises:
        Malformed: it is none.
    """
    raise NotImplementedError


def project(item: Mapping[str, Any], paths: Sequence[Path]) -> dict[int, dict[str, Any]]:
    """Return what the paths select of a WHOLE item, by the place of the path; what is not there is left out."""
    raise NotImplementedError
