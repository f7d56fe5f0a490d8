"""One socket from its first message to its end.

Its task reads, carries out and answers, one message after the other: so appends are stored in the order in which they
were sent, and acknowledged in it. What happens to the session meanwhile comes from its room, and goes out beside.
Nothing more is read while the peer leaves its answers unread, so what a socket can have waiting is bounded both ways.
"""

from __future__ import annotations

import asyncio
from functools import partial
from math import inf
from typing import TYPE_CHECKING

import msgspec
from aiohttp import WSMsgType

from mangacache.clock import random_id
from mangacache.errors import Closed, Conflict, MangaCacheError, VersionGone
from mangacache.model import WINDOW, Consistency, Version, checked_id
from mangacache.worker.asking import NOT_YOURS
from mangacache.worker.caller import Forbidden
from mangacache.worker.sockets.answers import appended, context_answer, error_answer, newest, ready
from mangacache.worker.sockets.closing import Code, code_of, shortened
from mangacache.worker.sockets.conversation import Conversation, Do, Refuse, Say
from mangacache.worker.sockets.frames import frame, pong_frame
from mangacache.worker.sockets.member import Member
from mangacache.worker.sockets.messages import Append, ContextAsked, Open, level_of, new_turns

if TYPE_CHECKING:
    from aiohttp import web

    from mangacache.model import Context
    from mangacache.sessions import Session
    from mangacache.worker.sockets.admission import Admission, Admitted
    from mangacache.worker.sockets.means import Means
    from mangacache.worker.sockets.rooms import Room
    from mangacache.worker.sockets.wire import Wire


