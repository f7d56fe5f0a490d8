"""Settings: what is accepted, what is refused and how it is said, what is hidden, and who wins."""

import copy
import dataclasses
import ipaddress
import pickle
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mangacache.errors import Invalid
from mangacache.settings import DaxAddress, RedisAddress, Settings, Spec, describe, specs
from mangacache.settings._addresses import conceal, is_loopback, parse_dax, parse_http, parse_redis
from mangacache.settings._document import markdown, toml

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "config" / "mangacache.toml"
PAGE = ROOT / "docs" / "settings.md"

EXPECTED_DEFAULTS = {
    "table_name": "manga-assist-sessions",
    "customer_index": "by_customer",
    "region": "us-east-1",
    "dynamodb_endpoint": None,
    "dynamodb_transport": "direct",
    "redis_endpoint": None,
    "redis_link": "multiplexed",
    "redis_cluster": "auto",
    "redis_iam_user": None,
    "redis_iam_cache": None,
    "redis_ca_file": None,
    "dax_endpoint": None,
    "dax_fills": "auto",
    "dax_writes": "deletes",
    "dax_ttl_s": 300,
    "dax_timeout_s": 0.5,
    "dax_threads": 8,
    "dax_calls": 128,
    "key_prefix": "mc:",
    "retention_days": 90,
    "context_ttl_s": 300,
    "context_max_age_s": 3600,
    "redis_policy": "available",
    "redis_connections": 32,
    "redis_timeout_s": 0.5,
    "commit_retry_s": 0.25,
    "invalidation_queue": 10_000,
    "invalidation_deadline_s": 3.0,
    "near_max_age_s": 1.0,
    "memory_sessions": 1_000_000,
    "memory_bytes": 1_073_741_824,
    "memory_limit_bytes": 0,
    "mailbox_size": 64,
    "messages_in_flight": 10_000,
    "message_deadline_s": 30.0,
    "turn_slow_s": 5.0,
    "turn_limit_s": 30.0,
    "loop_lag_limit_s": 1.0,
    "idle_s": 900,
    "touch_every_s": 300,
    "window_age_s": 1800,
    "connect_timeout_s": 1.0,
    "request_timeout_s": 2.0,
    "request_deadline_s": 10.0,
    "retry_base_s": 0.025,
    "retry_cap_s": 1.0,
    "max_connections": 64,
    "max_content_bytes": 262_144,
    "compress_from_bytes": 512,
    "degraded_reads_per_s": 200,
    "rate_limits": "messages=30/60",
    "rate_limit_policy": "local",
    "rate_limit_workers": 1,
    "connection_ttl_s": 7200,
    "presence_online_s": 90,
    "presence_keep_s": 3600,
    "drain_timeout_s": 20.0,
    "worker_host": "127.0.0.1",
    "worker_port": 8080,
    "operator_host": "127.0.0.1",
    "operator_port": 8081,
    "worker_notice_s": 3.0,
    "hit_ratio_least": 0.8,
    "hit_ratio_window_s": 300.0,
    "hit_ratio_reads": 500,
    "log_level": "info",
    "log_format": "auto",
    "traces_endpoint": None,
    "traces_share": 0.01,
    "worker_sockets": 10_000,
    "worker_socket_heartbeat_s": 30.0,
    "worker_socket_open_s": 10.0,
    "worker_socket_message_bytes": 1_048_576,
    "worker_socket_queue": 256,
    "worker_socket_queue_bytes": 1_048_576,
    "worker_socket_stall_s": 20.0,
    "worker_max_body_bytes": 1_048_576,
    "worker_receive_timeout_s": 10.0,
    "worker_request_timeout_s": 60.0,
    "worker_keys": None,
    "worker_open": "no",
    "worker_token_keys": None,
    "worker_revoked": None,
    "worker_token_issuer": "mangacache",
    "worker_token_audience": "mangacache",
    "worker_token_longest_s": 3600,
    "worker_token_leeway_s": 5,
    "worker_origins": "",
}
NUMBERS = [spec for spec in specs() if isinstance(spec.default, int | float)]
PARSERS: list[Callable[[str], object]] = [parse_redis, parse_dax, parse_http]

