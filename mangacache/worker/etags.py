"""ETags (RFC 9110, section 8.8.3): a context's is its version, META's is incarnation and revision."""

from __future__ import annotations

import re
from typing import Final

from mangacache.errors import Invalid
from mangacache.model import Version
from mangacache.worker.problems import Malformed, PreconditionFailed

ANY: Final = "*"
_TAG: Final = re.compile(r'(W/)?"([!\x23-\x7e\x80-\xff]*)"')
_LIST: Final = re.compile(rf"\s*{_TAG.pattern}\s*(?:,\s*{_TAG.pattern}\s*)*")
_REVISION: Final = re.compile(r"[0-9a-f]{1,16}\.[0-9a-f]{1,16}")


def weak(tag: str) -> str:
    """Return the ETag of what may be told in other words: from another tier, say."""
    return f'W/"{tag}"'


def revision_tag(version: Version) -> str:
    """Return META's tag, without its quotes."""
    return f"{version.incarnation:x}.{version.revision:x}"


def matches(given: str | None, tag: str) -> bool:
    """Tell whether an `If-None-Match` names a tag, weak or not.

    Raises:
        Malformed: it is no list of ETags.
    """
    if given is None:
        return False
    return given.strip() == ANY or any(found == tag for _, found in _tags(given, "If-None-Match"))


def expected_revision(given: str | None) -> Version | None:
    """Return the revision that an `If-Match` insists on, in a version; None where it insists on none.

    Raises:
        Malformed: it is not one ETag.
        PreconditionFailed: it can be no revision's, so that it is not this one's.
    """
    if given is None or given.strip() == ANY:
        return None
    tags = _tags(given, "If-Match")
    if len(tags) > 1:
        raise Malformed("If-Match takes one ETag here, that of the META that was read")
    is_weak, tag = tags[0]
    if is_weak or not _REVISION.fullmatch(tag):
        raise PreconditionFailed("If-Match is no ETag of META: take that of GET /v1/sessions/{id}")
    incarnation, _, revision = tag.partition(".")
    try:
        return Version.parse(f"{incarnation}.0.{revision}")
    except Invalid as error:
        raise PreconditionFailed("If-Match is no ETag of META as this worker writes it") from error


def _tags(given: str, name: str) -> list[tuple[bool, str]]:
    if not _LIST.fullmatch(given):
        raise Malformed(f'{name} is a list of ETags, each in double quotes: "1.2"')
    return [(bool(found[1]), found[2]) for found in _TAG.finditer(given)]
