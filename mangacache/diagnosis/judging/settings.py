"""Settings that are each allowed, and do not go together."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from mangacache.diagnosis.findings import note, ok, problem, warning
from mangacache.settings import is_loopback, specs

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mangacache.diagnosis.facts import Expected
    from mangacache.diagnosis.findings import Finding
    from mangacache.settings import Settings

_WORK_S: Final = 22.0
_CLOSING_S: Final = 3.0
"""Whatever is set, a worker works on for no longer than this, and closes in no longer than that."""


def judge_settings(settings: Settings, expected: Expected) -> Iterator[Finding]:
    """Iterate over what is to be said of the settings alone."""
    found = [
        *_end(settings, expected),
        *_worker(settings, expected),
        *_access(settings),
        *_times(settings),
        *_redis(settings),
        *_dax(settings),
        *_dynamodb(settings),
    ]
    yield from found
    if not found:
        given = sum(settings.source_of(spec.name) != "default" for spec in specs())
        yield ok("settings", f"{given} settings are given, and none contradicts another")


def _end(settings: Settings, expected: Expected) -> Iterator[Finding]:
    takes_s = min(settings.worker_notice_s + settings.drain_timeout_s, _WORK_S) + _CLOSING_S
    if takes_s > expected.stop_timeout_s:
        yield problem(
            "settings.drain",
            f"the end of a worker takes up to {takes_s:g} s (worker_notice_s, drain_timeout_s and closing), and it is"
            f" killed {expected.stop_timeout_s:g} s after it was told to stop",
            breaks="each deploy kills it in the middle: calls are cut off, other workers are not told, locks are not"
            " released; what was acknowledged is kept",
            remedy=f"raise the task definition's stopTimeout to {takes_s + 5:.0f}, or lower drain_timeout_s",
        )
    if settings.drain_timeout_s < settings.request_deadline_s:
        yield warning(
            "settings.drain",
            f"drain_timeout_s ({settings.drain_timeout_s:g}) is less than request_deadline_s"
            f" ({settings.request_deadline_s:g})",
            breaks="a write that DynamoDB has not answered yet is given up at the end, its outcome unknown",
            remedy="raise drain_timeout_s, or lower request_deadline_s",
        )


def _worker(settings: Settings, expected: Expected) -> Iterator[Finding]:
    if settings.worker_port == settings.operator_port != 0 and settings.worker_host == settings.operator_host:
        yield problem(
            "settings.ports",
            f"worker_port and operator_port are both {settings.worker_port}",
            breaks="no worker starts",
            remedy="give the operator a port of its own",
        )
    if expected.connections > settings.worker_sockets:
        yield warning(
            "settings.sockets",
            f"{expected.connections} connections are expected, and worker_sockets is {settings.worker_sockets}",
            breaks="further customers are sent elsewhere",
            remedy="raise worker_sockets, or run more workers",
        )
    if settings.presence_online_s < 2 * settings.worker_socket_heartbeat_s:
        yield warning(
            "settings.presence",
            f"presence_online_s ({settings.presence_online_s}) is less than two heartbeats of a WebSocket"
            f" ({settings.worker_socket_heartbeat_s:g} s each)",
            breaks="customers who are there count as gone between two heartbeats",
            remedy="raise presence_online_s, or lower worker_socket_heartbeat_s",
        )
    for name in ("worker_max_body_bytes", "worker_socket_message_bytes"):
        most: int = getattr(settings, name)
        if most < settings.max_content_bytes:
            yield warning(
                "settings.sizes",
                f"{name} ({most}) is less than max_content_bytes ({settings.max_content_bytes})",
                breaks="turns that the library takes are refused at the worker's door",
                remedy=f"raise {name} to twice max_content_bytes: JSON writes some signs as several",
            )
    if settings.worker_request_timeout_s < settings.request_deadline_s:
        yield warning(
            "settings.times",
            f"worker_request_timeout_s ({settings.worker_request_timeout_s:g}) is less than request_deadline_s"
            f" ({settings.request_deadline_s:g})",
            breaks="while DynamoDB is slow, writes that go through are answered as if they had not",
            remedy="raise worker_request_timeout_s",
        )


def _access(settings: Settings) -> Iterator[Finding]:
    reached = [host for host in (settings.worker_host, settings.operator_host) if not is_loopback(host.lower())]
    if not reached or settings.worker_keys is not None or settings.worker_token_keys is not None:
        return
    if settings.worker_open == "yes":
        yield warning(
            "settings.access",
            f"a worker at {reached[0]} asks nobody who he is (worker_open)",
            breaks="whoever reaches it reads, writes and deletes every customer's chats",
            remedy="give it API keys (worker_keys; `mangacache key` makes one)",
        )
    else:
        yield problem(
            "settings.access",
            f"a worker is to listen at {reached[0]}, and there are no keys",
            breaks="no worker starts: everybody would be let in",
            remedy="give it API keys (worker_keys; `mangacache key` makes one), or listen on 127.0.0.1",
        )


def _times(settings: Settings) -> Iterator[Finding]:
    if settings.turn_slow_s >= settings.turn_limit_s:
        yield warning(
            "settings.turns",
            f"turn_slow_s ({settings.turn_slow_s:g}) is not below turn_limit_s ({settings.turn_limit_s:g})",
            breaks="a turn is cut off before anybody has been told that it is slow, and where it stands",
            remedy="lower turn_slow_s",
        )
    if settings.presence_keep_s < settings.presence_online_s:
        yield note(
            "settings.presence",
            f"presence_keep_s ({settings.presence_keep_s}) is below presence_online_s ({settings.presence_online_s})",
            breaks="the larger of the two counts",
            remedy="raise presence_keep_s",
        )
    if settings.context_ttl_s < settings.near_max_age_s:
        yield note(
            "settings.near",
            f"near_max_age_s ({settings.near_max_age_s:g}) is above context_ttl_s ({settings.context_ttl_s})",
            breaks="Redis forgets contexts that this process still answers from, and reads them again when it asks",
            remedy="lower near_max_age_s: a second is what SESSION promises",
        )


def _redis(settings: Settings) -> Iterator[Finding]:
    user, cache = settings.redis_iam_user, settings.redis_iam_cache
    redis = settings.redis
    if (user is None) != (cache is None):
        yield problem(
            "settings.redis-iam",
            "of redis_iam_user and redis_iam_cache only one is set",
            breaks="no process opens",
            remedy="set both, or neither",
        )
    elif user is not None and redis is not None and (redis.password is not None or not redis.tls):
        yield problem(
            "settings.redis-iam",
            "a login by IAM, with a password or without TLS in redis_endpoint",
            breaks="no process opens",
            remedy="write redis_endpoint as rediss://host:port",
        )
    if redis is None and settings.redis_policy == "hold":
        yield note(
            "settings.redis-policy", "redis_policy is hold, and no Redis is configured", breaks="it does nothing"
        )
    if redis is not None and not settings.key_prefix:
        yield warning(
            "settings.prefix",
            "key_prefix is empty",
            breaks="whatever else is in that Redis may have our keys' names: session:..., rate:..., conn:...",
            remedy="give the installation a prefix, such as mc: ; changing it empties the cache",
        )
    elif redis is not None and not settings.key_prefix.endswith((":", ".", "-", "_")):
        yield note(
            "settings.prefix",
            f"key_prefix {settings.key_prefix!r} ends in a letter or digit",
            breaks=f"it is the beginning of other prefixes, such as {settings.key_prefix + '2:'!r}: two installations"
            " mix",
            remedy="end it with a colon; changing it empties the cache",
        )


def _dax(settings: Settings) -> Iterator[Finding]:
    if settings.dax_endpoint is None:
        idle = [name for name in ("dax_fills", "dax_writes") if settings.source_of(name) != "default"]
        if idle:
            yield note("settings.dax", f"{' and '.join(idle)} set, and no DAX is configured", breaks="it does nothing")
        return
    if settings.dax_timeout_s >= settings.request_timeout_s:
        yield warning(
            "settings.dax",
            f"dax_timeout_s ({settings.dax_timeout_s:g}) is not below request_timeout_s"
            f" ({settings.request_timeout_s:g})",
            breaks="a stalled DAX holds a read up for longer than DynamoDB itself may",
            remedy="lower dax_timeout_s: 0.5 is plenty",
        )
    if settings.dax_calls < settings.dax_threads:
        yield note(
            "settings.dax",
            f"dax_calls ({settings.dax_calls}) is below dax_threads ({settings.dax_threads})",
            breaks="threads stand idle",
            remedy="raise dax_calls",
        )


def _dynamodb(settings: Settings) -> Iterator[Finding]:
    endpoint = settings.dynamodb_endpoint or ""
    if endpoint.startswith("http://"):
        local = any(f"//{host}" in endpoint for host in ("127.", "localhost", "[::1]"))
        if local:
            yield note(
                "settings.dynamodb-endpoint",
                f"DynamoDB is {endpoint}: a local engine",
                breaks="production left pointing at a local engine loses every chat",
                remedy="leave DYNAMODB_ENDPOINT out in production",
            )
        else:
            yield warning(
                "settings.dynamodb-endpoint",
                f"DynamoDB is asked at {endpoint}, unencrypted",
                breaks="chats cross the network in the clear",
                remedy="write https://, or leave DYNAMODB_ENDPOINT out",
            )
    if settings.memory_limit_bytes and settings.memory_bytes > settings.memory_limit_bytes:
        yield warning(
            "settings.memory",
            f"memory_bytes ({settings.memory_bytes}) is above memory_limit_bytes ({settings.memory_limit_bytes})",
            breaks="memory_bytes bounds nothing: sessions leave when the process's limit is met",
            remedy="lower memory_bytes to about 60 % of the limit",
        )
