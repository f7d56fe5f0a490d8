"""What is wrong with what the process runs in: its credentials, its limits, its modules."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from mangacache.diagnosis.findings import note, ok, problem, warning

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mangacache.diagnosis.facts import CredentialFacts, Expected, MachineFacts
    from mangacache.diagnosis.findings import Finding
    from mangacache.settings import Settings

_SOON_S: Final = 900.0
_RENEWED: Final = frozenset({"iam-role", "container-role", "assume-role", "assume-role-with-web-identity", "sso"})
_OTHER_FILES: Final = 128
"""Standard streams, listeners, the loop's own, Redis and its subscriptions, a scrape and a health check."""
_FILES_A_DAX_THREAD: Final = 3
_OTHER_THREADS: Final = 64
_PROCESS_BYTES: Final = 160 * 2**20
"""The interpreter, the AWS client's models, and what the loop needs."""
_SESSION_BYTES: Final = 14 * 1024
"""About what a session in memory takes, its context of 20 turns included."""
_CONNECTION_BYTES: Final = 24 * 1024
_SHED_FROM: Final = 0.80
_MIB: Final = 2**20


def judge_credentials(facts: CredentialFacts, settings: Settings, _expected: Expected) -> Iterator[Finding]:
    """Iterate over what is to be said of the credentials, and never one of them."""
    if facts.problem or not facts.method:
        yield problem(
            "credentials",
            facts.problem or "no AWS credentials were found",
            breaks="no process opens: DynamoDB, DAX and a login by IAM are asked with them",
            remedy="give the task a role (taskRoleArn); elsewhere set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY or"
            " AWS_PROFILE; any values will do for a local engine",
        )
        return
    seen = f"found by {facts.method}"
    if facts.ends_in_s is None:
        if facts.method == "env" and settings.dynamodb_endpoint is None:
            yield note(
                "credentials",
                f"{seen}, without an end",
                breaks="keys that live for ever leak for ever",
                remedy="a task role gives temporary ones that are renewed",
            )
        else:
            yield ok("credentials", f"{seen}, without an end")
        return
    left = f"{seen}, for another {facts.ends_in_s / 60:.0f} min"
    if facts.ends_in_s <= 0:
        yield problem(
            "credentials",
            f"{seen}, ended {-facts.ends_in_s / 60:.0f} min ago",
            breaks="every request is refused",
            remedy="renew them where they come from",
        )
    elif facts.method in _RENEWED or facts.ends_in_s > _SOON_S:
        yield ok("credentials", left)
    else:
        yield warning(
            "credentials",
            left,
            breaks="nobody renews them: then every request is refused",
            remedy="renew them, or let a role give them",
        )


def judge_machine(facts: MachineFacts, settings: Settings, expected: Expected) -> Iterator[Finding]:
    """Iterate over what is to be said of the process's limits and modules."""
    yield _files(facts, settings, expected)
    yield _threads(facts, settings)
    yield _memory(facts, settings, expected)
    yield _cpus(facts)
    yield from _modules(facts, settings)


def _files(facts: MachineFacts, settings: Settings, expected: Expected) -> Finding:
    own = settings.max_connections + _OTHER_FILES
    own += settings.redis_connections if settings.redis_link == "redis-py" else 0
    own += settings.dax_threads * _FILES_A_DAX_THREAD if settings.dax_endpoint is not None else 0
    needed = own + expected.connections
    seen = f"{_many(facts.files)} open files (hard limit {_many(facts.files_hard)}), {needed} are needed for"
    seen += f" {expected.connections} connections of customers"
    if not facts.files or facts.files >= needed:
        return ok("limits.files", seen)
    remedy = f"set `ulimits` nofile in the task definition, or `ulimit -n {needed}`"
    if facts.files < own:
        return problem(
            "limits.files",
            seen,
            breaks="the process runs out of sockets with nobody connected",
            remedy=f"{remedy}; or lower max_connections",
        )
    return warning(
        "limits.files",
        seen,
        breaks=f"from {facts.files - own} connections on new ones are refused, and so are connections to DynamoDB",
        remedy=remedy,
    )


def _threads(facts: MachineFacts, settings: Settings) -> Finding:
    needed = _OTHER_THREADS + (2 * settings.dax_threads if settings.dax_endpoint is not None else 0)
    seen = f"{_many(facts.threads)} threads, about {needed} are needed; a session has none"
    if not facts.threads or facts.threads >= needed:
        return ok("limits.threads", seen)
    return warning(
        "limits.threads",
        seen,
        breaks="a thread cannot be started: names are not resolved, DAX is not asked",
        remedy="raise `ulimit -u`, or the container's pids limit",
    )


def _memory(facts: MachineFacts, settings: Settings, expected: Expected) -> Finding:
    limit = settings.memory_limit_bytes or facts.memory_bytes
    contexts = min(expected.sessions * _SESSION_BYTES, settings.memory_bytes)
    needed = _PROCESS_BYTES + contexts + expected.connections * _CONNECTION_BYTES
    seen = f"{_mib(limit)} of memory, about {_mib(needed)} are needed for {expected.sessions} sessions"
    if not limit:
        return note("limits.memory", f"how much memory there may be cannot be told; {seen.partition(', ')[2]}")
    if needed > _SHED_FROM * limit:
        return warning(
            "limits.memory",
            seen,
            breaks="from 80 % on sessions leave memory, and each of their messages asks Redis for all of its context",
            remedy=f"give the task {_mib(needed / _SHED_FROM)}, or run more tasks with fewer sessions each",
        )
    if settings.memory_bytes > limit:
        return warning(
            "limits.memory",
            f"{seen}; memory_bytes allows {_mib(settings.memory_bytes)} of contexts",
            breaks="memory_bytes bounds nothing: the limit is met first, and sessions leave all at once",
            remedy=f"set memory_bytes to about {int(limit * 0.6)}",
        )
    return ok("limits.memory", seen)


def _cpus(facts: MachineFacts) -> Finding:
    seen = (
        f"{facts.cpus:g} processor{'' if facts.cpus == 1 else 's'}; one process uses one, and a little for its threads"
    )
    if facts.cpus and facts.cpus < 1:
        return warning(
            "limits.cpu",
            seen,
            breaks="the container is stopped for parts of each 0.1 s: the loop lags, and writes are rejected",
            remedy="give the task at least 1 vCPU",
        )
    return ok("limits.cpu", seen)


def _modules(facts: MachineFacts, settings: Settings) -> Iterator[Finding]:
    if "uvloop" in facts.modules:
        yield ok("modules.uvloop", "uvloop is installed")
    else:
        yield note(
            "modules.uvloop",
            "uvloop is not installed",
            breaks="a command to Redis costs a quarter to a half more of the processor, and the loop lags sooner",
            remedy="pip install 'mangacache[fast]'",
        )
    if "hiredis" in facts.modules:
        yield ok("modules.hiredis", "hiredis is installed")
    else:
        yield problem(
            "modules.hiredis",
            "hiredis is not installed",
            breaks="Redis cannot be spoken to",
            remedy="pip install mangacache, whole: it names hiredis",
        )
    if settings.dax_endpoint is not None and "amazondax" not in facts.modules:
        yield problem(
            "modules.dax",
            "dax_endpoint is set, and DAX's client is not installed",
            breaks="no process opens",
            remedy="pip install 'mangacache[dax]'",
        )


def _many(number: int) -> str:
    return str(number) if number else "any number of"


def _mib(size: float) -> str:
    return f"{size / _MIB:,.0f} MiB"
