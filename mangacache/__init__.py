"""The sessions of a very large chatbot: durable and ordered in DynamoDB, coherent in Redis, fast in the process."""

from mangacache.errors import (
    Closed,
    Conflict,
    Corrupt,
    Invalid,
    MangaCacheError,
    NotFound,
    Rejected,
    Transient,
    VersionGone,
)
from mangacache.model import (
    Appended,
    Consistency,
    Context,
    Deleted,
    History,
    Meta,
    NewTurn,
    SessionInfo,
    SessionPage,
    Summary,
    Turn,
    Updated,
    Version,
)
from mangacache.service import MangaCache
from mangacache.settings import Settings

__all__ = [
    "Appended",
    "Closed",
    "Conflict",
    "Consistency",
    "Context",
    "Corrupt",
    "Deleted",
    "History",
    "Invalid",
    "MangaCache",
    "MangaCacheError",
    "Meta",
    "NewTurn",
    "NotFound",
    "Rejected",
    "SessionInfo",
    "SessionPage",
    "Settings",
    "Summary",
    "Transient",
    "Turn",
    "Updated",
    "Version",
    "VersionGone",
]
__version__ = "0.1.0"
