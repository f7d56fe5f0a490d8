"""The link to Redis or Valkey: scripts sent to one server, over connections that are admitted one by one."""

from mangacache.redis.connections import RedisPyLink
from mangacache.redis.link import Admission, Argument, Link, LinkLost, Moved, Script, ScriptFailed, Server
from mangacache.redis.multiplexed import MultiplexedLink
from mangacache.redis.opening import open_link

__all__ = [
    "Admission",
    "Argument",
    "Link",
    "LinkLost",
    "Moved",
    "MultiplexedLink",
    "RedisPyLink",
    "Script",
    "ScriptFailed",
    "Server",
    "open_link",
]
