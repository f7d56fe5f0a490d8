"""The rules of the protocol, each a switch: a check that cannot fail proves nothing, so each can be taken out."""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class Rules:
    """Which rules hold; all of them unless said otherwise.

    Attributes:
        commit_before_ack: R5, an append is acknowledged when its COMMIT is confirmed.
        confirm_duplicates: R5 for a turn_id found in the window: its number is confirmed too before it is returned.
        contiguity: COMMIT writes turns only where they join on to what is there.
        whole_meta: COMMIT raises the revision only with the META of that revision.
        lease: FILL is accepted only under the lease that stands in the hash.
        floor: COMMIT and OBSERVE raise the floor of a hash that is being filled.
        floor_parts: FILL compares turn and revision each with the floor, not one after the other.
        floor_of_lease: a floor ends with its lease.
        strong_fills: R4, a fill reads DynamoDB strongly.
        strong_fills_at_floor: R4 also where a floor is known that DAX's answer satisfies.
        observe: R3, OBSERVE before a strong read is returned.
        refused_observes: R3, a refused FILL acts as OBSERVE.
        least: R2, GET asks for at least what this worker and the token know.
        ask_redis: R2, LATEST asks Redis before it answers.
        own_flight: R8, a reader joins only a flight whose GET has not been sent.
        own_read: R8, a reader that is told `busy` never takes what the filler has read.
        same_is_have: a reader that is told `same` returns what it had when it asked, not what is known since.
        replace_memory: R9, a strong read below the memory replaces it.
        confirmed_memory: R2, at SESSION the memory answers only what Redis has confirmed to this worker.
        token: each tier's answer is checked against the token.
        turn_id: R1, an append looks for its turn_id in the window.
        turn_id_shown: R1, it looks for it in what a collision shows too.
        same_window: R1, check and PUT use the same window.
        same_number: R1, a time-out is followed by a PUT of the same number.
        identity: R6, a server's identity is compared with the epoch item at each new connection.
        replication_id: R6, the identity changes when a primary has been a replica in between, not only its run_id.
        begin_again: R6, what began on one connection is not finished on another.
        wait: R7, a new epoch is used when P has passed since it was learnt.
        wait_returns: R7, a read that rests on OBSERVE waits for it as an acknowledgement does.
        starting_waits: R7, a worker that starts waits for P like one that has just learnt the epoch.
        hold: an append is not acknowledged unless Redis has confirmed it (without it: the policy AVAILABLE).
        queue: AVAILABLE, an acknowledged append that Redis has not confirmed leaves an invalidation to be sent.
        maximum_age: R10, content past its maximum age is filled anew.
        seal: R11, a delete seals the next number.
        observe_delete: R11, a delete is observed before it is acknowledged.
        commit_incarnation: COMMIT compares incarnations.
        observe_incarnation: OBSERVE compares incarnations.
        fill_incarnation: FILL compares incarnations.
        have_incarnation: GET compares the incarnation of what the reader has.
        join_incarnation: a join takes the higher incarnation whole.
        reread: R4, turns of another incarnation than META's are read again.
        begins_in_place: no rule but an improvement: a COMMIT of a higher incarnation that carries all of it, turns from
            the first one and META, replaces the content instead of deleting it.
    """

    commit_before_ack: bool = True
    confirm_duplicates: bool = True
    contiguity: bool = True
    whole_meta: bool = True
    lease: bool = True
    floor: bool = True
    floor_parts: bool = True
    floor_of_lease: bool = True
    strong_fills: bool = True
    strong_fills_at_floor: bool = True
    observe: bool = True
    refused_observes: bool = True
    least: bool = True
    ask_redis: bool = True
    own_flight: bool = True
    own_read: bool = True
    same_is_have: bool = True
    replace_memory: bool = True
    confirmed_memory: bool = True
    token: bool = True
    turn_id: bool = True
    turn_id_shown: bool = True
    same_window: bool = True
    same_number: bool = True
    identity: bool = True
    replication_id: bool = True
    begin_again: bool = True
    wait: bool = True
    wait_returns: bool = True
    starting_waits: bool = True
    hold: bool = True
    queue: bool = True
    maximum_age: bool = True
    seal: bool = True
    observe_delete: bool = True
    commit_incarnation: bool = True
    observe_incarnation: bool = True
    fill_incarnation: bool = True
    have_incarnation: bool = True
    join_incarnation: bool = True
    reread: bool = True
    begins_in_place: bool = False

    def without(self, *names):
        """Return the rules with these taken out."""
        return replace(self, **dict.fromkeys(names, False))


def without(case, *names):
    """Return a case without these rules, held only to what is answered: a trace then ends in what a user sees."""
    return replace(case, rules=case.rules.without(*names), checks_invariants=False)
