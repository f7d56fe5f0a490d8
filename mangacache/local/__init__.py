"""The embedded stack: real servers on this machine, for demos, tests and benches."""

from mangacache.local.dynamodb import Engine, dynamodb_process, find_engine
from mangacache.local.process import ServerProcess, free_port
from mangacache.local.stack import LocalOptions, LocalStack
from mangacache.local.valkey import valkey_process

__all__ = [
    "Engine",
    "LocalOptions",
    "LocalStack",
    "ServerProcess",
    "dynamodb_process",
    "find_engine",
    "free_port",
    "valkey_process",
]
