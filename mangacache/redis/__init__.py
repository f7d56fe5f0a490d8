"""The link to Redis or Valkey: scripts sent to one server, over connections that are admitted one by one."""

from mangacache.redis.cluster import ClusterLink
from mangacache.redis.connections import RedisPyLink
from mangacache.redis.dialing import Dialer
from mangacache.redis.link import (
    Admission,
    Argument,
    Changes,
    Link,
    LinkLost,
    Moved,
    Redirected,
    Script,
    ScriptFailed,
    Server,
)
from mangacache.redis.multiplexed import MultiplexedLink
from mangacache.redis.opening import FindingLink, open_link
from mangacache.redis.slots import slot_of

__all__ = [
    "Admission",
    "Argument",
    "Changes",
    "ClusterLink",
    "Dialer",
    "FindingLink",
    "Link",
    "LinkLost",
    "Moved",
    "MultiplexedLink",
    "Redirected",
    "RedisPyLink",
    "Script",
    "ScriptFailed",
    "Server",
    "open_link",
    "slot_of",
]