class Connection:
    """One socket.

    Args:
        ws: prepared.
        wire: the way out.
        admission: decides who may open what.
        endpoint: where this worker holds it.
        means: what it works with.

    Attributes:
        id: random; it is mapped to the session under it.
        session_id, customer_id: what it is for, once it is opened.
        began_s, heard_at_s: when it came, and when it was heard of last, on the monotonic clock.
        busy: whether a message is being carried out.
        mapped_at_s, gone: see `Bound`.
        wire: as given.
    """

    __slots__ = (
        "_admission",
        "_admitted",
        "_closing",
        "_conversation",
        "_leaving",
        "_means",
        "_member",
        "_room",
        "_session",
        "_ws",
        "began_s",
        "busy",
        "customer_id",
        "endpoint",
        "gone",
        "heard_at_s",
        "id",
        "mapped_at_s",
        "session_id",
        "wire",
    )

    def __init__(
        self, ws: web.WebSocketResponse, wire: Wire, *, admission: Admission, endpoint: str, means: Means
    ) -> None:
        self._ws = ws
        self._admission: Admission | None = admission
        self._means = means
        self._conversation = Conversation()
        self._admitted: Admitted | None = None
        self._session: Session | None = None
        self._room: Room | None = None
        self._member: Member | None = None
        self._leaving: tuple[Code, str] | None = None
        self._closing: asyncio.Task[None] | None = None
        self.id = random_id(means.random)
        self.session_id = ""
        self.customer_id: str | None = None
        self.endpoint = endpoint
        self.began_s = self.heard_at_s = means.clock.monotonic_s()
        self.busy = True
        self.mapped_at_s = -inf
        self.gone = False
        self.wire = wire
        wire.emptied = self.look_again

    def __repr__(self) -> str:
        state = "gone" if self.gone else "leaving" if self._leaving else "open" if self.opened else "not opened"
        return f"<Connection {self.id[:8]} of {self.session_id!r}, {state}>"

    @property
    def opened(self) -> bool:
        """Whether it has a session."""
        return self._conversation.opened

    def is_leaving(self) -> bool:
        """Tell whether its end has begun."""
        return self._leaving is not None

    @property
    def until_s(self) -> float:
        """Until when its credential is good: seconds since 1970."""
        return self._admitted.until_s if self._admitted is not None else inf

    def stands(self) -> bool:
        """Tell whether its credential is still good, but for its time."""
        return self._admitted is None or self._admitted.stands()

    async def serve(self) -> None:
        """Converse until either side ends it."""
        try:
            await self._converse()
        finally:
            self.gone = True
            self.busy = True
            if self._room is not None and self._member is not None:
                self._room.leave(self._member)
                self._means.rooms.tidy(self.session_id)
            if self.session_id:  # it may have been mapped, and not opened any more
                await self._means.upkeep.unbind(self)
            if self._closing is not None:
                await asyncio.wait((self._closing,))
            self.wire.close()

    def end(self, code: Code, reason: str) -> None:
        """End it: at once, or when the message under way has its answer."""
        if self._leaving is None:
            self._leaving = (code, reason)
            if not self.busy:
                self._closing = self._means.tasks.start(self._close(), name="close a socket")

    def abort(self) -> None:
        """End it without a word."""
        self._leaving = self._leaving or (Code.INTERNAL, "aborted")
        self.wire.abort()

    def look_again(self) -> None:
        """Have it told what it was too slow for: it has read what waited."""
        if self._member is not None and self._room is not None and self._member.lagging:
            self._member.lagging = False
            self._room.look()

    # Reading

    async def _converse(self) -> None:
        while not self.is_leaving():
            self.busy = False
            await self.wire.room()
            message = await self._ws.receive()
            self.busy = True
            if self.is_leaving():
                return
            self.heard_at_s = self._means.clock.monotonic_s()
            if message.type == WSMsgType.TEXT:
                await self._hear(message.data)
                self.heard_at_s = self._means.clock.monotonic_s()
            elif message.type == WSMsgType.PING:
                self.wire.send(pong_frame(message.data))
            elif message.type == WSMsgType.BINARY:
                self._refuse(self._conversation.heard_binary())
            elif message.type != WSMsgType.PONG:
                return
        await self._close()

    async def _hear(self, text: str) -> None:
        match self._conversation.heard(text):
            case Do(message):
                await self._do(message)
            case Say(answer):
                self.wire.send(frame(answer))
            case Refuse() as refusal:
                self._refuse(refusal)

    def _refuse(self, refusal: Refuse) -> None:
        self.wire.send(frame(error_answer(refusal.error, refusal.id)))
        if refusal.code is not None:
            self.end(refusal.code, str(refusal.error))

    async def _close(self) -> None:
        code, reason = self._leaving or (Code.INTERNAL, "")
        self.wire.close()
        try:
            await self._ws.close(code=code, message=shortened(reason), drain=False)
        finally:
            self.wire.abort()  # a peer that does not read would keep it for ever

    # Carrying out

    async def _do(self, message: Open | Append | ContextAsked) -> None:
        try:
            match message:
                case Open():
                    await self._open(message)
                case Append():
                    await self._append(message, self._opened_session)
                case ContextAsked():
                    await self._context(message, self._opened_session)
        except MangaCacheError as error:
            self._failed(message, error, code_of(error))
        except Exception as error:  # noqa: BLE001 - one socket's fault is not to end another's conversation
            self._means.cache.telemetry.count_survived("socket_failed", error)
            self._failed(message, error, Code.INTERNAL)
            self.end(Code.INTERNAL, "a fault of the worker's: connect again")

    def _failed(self, message: Open | Append | ContextAsked, error: Exception, code: Code) -> None:
        self.wire.send(frame(error_answer(error, None if isinstance(message, Open) else message.id)))
        if isinstance(message, Open):
            self.end(code, "not opened")

    @property
    def _opened_session(self) -> Session:
        if self._session is None:
            raise AssertionError("a message was carried out before `open`")
        return self._session

    async def _open(self, message: Open) -> None:
        admission, self._admission = self._admission, None
        if admission is None:
            raise AssertionError("a connection is opened once")
        admitted = await admission.admitted(message.credential, message.customer_id)
        means, session_id = self._means, checked_id(message.session_id, what="session id")
        session = means.cache.session(session_id, customer_id=admitted.customer_id)
        seen = Version.parse(message.seen) if message.seen is not None else None
        room = means.rooms.room(session_id)
        try:
            await room.begun()
            level = Consistency.LATEST if room.deaf is None else Consistency.SESSION
            try:
                read = await _first_read(session, admitted, seen, level)
                self.session_id, self.customer_id = session_id, admitted.customer_id
                await means.upkeep.bind(self, means.clock.monotonic_s())
                if self.is_leaving():
                    raise Closed("this worker is leaving: connect again")
            except BaseException:
                room.give_up()
                raise
        except BaseException:
            means.rooms.tidy(session_id)
            raise
        self._admitted, self._session, self._room = admitted, session, room
        self._member = Member(
            self.wire,
            seen=seen if seen is not None else read.version,
            may_see=partial(_may_see, admitted),
            content=message.content,
            own_turns=message.own_turns,
            end=lambda why: self.end(Code.ANOTHERS, why),
        )
        self._conversation.opened = True
        self.wire.send(frame(ready(self.id, session_id, self._member.seen, heartbeat_s=means.heartbeat_s)))
        room.join(self._member, read)

    async def _append(self, message: Append, session: Session) -> None:
        admitted, member, room = self._admitted, self._member, self._room
        if admitted is None or member is None or room is None:
            raise AssertionError("an append before `open`")
        admitted.check_append()
        turns = [
            turn if turn.turn_id is not None else msgspec.structs.replace(turn, turn_id=random_id(self._means.random))
            for turn in new_turns(message)
        ]
        turn_ids = [str(turn.turn_id) for turn in turns]
        member.own.begin(turn_ids)
        try:
            results = await session.append_many(turns, after=message.after, rate_limit=message.rate_limit)
        except MangaCacheError as error:
            self._failed(message, error, code_of(error))
            member.failed(turn_ids)
            return
        except BaseException:
            member.failed(turn_ids)
            raise
        numbers = [result.number for result in results]
        version = newest(results)
        member.acknowledged(dict(zip(turn_ids, numbers, strict=True)), version.incarnation)
        self.wire.send(frame(appended(message.id, turn_ids, results)))
        room.appended(member, version, numbers)

    async def _context(self, message: ContextAsked, session: Session) -> None:
        context = await session.context(
            turns=message.turns,
            at_least=message.at_least,
            consistency=level_of(message),
            rate_limit=message.rate_limit,
        )
        if self._admitted is None or not _may_see(self._admitted, context):
            raise Forbidden(NOT_YOURS)
        self.wire.send(frame(context_answer(message.id, context)))


async def _first_read(session: Session, admitted: Admitted, seen: Version | None, level: Consistency) -> Context:
    """Read a session; to whose it is not, it looks like any that may not be opened.

    Raises:
        Forbidden: it is not this credential's.
        Conflict: it is another customer's than a key said.
        VersionGone: what was seen is not there any more.
    """
    try:
        read = await session.context(turns=WINDOW, at_least=seen, consistency=level)
    except VersionGone:
        raise
    except Conflict as error:
        if admitted.only_own:
            raise Forbidden(NOT_YOURS) from error
        raise
    if not _may_see(admitted, read):
        raise Forbidden(NOT_YOURS)
    return read


def _may_see(admitted: Admitted, context: Context) -> bool:
    meta = context.meta
    return admitted.may_see(meta.customer_id if meta is not None else None, begun=meta is not None)
