"""What a process hears of what others publish: one connection for all its channels, in a cluster one a node.

A subscription is only worth something as long as it stands: what is published while it does not is lost. So its
consumer is told of each time that it stands and of each that it does not, and of messages that it took too slowly; it
is never left in the belief that it has heard everything.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final, TypeAlias

from mangacache.errors import Closed, Rejected
from mangacache.redis.channels import Channel, Listener, Said
from mangacache.redis.link import LinkLost
from mangacache.redis.listening import Elsewhere
from mangacache.redis.reconnecting import said
from mangacache.tasks import TaskOwner

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from mangacache.clock import Clock, Random
    from mangacache.redis.listening import Ear, Hearer
    from mangacache.telemetry import Telemetry

MOST_CHANNELS: Final = 100_000
MOST_WAITING: Final = 256
_MOST_MOVES: Final = 8
_BASE_S: Final = 0.02
_CAP_S: Final = 0.25
_PING_EVERY_S: Final = 1.0

Place: TypeAlias = "tuple[str, int] | None"
"""A node of a cluster, by host and port; None is where the configured address leads."""
Dial: TypeAlias = "Callable[[Hearer, Place], Awaitable[Ear]]"
"""Opens a connection for subscriptions, or raises `LinkLost`."""


class Subscriptions:
    """The channels that a process listens to; a `Hearer` of its connections.

    Args:
        dial: opens a connection.
        timeout_s: how long an answer may take.
        clock: pauses and deadlines.
        random: the pauses' jitter.
        telemetry: counts what is lost.
    """

    def __init__(self, dial: Dial, *, timeout_s: float, clock: Clock, random: Random, telemetry: Telemetry) -> None:
        self._dial = dial
        self._timeout_s = timeout_s
        self._clock = clock
        self._random = random
        self._telemetry = telemetry
        self._tasks = TaskOwner(on_failure=telemetry.count_survived)
        self._channels: dict[str, Channel] = {}
        self._ears: dict[Place, Ear] = {}
        self._places: dict[Place, None] = {}
        self._dialling: dict[Place, asyncio.Task[Ear | LinkLost]] = {}
        self._closed = False

    def __repr__(self) -> str:
        standing = sum(channel.standing for channel in self._channels.values())
        return f"<Subscriptions {standing} of {len(self._channels)} channels, {len(self._ears)} connections>"

    @property
    def channels(self) -> int:
        """How many channels are listened to."""
        return len(self._channels)

    @asynccontextmanager
    async def listen(self, name: str, *, limit: int = MOST_WAITING) -> AsyncIterator[Listener]:
        """Listen to a channel; the first signal is `Hears`, or `Deaf` while Redis is away.

        Args:
            name: of the channel.
            limit: signals that may wait for the consumer.

        Raises:
            Rejected: too many channels are listened to.
            Closed: the subscriptions are closed.
        """
        if self._closed:
            raise Closed("this MangaCache is closed")
        channel = self._channels.get(name)
        if channel is None:
            if len(self._channels) >= MOST_CHANNELS:
                raise Rejected(f"{MOST_CHANNELS} channels are listened to already: nothing was done")
            channel = self._channels[name] = Channel(name)
            self._tasks.start(self._attach(channel), name="subscribe to a channel")
        listener = Listener(name, limit=limit)
        channel.listeners.add(listener)
        if channel.state is not None:
            listener.tell(channel.state)
        try:
            yield listener
        finally:
            channel.listeners.discard(listener)
            if not channel.listeners:
                self._leave(channel)

    def drop(self, why: str) -> None:
        """Give up every connection, and subscribe anew: the server may not be the one that others publish at."""
        for ear in tuple(self._ears.values()):
            ear.abort(why)

    def anew(self) -> None:
        """See `drop`: the cache's epoch has changed, so there may be another primary."""
        self.drop("the cache's epoch has changed: another primary, or writes that could not be told")

    async def close(self) -> None:
        """End everything; consumers hear `Closed`."""
        self._closed = True
        for channel in self._channels.values():
            for listener in channel.listeners:
                listener.close()
        ears = tuple(self._ears.values())
        self._ears.clear()
        for ear in ears:
            ear.abort("closed")
        await self._tasks.cancel()
        await asyncio.gather(*(ear.gone() for ear in ears))

    # Channels

    def _leave(self, channel: Channel) -> None:
        if self._channels.get(channel.name) is channel:
            del self._channels[channel.name]
            if channel.ear is not None and channel.standing:  # else `_attach` sees to it
                channel.ear.remove(channel.name)

    async def _attach(self, channel: Channel) -> None:
        """Subscribe, for as long as somebody listens: exponential back-off with full jitter."""
        place: Place = None
        tries = moves = 0
        while channel.listeners and not self._closed:
            try:
                await self._subscribed(channel, place)
            except Elsewhere as elsewhere:
                place = (elsewhere.host or (place[0] if place else ""), elsewhere.port)
                self._places[place] = None
                moves += 1
                if moves % _MOST_MOVES:
                    continue
                channel.deaf("the nodes of the cluster send each other's clients to and fro")
            except LinkLost as lost:
                channel.deaf(said(lost))
            except Exception as error:  # noqa: BLE001 - whatever it is, giving up would leave the listeners deaf for good
                self._telemetry.count_survived("subscription_failed", error)
                channel.deaf(said(error))
            else:
                return
            place = self._another(tries)
            await self._clock.sleep(self._random.random() * min(_CAP_S, _BASE_S * 2 ** min(tries, 10)))
            tries += 1

    async def _subscribed(self, channel: Channel, place: Place) -> None:
        """Subscribe at a node.

        Raises:
            LinkLost: it cannot be done now.
            Elsewhere: another node has the channel.
        """
        ear = channel.ear = await self._connected(place)
        try:
            async with self._clock.timeout(self._timeout_s):
                await ear.add(channel.name, channel.hears)
        except TimeoutError as error:
            ear.abort(why := f"no answer within {self._timeout_s:g} s")
            raise LinkLost(why, sent=True) from error
        if not channel.listeners and channel.name not in self._channels:
            ear.remove(channel.name)

    def _another(self, tries: int) -> Place:
        """Return where to ask after a failure: where the address leads, by turns with each node of the cluster."""
        places = [None, *self._places]
        return places[(tries + 1) % len(places)]

    def _lost(self, channel: Channel, why: str) -> None:
        self._telemetry.survived.labels("subscription_lost").inc()
        channel.deaf(why)
        self._tasks.start(self._attach(channel), name="subscribe to a channel")

    # Connections

    async def _connected(self, place: Place) -> Ear:
        """Return the connection to a node, which all who need it wait for together.

        Raises:
            LinkLost: there is none.
        """
        if (ear := self._ears.get(place)) is not None:
            return ear
        if place not in self._dialling:
            self._dialling[place] = self._tasks.start(self._open(place), name="connect to hear Redis", awaited=True)
        task = self._dialling[place]
        await asyncio.wait((task,))
        if task.cancelled():
            raise LinkLost("closed", sent=False)
        found = task.result()
        if isinstance(found, LinkLost):
            raise LinkLost(str(found), sent=False) from found
        return found

    async def _open(self, place: Place) -> Ear | LinkLost:
        try:
            ear = await self._dial(self, place)
        except LinkLost as lost:
            return lost
        finally:
            del self._dialling[place]
        self._ears[place] = ear
        if ear.nodes:
            self._places = {(host or (place[0] if place else ""), port): None for host, port in ear.nodes}
        self._tasks.start(self._watch(ear), name="see that Redis still speaks")
        return ear

    async def _watch(self, ear: Ear) -> None:
        """End a connection that does not answer: nothing would be heard on it, without a sign."""
        while ear in self._ears.values():
            await self._clock.sleep(_PING_EVERY_S)
            try:
                async with self._clock.timeout(self._timeout_s):
                    await ear.ping()
            except LinkLost as lost:
                if ear in self._ears.values():  # it ended before it was entered here, so that nobody was told
                    self.ended(ear, str(lost))
                return
            except TimeoutError:
                ear.abort(f"no answer within {self._timeout_s:g} s")

    # What connections tell

    def heard(self, ear: Ear, channel: str, payload: bytes) -> None:
        """See `Hearer`."""
        known = self._channels.get(channel)
        if known is not None and known.ear is ear and known.standing:
            known.tell(Said(payload))

    def dropped(self, ear: Ear, channel: str) -> None:
        """See `Hearer`."""
        known = self._channels.get(channel)
        if known is not None and known.ear is ear and known.standing:
            self._lost(known, "the channel has moved to another node")

    def ended(self, ear: Ear, why: str) -> None:
        """See `Hearer`."""
        if self._closed:
            return
        self._ears = {place: other for place, other in self._ears.items() if other is not ear}
        for channel in tuple(self._channels.values()):
            if channel.ear is ear and channel.standing:
                self._lost(channel, why)
        self._tasks.start(ear.gone(), name="see a connection to Redis end")
