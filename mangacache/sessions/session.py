"""A session as a bot holds it: a light handle, to be made for each message and thrown away."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from mangacache.clock import random_id
from mangacache.errors import Invalid
from mangacache.model import (
    WINDOW,
    Appended,
    Consistency,
    Context,
    Deleted,
    History,
    NewTurn,
    Updated,
    Version,
    checked_id,
)
from mangacache.sessions.deleting import delete
from mangacache.sessions.given import attributes_given, cursors_given, removes_given, turns_given
from mangacache.sessions.writing import DEFAULT_POLICY, Policy
from mangacache.store.append import Append
from mangacache.store.changes import Update
from mangacache.store.deletion import Delete
from mangacache.store.drafts import MAX_SUMMARY_BYTES, checked_batch, checked_text, drafted, meta_sets
from mangacache.store.fences import checked_fence

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from mangacache.ephemeral import Connections, Events, EventStream, Limit, RateLimits
    from mangacache.model import Attribute
    from mangacache.sessions.registry import Sessions
    from mangacache.store.effects import Draft, Stamp


class Session:
    """One session of one instance.

    Attributes:
        id: the session's id.
        customer_id: whose it is; stored when the session begins, checked against what is stored afterwards.
    """

    __slots__ = ("_check", "_connections", "_events", "_limits", "_policy", "_sessions", "customer_id", "id")

    def __init__(
        self,
        sessions: Sessions,
        session_id: str,
        customer_id: str | None,
        *,
        limits: RateLimits,
        connections: Connections,
        events: Events,
        check: Callable[[], None],
        policy: Policy = DEFAULT_POLICY,
    ) -> None:
        self._sessions = sessions
        self._limits = limits
        self._connections = connections
        self._events = events
        self._check = check
        self._policy = policy
        self.id = checked_id(session_id, what="session id")
        self.customer_id = checked_id(customer_id, what="customer id") if customer_id is not None else None

    def __repr__(self) -> str:
        return f"<Session {self.id!r} of {self.customer_id!r}>"

    async def context(
        self,
        *,
        turns: int = 20,
        at_least: Version | str | None = None,
        consistency: Consistency = Consistency.SESSION,
        rate_limit: str | Limit | None = None,
        connection_id: str | None = None,
    ) -> Context:
        """Return what a bot needs before it answers: META, the last turns, the newest summary.

        Args:
            turns: how many, 1 to 32; for more there is `history`.
            at_least: the `version` of an earlier result; the answer is never older.
            consistency: how fresh it must be otherwise.
            rate_limit: take a unit of this limit of the customer's. It is asked for with the context, in the same
                round trip to Redis; a message needs it once.
            connection_id: the connection that the message came by: its mapping lives on (see `cache.connections`), at
                no round trip more.

        Raises:
            Rejected: the limit is used up, or the process has too much to do.
            VersionGone: the token is newer than the source of truth.
            Conflict: the session is another customer's.
            Transient: DynamoDB cannot be reached, and nothing known will do.
        """
        self._check()
        if type(turns) is not int or not 1 <= turns <= WINDOW:
            raise Invalid(f"a context holds 1 to {WINDOW} turns, not {turns!r}: use `history` for more")
        if not isinstance(consistency, Consistency):
            raise Invalid(
                f"{consistency!r} is no level of consistency: pass Consistency.LATEST or another of its levels"
            )
        least = Version.parse(at_least) if at_least is not None else None
        # Begun first: what a task asks Redis for leaves with what the read asks, whether or not that has a task too.
        customer_id = self.customer_id
        taken = self._limits.begin(customer_id, rate_limit) if rate_limit is not None else None
        if connection_id is not None:
            self._connections.traffic(connection_id)
        context = self._sessions.remembered(
            self.id, turns=turns, at_least=least, consistency=consistency, customer_id=customer_id
        )
        if context is None:
            context = await self._sessions.context(
                self.id,
                turns=turns,
                at_least=least,
                consistency=consistency,
                customer_id=customer_id,
                policy=self._policy,
            )
        if taken is not None:
            await self._limits.outcome(taken)
        return context

    async def append(
        self,
        *,
        role: str,
        content: str,
        turn_id: str | None = None,
        attributes: Mapping[str, Attribute] | None = None,
        after: Version | str | None = None,
        rate_limit: str | Limit | None = None,
    ) -> Appended:
        """Store one turn, durably, in order, once.

        Args:
            role: `user`, `assistant`, `system` or `tool`.
            content: at most `max_content_bytes` of UTF-8.
            turn_id: the caller's id of this turn; an append repeated with it is stored once. Without one, the turn
                gets a random id and a repeated call stores it again.
            attributes: free attributes: text, numbers, bytes, lists, mappings, sets.
            after: where a try may arrive after 32 more turns: the token from before the first try, with each.
            rate_limit: take a unit of this limit of the customer's first, for a message that took none with its
                context: one more round trip to Redis.

        Raises:
            Invalid: the turn cannot be stored; nothing was done.
            Transient: no definite answer in time; repeat with the same turn_id.
            Rejected: the limit is used up, or too many writes wait in this session; nothing was done.
            Conflict: the session is foreign (call `adopt`), or another customer's.
        """
        new = NewTurn(role=role, content=content, turn_id=turn_id, attributes=attributes_given(attributes))
        results = await self._append((new,), after, rate_limit)
        return results[0]

    async def append_many(
        self,
        turns: Iterable[NewTurn],
        *,
        after: Version | str | None = None,
        rate_limit: str | Limit | None = None,
    ) -> tuple[Appended, ...]:
        """Store up to 32 turns in one transaction: all of them or none; see `append`.

        Turns whose turn_id is stored already give their first result, and only the rest is written.
        """
        return await self._append(turns_given(turns), after, rate_limit)

    async def _append(
        self, turns: tuple[NewTurn, ...], after: Version | str | None, rate_limit: str | Limit | None
    ) -> tuple[Appended, ...]:
        self._check()
        goes_on = bool(turns) and all(turn.role != "user" for turn in turns)
        self._sessions.refuse_early(self._policy, goes_on=goes_on)
        token = Version.parse(after) if after is not None else None
        stamp = self._sessions.store.stamp()
        drafts = checked_batch([self._drafted(new, stamp) for new in turns])
        decision = Append(drafts, stamp=stamp, customer_id=self.customer_id, after=token)
        if rate_limit is not None:
            await self._limits.require(self.customer_id, rate_limit)
        results = await self._sessions.write(
            self.id, decision.steps, what="append", policy=self._policy, repeats=True, goes_on=goes_on
        )  # fmt: skip
        return cast("tuple[Appended, ...]", results)

    def _drafted(self, new: NewTurn, stamp: Stamp) -> Draft:
        turn_id = new.turn_id if new.turn_id is not None else random_id(self._sessions.random)
        limit = self._sessions.settings.max_content_bytes
        return drafted(new, turn_id, stamp=stamp, max_content_bytes=limit)

    async def history(self, *, before: str | None = None, after: str | None = None, limit: int = 50) -> History:
        """Return a page of turns, oldest first: the newest ones, or those before or after a cursor.

        Args:
            before: `older` of another page.
            after: `newer` of another page, or "" for the oldest turns.
            limit: turns a page, 1 to 1,000.
        """
        self._check()
        if type(limit) is not int:
            raise Invalid(f"`limit` is a number of turns, not {limit!r:.60}")
        cursors_given(before, after)
        store = self._sessions.store
        now_s = self._sessions.clock.time_s()
        return await store.loader.history(
            self.id, before=before, after=after, limit=limit, now_s=now_s, customer_id=self.customer_id
        )

    async def update(
        self,
        attributes: Mapping[str, Attribute] | None = None,
        *,
        remove: Iterable[str] = (),
        status: str | None = None,
        if_version: Version | str | None = None,
        fence: int | None = None,
    ) -> Updated:
        """Change META: set and remove free attributes, set the status. Each change raises the revision.

        Args:
            attributes: free attributes to set.
            remove: names of free attributes to remove.
            status: `active`, `closed`, or a word of the bot's own.
            if_version: change only what is at this version's revision. Without it a change by somebody else in
                between is kept, and this one is made on top of it.
            fence: `held.fence` of the session's lock: change it only as long as nobody has claimed the lock since.

        Raises:
            NotFound: there is no live session.
            Conflict: META has moved on, the lock was lost, or whether the change was made is unknown.
        """
        self._check()
        removes = removes_given(remove)
        sets = meta_sets(attributes_given(attributes), status)
        if both := sets.keys() & set(removes):
            raise Invalid(f"the attribute {min(both)!r} is both set and removed: choose one")
        return await self._change(
            Update(
                stamp=self._sessions.store.stamp(),
                change_id=random_id(self._sessions.random),
                sets=sets,
                removes=removes,
                if_version=Version.parse(if_version) if if_version is not None else None,
                fence=checked_fence(fence),
                customer_id=self.customer_id,
            )
        )

    async def close(self) -> Updated:
        """Set the status to `closed`; turns may still be appended."""
        return await self.update(status="closed")

    async def summarise(self, text: str, *, upto: int | None = None, fence: int | None = None) -> Updated:
        """Store a summary of the turns up to number `upto`; None is the newest turn known.

        Args:
            text: at most 64 KiB of UTF-8.
            upto: the turn it reaches.
            fence: as in `update`.

        Raises:
            Conflict: a summary that reaches as far is stored already, or the lock was lost.
            Invalid: `upto` is no turn of this session, or the text is over 64 KiB.
        """
        self._check()
        if upto is not None and type(upto) is not int:
            raise Invalid(f"`upto` is a turn's number, not {upto!r}")
        return await self._change(
            Update(
                stamp=self._sessions.store.stamp(),
                change_id=random_id(self._sessions.random),
                summary_text=checked_text(text, what="a summary", max_bytes=MAX_SUMMARY_BYTES),
                upto=upto,
                fence=checked_fence(fence),
                customer_id=self.customer_id,
            )
        )

    async def _change(self, decision: Update) -> Updated:
        changed = await self._sessions.write(
            self.id, lambda known, _: decision.steps(known), what="change", policy=self._policy
        )
        return cast("Updated", changed)

    def events(self, *, after: Version | str | None = None, limit: int = 256) -> EventStream:
        """Return the stream of what happens to this session; see `Events.session`."""
        return self._events.session(self.id, after=after, limit=limit)

    async def delete(self) -> Deleted:
        """Delete the session: nothing of it is returned by any call any more; it may begin again.

        Raises:
            Conflict: the session is another customer's.
        """
        self._check()
        decision = Delete(stamp=self._sessions.store.stamp(), customer_id=self.customer_id)
        return await delete(self._sessions, self.id, decision, policy=self._policy)

    async def adopt(self) -> int:
        """Renumber a session that somebody else wrote, so that it can be appended to; its other writers must stop.

        Returns:
            How many turns were taken over; 0 where the session was ours already.
        """
        self._check()
        store = self._sessions.store
        stamp = store.stamp()
        adopted = await self._sessions.exclusive(
            self.id, lambda: store.adoption.adopt(self.id, stamp=stamp), what="adopt", policy=self._policy
        )
        return cast("int", adopted)
