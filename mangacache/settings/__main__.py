"""`python -m mangacache.settings [toml]`: print the page of all settings, or the example file."""

from __future__ import annotations

import sys

from mangacache.settings._document import markdown, toml

if __name__ == "__main__":
    sys.stdout.write(toml() if sys.argv[1:] == ["toml"] else markdown())
