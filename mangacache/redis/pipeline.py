"""One connection to Redis on which many commands are under way at once: out together, their replies back in order.

What is asked for in one turn of the event loop leaves as one write. A reply belongs to the future that was given for
its command, by its place; a caller who has left leaves the future there, and the reply is thrown away with it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from typing import TYPE_CHECKING, Any, Final, cast

import hiredis

from mangacache.redis.link import LinkLost, Redirected, ScriptFailed

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from mangacache.clock import Clock
    from mangacache.redis.link import Argument, Changes, Script

MOST_SENT: Final = 512  # enough to keep the server busy; what is not sent can be sent elsewhere
MOST_WAITING: Final = 8192
GATHERED: Final = 25
"""So many of a turn do not wait for its end, so that the server works on them while the others are still asked for."""
_END_WITHIN_S: Final = 1.0
_NOT_YET: Final = object()
_SAID: Final = 200

ASKING: Final = hiredis.pack_command(("ASKING",))
"""The next command is meant for a slot that is on its way to this node."""
WATCH: Final = hiredis.pack_command(("CLIENT", "CACHING", "YES"))  # type: ignore[arg-type]  # see `ask`
"""Say when another client writes what the next command reads."""

_NOT_NOW: Final = ("READONLY ", "LOADING ", "MASTERDOWN ", "CLUSTERDOWN ", "TRYAGAIN ", "NOAUTH ")
"""What a server answers that does nothing for this connection now, and has not carried the command out."""


class Unheard:
    """An outcome that is no reply.

    Attributes:
        sent: whether the command may have been carried out.
        retired: the connection takes no more commands, and others may be asked.
        broke: the connection broke; else there was no room, or no time.
    """

    __slots__ = ("broke", "retired", "sent", "why")

    def __init__(self, why: str, *, sent: bool, retired: bool = False, broke: bool = False) -> None:
        self.why = why
        self.sent = sent
        self.retired = retired
        self.broke = broke


class PipelinedLine(asyncio.Protocol):
    """Speaks RESP 3. A `Line`, and more: any number of callers at once.

    Args:
        clock: when commands were asked for, and how long its end may take.
        gone: called with it when it has ended.
        changes: whom to tell what the server says of keys that were read with `WATCH`; None: nobody.

    Attributes:
        usable: whether it takes commands.
        watches: whether the server says what changes.
    """

    def __init__(self, *, clock: Clock, gone: Callable[[PipelinedLine], None], changes: Changes | None = None) -> None:
        self.usable = False
        self.watches = False
        self._changes = changes
        self._watched = False
        self._clock = clock
        self._gone = gone
        self._loop = asyncio.get_running_loop()
        self._reader = hiredis.Reader(notEnoughData=_NOT_YET)
        self._transport: asyncio.Transport | None = None
        # Tuples, since an object for each call is a tenth of its cost. What goes out before a command is said with it.
        self._sent: deque[tuple[asyncio.Future[Any], float]] = deque()
        self._waiting: deque[tuple[asyncio.Future[Any], float, bytes, bytes]] = deque()
        self._flushing = False
        self._turn_s = 0.0
        self._paused = False
        self._retired = False
        self._ended = asyncio.Event()
        self._nobody: asyncio.Future[Any] = self._loop.create_future()
        self._nobody.set_result(None)

    def __repr__(self) -> str:
        state = "open" if self.usable else "ending"
        return f"<PipelinedLine {state}, {len(self._sent)} sent, {len(self._waiting)} waiting>"

    @property
    def busy(self) -> bool:
        """Whether a reply is still to come."""
        return bool(self._sent or self._waiting)

    @property
    def waiting(self) -> int:
        """How many commands are not sent yet."""
        return len(self._waiting)

    @property
    def sent(self) -> int:
        """How many replies are still to come."""
        return len(self._sent)

    # Commands

    def ask(self, *command: Argument) -> asyncio.Future[Any]:
        """Send a command; see `put`."""
        return self.put(command)

    def put(self, command: tuple[Argument, ...], before: bytes = b"") -> asyncio.Future[Any]:
        """Send a command at the end of this turn, or when there is room; return the future of its outcome.

        That is the reply, a `hiredis.ReplyError` for a refusal, or `Unheard`; never an exception that is raised.

        Args:
            command: its name and arguments.
            before: `ASKING` or `WATCH`, which say something of the command that follows.
        """
        outcome: asyncio.Future[Any] = self._loop.create_future()
        if not self.usable:
            outcome.set_result(Unheard("the connection is closed", sent=False, retired=True))
        elif len(self._waiting) >= MOST_WAITING:
            outcome.set_result(Unheard(f"{MOST_WAITING} commands wait to be sent already", sent=False))
        else:
            packed = hiredis.pack_command(command)  # type: ignore[arg-type]  # its stub forgets tuples of many types
            if not self._flushing:
                self._flushing = True
                self._turn_s = self._clock.monotonic_s()
                self._loop.call_soon(self._flush)
            self._waiting.append((outcome, self._turn_s, before, packed))
            if len(self._waiting) == GATHERED:
                self._send()
        return outcome

    async def info(self) -> dict[str, str]:
        """See `Server`."""
        asked = [self.ask("INFO", section) for section in ("server", "replication", "cluster")]
        texts = [heard(await each, "info") for each in asked]
        found = parsed_info(b"".join(texts))
        if found.get("cluster_enabled") == "1":
            found["cluster_slots"] = own_slots(heard(await self.ask("CLUSTER", "NODES"), "info"))
        return found

    async def run(
        self, script: Script, key: str, arguments: Sequence[Argument], *, more_keys: Sequence[str] = ()
    ) -> Any:
        """See `Server`."""
        to = (1 + len(more_keys), key, *more_keys, *arguments)
        reply = await self.ask("EVALSHA", script.sha, *to)
        if type(reply) is hiredis.ReplyError and forgotten(reply):
            reply = await self.ask("EVAL", script.text, *to)
        return heard(reply, f"{script.name} of {key}")

    async def call(self, *command: Argument) -> Any:
        """See `Server`."""
        return heard(await self.ask(*command), str(command[0]))

    async def log_in(self, username: str | None, password: str | None, db: int) -> None:
        """Do what comes first on a connection.

        Raises:
            LinkLost, ScriptFailed: the server did not take it.
        """
        login = () if password is None else ("AUTH", username or "default", password)
        greeted = self.ask("HELLO", 3, *login)
        selected = self.ask("SELECT", db) if db else None
        tracked = self.ask("CLIENT", "TRACKING", "ON", "OPTIN", "NOLOOP") if self._changes is not None else None
        heard(await greeted, "the login")
        if selected is not None:
            heard(await selected, "the choice of the database")
        if tracked is not None:
            self.watches = await tracked == b"OK"

    # Ends

    def retire(self) -> None:
        """Take no more commands, and end when the replies have come to those that were sent."""
        if self.usable:
            self._say_lost()
            self.usable = False
            self._retired = True
            self._refuse_waiting(Unheard("the connection was given up", sent=False, retired=True))
            self._end_when_done()

    def end_what_takes_longer_than(self, seconds: float) -> None:
        """End it where a reply is that late; refuse what could not be sent for that long."""
        oldest_s = self._clock.monotonic_s() - seconds
        if any(since_s <= oldest_s for _, since_s in self._sent):
            self.abort(f"no answer within {seconds:g} s", broke=False)
        while self._waiting and self._waiting[0][1] <= oldest_s:
            _tell(self._waiting.popleft()[0], Unheard(f"it could not be sent within {seconds:g} s", sent=False))

    def abort(self, why: str = "the connection was closed", *, broke: bool = True) -> None:
        """See `Line`."""
        self._say_lost()
        self.usable = False
        unheard = Unheard(why, sent=True, broke=broke)
        while self._sent:
            _tell(self._sent.popleft()[0], unheard)
        self._refuse_waiting(Unheard(why, sent=False, broke=broke))
        if self._transport is not None:
            self._transport.abort()

    async def ended(self) -> None:
        """See `Line`."""
        with contextlib.suppress(TimeoutError):  # how it ended is of no interest: it was given up
            async with self._clock.timeout(_END_WITHIN_S):
                await self._ended.wait()

    def _say_lost(self) -> None:
        if self._watched and self._changes is not None:
            self._watched = False
            self._changes.lost()

    def _refuse_waiting(self, unheard: Unheard) -> None:
        while self._waiting:
            _tell(self._waiting.popleft()[0], unheard)

    def _end_when_done(self) -> None:
        if self._retired and not self._sent:
            self.abort()

    # What goes out

    def _flush(self) -> None:
        self._flushing = False
        self._send()

    def _send(self) -> None:
        if self._paused or self._transport is None:
            return
        waiting, sent = self._waiting, self._sent
        out: list[bytes] = []
        while waiting and len(sent) < MOST_SENT:
            outcome, since_s, before, packed = waiting.popleft()
            if not outcome.done():  # else its caller has left: it need not be sent
                if before:
                    self._watched = self._watched or before is WATCH
                    out.append(before)
                    sent.append((self._nobody, since_s))
                out.append(packed)
                sent.append((outcome, since_s))
        if out:
            self._transport.write(b"".join(out))

    def pause_writing(self) -> None:
        """See `asyncio.Protocol`: commands gather meanwhile."""
        self._paused = True

    def resume_writing(self) -> None:
        """See `asyncio.Protocol`."""
        self._paused = False
        self._flush()

    # What comes in

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.Protocol`."""
        self._transport = cast("asyncio.Transport", transport)
        self.usable = True

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        gets, sent = self._reader.gets, self._sent
        try:
            self._reader.feed(data)
            while (reply := gets()) is not _NOT_YET:
                if type(reply) is hiredis.PushNotification:
                    self._hear(reply)
                    continue
                if not sent:
                    self.abort("it spoke unasked")
                    return
                outcome = sent.popleft()[0]
                if not outcome.done():
                    outcome.set_result(reply)
        except hiredis.ProtocolError as error:
            self.abort(f"what came is no reply: {error}"[:_SAID])
            return
        if self._waiting and not self._flushing:
            self._flushing = True
            self._turn_s = self._clock.monotonic_s()
            self._loop.call_soon(self._flush)
        self._end_when_done()

    def _hear(self, said: list[Any]) -> None:
        if self._changes is None or said[0] != b"invalidate":
            return
        if said[1] is None:  # all keys: FLUSHALL
            self._changes.lost()
            return
        for key in said[1]:
            self._changes.changed(key.decode(errors="replace"))

    def connection_lost(self, error: Exception | None) -> None:
        """See `asyncio.Protocol`."""
        self.abort(f"{type(error).__name__}: {error}"[:_SAID] if error else "the server closed the connection")
        self._ended.set()
        self._gone(self)


