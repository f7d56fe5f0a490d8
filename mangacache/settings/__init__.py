"""What an operator may set: one frozen object, read from the environment, a TOML file, or given in code."""

from mangacache.settings._addresses import DaxAddress, RedisAddress, is_loopback
from mangacache.settings._settings import Described, Settings, describe, specs
from mangacache.settings._sources import CONFIG_VARIABLE
from mangacache.settings._spec import Spec

__all__ = [
    "CONFIG_VARIABLE",
    "DaxAddress",
    "Described",
    "RedisAddress",
    "Settings",
    "Spec",
    "describe",
    "is_loopback",
    "specs",
]
