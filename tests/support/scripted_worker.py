"""Workers without anything behind them, which a test tells how to fail; they speak as the real ones do."""

from __future__ import annotations

import asyncio
import json
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from aiohttp import WSCloseCode, WSMsgType, web

from mangacache.clock import SystemClock

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


HEARTBEAT_S = 30.0


class LeapClock(SystemClock):
    """A clock whose sleeps end at once, having moved the time on; a test reads how long they were.

    The time of a heartbeat never passes.
    """

    def __init__(self) -> None:
        self.slept: list[float] = []

    def monotonic_s(self) -> float:
        return super().monotonic_s() + sum(self.slept)

    async def sleep(self, seconds: float) -> None:
        if seconds == HEARTBEAT_S:
            await asyncio.get_running_loop().create_future()
        self.slept.append(seconds)
        await asyncio.sleep(0)


class Chats:
    """What the workers share: each session's turns, and who is told of them."""

    def __init__(self) -> None:
        self.turns: dict[str, list[dict[str, Any]]] = {}
        self.sockets: list[tuple[str, web.WebSocketResponse, set[str]]] = []

    def version(self, session_id: str) -> str:
        count = len(self.turns.get(session_id, ()))
        return f"{1 if count else 0:x}.{count:x}.{1 if count else 0:x}"

    async def append(self, session_id: str, said: dict[str, Any], *, by: set[str] | None = None) -> dict[str, Any]:
        """Store a turn once by its turn_id, and tell everybody else."""
        turns = self.turns.setdefault(session_id, [])
        for turn in turns:
            if turn["turn_id"] == said["turn_id"]:
                return {"number": turn["number"], "version": f"1.{turn['number']:x}.1", "duplicate": True}
        turn = {
            "number": len(turns) + 1,
            "turn_id": said["turn_id"],
            "role": said["role"],
            "content": said["content"],
            "created_at": "2026-11-24T09:58:00.123Z",
        }
        turns.append(turn)
        if by is not None:
            by.add(said["turn_id"])
        for whose, socket, own in list(self.sockets):
            if whose == session_id and turn["turn_id"] not in own and not socket.closed:
                await socket.send_json(told(turn))
        return {"number": turn["number"], "version": self.version(session_id), "duplicate": False}


def told(turn: dict[str, Any]) -> dict[str, Any]:
    """Return the frame that tells of a turn."""
    return {"type": "turn", "number": turn["number"], "version": f"1.{turn['number']:x}.1", "turn": turn}


def problem(status: int, kind: str, *, retry_after_s: float | None = None, detail: str = "") -> web.Response:
    """Return an answer with problem details."""
    body: dict[str, Any] = {"type": f"https://example.org/problems/{kind}", "title": kind, "status": status}
    headers = {}
    if retry_after_s is not None:
        body["retry_after_s"] = retry_after_s
        headers["Retry-After"] = str(max(1, round(retry_after_s)))
    return web.json_response(
        body | {"detail": detail or kind}, status=status, headers=headers, content_type="application/problem+json"
    )