labels = st.from_regex(r"[a-z][a-z0-9]{0,8}(-[a-z0-9]{1,8})?", fullmatch=True)
names = st.lists(labels, min_size=1, max_size=4).map(".".join)
ports = st.integers(1, 65535)
secrets = st.text(min_size=8, max_size=24).filter(lambda text: text.encode("utf-8", "ignore").decode() == text)


def refused(environ: dict[str, str]) -> list[str]:
    """Return the problems, one a line, without the heading."""
    with pytest.raises(Invalid) as caught:
        Settings.from_env(environ)
    return str(caught.value).splitlines()[1:]


def sources(settings: Settings) -> dict[str, str]:
    return {name: source for name, _, source in describe(settings) if source != "default"}


# ---- the object ----


def test_the_defaults_are_those_of_the_design() -> None:
    assert {spec.name: getattr(Settings(), spec.name) for spec in specs()} == EXPECTED_DEFAULTS
    assert Settings.from_env({}) == Settings()


def test_settings_are_frozen_slotted_hashable_and_survive_pickle_and_copy() -> None:
    settings = Settings(redis_endpoint="rediss://:secret-word@cache:6380/2")
    with pytest.raises(dataclasses.FrozenInstanceError):
        settings.region = "eu-west-1"  # type: ignore[misc]
    assert not hasattr(settings, "__dict__")
    assert pickle.loads(pickle.dumps(settings)) == copy.copy(settings) == settings  # noqa: S301 - our own bytes
    assert hash(settings) == hash(settings.replace())


def test_where_a_value_came_from_is_outside_equality() -> None:
    given_in_env = Settings.from_env({"RETENTION_DAYS": "30"})
    assert given_in_env == Settings(retention_days=30) == Settings().replace(retention_days=30)
    assert hash(given_in_env) == hash(Settings(retention_days=30))
    assert sources(given_in_env) == {"retention_days": "environment"}
    assert sources(Settings(retention_days=30)) == {"retention_days": "argument"}
    assert sources(given_in_env.replace(idle_s=5)) == {"retention_days": "environment", "idle_s": "argument"}


def test_every_field_says_its_names_range_meaning_and_what_breaks() -> None:
    assert [spec.name for spec in specs()] == list(EXPECTED_DEFAULTS)
    variables = [name for spec in specs() for name in spec.env]
    assert len(variables) == len(set(variables))
    for spec in specs():
        assert spec.doc.endswith("."), spec.name
        assert spec.breaks.endswith("."), spec.name
        assert spec.range, spec.name
        assert isinstance(spec.default, str | None) or (spec.unit and spec.low < spec.high), spec.name
        assert spec.default is None or spec.accept(spec.default) == spec.default


def test_whole_numbers_are_taken_where_fractions_may_stand_and_kept_as_fractions() -> None:
    assert type(Settings(near_max_age_s=2).near_max_age_s) is float
    assert type(Settings.from_env({"MANGACACHE_NEAR_MAX_AGE_S": "2"}).near_max_age_s) is float


# ---- numbers ----


@pytest.mark.parametrize(
    ("name", "most", "beyond"),
    [("window_age_s", 1800, 1801), ("drain_timeout_s", 25.0, 25.1), ("max_content_bytes", 300_000, 300_001)],
)
def test_a_limit_that_a_guarantee_rests_on_cannot_be_raised(name: str, most: float, beyond: float) -> None:
    Settings().replace(**{name: most})
    with pytest.raises(Invalid, match="lower it"):
        Settings().replace(**{name: beyond})


