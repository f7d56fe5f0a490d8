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

from mangacache.redis.link import LinkLost, ScriptFailed

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from mangacache.clock import Clock
    from mangacache.redis.link import Argument, Script

MOST_SENT: Final = 512  # enough to keep the server busy; what is not sent can be sent elsewhere
MOST_WAITING: Final = 8192
_END_WITHIN_S: Final = 1.0
_NOT_YET: Final = object()
_SAID: Final = 200

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


class _Call:
    __slots__ = ("outcome", "packed", "since_s")

    def __init__(self, packed: bytes, outcome: asyncio.Future[Any], since_s: float) -> None:
        self.packed = packed
        self.outcome = outcome
        self.since_s = since_s


class PipelinedLine(asyncio.Protocol):
    """Speaks RESP 2. A `Line`, and more: any number of callers at once.

    Args:
        clock: when commands were asked for, and how long its end may take.
        gone: called with it when it has ended.

    Attributes:
        usable: whether it takes commands.
    """

    def __init__(self, *, clock: Clock, gone: Callable[[PipelinedLine], None]) -> None:
        self.usable = False
        self._clock = clock
        self._gone = gone
        self._loop = asyncio.get_running_loop()
        self._reader = hiredis.Reader(notEnoughData=_NOT_YET)
        self._transport: asyncio.Transport | None = None
        self._sent: deque[_Call] = deque()
        self._waiting: deque[_Call] = deque()
        self._flushing = False
        self._paused = False
        self._retired = False
        self._ended = asyncio.Event()

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
        """Send a command at the end of this turn, or when there is room; return the future of its outcome.

        That is the reply, a `hiredis.ReplyError` for a refusal, or `Unheard`; never an exception that is raised.
        """
        outcome: asyncio.Future[Any] = self._loop.create_future()
        if not self.usable:
            outcome.set_result(Unheard("the connection is closed", sent=False, retired=True))
        elif len(self._waiting) >= MOST_WAITING:
            outcome.set_result(Unheard(f"{MOST_WAITING} commands wait to be sent already", sent=False))
        else:
            packed = hiredis.pack_command(command)  # type: ignore[arg-type]  # its stub forgets tuples of many types
            self._waiting.append(_Call(packed, outcome, self._clock.monotonic_s()))
            if not self._flushing:
                self._flushing = True
                self._loop.call_soon(self._flush)
        return outcome

    async def info(self) -> dict[str, str]:
        """See `Server`."""
        text = b""
        for section in ("server", "replication"):
            text += heard(await self.ask("INFO", section), "info")
        lines = text.decode(errors="replace").splitlines()
        return dict(line.split(":", 1) for line in lines if ":" in line)

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
        if password is not None:
            names = () if username is None else (username,)
            heard(await self.ask("AUTH", *names, password), "the login")
        if db:
            heard(await self.ask("SELECT", db), "the choice of the database")

    # Ends

    def retire(self) -> None:
        """Take no more commands, and end when the replies have come to those that were sent."""
        if self.usable:
            self.usable = False
            self._retired = True
            self._refuse_waiting(Unheard("the connection was given up", sent=False, retired=True))
            self._end_when_done()

    def end_what_takes_longer_than(self, seconds: float) -> None:
        """End it where a reply is that late; refuse what could not be sent for that long."""
        oldest_s = self._clock.monotonic_s() - seconds
        if any(call.since_s <= oldest_s for call in self._sent):
            self.abort(f"no answer within {seconds:g} s", broke=False)
        while self._waiting and self._waiting[0].since_s <= oldest_s:
            _tell(self._waiting.popleft(), Unheard(f"it could not be sent within {seconds:g} s", sent=False))

    def abort(self, why: str = "the connection was closed", *, broke: bool = True) -> None:
        """See `Line`."""
        self.usable = False
        unheard = Unheard(why, sent=True, broke=broke)
        while self._sent:
            _tell(self._sent.popleft(), unheard)
        self._refuse_waiting(Unheard(why, sent=False, broke=broke))
        if self._transport is not None:
            self._transport.abort()

    async def ended(self) -> None:
        """See `Line`."""
        with contextlib.suppress(TimeoutError):  # how it ended is of no interest: it was given up
            async with self._clock.timeout(_END_WITHIN_S):
                await self._ended.wait()

    def _refuse_waiting(self, unheard: Unheard) -> None:
        while self._waiting:
            _tell(self._waiting.popleft(), unheard)

    def _end_when_done(self) -> None:
        if self._retired and not self._sent:
            self.abort()

    # What goes out

    def _flush(self) -> None:
        self._flushing = False
        if self._paused or self._transport is None:
            return
        waiting, sent = self._waiting, self._sent
        out: list[bytes] = []
        while waiting and len(sent) < MOST_SENT:
            call = waiting.popleft()
            if not call.outcome.done():  # else its caller has left: it need not be sent
                out.append(call.packed)
                call.packed = b""
                sent.append(call)
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
                if not sent:
                    self.abort("it spoke unasked")
                    return
                _tell(sent.popleft(), reply)
        except hiredis.ProtocolError as error:
            self.abort(f"what came is no reply: {error}"[:_SAID])
            return
        if self._waiting and not self._flushing:
            self._flushing = True
            self._loop.call_soon(self._flush)
        self._end_when_done()

    def connection_lost(self, error: Exception | None) -> None:
        """See `asyncio.Protocol`."""
        self.abort(f"{type(error).__name__}: {error}"[:_SAID] if error else "the server closed the connection")
        self._ended.set()
        self._gone(self)


def _tell(call: _Call, outcome: Any) -> None:
    if not call.outcome.done():
        call.outcome.set_result(outcome)


def forgotten(refusal: hiredis.ReplyError) -> bool:
    """Tell whether the server does not know the script by its hash."""
    return str(refusal).startswith("NOSCRIPT ")


def heard(outcome: Any, what: str) -> Any:
    """Return the reply that an outcome is.

    Raises:
        LinkLost: it is none, or the server cannot carry out commands.
        ScriptFailed: it is a refusal.
    """
    if type(outcome) is Unheard:
        raise LinkLost(f"{what}: {outcome.why}", sent=outcome.sent, broke=outcome.broke)
    if type(outcome) is hiredis.ReplyError:
        if str(outcome).startswith(_NOT_NOW):
            raise LinkLost(f"{what}: {outcome}", sent=False) from outcome
        raise ScriptFailed(f"{what}: {outcome}") from outcome
    return outcome
