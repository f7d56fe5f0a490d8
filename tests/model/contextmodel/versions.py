"""Versions as plain tuples (incarnation, turn, revision): the model compares millions of them."""

from __future__ import annotations

from typing import TypeAlias

Version: TypeAlias = tuple[int, int, int]

LOWEST: Version = (-1, -1, -1)
"""Below everything: the floor of a new lease, the token of a new client."""


def covers(version, least):
    """Tell whether `version` may be answered to who has seen `least`: a higher incarnation, or each part no lower."""
    if version[0] != least[0]:
        return version[0] > least[0]
    return version[1] >= least[1] and version[2] >= least[2]


def join(one, other):
    """Return the least version that covers both: the higher incarnation whole, else each part's maximum."""
    if one[0] != other[0]:
        return one if one[0] > other[0] else other
    return (one[0], max(one[1], other[1]), max(one[2], other[2]))


def each_part(one, other):
    """Return each part's maximum, as if incarnations were numbers like the others."""
    return (max(one[0], other[0]), max(one[1], other[1]), max(one[2], other[2]))


def show(version):
    """Return a version as the traces print it: `1`, with a revision `(1,1)`, in a later incarnation `2:(1,1)`."""
    if version is None:
        return "nothing"
    incarnation, turn, revision = version
    text = f"({turn},{revision})" if revision else str(turn)
    return text if incarnation <= 1 else f"{incarnation}:{text}"