@pytest.mark.parametrize("spec", NUMBERS, ids=lambda spec: spec.name)
def test_each_number_is_taken_at_both_ends_of_its_range_and_refused_beyond(spec: Spec) -> None:
    room = {"context_max_age_s": 604_800, "request_deadline_s": 300.0, "retry_cap_s": 60.0}
    room |= {"context_ttl_s": 1, "request_timeout_s": 0.05, "retry_base_s": 0.001}
    step = 1 if isinstance(spec.default, int) else 0.0001
    for end, beyond in ((spec.low, spec.low - step), (spec.high, spec.high + step)):
        assert getattr(Settings().replace(**(room | {spec.name: end})), spec.name) == end
        with pytest.raises(Invalid, match=spec.name):
            Settings().replace(**(room | {spec.name: beyond}))


@pytest.mark.parametrize(
    "text",
    [
        "1_000",
        "nan",
        "inf",
        "-inf",
        "Infinity",
        "1e3",
        "0x10",
        "5s",
        " 5",
        "5 ",
        "5\n",
        "+5",
        "007",
        "1,5",
        "٣",
        ".",
        ".5",
        "5.",
        "true",
        "9" * 5000,
    ],
)
@pytest.mark.parametrize("variable", ["MANGACACHE_IDLE_S", "MANGACACHE_DRAIN_TIMEOUT_S"])
def test_a_variable_that_is_not_a_plain_number_is_refused_with_a_clear_message(variable: str, text: str) -> None:
    (problem,) = refused({variable: text})
    assert variable in problem
    assert "write " in problem
    assert len(problem) < 400


def test_a_fraction_is_refused_where_a_whole_number_is_due() -> None:
    (problem,) = refused({"MANGACACHE_MAILBOX_SIZE": "64.0"})
    assert problem.startswith("- mailbox_size (MANGACACHE_MAILBOX_SIZE): '64.0' from the environment is refused;")
    assert "whole number of messages, 1 to 10000" in problem


@pytest.mark.parametrize("value", [True, "300", None, 3.0, [300], 10**400])
def test_code_that_gives_another_type_is_told_so(value: object) -> None:
    with pytest.raises(Invalid, match="context_ttl_s"):
        Settings(context_ttl_s=value)  # type: ignore[arg-type]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf"), 10**400, True, "1"])
def test_no_number_from_code_is_infinite_or_not_a_number(value: object) -> None:
    with pytest.raises(Invalid, match="near_max_age_s"):
        Settings(near_max_age_s=value)  # type: ignore[arg-type]


@given(st.floats(0, 25, allow_nan=False).map(lambda number: f"{number:.6f}"))
def test_a_plain_decimal_is_read_as_what_it_says(text: str) -> None:
    assert Settings.from_env({"MANGACACHE_DRAIN_TIMEOUT_S": text}).drain_timeout_s == float(text)


# ---- all problems at once ----


def test_all_problems_of_file_and_environment_are_listed_at_once(tmp_path: Path) -> None:
    path = tmp_path / "settings.toml"
    path.write_text('retention_days = 0\nredis_endpiont = "x"\nidle_s = "600"\nkey_prefix = "a{b}"\n')
    environ = {
        "MANGACACHE_MAILBOX_SIZE": "many",
        "MANGACACHE_IDLES": "1",
        "DAX_ENDPOINT": "http://dax",
        "MANGACACHE_CONTEXT_TTL_S": "7200",
    }
    with pytest.raises(Invalid) as caught:
        Settings.from_toml(path, environ)
    heading, *problems = str(caught.value).splitlines()
    assert heading == "8 problems in the settings:"
    for part in (
        "'redis_endpiont'",
        "did you mean redis_endpoint?",
        "mailbox_size (MANGACACHE_MAILBOX_SIZE): 'many'",
        "'MANGACACHE_IDLES' in the environment: no such setting; did you mean MANGACACHE_IDLE_S?",
        "dax_endpoint (DAX_ENDPOINT): 'http://dax'",
        "retention_days (RETENTION_DAYS): 0 from the file",
        "idle_s (MANGACACHE_IDLE_S): '600' from the file",
        "key_prefix (KEY_PREFIX): 'a{b}' from the file",
        "context_max_age_s (MANGACACHE_CONTEXT_MAX_AGE_S): 3600, the default, is refused",
    ):
        assert sum(part in problem for problem in problems) == 1, part


