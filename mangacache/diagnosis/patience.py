"""How long a diagnosis waits: longer than a worker, which must give up so that its callers need not wait."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from mangacache.settings import Settings

_LEAST_S: Final = 5.0


def patient(settings: Settings) -> Settings:
    """Return settings by which what is slow is waited for, so that it can be told from what is away."""
    return settings.replace(
        connect_timeout_s=max(settings.connect_timeout_s, _LEAST_S),
        request_timeout_s=max(settings.request_timeout_s, min(_LEAST_S, settings.request_deadline_s)),
        dax_timeout_s=max(settings.dax_timeout_s, _LEAST_S),
    )
