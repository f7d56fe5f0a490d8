"""The link to Redis or Valkey: scripts sent to one server, over connections that are admitted one by one."""

from mangacache.redis.connections import RedisPyLink
from mangacache.redis.link import Admission, Argument, Link, LinkLost, Moved, Script, ScriptFailed, Server

__all__ = [
    "Admission",
    "Argument",
    "Link",
    "LinkLost",
    "Moved",
    "RedisPyLink",
    "Script",
    "ScriptFailed",
    "Server",
]