def test_code_and_replace_list_all_problems_too() -> None:
    with pytest.raises(Invalid, match=r"(?s)^2 problems.*table_name.*retention_days"):
        Settings(table_name="a", retention_days=0)
    with pytest.raises(Invalid, match=r"(?s)^2 problems.*did you mean retention_days.*table_name"):
        Settings().replace(table_name="a", retention_day=1)


@pytest.mark.parametrize(
    ("below", "above"),
    [
        ({"context_max_age_s": 299}, {"context_max_age_s": 300}),
        ({"request_deadline_s": 1.9}, {"request_deadline_s": 2.0}),
        ({"retry_cap_s": 0.02}, {"retry_cap_s": 0.025}),
    ],
)
def test_what_bounds_another_setting_may_not_be_below_it(below: dict[str, float], above: dict[str, float]) -> None:
    Settings().replace(**above)
    (name,) = below
    with pytest.raises(Invalid, match=rf"{name} \(MANGACACHE_{name.upper()}\): .*raise it to .* or lower"):
        Settings().replace(**below)


def test_a_value_that_could_not_be_read_is_not_compared_with_another() -> None:
    (problem,) = refused({"MANGACACHE_CONTEXT_TTL_S": "long", "MANGACACHE_CONTEXT_MAX_AGE_S": "60"})
    assert "'long'" in problem


def test_a_problem_names_the_variable_that_was_read() -> None:
    (problem,) = refused({"AWS_ENDPOINT_URL": "ftp://local"})
    assert problem.startswith("- dynamodb_endpoint (AWS_ENDPOINT_URL): 'ftp://local'")


@given(st.text(max_size=12))
def test_a_name_is_taken_exactly_when_dynamodb_takes_it(text: str) -> None:
    if re.fullmatch("[a-zA-Z0-9_.-]{3,255}", text):
        assert Settings(table_name=text).table_name == text
    else:
        with pytest.raises(Invalid, match="table_name"):
            Settings(table_name=text)


@pytest.mark.parametrize("prefix", ["{a}", "a b", "a" * 65, "ä", "a\n"])
def test_a_prefix_has_no_braces_no_spaces_and_is_short(prefix: str) -> None:
    with pytest.raises(Invalid, match="key_prefix"):
        Settings(key_prefix=prefix)


# ---- precedence ----


def test_the_environment_wins_over_the_file_and_the_file_over_the_default(tmp_path: Path) -> None:
    path = tmp_path / "settings.toml"
    path.write_text('retention_days = 7\nregion = "eu-west-1"\nredis_endpoint = ""\n')
    settings = Settings.from_toml(path, {"RETENTION_DAYS": "8"})
    assert (settings.retention_days, settings.region, settings.redis_endpoint) == (8, "eu-west-1", None)
    assert sources(settings) == {"retention_days": "environment", "region": "file", "redis_endpoint": "file"}


def test_the_first_variable_that_is_set_and_not_empty_counts() -> None:
    environ = {"AWS_ENDPOINT_URL": "http://c:1", "AWS_DEFAULT_REGION": "eu-west-2", "AWS_REGION": ""}
    settings = Settings.from_env(environ)
    assert (settings.dynamodb_endpoint, settings.region) == ("http://c:1", "eu-west-2")
    environ |= {"AWS_ENDPOINT_URL_DYNAMODB": "http://b:1", "AWS_REGION": "eu-west-1"}
    settings = Settings.from_env(environ)
    assert (settings.dynamodb_endpoint, settings.region) == ("http://b:1", "eu-west-1")
    assert Settings.from_env(environ | {"DYNAMODB_ENDPOINT": "http://a:1"}).dynamodb_endpoint == "http://a:1"


def test_an_empty_variable_is_not_set_but_an_empty_prefix_is_a_prefix() -> None:
    everything_empty = {name: "" for spec in specs() for name in spec.env}
    assert Settings.from_env(everything_empty) == Settings(key_prefix="")


