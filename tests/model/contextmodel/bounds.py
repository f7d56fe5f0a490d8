"""How much is explored: what fits a minute or two, or all of it."""

from __future__ import annotations

import os


def within(cases, larger):
    """Return the cases to run: with `MODEL_BOUNDS=large` in the environment the larger ones too."""
    return {**cases, **larger} if os.environ.get("MODEL_BOUNDS") == "large" else dict(cases)