class ScriptedWorker:
    """One worker.

    Attributes:
        url: where it is.
        opening: what it does with the next requests for an upgrade.
        on_frame: what takes its sockets' next frames, and returns whether it did.
        script: what it does with the next requests, one each; beyond it, it serves.
        heard: the requests, as (method, path, query, headers, body).
        frames: what its sockets were sent.
    """

    def __init__(self, chats: Chats) -> None:
        self.chats = chats
        self.url = ""
        self.script: list[Any] = []
        self.opening: list[Any] = []
        self.on_frame: list[Any] = []
        self.heard: list[tuple[str, str, dict[str, str], dict[str, str], Any]] = []
        self.frames: list[dict[str, Any]] = []
        self.heartbeat_s = HEARTBEAT_S
        self._open: set[web.WebSocketResponse] = set()

    def application(self) -> web.Application:
        app = web.Application()
        app.router.add_get("/v1/ws", self._socket)
        app.router.add_route("*", "/{anything:.*}", self._request)
        return app

    async def _request(self, request: web.Request) -> web.StreamResponse:
        body = json.loads(await request.read() or b"null")
        self.heard.append((request.method, request.raw_path, dict(request.query), dict(request.headers), body))
        if self.script:
            does = self.script.pop(0)
            if does == "drop":
                return self._drop(request)
            if does == "drop after":
                await self._serve(request, body)
                return self._drop(request)
            return does
        return await self._serve(request, body)

    @staticmethod
    def _drop(request: web.Request) -> web.StreamResponse:
        request.transport.abort()
        return web.Response()

    async def _serve(self, request: web.Request, body: Any) -> web.StreamResponse:
        *_, session_id, what = ["", *map(unquote, request.raw_path.partition("?")[0].split("/"))]
        chats = self.chats
        if request.method == "POST" and what == "turns":
            turns = [await chats.append(session_id, said) for said in body.get("turns", [body])]
            return web.json_response({"turns": turns, "version": chats.version(session_id)}, status=201)
        if what == "context":
            return web.json_response(self._context(session_id))
        return web.json_response({})

    def _context(self, session_id: str) -> dict[str, Any]:
        turns = self.chats.turns.get(session_id, [])
        return {"session_id": session_id, "version": self.chats.version(session_id), "source": "redis", "turns": turns}

    async def _socket(self, request: web.Request) -> web.StreamResponse:
        self.heard.append(("WS", request.raw_path, dict(request.query), dict(request.headers), None))
        if self.opening:
            does = self.opening.pop(0)
            if does == "drop":
                return self._drop(request)
            return does
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        self._open.add(socket)
        own: set[str] = set()
        try:
            async for message in socket:
                if message.type is WSMsgType.TEXT:
                    await self._frame(socket, json.loads(message.data), own)
        finally:
            self._open.discard(socket)
            self.chats.sockets = [each for each in self.chats.sockets if each[1] is not socket]
        return socket

    async def _frame(self, socket: web.WebSocketResponse, frame: dict[str, Any], own: set[str]) -> None:
        self.frames.append(frame)
        if self.on_frame and frame["type"] != "open" and await self.on_frame[0](self, socket, frame, own):
            self.on_frame.pop(0)
            return
        match frame["type"]:
            case "open":
                session_id = frame["session_id"]
                version = self.chats.version(session_id)
                await socket.send_json(
                    {
                        "type": "ready",
                        "connection_id": f"c{len(self.heard)}",
                        "session_id": session_id,
                        "version": version,
                        "heartbeat_s": self.heartbeat_s,
                    }
                )
                if "seen" in frame:
                    seen = int(frame["seen"].split(".")[1], 16)
                    for turn in self.chats.turns.get(session_id, [])[seen:]:
                        await socket.send_json(told(turn))
                self.chats.sockets.append((session_id, socket, own))
            case "append":
                session_id = self._session_of(socket)
                turns = [await self.chats.append(session_id, said, by=own) for said in frame.get("turns", [frame])]
                await socket.send_json({"type": "appended", "id": frame["id"], "turns": turns})
            case "context":
                context = self._context(self._session_of(socket))
                await socket.send_json({"type": "context", "id": frame["id"], **context})
            case "ping":
                await socket.send_json({"type": "pong"})

    def _session_of(self, socket: web.WebSocketResponse) -> str:
        return next(session_id for session_id, each, _ in self.chats.sockets if each is socket)

    async def cut(self) -> None:
        """End every socket as a lost connection does: without a word."""
        for socket in list(self._open):
            socket._req.transport.abort()

    async def leave(self, *, reconnect_after_s: float = 0.0) -> None:
        """Tell every socket to connect elsewhere, and close it."""
        for socket in list(self._open):
            await socket.send_json({"type": "draining", "reconnect_after_s": reconnect_after_s})
            await socket.close(code=WSCloseCode.SERVICE_RESTART)


@asynccontextmanager
async def scripted_workers(count: int = 2) -> AsyncIterator[list[ScriptedWorker]]:
    """Serve workers that share their sessions."""
    chats = Chats()
    workers = []
    async with AsyncExitStack() as stack:
        for _ in range(count):
            worker = ScriptedWorker(chats)
            runner = web.AppRunner(worker.application(), shutdown_timeout=0.1)
            await runner.setup()
            stack.push_async_callback(runner.cleanup)
            site = web.TCPSite(runner, "127.0.0.1", 0)
            await site.start()
            worker.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
            workers.append(worker)
        yield workers