def test_load_reads_the_file_named_by_the_argument_else_by_the_variable_else_none(tmp_path: Path) -> None:
    first, second = tmp_path / "first.toml", tmp_path / "second.toml"
    first.write_text("retention_days = 1\n")
    second.write_text("retention_days = 2\n")
    environ = {"MANGACACHE_CONFIG": str(second), "MANGACACHE_DYNOXIDE": "/usr/bin/dynoxide"}
    assert Settings.load(first, environ).retention_days == 1
    assert Settings.load(environ=environ).retention_days == 2
    assert Settings.load(environ={"MANGACACHE_CONFIG": ""}) == Settings()
    assert Settings.from_env(environ) == Settings()


def test_without_an_argument_the_process_environment_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RETENTION_DAYS", "11")
    monkeypatch.delenv("MANGACACHE_CONFIG", raising=False)
    assert Settings.from_env().retention_days == Settings.load().retention_days == 11


def test_a_prefixed_variable_for_a_field_with_another_name_is_told_that_name() -> None:
    assert refused({"MANGACACHE_TABLE_NAME": "x" * 9}) == [
        "- 'MANGACACHE_TABLE_NAME' in the environment: no such setting; did you mean SESSION_TABLE?"
    ]


def test_a_file_key_that_is_a_variable_is_told_the_field(tmp_path: Path) -> None:
    path = tmp_path / "settings.toml"
    path.write_text('SESSION_TABLE = "abc"\n[zzz]\nquite_unknown = 1\n')
    with pytest.raises(Invalid, match=r"(?s)did you mean table_name\?.*'zzz' in .*remove it"):
        Settings.from_toml(path, {})


@pytest.mark.parametrize(
    "content", [b"retention_days = = 'secret-word'", b"\xff", b"retention_days = 1\nretention_days = 2"]
)
def test_a_file_that_is_not_toml_is_a_problem_beside_the_others(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "settings.toml"
    path.write_bytes(content)
    with pytest.raises(Invalid, match=r"(?s)^2 problems.*settings.toml: not .*idle_s") as caught:
        Settings.from_toml(path, {"MANGACACHE_IDLE_S": "0"})
    assert "secret-word" not in str(caught.value)


def test_a_file_that_is_not_toml_is_told_the_place_and_nothing_that_stands_there(tmp_path: Path) -> None:
    path = tmp_path / "settings.toml"
    path.write_text("[hunter2]\n[hunter2]\n")  # tomllib would say: cannot declare hunter2 twice
    with pytest.raises(Invalid, match="not TOML: at line 2, column 9; correct that line") as caught:
        Settings.from_toml(path, {})
    assert "hunter2" not in str(caught.value)


def test_a_file_that_is_not_there_is_a_problem(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match=r"nowhere.toml: No such file.*MANGACACHE_CONFIG"):
        Settings.load(environ={"MANGACACHE_CONFIG": str(tmp_path / "nowhere.toml")})


# ---- endpoints ----


@given(names, st.none() | ports)
def test_a_bare_redis_host_means_tls_unless_it_is_loopback(host: str, port: int | None) -> None:
    text = host if port is None else f"{host}:{port}"
    expected = RedisAddress(host=host, port=port or 6379, tls=host != "localhost")
    assert Settings(redis_endpoint=text).redis == expected


@given(
    st.sampled_from(["redis", "rediss", "REDISS"]),
    names | st.ip_addresses().map(str),
    st.none() | ports,
    st.none() | st.integers(0, 99_999),
    st.none() | st.tuples(st.text(max_size=8), st.text(min_size=1)),
)
def test_a_redis_url_is_parsed_into_what_it_was_made_of(
    scheme: str, host: str, port: int | None, db: int | None, login: tuple[str, str] | None
) -> None:
    bracketed = f"[{host}]" if ":" in host else host
    userinfo = "" if login is None else f"{quote(login[0], safe='')}:{quote(login[1], safe='')}@"
    rest = ("" if port is None else f":{port}") + ("" if db is None else f"/{db}")
    text = f"{scheme}://{userinfo}{bracketed}{rest}"
    assert parse_redis(text) == RedisAddress(
        host=host,
        port=port or 6379,
        tls=scheme.lower() == "rediss",
        db=db or 0,
        username=login[0] or None if login else None,
        password=login[1] if login else None,
    )


@given(st.ip_addresses(v=6), ports)
def test_an_ipv6_literal_stands_in_brackets_or_is_refused(address: ipaddress.IPv6Address, port: int) -> None:
    assert parse_redis(f"[{address}]:{port}").host == str(address)
    assert parse_redis(f"redis://[{address.exploded}]").host == str(address)
    assert parse_http(f"http://[{address}]:{port}") == f"http://[{address}]:{port}"
    for text in (
        f"redis://{address}:{port}",
        str(address),
        f"[{address}%eth0]",
        f"[{address}",
        f"[{address}]{port}",
    ):
        with pytest.raises(ValueError, match="brackets"):
            parse_redis(text)


def test_dax_takes_no_ipv6_literal_because_its_client_cannot() -> None:
    with pytest.raises(ValueError, match="IPv6"):
        parse_dax("dax://[::1]:8111")


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST", "127.0.0.1", "127.9.9.9", "[::1]", "[::ffff:127.0.0.1]"])
def test_a_bare_loopback_host_means_no_tls(host: str) -> None:
    assert parse_redis(host).tls is False
    assert parse_redis(f"{host}:7000").tls is False


@pytest.mark.parametrize("host", ["localhost.example.com", "notlocalhost", "0.0.0.0", "10.0.0.1", "::"])  # noqa: S104
def test_what_only_looks_like_loopback_is_not(host: str) -> None:
    assert not is_loopback(host)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("dax://cluster", DaxAddress(host="cluster", port=8111, tls=False)),
        ("dax://cluster:8200/", DaxAddress(host="cluster", port=8200, tls=False)),
        ("daxs://cluster", DaxAddress(host="cluster", port=9111, tls=True)),
        ("daxs://Cluster.A:9112", DaxAddress(host="cluster.a", port=9112, tls=True)),
        ("cluster.example.com", DaxAddress(host="cluster.example.com", port=9111, tls=True)),
        ("127.0.0.1", DaxAddress(host="127.0.0.1", port=8111, tls=False)),
    ],
)
def test_a_dax_endpoint_is_a_url_or_a_bare_host(text: str, expected: DaxAddress) -> None:
    settings = Settings(dax_endpoint=text)
    assert settings.dax == expected
    assert settings.replace(dax_endpoint=str(expected)).dax == expected


