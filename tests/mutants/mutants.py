"""The package weakened on purpose, one rule each, and the tests that must see it.

Each is a change of the source text that a tired engineer could make. The names of rules are those of the context
protocol; `4` is its section on a worker that cannot reach Redis. `L` are those of locks, `E` those of events, `D` those
of what is read through DAX.
"""

from __future__ import annotations

from dataclasses import dataclass

RULES = "tests/conformance/contexts/test_rules.py"
OUTAGES = "tests/conformance/contexts/test_outages.py"
UNIT = "tests/unit/context"
SEEDS = "tests/sim/test_focused.py"
LOCKS = "tests/conformance/test_locks.py"
FENCES = "tests/conformance/test_fences.py"
FOLLOWING = "tests/unit/ephemeral/test_following.py"
DAX = "tests/conformance/test_dax_reads.py"
DOOR = "tests/unit/store/test_dax_door.py"
THREADS = "tests/unit/store/test_dax_threads.py"

CACHE = "context/cache.py"
READING = "context/reading.py"
READS = "sessions/reading.py"
MAILBOXES = "tests/unit/sessions/test_mailboxes.py"
LEAVING = "tests/unit/sessions/test_leaving.py"
SUPERVISOR = "tests/unit/sessions/test_supervisor.py"
WRITES = "sessions/writing.py"
ACTOR = "sessions/actor.py"
KEEPER = "context/keeper.py"
KNOWLEDGE = "context/knowledge.py"
DEBTS = "context/debts.py"
WIRE = "context/wire.py"
COMMIT = "context/scripts/commit.lua"
FILL = "context/scripts/fill.lua"
GET = "context/scripts/get.lua"

COMMITS = "confirmed = await self._tier.commit(session_id, base=base, after=after)"
UNSAID = 'confirmed = __import__("mangacache.context.tier", fromlist=["Confirmed"]).Confirmed()'


@dataclass(frozen=True)
class Mutant:
    """The package without something.

    Attributes:
        rule: of the protocol.
        missing: what it does without.
        file: in the package.
        changes: text that stands in the file once, and what stands there instead.
        tests: which tests are run: a file or folder, and which of its tests (pytest's `-k`), where not all.
        quick: whether it is one of those that are planted in every run of the tests.
    """

    rule: str
    missing: str
    file: str
    changes: tuple[tuple[str, str], ...]
    tests: tuple[tuple[str, str], ...]
    quick: bool = False

    def applied(self, text: str) -> str:
        """Return the weakened text; raises ValueError where what is to be changed does not stand there once."""
        for old, new in self.changes:
            if text.count(old) != 1:
                raise ValueError(f"{self.file}, without {self.missing}: {old!r} stands {text.count(old)} times in it")
            text = text.replace(old, new)
        return text


def _mutant(rule, missing, file, old, new, *tests, quick=False):
    return Mutant(rule, missing, file, ((old, new),), tests, quick=quick)


