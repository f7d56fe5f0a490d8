"""What Redis is for beyond contexts: services whose state may be lost at any time, and is then an inconvenience.

Each is a module, with its scripts in `scripts`. `Asker` is what they share: keys under the installation's prefix, and
Redis's failures as this package's errors.
"""

from mangacache.ephemeral.asking import Asker

__all__ = ["Asker"]
