"""Each setting: what it is, its range, its default, and what goes wrong when it is wrong."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from mangacache.settings._addresses import parse_dax, parse_http, parse_redis
from mangacache.settings._spec import setting

_DYNAMODB_NAME: Final = "[a-zA-Z0-9_.-]{3,255}"
_DYNAMODB_NAME_WORDS: Final = "3 to 255 of a-z A-Z 0-9 _ . -"
_HOST: Final = "[a-zA-Z0-9_.:-]{1,253}"
_HOST_WORDS: Final = "an address or a name of this machine, without a port: 127.0.0.1, ::1, 0.0.0.0"


def _keep_redis(text: str) -> str:
    parse_redis(text)
    return text


def _keep_dax(text: str) -> str:
    parse_dax(text)
    return text


_LIST: Final = r"env:[A-Za-z_][A-Za-z0-9_]{0,99}|(?!env:)[^\x00-\x1f]{1,1000}"
_LIST_WORDS: Final = "a path, or env: and the name of an environment variable"


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Fields:
    """The fields of `Settings`; without `env`, the variable is MANGACACHE_ and the name in capitals."""

    table_name: str = setting(
        "manga-assist-sessions",
        "The DynamoDB table that holds the sessions.",
        breaks="Nothing can be read or written, or another installation's table is.",
        env=("SESSION_TABLE",),
        pattern=_DYNAMODB_NAME,
        allowed=_DYNAMODB_NAME_WORDS,
    )
    customer_index: str = setting(
        "by_customer",
        "The table's index by customer.",
        breaks="A customer's sessions cannot be listed; everything else works.",
        env=("CUSTOMER_INDEX",),
        pattern=_DYNAMODB_NAME,
        allowed=_DYNAMODB_NAME_WORDS,
    )
    region: str = setting(
        "us-east-1",
        "The AWS region of the table and of DAX.",
        breaks="The table is not found, or each call crosses the world.",
        env=("AWS_REGION", "AWS_DEFAULT_REGION"),
        pattern="[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?",
        allowed="a region's code such as eu-west-1: a-z 0-9 -",
    )
    dynamodb_endpoint: str | None = setting(
        None,
        "Where DynamoDB answers, when it is not the region's own address.",
        breaks="Production left pointing at a local engine loses every chat.",
        env=("DYNAMODB_ENDPOINT", "AWS_ENDPOINT_URL_DYNAMODB", "AWS_ENDPOINT_URL"),
        normalise=parse_http,
        allowed="http://host[:port] or https://host[:port]",
        example="http://127.0.0.1:8000",
    )
    dynamodb_transport: str = setting(
        "direct",
        "How DynamoDB is asked: `direct` signs, sends and reads what a chat message needs by itself; `aioboto3` leaves"
        " everything to the AWS client.",
        breaks="`aioboto3` costs several times the processor time for each message; through a proxy it is used anyway.",
        env=("DYNAMODB_TRANSPORT",),
        pattern="direct|aioboto3",
        allowed="direct or aioboto3",
    )
    redis_endpoint: str | None = setting(
        None,
        "Where Redis or Valkey answers; without it contexts come from memory and DynamoDB.",
        breaks="Workers do not share contexts, limits, presence or locks; a wrong redis:// sends chats unencrypted.",
        env=("REDIS_ENDPOINT",),
        normalise=_keep_redis,
        allowed="host[:port] (TLS unless loopback; port 6379), redis://[[user]:password@]host[:port][/db],"
        " rediss://... (TLS) or unix:///path",
        example="rediss://my-cache.example.com:6379/0",
    )
    redis_link: str = setting(
        "multiplexed",
        "How Redis is asked: `multiplexed` sends what all sessions ask for over one connection, by itself; `redis-py`"
        " leaves it to that client, with a connection for each command under way.",
        breaks="`redis-py` costs several times the processor time for each command.",
        env=("REDIS_LINK",),
        pattern="multiplexed|redis-py",
        allowed="multiplexed or redis-py",
    )
    redis_cluster: str = setting(
        "auto",
        "Whether Redis is a cluster, whose nodes share the keys: `auto` asks the first node that answers.",
        breaks="`off` on a cluster: most keys are refused, as if Redis were away; `on` without one: nothing is found.",
        env=("REDIS_CLUSTER",),
        pattern="auto|on|off",
        allowed="auto, on or off",
    )
    redis_iam_user: str | None = setting(
        None,
        "The ElastiCache user that logs in by IAM, with the AWS credentials of the process instead of a password.",
        breaks="Redis is never reached: contexts come from memory and DynamoDB.",
        env=("REDIS_IAM_USER",),
        pattern="[a-zA-Z][a-zA-Z0-9-]{0,39}",
        allowed="the user's id, which is its name too; set together with redis_iam_cache, and TLS",
        example="manga-assist",
    )
    redis_iam_cache: str | None = setting(
        None,
        "The ElastiCache cache that the login by IAM is signed for.",
        breaks="Redis is never reached: contexts come from memory and DynamoDB.",
        env=("REDIS_IAM_CACHE",),
        pattern="(?:serverless:)?[a-z][a-z0-9-]{0,39}",
        allowed="the replication group's name, or serverless: and the serverless cache's",
        example="manga-assist-cache",
    )
    redis_ca_file: str | None = setting(
        None,
        "The only authorities whose certificate Redis may show; without it those that the machine trusts.",
        breaks="Redis is never reached: contexts come from memory and DynamoDB.",
        env=("REDIS_CA_FILE",),
        pattern=r"[^\x00-\x1f]{1,4096}",
        allowed="the path of a file of PEM certificates; it counts where redis_endpoint means TLS",
        example="/etc/ssl/redis-ca.pem",
    )
    dax_endpoint: str | None = setting(
        None,
        "Where the DAX cluster is found; without it every read goes to DynamoDB.",
        breaks="Reads wait one time-out and then go to DynamoDB, which costs more.",
        env=("DAX_ENDPOINT",),
        normalise=_keep_dax,
        allowed="host (TLS unless loopback), dax://host[:port] (port 8111) or daxs://host[:port] (TLS, port 9111)",
        example="daxs://my-cluster.abc123.dax-clusters.us-east-1.amazonaws.com",
    )
    dax_fills: str = setting(
        "auto",
        "How a session that memory and Redis do not hold is read where DAX is configured: `strong` reads its turns in"
        " DynamoDB; `numbers` only the newest of them, and the others by their numbers through DAX; `auto` is `numbers`"
        " without Redis and `strong` with it.",
        breaks="`numbers` for sessions that are read once costs several times the read units and processor time of"
        " `strong`; for long turns that are read again and again `strong` costs more read units.",
        pattern="auto|strong|numbers",
        allowed="auto, strong or numbers",
    )
    dax_writes: str = setting(
        "deletes",
        "What is written through DAX: `deletes` sends what a delete has done through it as well, so that it forgets;"
        " `puts` also puts each single turn through it, so that the turn is cached at once.",
        breaks="`puts`: a put whose reply is lost is sent again to DynamoDB, and whatever DAX or its client repeats by"
        " itself comes on top; appends wait for DAX, and cost several times the processor time.",
        pattern="deletes|puts",
        allowed="deletes or puts",
    )
    dax_ttl_s: int = setting(
        300,
        "The larger of the cluster's two times to live, that of items and that of queries.",
        breaks="Below what the cluster's parameter group says, EVENTUAL reads are older than they promise.",
        unit="seconds",
        span=(1, 604800),
    )
    dax_timeout_s: float = setting(
        0.5,
        "How long one read may take in DAX, waiting for a thread included, before DynamoDB is asked instead.",
        breaks="Too short: busy moments send reads to DynamoDB; too long: callers feel it when the cluster stalls.",
        unit="seconds",
        span=(0.01, 10),
    )
    dax_threads: int = setting(
        8,
        "How many threads ask DAX, whose client blocks.",
        breaks="Too few: reads queue behind slow ones;"
        " too many: the event loop waits for the interpreter that they share.",
        unit="threads",
        span=(1, 64),
    )
    dax_calls: int = setting(
        128,
        "How many reads may be under way in DAX or wait for a thread; further ones go to DynamoDB at once.",
        breaks="Too few: reads that DAX could answer go to DynamoDB; too many: they wait past dax_timeout_s.",
        unit="calls",
        span=(1, 4096),
    )
    key_prefix: str = setting(
        "mc:",
        "What every Redis key of this installation begins with.",
        breaks="Two installations on one Redis with one prefix mix their sessions; changing it empties the cache.",
        env=("KEY_PREFIX",),
        pattern="[A-Za-z0-9_.:-]{0,64}",
        allowed="0 to 64 of A-Z a-z 0-9 _ . : - (no braces: they choose a cluster's slot)",
    )
    retention_days: int = setting(
        90,
        "How long an item is kept after it was written.",
        breaks="Too short: chats are gone while they are wanted;"
        " too long: storage is paid and privacy promises are broken.",
        env=("RETENTION_DAYS",),
        unit="days",
        span=(1, 3650),
    )
    context_ttl_s: int = setting(
        300,
        "How long Redis keeps a context that nobody reads or writes.",
        breaks="Too short: each message loads from DynamoDB; too long: Redis fills with sessions that are over.",
        unit="seconds",
        span=(1, 86400),
    )
    context_max_age_s: int = setting(
        3600,
        "How old a context in Redis may be, however often it is used, before it is loaded anew.",
        breaks="It bounds how long a fault that nobody noticed can live; too short: needless loads.",
        unit="seconds",
        span=(1, 604800),
        at_least="context_ttl_s",
    )
    redis_policy: str = setting(
        "available",
        "What holds while a worker cannot reach Redis: `available` acknowledges appends and lets other workers' reads"
        " without a token lag behind; `hold` refuses to acknowledge, and LATEST raises.",
        breaks="Workers with different policies: LATEST is promised by neither.",
        env=("REDIS_POLICY",),
        pattern="available|hold",
        allowed="available or hold",
    )
    redis_connections: int = setting(
        32,
        "How many connections to Redis a process opens at most, where `redis_link` is `redis-py`.",
        breaks="Too few: commands queue in the process; too many: Redis's maxclients is reached by many workers.",
        unit="connections",
        span=(1, 1024),
    )
    redis_timeout_s: float = setting(
        0.5,
        "How long one command may take in Redis.",
        breaks="Too short: a busy moment counts as an outage; too long: a stalled Redis holds every message up.",
        unit="seconds",
        span=(0.01, 10),
    )
    commit_retry_s: float = setting(
        0.25,
        "How long a write whose COMMIT got no answer tries again before `redis_policy` decides.",
        breaks="Too short: a connection that is reset counts as an outage; too long: appends hang in one.",
        unit="seconds",
        span=(0, 10),
    )
    invalidation_queue: int = setting(
        10_000,
        "How many sessions' invalidations wait while Redis is away; beyond it the cache's epoch is raised.",
        breaks="Too small: a short outage empties every worker's cache.",
        unit="sessions",
        span=(1, 1_000_000),
    )
    invalidation_deadline_s: float = setting(
        3.0,
        "How long an invalidation may wait for Redis before the cache's epoch is raised.",
        breaks="Too short: a short outage empties every worker's cache;"
        " too long: so long may other workers' reads without a token miss a turn.",
        unit="seconds",
        span=(0.1, 60),
    )
    near_max_age_s: float = setting(
        1.0,
        "How long the process may answer a SESSION read from its memory without asking Redis.",
        breaks="Too long: a client without a token sees another worker's turns late; 0: each read asks Redis.",
        unit="seconds",
        span=(0, 60),
    )
    memory_sessions: int = setting(
        1_000_000,
        "How many sessions the process keeps in memory.",
        breaks="Too many: the process runs out of memory (about half a KB each, and what `memory_bytes` bounds);"
        " too few: each message asks Redis for all of it.",
        unit="sessions",
        span=(0, 10_000_000),
    )
    memory_bytes: int = setting(
        1_073_741_824,
        "How many bytes the contexts in the process's memory may take, about.",
        breaks="Too many: the process runs out of memory; too few: each message asks Redis for all of it.",
        unit="bytes",
        span=(0, 1_099_511_627_776),
    )
    memory_limit_bytes: int = setting(
        0,
        "How much memory the process may use: from 80 % of it on sessions leave until 75 %; 0 is what the container,"
        " or the machine, has.",
        breaks="Too high: the process is killed for want of memory; too low: sessions leave that would have room.",
        unit="bytes",
        span=(0, 17_592_186_044_416),
    )
    mailbox_size: int = setting(
        64,
        "How many messages may wait for one session.",
        breaks="Too small: a burst in one session is rejected; too large: the last of a burst waits past its deadline.",
        unit="messages",
        span=(1, 10_000),
    )
    messages_in_flight: int = setting(
        10_000,
        "How many calls may be under way or wait in all sessions of the process together.",
        breaks="Too small: a burst is rejected that could be served; too large: in an overload each call waits long.",
        unit="calls",
        span=(1, 1_000_000),
    )
    message_deadline_s: float = setting(
        30.0,
        "How long a message may wait in a mailbox before it is dropped unrun.",
        breaks="Too short: slow model calls starve what waits behind them;"
        " too long: work is done for callers who have left.",
        unit="seconds",
        span=(0.1, 300),
    )
    turn_slow_s: float = setting(
        5.0,
        "After how long a message's turn is logged, with where it stands.",
        breaks="Too short: the log fills with turns that are well; too long: what hangs is noticed late.",
        unit="seconds",
        span=(0.01, 3600),
    )
    turn_limit_s: float = setting(
        30.0,
        "After how long a message's turn is cut off, so that the session goes on; a delete or an `adopt` never is.",
        breaks="Too short: slow writes end with an unknown outcome; too long: one that hangs holds its session up.",
        unit="seconds",
        span=(0.01, 3600),
    )
    loop_lag_limit_s: float = setting(
        1.0,
        "How late the event loop may run before the process lets fewer calls in, down to 24 at once; calls that a busy"
        " loop makes slow may take a 100th to a 20th of it.",
        breaks="Too short: a busy moment has calls rejected; too long: in an overload every call is slow.",
        unit="seconds",
        span=(0.001, 60),
    )
    idle_s: int = setting(
        900,
        "After how long without a message a session leaves memory.",
        breaks="Too short: customers who think are loaded again; too long: memory holds sessions that are over.",
        unit="seconds",
        span=(1, 86400),
    )
    touch_every_s: int = setting(
        300,
        "How often META's last_active_at and last_number are written at most.",
        breaks="Too short: a write for nearly every message;"
        " too long: lists of a customer's sessions are out of order.",
        unit="seconds",
        span=(60, 86400),
    )
    window_age_s: int = setting(
        1800,
        "How old the knowledge of a session's last turns may be before it is read again ahead of a write.",
        breaks="Above half an hour a write could miss a delete whose traces are swept (protocol R11),"
        " so it is refused.",
        unit="seconds",
        span=(1, 1800),
    )
    connect_timeout_s: float = setting(
        1.0,
        "How long one connection to Redis, DAX or DynamoDB may take to open.",
        breaks="Too short: TLS under load never connects; too long: a dead address holds callers up.",
        unit="seconds",
        span=(0.05, 30),
    )
    request_timeout_s: float = setting(
        2.0,
        "How long one attempt of a DynamoDB call may take.",
        breaks="Too short: slow answers are thrown away and asked for again;"
        " too long: one lost packet costs the deadline.",
        unit="seconds",
        span=(0.05, 60),
    )
    request_deadline_s: float = setting(
        10.0,
        "How long all attempts of one DynamoDB call may take together.",
        breaks="Too short: no second attempt fits; too long: callers hang through an outage.",
        unit="seconds",
        span=(0.05, 300),
        at_least="request_timeout_s",
    )
    retry_base_s: float = setting(
        0.025,
        "The longest wait before the first retry; it doubles with each.",
        breaks="Too short: retries feed an overload; too long: a hiccup becomes a delay that customers see.",
        unit="seconds",
        span=(0.001, 10),
    )
    retry_cap_s: float = setting(
        1.0,
        "The longest wait before any retry.",
        breaks="Too short: an outage is hammered; too long: recovery is noticed late.",
        unit="seconds",
        span=(0.001, 60),
        at_least="retry_base_s",
    )
    max_connections: int = setting(
        64,
        "How many connections to DynamoDB are open at most.",
        breaks="Too few: calls queue in the process; too many: sockets and TLS handshakes for nothing.",
        unit="connections",
        span=(1, 4096),
    )
    max_content_bytes: int = setting(
        262_144,
        "The longest content of one turn, in UTF-8.",
        breaks="Too small: long messages are refused; DynamoDB's item of 400 KB sets the upper end.",
        unit="bytes",
        span=(1, 300_000),
    )
    compress_from_bytes: int = setting(
        512,
        "From which size on content is stored compressed; 0: always.",
        breaks="Too small: processor time for nothing; too large: more write units for each turn.",
        unit="bytes",
        span=(0, 300_000),
    )
    degraded_reads_per_s: int = setting(
        200,
        "How many contexts a second one process reads from DynamoDB while Redis is away.",
        breaks="Too many: an outage of Redis becomes one of DynamoDB; too few: customers are rejected needlessly.",
        unit="reads/s",
        span=(1, 1_000_000),
    )
    rate_limits: str = setting(
        "messages=30/60",
        "The rate limits of a customer: so many units in any window of so many seconds.",
        breaks="Too low: customers who type fast are rejected; too high: one customer costs what a hundred do.",
        env=("RATE_LIMITS",),
        pattern=r"{0}(?: *, *{0})*".format("[a-z0-9_]{1,32}=[1-9][0-9]{0,4}/[1-9][0-9]{0,4}"),
        allowed="name=units/seconds, several with commas between them: messages=30/60, images=5/3600",
    )
    rate_limit_policy: str = setting(
        "local",
        "What holds while Redis is away: `local` lets each worker allow its share of a limit; `closed` allows nothing.",
        breaks="`closed`: while Redis is away nobody can write to the bot.",
        env=("RATE_LIMIT_POLICY",),
        pattern="local|closed",
        allowed="local or closed",
    )
    rate_limit_workers: int = setting(
        1,
        "How many workers share a limit, as long as they have not been counted in Redis.",
        breaks="Too few: without Redis the workers allow more than the limit together; too many: they allow less.",
        unit="workers",
        span=(1, 10_000),
    )
    connection_ttl_s: int = setting(
        7200,
        "How long a connection stays mapped to its session without being refreshed.",
        breaks="Too short: customers who read for long are not reached any more; too long: the dead are looked up.",
        unit="seconds",
        span=(10, 604_800),
    )
    presence_online_s: int = setting(
        90,
        "How long after a heartbeat a customer counts as online.",
        breaks="Shorter than two heartbeats: customers flicker; too long: who has left is still counted.",
        unit="seconds",
        span=(1, 86_400),
    )
    presence_keep_s: int = setting(
        3600,
        "How long it is known when a customer was last seen; never shorter than presence_online_s.",
        breaks="Too long: Redis keeps every customer who came by, at some 80 bytes each.",
        unit="seconds",
        span=(1, 604_800),
    )
    drain_timeout_s: float = setting(
        20.0,
        "How long a process that is told to stop may finish what it has begun.",
        breaks="Above 25 s ECS, which gives 30, could kill it in the middle;"
        " too short: messages under way are cut off.",
        unit="seconds",
        span=(0, 25),
    )
    worker_host: str = setting(
        "127.0.0.1",
        "The address at which `mangacache serve` answers bots and gateways; 0.0.0.0 or :: for all of the machine's.",
        breaks="On loopback nobody outside of this machine reaches it; on any other address it asks for keys.",
        pattern=_HOST,
        allowed=_HOST_WORDS,
    )
    worker_port: int = setting(
        8080,
        "The port at which it answers them; 0 takes a free one.",
        breaks="Another process has it, so that the worker does not start; or the load balancer asks elsewhere.",
        unit="port",
        span=(0, 65_535),
    )
    operator_host: str = setting(
        "127.0.0.1",
        "The address of the operator's port: metrics, state, dead letters.",
        breaks="Reachable by everybody, it tells them how the worker is; on loopback only what runs beside it asks.",
        pattern=_HOST,
        allowed=_HOST_WORDS,
    )
    operator_port: int = setting(
        8081,
        "The operator's port; 0 takes a free one.",
        breaks="Another process has it, so that the worker does not start; or Prometheus asks elsewhere.",
        unit="port",
        span=(0, 65_535),
    )
    worker_notice_s: float = setting(
        3.0,
        "How long a worker that is told to stop serves on, while /readyz already says no, so that load balancers see.",
        breaks="Shorter than two of the load balancer's looks: new requests still come and are turned away;"
        " too long: less is left of the 25 s for what is under way.",
        unit="seconds",
        span=(0, 15),
    )
    hit_ratio_least: float = setting(
        0.8,
        "Below which share of contexts answered by memory or Redis an alarm is raised; 0: never.",
        breaks="Too high: the alarm is on for good and nobody looks; too low: DynamoDB pays for a broken cache unseen.",
        unit="fraction",
        span=(0, 1),
    )
    hit_ratio_window_s: float = setting(
        300.0,
        "Over how long that share is taken.",
        breaks="Too short: a few new sessions raise the alarm; too long: it comes late.",
        unit="seconds",
        span=(1, 86_400),
    )
    hit_ratio_reads: int = setting(
        500,
        "How many contexts must have been answered in that time for the share to mean anything.",
        breaks="Too few: a quiet night raises the alarm; too many: a small worker never does.",
        unit="contexts",
        span=(1, 1_000_000_000),
    )
    log_level: str = setting(
        "info",
        "From which level on `mangacache serve` logs; `debug` has a line for each request.",
        breaks="`debug` writes much and costs time; `error` hides what was survived.",
        pattern="debug|info|warning|error",
        allowed="debug, info, warning or error",
    )
    log_format: str = setting(
        "auto",
        "How it logs: `json`, a line for each event; `pretty`, for people; `auto` is pretty on a terminal.",
        breaks="`pretty` in production: no log service finds the fields.",
        pattern="auto|json|pretty",
        allowed="auto, json or pretty",
    )
    traces_endpoint: str | None = setting(
        None,
        "Where OpenTelemetry traces are sent by OTLP over HTTP (to its /v1/traces); without it none are made.",
        breaks="Traces are lost, and nothing else.",
        env=("MANGACACHE_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"),
        normalise=parse_http,
        allowed="http://host[:port] or https://host[:port]",
        example="http://127.0.0.1:4318",
    )
    traces_share: float = setting(
        0.01,
        "Which share of requests that bring no trace of their own is traced; those that do follow theirs.",
        breaks="Too much: each traced request costs time and a line in a bill; 0: only what others trace is seen.",
        unit="fraction",
        span=(0, 1),
    )
    worker_sockets: int = setting(
        10_000,
        "How many WebSockets a worker holds at most; further ones are told to try another one.",
        breaks="Too few: customers are turned away; too many: files, memory and the event loop run short.",
        unit="sockets",
        span=(1, 1_000_000),
    )
    worker_socket_heartbeat_s: float = setting(
        30.0,
        "How often the client of a WebSocket gives a sign of life; after two and a half times as long it is closed.",
        breaks="Too short: phones that sleep are cut off; too long: the dead hold sockets, and proxies close idlers.",
        unit="seconds",
        span=(0.1, 3600),
    )
    worker_socket_open_s: float = setting(
        10.0,
        "How long a new WebSocket may take to say which session it is for.",
        breaks="Too short: slow networks never get in; too long: whoever says nothing holds sockets.",
        unit="seconds",
        span=(0.1, 300),
    )
    worker_socket_message_bytes: int = setting(
        1_048_576,
        "How long a message of a client's may be.",
        breaks="Too small: long turns are refused with 1009; too large: so much memory can each socket claim.",
        unit="bytes",
        span=(1024, 16_777_216),
    )
    worker_socket_queue: int = setting(
        256,
        "How many messages may wait for the client of one WebSocket to read them.",
        breaks="Too few: a short pause of the network is a gap; too many: memory is held for those who do not read.",
        unit="messages",
        span=(1, 100_000),
    )
    worker_socket_queue_bytes: int = setting(
        1_048_576,
        "How many bytes of them may wait; one message more than that may.",
        breaks="As worker_socket_queue.",
        unit="bytes",
        span=(1024, 268_435_456),
    )
    worker_socket_stall_s: float = setting(
        20.0,
        "How long a client may take nothing of what waits for it before it is closed.",
        breaks="Too short: a phone in a tunnel is cut off; too long: memory is held for those who do not read.",
        unit="seconds",
        span=(0.1, 3600),
    )
    worker_max_body_bytes: int = setting(
        1_048_576,
        "How large the body of an HTTP request may be, unpacked.",
        breaks="Too small: long turns and batches are refused with 413; too large: so much memory can each ask for.",
        unit="bytes",
        span=(1024, 16_777_216),
    )
    worker_receive_timeout_s: float = setting(
        10.0,
        "How long the headers of an HTTP request, and then its body, may take to come.",
        breaks="Too short: slow networks are cut off; too long: who sends a byte a minute holds connections.",
        unit="seconds",
        span=(0.1, 300),
    )
    worker_request_timeout_s: float = setting(
        60.0,
        "How long an HTTP request may take; forgetting a customer may take five minutes.",
        breaks="Too short: answers that would have come are lost; too long: clients have gone when it is over.",
        unit="seconds",
        span=(0.1, 300),
    )
    worker_keys: str | None = setting(
        None,
        "The list of API keys, as hashes: a file, read again when it changes, or `env:NAME` for what the environment"
        " variable NAME holds. `mangacache key` makes keys.",
        breaks="Without keys and token keys nobody is asked who he is, so that a worker listens on loopback only.",
        pattern=_LIST,
        allowed=_LIST_WORDS,
        example="env:WORKER_API_KEYS",
    )
    worker_open: str = setting(
        "no",
        "Whether a worker that has neither keys nor token keys may listen on other addresses than loopback.",
        breaks="`yes` lets everybody who reaches it read, change and delete every session.",
        pattern="yes|no",
        allowed="yes or no",
    )
    worker_token_keys: str | None = setting(
        None,
        "The keys by which customers' tokens are signed, a JWK set: a file or `env:NAME`, as worker_keys. Tokens are"
        " signed by the first that can sign, and read by any of them.",
        breaks="Without them there are no customers' tokens; whoever has one of them can be any customer.",
        pattern=_LIST,
        allowed=_LIST_WORDS,
        example="env:WORKER_TOKEN_KEYS",
    )
    worker_revoked: str | None = setting(
        None,
        "The list of customers' tokens that are good no longer: a file or `env:NAME`, as worker_keys. `mangacache token"
        " revoke` adds to it.",
        breaks="Without it a token that was stolen is good until its time is over.",
        pattern=_LIST,
        allowed=_LIST_WORDS,
        example="/etc/mangacache/revoked.json",
    )
    worker_token_issuer: str = setting(
        "mangacache",
        "Whom customers' tokens name as their issuer.",
        breaks="Another one than the tokens name: none of them is good.",
        pattern=r"[\x21-\x7e]{1,200}",
        allowed="up to 200 visible characters",
    )
    worker_token_audience: str = setting(
        "mangacache",
        "Whom they are for.",
        breaks="The same for two installations with the same keys: tokens of one are good at the other.",
        pattern=r"[\x21-\x7e]{1,200}",
        allowed="up to 200 visible characters",
    )
    worker_token_longest_s: int = setting(
        3600,
        "How long a customer's token may be good for; longer ones are refused whoever signed them.",
        breaks="Too short: sockets end and apps fetch tokens all the time; too long: a stolen one is good for long.",
        unit="seconds",
        span=(10, 86_400),
    )
    worker_token_leeway_s: int = setting(
        5,
        "By how much the clocks of who signs tokens and of the worker may differ.",
        breaks="Too little: new tokens are refused for a moment; too much: old ones are good for longer.",
        unit="seconds",
        span=(0, 60),
    )
    worker_origins: str = setting(
        "",
        "The web sites whose pages may open a WebSocket, and ask a worker without keys for anything, with commas"
        " between them; `*` for any. Such a worker may be asked by the names of their hosts.",
        breaks="One is missing: its chat does not connect; `*`: any site's page may try, with the credentials it has;"
        " without keys it needs none.",
        pattern=r"\*|(?:https?://[A-Za-z0-9.:\[\]-]+(?: *, *https?://[A-Za-z0-9.:\[\]-]+)*)?",
        allowed="origins such as https://shop.example, with commas between them, or *",
        example="https://shop.example",
    )
