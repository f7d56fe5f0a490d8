"""A session by way of workers: the calls of the library's own handle."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import msgspec

from mangacache.client.calling import Request
from mangacache.client.changes import Summed, Wish, changed
from mangacache.client.values import Lock, WireAppends, WireContext, WireDeleted, WireHistory, read
from mangacache.clock import random_id
from mangacache.errors import Invalid, VersionGone
from mangacache.model import Consistency, NewTurn, Version, checked_id

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from mangacache.client.calling import Answer, Caller
    from mangacache.client.tokens import Tokens
    from mangacache.model import Appended, Attribute, Context, Deleted, History, Updated


class WorkerSession:
    """A handle on a session, which need not exist; it begins with its first append. Made by `WorkerClient.session`.

    What this client has written or read of the session is never missing from what it reads next, whichever worker
    answers. A turn without a `turn_id` gets one before it is sent, so that it is stored once however often it is sent.
    """

    __slots__ = ("_caller", "_headers", "_tokens", "customer_id", "id")

    def __init__(self, caller: Caller, tokens: Tokens, session_id: str, customer_id: str | None) -> None:
        self._caller = caller
        self._tokens = tokens
        self.id = checked_id(session_id, what="session id")
        self.customer_id = checked_id(customer_id, what="customer id") if customer_id is not None else None
        self._headers = customer_headers(self.customer_id)

    def __repr__(self) -> str:
        return f"<WorkerSession {self.id!r} at {self._caller.workers!r}>"

    @property
    def version(self) -> Version | None:
        """What this client has seen of the session; None where that is nothing."""
        return self._tokens.of(self.id)

    async def context(
        self,
        *,
        turns: int = 20,
        at_least: Version | str | None = None,
        consistency: Consistency = Consistency.SESSION,
        rate_limit: str | None = None,
    ) -> Context:
        """Return what a bot needs before it answers; see `Session.context` of the library.

        Args:
            turns: how many, 1 to 32.
            at_least: a version that somebody else has handed over; what this client has seen itself counts anyway.
            consistency: how fresh it must be otherwise.
            rate_limit: the name of a limit of the customer's of which a unit is taken with it.
        """
        least = self._least(at_least)
        query: dict[str, Any] = {"turns": turns, "at_least": str(least) if least is not None else None}
        if consistency != Consistency.SESSION:
            query |= {"consistency": consistency.name, "age_s": consistency.max_age_s}
        answer = await self._call("GET", "/context", query=query | {"rate_limit": rate_limit})
        context = read(WireContext, answer.body).value(self.id)
        self._tokens.see(self.id, context.version)
        return context

    async def append(
        self,
        *,
        role: str,
        content: str,
        turn_id: str | None = None,
        attributes: Mapping[str, Attribute] | None = None,
        after: Version | str | None = None,
        rate_limit: str | None = None,
    ) -> Appended:
        """Store one turn, durably, in order, once; see `Session.append` of the library."""
        turn = NewTurn(role=role, content=content, turn_id=turn_id, attributes=attributes or {})
        (appended,) = await self.append_many([turn], after=after, rate_limit=rate_limit)
        return appended

    async def append_many(
        self,
        turns: Iterable[NewTurn],
        *,
        after: Version | str | None = None,
        rate_limit: str | None = None,
    ) -> tuple[Appended, ...]:
        """Store up to 32 turns: all of them or none; see `Session.append_many` of the library."""
        # A try may come late, behind its own repetition and more turns than a worker's window: each one says from where
        # on it is to be looked for. Who knows nothing of the session does so from the second one on.
        after = after if after is not None else self.version
        body = append_body(turns, after=after, rate_limit=rate_limit, random=self._caller.random)
        again = body | {"after": str(Version())} if after is None else None
        answer = await self._call("POST", "/turns", body=body, again=again)
        done = tuple(each.value() for each in read(WireAppends, answer.body).turns)
        for appended in done:
            self._tokens.see(self.id, appended.version)
        return done

    async def history(self, *, before: str | None = None, after: str | None = None, limit: int = 50) -> History:
        """Return a page of turns, oldest first; see `Session.history` of the library."""
        query = {"limit": limit, "before": before, "after": after}
        return read(WireHistory, (await self._call("GET", "/turns", query=query)).body).value()

    async def update(
        self,
        attributes: Mapping[str, Attribute] | None = None,
        *,
        remove: Iterable[str] = (),
        status: str | None = None,
        if_version: Version | str | None = None,
        fence: int | None = None,
    ) -> Updated:
        """Change META; see `Session.update` of the library.

        With `if_version` a change whose answer was lost is sent again, and made once. Without, it could overwrite what
        somebody else wrote meanwhile, and is not.

        Raises:
            Transient: the answer was lost, and META is not as asked for: whether it was changed is unknown.
            Conflict: META has moved on; after a lost answer the message says whether that may have been this change.
        """
        of = Version.parse(if_version) if if_version is not None else None
        wish = Wish(attributes=dict(attributes or {}), remove=tuple(remove), status=status, of=of)
        body: dict[str, Any] = {"attributes": wish.attributes, "remove": wish.remove}
        headers = {"If-Match": f'"{_revision(of)}"'} if of is not None else {}
        body = _given(body, status=status, fence=fence)
        return await self._changed("PATCH", "", wish, body=body, headers=headers, repeatable=of is not None)

    async def close(self) -> Updated:
        """Set the status to `closed`; turns may still be appended.

        Raises:
            Transient: the answer was lost, and the session is not closed: whether it was, and somebody has opened it
                since, is unknown.
        """
        return await self._changed("POST", "/close", Wish(status="closed"), repeatable=False)

    async def summarise(self, text: str, *, upto: int | None = None, fence: int | None = None) -> Updated:
        """Store a summary of the turns up to number `upto`; see `Session.summarise` of the library.

        Where `upto` is given, a summary whose answer was lost is sent again, and stored once. Without, it would reach
        turns by then that it says nothing of, and is not.

        Raises:
            Transient: the answer was lost: whether it was stored is unknown.
            Conflict: a summary that reaches as far, and is another one, is stored already.
        """
        body, wish = _given({"text": text}, upto=upto, fence=fence), Summed(text=text, upto=upto)
        return await self._changed("PUT", "/summary", wish, body=body, repeatable=upto is not None)

    async def delete(self) -> Deleted:
        """Delete the session: nothing of it is returned by any call any more; it may begin again."""
        deleted = read(WireDeleted, (await self._call("DELETE", "")).body).value()
        self._tokens.see(self.id, deleted.version)
        return deleted

    async def lock(self) -> Lock:
        """Take the session's lock, or raise where somebody else has it; release it with `unlock`."""
        return read(Lock, (await self._call("POST", "/lock", repeatable=False)).body)

    async def renew(self, lock: Lock) -> Lock:
        """Hold a lock for its time from now on.

        Raises:
            Conflict: it is not held any more.
        """
        answer = await self._call("PUT", "/lock", headers={"Lock-Token": lock.lock_token})
        return read(Lock, answer.body) if answer.body else lock

    async def unlock(self, lock: Lock) -> None:
        """Give a lock back."""
        await self._call("DELETE", "/lock", headers={"Lock-Token": lock.lock_token})

    async def _changed(
        self,
        method: str,
        what: str,
        wish: Wish | Summed,
        *,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
        repeatable: bool,
    ) -> Updated:
        request = self._request(method, what, body=body, headers=headers, repeatable=repeatable)
        updated = await changed(self._caller, request, wish, session_id=self.id, path=self._path)
        self._tokens.see(self.id, updated.version)
        return updated

    def _least(self, given: Version | str | None) -> Version | None:
        least = Version.parse(given) if given is not None else None
        known = self.version
        return known if least is None else least if known is None else known.join(least)

    async def _call(
        self,
        method: str,
        what: str,
        *,
        query: Mapping[str, Any] | None = None,
        body: Any = None,
        again: Any = None,
        headers: Mapping[str, str] | None = None,
        repeatable: bool = True,
    ) -> Answer:
        try:
            return await self._caller.call(
                self._request(method, what, query=query, body=body, again=again, headers=headers, repeatable=repeatable)
            )
        except VersionGone:
            self._tokens.forget(self.id)
            raise

    @property
    def _path(self) -> str:
        return f"/v1/sessions/{escaped(self.id)}"

    def _request(
        self,
        method: str,
        what: str,
        *,
        query: Mapping[str, Any] | None = None,
        body: Any = None,
        again: Any = None,
        headers: Mapping[str, str] | None = None,
        repeatable: bool = True,
    ) -> Request:
        return Request(
            method=method,
            path=self._path + what,
            key=self.id,
            query=dict(query or {}),
            headers={**self._headers, **(headers or {})},
            body=body,
            again=again,
            repeatable=repeatable,
        )