def test_a_bare_dax_host_with_a_port_is_refused_because_it_does_not_say_the_protocol() -> None:
    with pytest.raises(Invalid, match=r"dax://host:8111 or daxs://host:9111"):
        Settings(dax_endpoint="cluster.example.com:8111")


def test_a_unix_socket_is_an_absolute_path() -> None:
    assert parse_redis("unix:///run/valkey%20one.sock") == RedisAddress(unix_path="/run/valkey one.sock")
    assert str(parse_redis("unix:///run/a@b.sock")) == "unix:///run/a%40b.sock"
    for text in ("unix://run/valkey.sock", "unix:///", "unix://", f"unix:///{'a' * 107}", "unix:///a%00"):
        with pytest.raises(ValueError, match="unix socket"):
            parse_redis(text)


def test_a_dynamodb_url_is_kept_without_its_last_slash() -> None:
    assert Settings(dynamodb_endpoint="http://LocalHost:8000/").dynamodb_endpoint == "http://localhost:8000"
    assert Settings(dynamodb_endpoint="https://vpce.example.com").dynamodb_endpoint == "https://vpce.example.com"


@given(
    st.sampled_from(["redis://", "dax://", "http://", ""]),
    names,
    st.integers(65536, 10**9) | st.integers(-9, 0),
)
def test_a_port_out_of_range_is_refused_everywhere(scheme: str, host: str, port: int) -> None:
    for parse in PARSERS:
        with pytest.raises(ValueError):  # noqa: PT011 - each parser names the first thing it minds
            parse(f"{scheme}{host}:{port}")