def _tell(caller: asyncio.Future[Any], outcome: Any) -> None:
    if not caller.done():
        caller.set_result(outcome)


def forgotten(refusal: hiredis.ReplyError) -> bool:
    """Tell whether the server does not know the script by its hash."""
    return str(refusal).startswith("NOSCRIPT ")


def parsed_info(text: bytes) -> dict[str, str]:
    """Return what INFO says."""
    lines = text.decode(errors="replace").splitlines()
    return dict(line.split(":", 1) for line in lines if ":" in line)


def own_slots(nodes: bytes) -> str:
    """Return the slots of the node that answered CLUSTER NODES, `0-5460,7000`; those on their way are left out."""
    for line in nodes.decode(errors="replace").splitlines():
        fields = line.split()
        if "myself" in fields[2].split(","):
            return ",".join(field for field in fields[8:] if not field.startswith("["))
    return ""


def heard(outcome: Any, what: str) -> Any:
    """Return the reply that an outcome is.

    Raises:
        LinkLost: it is none, or the server cannot carry out commands, or another one is to be asked (`Redirected`).
        ScriptFailed: it is a refusal.
    """
    if type(outcome) is Unheard:
        raise LinkLost(f"{what}: {outcome.why}", sent=outcome.sent, broke=outcome.broke)
    if type(outcome) is hiredis.ReplyError:
        if redirected := Redirected.by(what, str(outcome)):
            raise redirected from outcome
        if str(outcome).startswith(_NOT_NOW):
            raise LinkLost(f"{what}: {outcome}", sent=False) from outcome
        raise ScriptFailed(f"{what}: {outcome}") from outcome
    return outcome