def escaped(name: str) -> str:
    """Return an id as a part of a path."""
    text = quote(name, safe="")
    return {".": "%2E", "..": "%2E%2E"}.get(text, text)


def customer_headers(customer_id: str | None) -> dict[str, str]:
    """Return the header that says whose session it is; a header takes no other than ASCII signs."""
    return {"Customer-Id": quote(customer_id, safe="")} if customer_id is not None else {}


def append_body(
    turns: Iterable[NewTurn], *, after: Version | str | None, rate_limit: str | None, random: Any
) -> dict[str, Any]:
    """Return what is sent to append turns, each with an id.

    Raises:
        Invalid: there are none, or JSON cannot say them.
    """
    said = [
        _given(
            {"role": turn.role, "content": turn.content, "turn_id": turn.turn_id or random_id(random)},
            attributes=dict(turn.attributes) or None,
        )
        for turn in turns
    ]
    if not said:
        raise Invalid("an append takes at least one turn")
    body = said[0] if len(said) == 1 else {"turns": said}
    body = _given(body, after=str(after) if after is not None else None, rate_limit=rate_limit)
    try:
        msgspec.json.encode(body)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise Invalid(f"a turn that JSON cannot say: {error}") from error
    return body


def _given(body: dict[str, Any], **more: Any) -> dict[str, Any]:
    return body | {name: value for name, value in more.items() if value is not None}


def _revision(version: Version | str) -> str:
    parsed = Version.parse(version)
    return f"{parsed.incarnation:x}.{parsed.revision:x}"
