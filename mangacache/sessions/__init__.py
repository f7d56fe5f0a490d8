"""One actor a session: turn-taking, the memory tier, the read and write paths, and the supervisor of it all."""

from mangacache.sessions.deleting import delete
from mangacache.sessions.prefetching import Prefetched, prefetch
from mangacache.sessions.registry import Sessions
from mangacache.sessions.session import Session
from mangacache.sessions.state import DrainReport, Health, SupervisorState, health_of
from mangacache.sessions.supervisor import Supervisor
from mangacache.sessions.treatment import DeadLetter
from mangacache.sessions.writing import DEFAULT_POLICY, Policy

__all__ = [
    "DEFAULT_POLICY",
    "DeadLetter",
    "DrainReport",
    "Health",
    "Policy",
    "Prefetched",
    "Session",
    "Sessions",
    "Supervisor",
    "SupervisorState",
    "delete",
    "health_of",
    "prefetch",
]