MUTANTS = (
    _mutant(
        "R1",
        "the look for the turn_id in the window",
        "store/append.py",
        "            self._learn(known.turns)\n            if self._search_after",
        "            if self._search_after",
        (RULES, "r1_ and valkey"),
    ),
    _mutant(
        "R1",
        "the same number after a time-out",
        "store/requests.py",
        "                in_doubt = in_doubt or error.sent\n",
        "                in_doubt = in_doubt or error.sent\n"
        '                place = parameters.get("Item", {}).get("SK", {}).get("S", "")\n'
        '                if place.startswith("TURN#"):\n'
        '                    following = {"S": f"{place[:-10]}{int(place[-10:]) + 1:010d}"}\n'
        '                    parameters = {**parameters, "Item": {**parameters["Item"], "SK": following}}\n',
        (RULES, "r1_ and valkey"),
    ),
    _mutant(
        "R2",
        "the question to Redis at LATEST",
        READS,
        "known.foreign or consistency.name in _BEYOND_MEMORY:\n            return False",
        "known.foreign or consistency.name == 'strong':\n            return False",
        (RULES, "r2_ and valkey"),
    ),
    _mutant(
        "R2",
        "the age of an answer from memory",
        READS,
        "if self._clock.age_s() - actor.validated_at_s > limit_s:",
        "if actor.validated_at_s < 0:",
        (RULES, "r2_ and valkey"),
    ),
    _mutant(
        "R2",
        "the age counted from the sending",
        READS,
        "actor.validated_at_s = max(actor.validated_at_s, found.sent_age_s)",
        "actor.validated_at_s = self._clock.age_s()",
        (RULES, "r2_ and valkey"),
    ),
    _mutant(
        "R2",
        "the token at memory's answer",
        READS,
        "return at_least is None or known.version.covers(at_least)",
        "return True",
        (RULES, "r2_ and valkey"),
    ),
    _mutant(
        "R2",
        "what memory knows, in GET",
        READS,
        "least = flight.least.join(have.version) if have is not None and not have.foreign else flight.least",
        "least = flight.least",
        (RULES, "r2_ and valkey"),
        quick=True,
    ),
    _mutant(
        "R2",
        "the token, in GET",
        READS,
        "            flight.least = flight.least.join(at_least)\n",
        "            pass\n",
        (RULES, "r2_ and valkey"),
    ),
    _mutant(
        "R2",
        "the end of a context below what was seen",
        GET,
        "local enough = least_i < i or",
        "local enough = true or",
        (RULES, "r2_ and valkey"),
    ),
    _mutant(
        "R3",
        "OBSERVE after a strong read",
        READING,
        "told = yield Observe(snapshot.version)\n    return Reading(",
        "told = None\n    return Reading(",
        (RULES, "r3_ and valkey"),
        quick=True,
    ),
    _mutant(
        "R3",
        "OBSERVE by a refused FILL",
        FILL,
        "  if to_i > i or (to_i == i and (to_t > t or to_r > r)) then redis.call('DEL', key) end\n",
        "",
        (RULES, "r3_ and valkey"),
    ),
    _mutant(
        "R3",
        "OBSERVE after a FILL of unknown outcome",
        READING,
        "        told = yield Observe(snapshot.version)\n        return",
        "        told = None\n        return",
        (RULES, "r3_ and valkey"),
    ),
    Mutant(
        "R4",
        "the lease at FILL",
        FILL,
        (
            ("if h[4] and h[4] == ARGV[8] then", "if not i then"),
            (
                "local fi, ft, fr = tonumber(h[5]), tonumber(h[6]), tonumber(h[7])",
                "local fi, ft, fr = tonumber(h[5]) or -1, tonumber(h[6]) or -1, tonumber(h[7]) or -1",
            ),
        ),
        ((RULES, "r4_ and valkey"),),
    ),
    _mutant(
        "R4",
        "the floor",
        FILL,
        "  if to_i < fi or (to_i == fi and (to_t < ft or to_r < fr)) then return 'overtaken' end\n",
        "",
        (RULES, "r4_ and valkey"),
        quick=True,
    ),
    _mutant(
        "R4",
        "each part compared with the floor",
        FILL,
        "(to_t < ft or to_r < fr)",
        "(to_t < ft or (to_t == ft and to_r < fr))",
        (RULES, "r4_ and valkey"),
    ),
    _mutant(
        "R4",
        "the lease given back when a fill fails",
        READING,
        "        yield Release(lease)\n        raise",
        "        raise",
        (RULES, "r4_ and valkey"),
    ),
    _mutant(
        "R5",
        "COMMIT",
        WRITES,
        COMMITS,
        UNSAID,
        (RULES, "latest_asks and valkey"),
    ),
    _mutant(
        "R5",
        "the wait for COMMIT before the acknowledgement",
        WRITES,
        COMMITS,
        f"{UNSAID}\n                later = self._tier.commit(session_id, base=base, after=after)\n"
        "                self._tasks.start(later, name='commit')",
        (RULES, "r5_ and valkey"),
        quick=True,
    ),
    _mutant(
        "R5",
        "COMMIT for a turn that was stored already",
        CACHE,
        "        if after.foreign:\n            return Confirmed()",
        "        if after.foreign or after is base:\n            return Confirmed()",
        (OUTAGES, "hold"),
    ),
    _mutant(
        "R5",
        "the second try of a COMMIT that was lost",
        CACHE,
        "if now_s - lost_at_s >= self._commit_retry_s or",
        "if now_s - lost_at_s >= 0 or",
        (RULES, "r5_ and valkey"),
    ),
    _mutant(
        "R5",
        "the turns learned at a collision, in COMMIT",
        "context/calls.py",
        "known = 0 if base is None or begun else base.version.number",
        "known = version.number - 1",
        (RULES, "r5_ and valkey"),
    ),
    _mutant(
        "R5",
        "contiguity",
        COMMIT,
        " and count > 0 and first <= t + 1)",
        " and count > 0)",
        (RULES, "r5_ and valkey"),
    ),
    _mutant(
        "R5",
        "whole META",
        COMMIT,
        "if not holds_turns or (to_r > r and meta == '') then",
        "if not holds_turns then",
        (RULES, "r5_ and valkey"),
    ),
    _mutant(
        "R6",
        "the identity at each new connection",
        KEEPER,
        "        if known is not None and primary.is_in(known.identity):\n            return known.epoch",
        "        if known is not None:\n            return known.epoch",
        (OUTAGES, "restart or failover"),
    ),
    _mutant(
        "R6",
        "an epoch's own keys",
        "context/calls.py",
        ":context:{epoch}",
        ":context:1",
        (OUTAGES, "restart or failover"),
    ),
    _mutant(
        "R6",
        "the look whether the epoch is the same when the answer comes",
        WIRE,
        "        if self._keeper.epoch != epoch:\n            raise Moved\n        return reply",
        "        return reply",
        (RULES, "r6_ and valkey"),
    ),
    Mutant(
        "R6",
        "the new beginning under a new epoch",
        WIRE,
        (
            ("        if self._keeper.epoch != lease.epoch:\n            return Restart()\n", ""),
            (
                "arguments, epoch=lease.epoch)\n        except Moved:\n            return Restart()",
                "arguments, epoch=lease.epoch)\n        except Moved:\n            return Overtaken()",
            ),
        ),
        ((RULES, "r6_ and valkey"),),
    ),
    _mutant(
        "R7",
        "the wait after a new epoch",
        KNOWLEDGE,
        "self.waits_until_s = now_s if record.settled else now_s + PERIOD_S",
        "self.waits_until_s = now_s",
        (RULES, "r7_ and valkey"),
    ),
    _mutant(
        "R7",
        "the end of what is known of the epoch",
        KNOWLEDGE,
        "if self.record is None or now_s >= self.sure_until_s:",
        "if self.record is None:",
        (RULES, "r7_ and valkey"),
    ),
    _mutant(
        "R7",
        "the wait before Redis is read under a new epoch",
        WIRE,
        "if standing is Standing.WAITING or not epoch or not self._link.up:",
        "if not epoch or not self._link.up:",
        (RULES, "r7_ and valkey"),
    ),
    _mutant(
        "R7",
        "a sure epoch under an acknowledgement",
        CACHE,
        "                    if standing is Standing.SURE:\n",
        "                    if standing is not Standing.WAITING:\n",
        (OUTAGES, "epoch_item"),
    ),
    _mutant(
        "R7",
        "a sure epoch under LATEST",
        READS,
        "if fresh.stale and consistency == Consistency.LATEST:",
        "if False:",
        (OUTAGES, "without_dynamodb"),
    ),
    _mutant(
        "R8",
        "a flight of its own for who asks after the GET was sent",
        READS,
        "if flight is None or flight.sent:",
        "if flight is None:",
        (RULES, "r8_ and valkey"),
    ),
    _mutant(
        "R9",
        "the older strong read that replaces memory",
        ACTOR,
        "grew_after_sent=not strong or self.grew_at_s",
        "grew_after_sent=True or self.grew_at_s",
        (RULES, "r9_ and valkey"),
    ),
    _mutant(
        "R9",
        "the look whether memory grew since a strong read was sent",
        ACTOR,
        "grew_after_sent=not strong or self.grew_at_s >= sent_at_s",
        "grew_after_sent=not strong",
        (RULES, "r9_ and valkey"),
    ),
    _mutant(
        "R9",
        "the look whether a hit joins on to what is held",
        "context/calls.py",
        "joins and first <= have.version.number + 1:",
        "joins:",
        (UNIT, "calls"),
    ),
    _mutant(
        "R9",
        "VersionGone",
        READS,
        "        if at_least is not None and not known.version.covers(at_least):\n            raise VersionGone(",
        "        if False:\n            raise VersionGone(",
        (RULES, "r9_ and valkey"),
    ),
    _mutant(
        "R10",
        "the maximum age",
        GET,
        " and age <= tonumber(ARGV[4])",
        "",
        (RULES, "r10_ and valkey"),
    ),
    _mutant(
        "R11",
        "the seal",
        "store/writing.py",
        "return await self._transact([meta_put, seal],",
        "return await self._transact([meta_put],",
        (RULES, "r11_ and valkey"),
    ),
    _mutant(
        "R11",
        "OBSERVE of a delete",
        CACHE,
        "        if after.foreign:\n            return Confirmed()",
        "        if after.foreign or not after.version.number:\n            return Confirmed()",
        (RULES, "r11_ and valkey"),
    ),
    _mutant(
        "R11",
        "the incarnation at COMMIT",
        COMMIT,
        "if to_i < i or (to_i == i and to_t <= t and to_r <= r) then",
        "if to_i == i and to_t <= t and to_r <= r then",
        (RULES, "r11_ and valkey"),
    ),
    _mutant(
        "R11",
        "the incarnation at FILL",
        FILL,
        "if to_i < fi or (to_i == fi and",
        "if (to_i == fi and",
        (RULES, "r11_ and valkey"),
    ),
    _mutant(
        "R11",
        "the age of the window before a put",
        WRITES,
        "return self._clock.age_s() - actor.window_at_s > self._window_age_s",
        "return actor.window_at_s < 0",
        (RULES, "r11_ and valkey"),
    ),
    _mutant(
        "4",
        "the invalidation for what Redis has not confirmed",
        CACHE,
        "        self._debts.owe(session_id, version, customer_id)\n",
        "",
        (OUTAGES, "available"),
    ),
    _mutant(
        "4",
        "the queue, which a reconnection drops",
        DEBTS,
        "is not Standing.UNSURE:\n            await self._send_all(send)\n        return epoch",
        "is not Standing.UNSURE:\n"
        "            for owed in self._queue.owed():\n"
        "                self._queue.paid(*owed)\n"
        "        return epoch",
        (OUTAGES, "available"),
    ),
    _mutant(
        "4",
        "the queue before anything else",
        DEBTS,
        "is not Standing.UNSURE:\n            await self._send_all(send)\n        return epoch",
        "is not Standing.UNSURE:\n            pass\n        return epoch",
        (OUTAGES, "available"),
    ),
    _mutant(
        "4",
        "the raise of the epoch for what is not sent in time",
        DEBTS,
        "if due_at_s is not None and self._clock.monotonic_s() >= due_at_s:",
        "if due_at_s is not None and self._queue is None:",
        (OUTAGES, "available"),
    ),
    _mutant(
        "4",
        "the payment at the end",
        DEBTS,
        "        if not self._queue:\n            return\n        try:",
        "        if True:\n            return\n        try:",
        (OUTAGES, "available"),
    ),
    _mutant(
        "4",
        "a sure epoch under a payment",
        DEBTS,
        "if not self._queue.overflowed and await self._keeper.standing() is not Standing.UNSURE:",
        "if not self._queue.overflowed:",
        (OUTAGES, "owed"),
    ),
    _mutant(
        "4",
        "the refusal to acknowledge, under `hold`",
        CACHE,
        '        if self._holds:\n            raise Transient(\n                "what was written',
        '        if False:\n            raise Transient(\n                "what was written',
        (OUTAGES, "hold"),
    ),
    _mutant(
        "4",
        "the refusal of LATEST, under `hold`",
        READS,
        "        if fresh.degraded and not may_degrade:",
        "        if False:",
        (OUTAGES, "hold"),
    ),
    _mutant(
        "4",
        "the early refusal of LATEST, under `hold`",
        CACHE,
        "        if not self._link.up:\n            raise Transient(",
        "        if False:\n            raise Transient(",
        (OUTAGES, "hold"),
    ),
    _mutant(
        "4",
        "the limit of reads while Redis is away",
        CACHE,
        "                self._limiter.take(self._clock.monotonic_s(), why=why)\n",
        "                pass\n",
        (OUTAGES, "limited"),
    ),
    _mutant(
        "L",
        "the token in a release",
        "ephemeral/scripts/lock_leave.lua",
        "local was = held[1] == token",
        "local was = held[1] and true",
        (LOCKS, "release_with_another and valkey"),
        quick=True,
    ),
    _mutant(
        "L",
        "the token in an extension",
        "ephemeral/scripts/lock_extend.lua",
        "if held[1] ~= ARGV[1] or tonumber",
        "if not held[1] or tonumber",
        (LOCKS, "extended_by_its_holder and valkey"),
    ),
    _mutant(
        "L",
        "the line",
        "ephemeral/scripts/lock_take.lua",
        "(not first or (mine and mine < first))",
        "true",
        (LOCKS, "in_the_order_in_which and valkey"),
    ),
    _mutant(
        "L",
        "the end of a dead waiter's place",
        "ephemeral/scripts/lock_take.lua",
        "elseif till <= now then",
        "elseif till <= 0 then",
        (LOCKS, "dead_waiter and valkey"),
    ),
    _mutant(
        "L",
        "the fence in a write's condition",
        "store/changes.py",
        "summary, fence=self._fence",
        "summary, fence=None",
        (FENCES, "earlier_fence and memory"),
    ),
    Mutant(
        "L",
        "the fence in a session's begin",
        "store/writing.py",
        (
            (" AND #ttl < :renewed AND {fence_still}", " AND #ttl < :renewed"),
            ('"N": str(previous.expires_at + 1)},\n            **fence,\n', '"N": str(previous.expires_at + 1)},\n'),
        ),
        ((FENCES, "begins_does_not_set_back and memory"),),
    ),
    _mutant(
        "L",
        "a fence raised by a delete",
        "store/deletion.py",
        "now.meta is not None else 0) + 1,",
        "now.meta is not None else 0),",
        (FENCES, "delete_ends_every_lock and memory"),
    ),
    _mutant(
        "L",
        "the fence read before the lock is taken",
        "store/fences.py",
        "fence_still, values = fence_condition(meta.fence)",
        'fence_still, values = ("attribute_exists(PK)", {})',
        (LOCKS, "begins_again"),
    ),
    _mutant(
        "L",
        "the holder's end at two thirds of the lease",
        "ephemeral/holding.py",
        "_SURE_SHARE: Final = 2 / 3",
        "_SURE_SHARE: Final = 4 / 3",
        ("tests/unit/ephemeral/test_holding.py", "two_thirds"),
    ),
    _mutant(
        "E",
        "the gap where something is missing",
        "ephemeral/events.py",
        "if before != seen and not self._unsure:",
        "if False:",
        (FOLLOWING, "gap"),
    ),
    _mutant(
        "E",
        "what has been told of each part",
        "ephemeral/events.py",
        "self._unsure, self._seen = False, before.join(version)",
        "self._unsure, self._seen = False, version",
        (FOLLOWING, "told_once"),
    ),
    _mutant(
        "E",
        "a word on the loss of a subscription",
        "redis/channels.py",
        "            self.state = Deaf(why, lost=True)\n            self.tell(self.state)\n",
        "            self.state = Deaf(why, lost=True)\n",
        ("tests/conformance/test_subscriptions.py", "loss_of_the_connection and memory"),
    ),
    _mutant(
        "E",
        "a word on what did not fit",
        "redis/channels.py",
        "            self._signals.append(Deaf(why, lost=False))\n",
        "",
        ("tests/conformance/test_subscriptions.py", "too_slowly and memory"),
    ),
    _mutant(
        "D",
        "the second look for what DAX says is absent",
        "store/windows.py",
        "found |= await self._strongly(session_id, snapshot.version.incarnation, absent)",
        "pass",
        (DAX, "absent and double"),
    ),
    _mutant(
        "D",
        "the strong read of the newest turns",
        "store/windows.py",
        "self._loader.newest(session_id, NEWEST))",
        "reads.newest(session_id, NEWEST))",
        (DAX, "by_a_query and double"),
    ),
    _mutant(
        "D",
        "the age that an answer of DAX's needs",
        "store/dax/eventual.py",
        "ttl_s + SLACK_S",
        "ttl_s",
        (DAX, "below_the_larger and double"),
    ),
    _mutant(
        "D",
        "the token at an old answer",
        "store/dax/eventual.py",
        "if at_least is not None and not answer.version.covers(at_least):",
        "if False:",
        (DAX, "older_than_the_token and double"),
    ),
    _mutant(
        "D",
        "the life that a page's numbers are of",
        "store/dax/pages.py",
        "if place is None or place[0] != meta.incarnation:",
        "if place is None:",
        (DAX, "pages_whose and double"),
    ),
    _mutant(
        "D",
        "the condition that makes forgetting harmless",
        "store/dax/forgetting.py",
        ', "ConditionExpression": _ABSENT}',
        "}",
        (DAX, "foreign and double"),
    ),
    _mutant(
        "D",
        "a word to DAX on what was deleted",
        "store/writing.py",
        "            await self._forgetting.batch([*seals, *gone])\n",
        "",
        (DAX, "forgets_what and double"),
    ),
    _mutant(
        "D",
        "the doubt about a put whose reply DAX lost",
        "store/writing.py",
        "in_doubt = done is None",
        "in_doubt = False",
        (DAX, "stored_once and double"),
    ),
    _mutant(
        "D",
        "the probe that a look sends",
        "store/dax/door.py",
        'self._tasks.start(self._probe(permit), name="probe DAX")',
        "self._breaker.gave_up(permit)",
        (DOOR, "ready"),
    ),
    _mutant(
        "D",
        "the place that an orphan keeps",
        "store/dax/threads.py",
        "        job.left = True\n",
        "        job.left = True\n        self.under_way -= 1\n",
        (THREADS, "orphan or too_long"),
    ),
    _mutant(
        "A",
        "the rest of the mailbox, which a drain drops",
        "sessions/mailbox.py",
        "            while waiting:\n                message = waiting.popleft()",
        "            for message in (waiting.popleft(),):",
        (MAILBOXES, "one_after_the_other"),
    ),
    _mutant(
        "A",
        "the outcome that a cancelled caller stays for",
        "sessions/mailbox.py",
        "                await outlast(outcome)\n",
        "                return None\n",
        (MAILBOXES, "settled_however_often"),
    ),
    _mutant(
        "A",
        "the deadline of a message that waits",
        "sessions/mailbox.py",
        "                if now_s > message.deadline_s:\n",
        "                if now_s < 0:\n",
        (MAILBOXES, "deadline_has_passed"),
    ),
    _mutant(
        "A",
        "the place that who leaves gives back",
        "sessions/mailbox.py",
        "message.actor.begin_activity().mailbox.remove(message)\n                message.finished = True\n",
        "pass\n",
        (MAILBOXES, "leaves_before_his_turn"),
    ),
    _mutant(
        "A",
        "the way that a long mailbox gives to others",
        "sessions/mailbox.py",
        "if waiting and (ran >= _MESSAGES_A_SLICE or",
        "if False and (ran >= _MESSAGES_A_SLICE or",
        (MAILBOXES, "gives_way"),
    ),
    _mutant(
        "A",
        "the dead letter of a poison message",
        "sessions/failures.py",
        "            if not repeats:\n                self._bury(message, error, tries)\n",
        "",
        (MAILBOXES, "poison"),
    ),
    _mutant(
        "A",
        "the care not to repeat what may have been done",
        "sessions/failures.py",
        "message.repeats is not None and message.repeats()",
        "(message.repeats is None or message.repeats())",
        (MAILBOXES, "carried_out or transient"),
    ),
    _mutant(
        "A",
        "the time that a long turn may take",
        "sessions/watch.py",
        " and not message.long and message.task",
        " and message.task",
        (MAILBOXES, "as_long_as_it_takes"),
    ),
    _mutant(
        "A",
        "the strong read after a turn that was cut off",
        "sessions/mailbox.py",
        "            await self._recover(message.actor)\n",
        "            pass\n",
        (MAILBOXES, "thirty_seconds"),
    ),
    _mutant(
        "A",
        "the task that a turn's first stretch belongs to",
        "sessions/turn.py",
        "    current[loop] = task\n",
        "    task = caller\n",
        (MAILBOXES, "one_task_from"),
    ),
    _mutant(
        "A",
        "the context of its sender in which a turn runs",
        "sessions/turn.py",
        "                    waits = run(send, None)\n        except",
        "                    waits = send(None)\n        except",
        (MAILBOXES, "in_its_senders_context"),
    ),
    _mutant(
        "A",
        "the cancellation that comes as a task takes a turn over",
        "sessions/hands.py",
        "        hand.message.turn.cancel()\n        return True",
        "        return True",
        (MAILBOXES, "takes_it_over"),
    ),
    _mutant(
        "A",
        "the turn of the loop that turns leave to others, however short they are",
        "sessions/mailbox.py",
        "if self._at_once >= _AT_ONCE_A_SLICE:",
        "if False:",
        (MAILBOXES, "never_wait"),
    ),
    _mutant(
        "A",
        "a flight that outlives the reader who began it",
        "sessions/reading.py",
        "        await asyncio.wait((task,))\n        if task.cancelled():  # by",
        "        await task\n        if task.cancelled():  # by",
        ("tests/unit/sessions/test_sessions.py", "shared_outlives"),
    ),
    _mutant(
        "A",
        "the notice that comes before the answer",
        "sessions/reading.py",
        "            if actor.validated_at_s <= max(actor.changed_at_s, self._lost_at_s):",
        "            if actor.validated_at_s <= self._lost_at_s:",
        ("tests/conformance/test_watching.py", "heard_before and shared_valkey"),
    ),
    _mutant(
        "A",
        "the end of an answer that is kept",
        "sessions/reading.py",
        " or not answer.from_s <= now_s < answer.until_s:",
        ":",
        ("tests/unit/sessions/test_sessions.py", "expired_since"),
    ),
    _mutant(
        "A",
        "a copy for each caller of what he could change",
        "sessions/reading.py",
        "return _copy(answer.context) if answer.owned else answer.context",
        "return answer.context",
        ("tests/unit/sessions/test_sessions.py", "changes_nobody"),
    ),
    _mutant(
        "A",
        "the care for who is busy, at eviction",
        "sessions/residents.py",
        "            if actor.busy:\n",
        "            if False:\n",
        (LEAVING, "busy_session"),
    ),
    _mutant(
        "A",
        "the care for who has just come",
        "sessions/residents.py",
        "if oldest.busy or oldest is newest:",
        "if oldest.busy:",
        ("tests/unit/sessions/test_sessions.py", "just_come"),
    ),
    _mutant(
        "A",
        "the look whether who is taken up was used since",
        "sessions/wheel.py",
        "if actor.used > stamp and not actor.gone:",
        "if False:",
        (LEAVING, "used_stays or longest_ago"),
    ),
    _mutant(
        "A",
        "the touch of who leaves",
        "sessions/residents.py",
        "            self._farewells.say(actor.session_id, touch)\n",
        "            pass\n",
        (LEAVING, "up_to_date"),
    ),
    _mutant(
        "A",
        "the mark above which memory is shed for again",
        "sessions/shedding.py",
        " or self.used_bytes < self._mark:",
        ":",
        (LEAVING, "again_and_again"),
    ),
    _mutant(
        "A",
        "the limit over all sessions",
        "sessions/intake.py",
        "return self.inside >= (self.limit if goes_on else self.window) or (bool(self._waiting) and not goes_on)",
        "return bool(self._waiting)",
        (SUPERVISOR, "than_the_limit"),
    ),
    _mutant(
        "A",
        "the bound on what calls may take where the loop is busy",
        "sessions/intake.py",
        "            may_take_s = max(shortest_s, min(longest_s, 2 * self._calm_s))\n",
        "",
        (SUPERVISOR, "a_busy_loop"),
    ),
    _mutant(
        "A",
        "the way in for answers in an overload",
        "sessions/intake.py",
        "(self.limit if goes_on else self.window)",
        "self.window",
        (SUPERVISOR, "its_answer_is_let_in"),
    ),
    _mutant(
        "A",
        "the search through what was stored while a call waited outside",
        "sessions/writing.py",
        "            known_at_first = known_at_first if known_at_first is not None else Version()\n",
        "",
        (SUPERVISOR, "waits_to_be_let_in_finds"),
    ),
    _mutant(
        "A",
        "what was known when the call began, where an earlier try of it has failed",
        "sessions/writing.py",
        "            if known_at_first is not None:\n                return known_at_first\n",
        "",
        (SUPERVISOR, "however_much_came_between"),
    ),
    _mutant(
        "A",
        "the search from the beginning where the read took long",
        "sessions/writing.py",
        "            if self._clock.monotonic_s() - began_s > _PROMPT_S:\n                return Version()\n",
        "",
        (SUPERVISOR, "whose_read_takes_long"),
    ),
    _mutant(
        "A",
        "the search through all turns after a standstill",
        "sessions/writing.py",
        "        if self._standstill.calls_may_be_late(began_s):\n            known_at_first = Version()\n",
        "",
        (SUPERVISOR, "before_a_process_stood_still"),
    ),
    _mutant(
        "A",
        "the time within which restarts are counted",
        "sessions/restarts.py",
        "if len(times_s) == RESTARTS and now_s - times_s[0] < WITHIN_S:",
        "if len(times_s) == RESTARTS:",
        (SUPERVISOR, "now_and_then"),
    ),
    _mutant(
        "A",
        "the order of the end",
        "sessions/drain.py",
        'await self._step("finish the mailboxes", self._finish, until_s - self._within_s * _KEPT_FOR_TELLING)\n'
        '            await self._step("tell the others", self._tell, until_s)',
        'await self._step("tell the others", self._tell, until_s)\n'
        '            await self._step("finish the mailboxes", self._finish, until_s)',
        (SUPERVISOR, "in_order"),
    ),
    _mutant(
        "S",
        "a shared read that outlives its first caller",
        "sessions/reading.py",
        "        await asyncio.wait((task,))\n        if task.cancelled():",
        "        await task\n        if task.cancelled():",
        (SEEDS, "leave"),
    ),
    _mutant(
        "S",
        "the rest of the queue behind a message",
        "sessions/mailbox.py",
        "                if waiting and (ran >= _MESSAGES_A_SLICE",
        "                if len(waiting) > 1:\n                    waiting.pop()\n"
        "                if waiting and (ran >= _MESSAGES_A_SLICE",
        (SEEDS, "leave"),
    ),
    _mutant(
        "S",
        "the stay of a caller who leaves until the outcome is known",
        "sessions/mailbox.py",
        "                await outlast(outcome)\n",
        "                pass\n",
        (SEEDS, "leave"),
    ),
    _mutant(
        "S",
        "the place of a reply whose caller has left",
        "redis/pipeline.py",
        "                outcome = sent.popleft()[0]\n                if not outcome.done():",
        "                while len(sent) > 1 and sent[0][0].done():\n                    sent.popleft()\n"
        "                outcome = sent.popleft()[0]\n                if not outcome.done():",
        (SEEDS, "leave"),
    ),
    _mutant(
        "S",
        "the wait for those who may rely on the epoch before",
        "context/knowledge.py",
        "        self.waits_until_s = now_s if record.settled else now_s + PERIOD_S\n",
        "        self.waits_until_s = now_s\n",
        (SEEDS, "primaries"),
    ),
    _mutant(
        "S",
        "the look at which primary it is",
        KEEPER,
        "        if known is not None and primary.is_in(known.identity):\n            return known.epoch\n        for",
        "        if known is not None and known.identity:\n            return known.epoch\n        for",
        (SEEDS, "primaries"),
    ),
    _mutant(
        "S",
        "the queue of invalidations",
        CACHE,
        "        self._debts.owe(session_id, version, customer_id)\n",
        "        pass\n",
        (SEEDS, "cut"),
    ),
)