@given(
    st.sampled_from(["redis://", "rediss://", "dax://", "daxs://", "http://", "https://", ""]),
    names,
    st.sampled_from([*" \t\n\r\0{}<>|\\^`\"'()%*,;=!$&~\u00e9\u200b", "..", " {}"]),
    names,
)
def test_a_host_with_spaces_braces_or_other_strange_characters_is_refused(
    scheme: str, head: str, strange: str, tail: str
) -> None:
    for parse in PARSERS:
        with pytest.raises(ValueError):  # noqa: PT011 - each parser names the first thing it minds
            parse(f"{scheme}{head}{strange}{tail}")


@pytest.mark.parametrize(
    "text",
    [
        "redis://",
        "redis://:6379",
        "host:",
        "host:0",
        "host:06379",
        "host:٣",
        "host:6379:1",
        "-host",
        "host-",
        "a..b",
        ".",
        "redis://host/x",
        "redis://host/-1",
        "redis://host/0/1",
        "redis://host?db=1",
        "redis://host#1",
        "host/1",
        "redis://user@host",
        "redis://user:@host",
        "redis://:@host",
        ":secret@host",
        "redis://:%zz@host",
        "redis://:%ff@host",
        "http://host",
        "redis:host",
        "//host",
        "1.2.3.400",
        "127.1",
        "[]",
        "[1.2.3.4]",
        "a" * 254,
        "redis://host1,host2",
        "redis://[::1",
        "redis://::1]",
        " host",
        "host\n",
    ],
)
def test_a_malformed_redis_endpoint_is_refused(text: str) -> None:
    with pytest.raises(Invalid, match=r"redis_endpoint \(REDIS_ENDPOINT\)"):
        Settings(redis_endpoint=text)


@given(st.text())
def test_any_text_is_either_parsed_or_refused_with_a_value_error_that_has_no_cause(text: str) -> None:
    for parse in PARSERS:
        try:
            parse(text)
        except ValueError as error:
            refusal = error
        else:
            continue
        assert type(refusal) is ValueError
        assert refusal.__cause__ is None
        assert refusal.__suppress_context__ or refusal.__context__ is None


@given(names, ports, st.integers(0, 9), st.text(min_size=1), st.text(min_size=1))
def test_an_address_without_a_password_survives_its_text(host: str, port: int, db: int, user: str, word: str) -> None:
    address = RedisAddress(host=host, port=port, tls=True, db=db)
    assert parse_redis(str(address)) == address
    hidden = dataclasses.replace(address, username=user, password=word)
    assert parse_redis(str(hidden)) == dataclasses.replace(hidden, password="***")  # noqa: S106


# ---- credentials ----


@given(
    st.sampled_from(["redis://", "rediss://", "http://", "unix://", "dax://", ""]),
    st.sampled_from(["user:", ":", ""]),
    secrets,
    st.sampled_from(["@cache:6379/0", "@cache:99999", "@", "@ca che", "@cache?x=1", "@cache/x", "@[::1", "@{}"]),
    st.sampled_from(["REDIS_ENDPOINT", "DAX_ENDPOINT", "DYNAMODB_ENDPOINT"]),
)
def test_no_message_and_no_repr_shows_a_password_whatever_is_wrong_with_the_url(
    scheme: str, user: str, secret: str, rest: str, variable: str
) -> None:
    marked = f"hunter2{secret}hunter2"
    try:
        settings = Settings.from_env({variable: f"{scheme}{user}{marked}{rest}"})
    except Invalid as error:
        shown = f"{error}{error.__cause__}{error.__context__}"
    else:
        shown = f"{settings!r}{settings}{settings.redis!r}{settings.redis}{describe(settings)}"
    assert "hunter2" not in shown


@pytest.mark.parametrize(
    "text",
    [
        "redis://:hunter2",
        "redis://user:hunter2",
        "redis://cache:6379?password=hunter2",
        "redis://cache/hunter2",
        "redis://cache:6379#hunter2",
        "unix:///run/x.sock?password=hunter2",
        "user:hunter2",
        "unix://:hunter2",
    ],
)
def test_a_password_in_a_wrong_place_is_hidden_too(text: str) -> None:
    (problem,) = refused({"REDIS_ENDPOINT": text})
    assert "hunter2" not in problem


