"""What Redis is for beyond contexts: services whose state may be lost at any time, and is then an inconvenience.

Each is a module, with its scripts in `scripts`. `Asker` is what they share: keys under the installation's prefix, and
Redis's failures as this package's errors.
"""

from mangacache.ephemeral.asking import Asker
from mangacache.ephemeral.connections import Connection, Connections
from mangacache.ephemeral.events import Event, Events, EventStream
from mangacache.ephemeral.holding import Held
from mangacache.ephemeral.lending import Lent
from mangacache.ephemeral.limits import Decision, Limit
from mangacache.ephemeral.locks import Locks
from mangacache.ephemeral.presence import Presence, PresencePage, Sight
from mangacache.ephemeral.rate_limits import RateLimits
from mangacache.ephemeral.trending import Trend, Trending

__all__ = [
    "Asker",
    "Connection",
    "Connections",
    "Decision",
    "Event",
    "EventStream",
    "Events",
    "Held",
    "Lent",
    "Limit",
    "Locks",
    "Presence",
    "PresencePage",
    "RateLimits",
    "Sight",
    "Trend",
    "Trending",
]