def test_credentials_that_are_not_utf8_are_refused_without_the_decoder_s_message_that_quotes_them() -> None:
    with pytest.raises(ValueError, match="not UTF-8") as caught:
        parse_redis("redis://:hunter2%ff@host")
    assert type(caught.value) is ValueError
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


def test_a_password_is_hidden_and_the_rest_of_the_address_is_not() -> None:
    settings = Settings(redis_endpoint="rediss://bot:hunter2%2F@cache.example.com:6380/3")
    assert settings.redis is not None
    assert (settings.redis.username, settings.redis.password) == ("bot", "hunter2/")
    assert "redis_endpoint='rediss://bot:***@cache.example.com:6380/3'" in repr(settings)
    assert "hunter2" not in repr(settings.redis)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("redis://cache:70000", "redis://cache:70000"),
        ("ftp://cache", "ftp://cache"),
        ("unix://run/x.sock", "unix://run/x.sock"),
        ("redis://a:b@c@cache:1/2", "redis://***@cache:1/2"),
        ("redis://a:b/c", "redis://***"),
    ],
)
def test_what_cannot_be_a_password_is_shown_in_a_message(text: str, shown: str) -> None:
    assert conceal(text) == shown


def test_the_value_of_an_unknown_name_is_not_shown(tmp_path: Path) -> None:
    path = tmp_path / "settings.toml"
    path.write_text('redis_password = "hunter2"\nredis_endpoint = { password = "hunter2" }\n')
    with pytest.raises(Invalid, match=r"(?s)^3 problems.*a dict from the file") as caught:
        Settings.from_toml(path, {"MANGACACHE_REDIS_PASSWORD": "hunter2"})
    assert "hunter2" not in str(caught.value)


# ---- the example and the page ----


def test_the_example_names_every_field_once_and_gives_the_defaults() -> None:
    text = EXAMPLE.read_text(encoding="utf-8")
    assert re.findall(r"^(?:# )?([a-z_]+) = ", text, re.MULTILINE) == list(EXPECTED_DEFAULTS)
    given_there = {name: value for name, value in EXPECTED_DEFAULTS.items() if value is not None}
    assert tomllib.loads(text) == given_there
    assert {name: type(value) for name, value in tomllib.loads(text).items()} == {
        name: type(value) for name, value in given_there.items()
    }
    assert Settings.from_toml(EXAMPLE, {}) == Settings()


def test_the_example_says_unit_range_default_and_what_breaks() -> None:
    paragraphs = re.sub(r"\n#   ", " ", EXAMPLE.read_text(encoding="utf-8")).split("\n\n")
    for spec in specs():
        (paragraph,) = (text for text in paragraphs if re.search(rf"^(# )?{spec.name} = ", text, re.MULTILINE))
        for part in (spec.doc, spec.breaks, spec.range, "Default: ", *spec.env, spec.unit):
            assert part in paragraph, (spec.name, part)


def test_what_the_example_has_commented_out_may_be_uncommented(tmp_path: Path) -> None:
    path = tmp_path / "all.toml"
    path.write_text(re.sub(r"^# ([a-z_]+ = )", r"\1", EXAMPLE.read_text(encoding="utf-8"), flags=re.MULTILINE))
    assert set(sources(Settings.from_toml(path, {}))) == set(EXPECTED_DEFAULTS)


def test_the_example_and_the_page_are_what_the_metadata_makes() -> None:
    assert EXAMPLE.read_text(encoding="utf-8") == toml()
    assert PAGE.read_text(encoding="utf-8") == markdown()


@pytest.mark.parametrize(("arguments", "expected"), [([], markdown), (["toml"], toml)])
def test_the_module_prints_the_page_and_the_example(arguments: list[str], expected: Callable[[], str]) -> None:
    command = [sys.executable, "-m", "mangacache.settings", *arguments]
    printed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert printed.stdout == expected()
