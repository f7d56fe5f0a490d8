"""What is wrong with DAX."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from mangacache.diagnosis.facts import Unseen
from mangacache.diagnosis.findings import note, ok, problem, warning

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mangacache.diagnosis.facts import DaxFacts, Expected
    from mangacache.diagnosis.findings import Finding
    from mangacache.settings import Settings

_ENOUGH_NODES: Final = 3


def judge_dax(facts: DaxFacts, settings: Settings, _expected: Expected) -> Iterator[Finding]:
    """Iterate over what is to be said of DAX."""
    if facts.address is None:
        yield ok("dax.reachable", "none is configured: what no cache holds is read in DynamoDB")
        return
    if isinstance(facts.answer_ms, Unseen) or facts.answer_ms is None:
        yield _away(facts, facts.answer_ms)
        return
    yield _answered(facts, facts.answer_ms, settings.dax_timeout_s)
    if facts.leaves and not facts.tls:
        yield warning(
            "dax.tls",
            f"{facts.address} is spoken to unencrypted",
            breaks="chats cross the network in the clear",
            remedy="make the cluster with encryption in transit, and write daxs://",
        )
    yield from _nodes(facts)
    yield _ttls(facts, settings.dax_ttl_s)


def _answered(facts: DaxFacts, answer_ms: float, limit_s: float) -> Finding:
    seen = f"{facts.address} answered a consistent read in {answer_ms:.1f} ms"
    if answer_ms <= limit_s * 1000:
        return ok("dax.reachable", seen)
    return warning(
        "dax.reachable",
        f"{seen}, and dax_timeout_s is {limit_s:g} s",
        breaks="reads wait that long, and then go to DynamoDB",
        remedy="see why it is slow: look again, then at the nodes' processor and the way to them",
    )


def _away(facts: DaxFacts, why: Unseen | None) -> Finding:
    reason = why.why if why is not None else "it was not asked"
    if why is not None and why.kind == "refused":
        return problem(
            "dax.reachable",
            f"{facts.address}: {reason}",
            breaks="no process opens: who may not ask DAX is told so at once",
            remedy="check the credentials, the rights dax:GetItem, BatchGetItem, Query, PutItem, UpdateItem and"
            " DeleteItem on the cluster, and that the cluster's own role may read the table",
        )
    return problem(
        "dax.reachable",
        f"{facts.address} does not answer: {reason}",
        breaks="every read goes to DynamoDB, which costs more; nothing is lost",
        remedy="check DAX_ENDPOINT (daxs:// port 9111 with encryption, dax:// port 8111 without), that the process runs"
        " in the cluster's VPC, and that its security group lets it in",
    )


def _nodes(facts: DaxFacts) -> Iterator[Finding]:
    if isinstance(facts.nodes, Unseen) or facts.nodes is None:
        why = facts.nodes.why if facts.nodes is not None else "nobody said"
        yield note("dax.nodes", f"how many nodes there are is not known: {why}", remedy="look in the AWS console")
    elif facts.nodes >= _ENOUGH_NODES or not facts.leaves:
        yield ok("dax.nodes", f"{facts.nodes} node{'' if facts.nodes == 1 else 's'}")
    else:
        yield warning(
            "dax.nodes",
            f"{facts.nodes} node{'' if facts.nodes == 1 else 's'}",
            breaks="when one fails or is replaced, its reads fall on DynamoDB at once",
            remedy="three nodes in different availability zones, as Amazon advises for production",
        )


def _ttls(facts: DaxFacts, set_s: int) -> Finding:
    if isinstance(facts.ttls_s, Unseen) or facts.ttls_s is None:
        why = facts.ttls_s.why if facts.ttls_s is not None else "nobody said"
        return note(
            "dax.ttl",
            f"the cluster's times to live are not known: {why}; dax_ttl_s says {set_s} s",
            breaks="if one of them is larger, EVENTUAL readers get what is older than they allowed",
            remedy="compare dax_ttl_s with record-ttl-millis and query-ttl-millis of the cluster's parameter group: DAX"
            " tells them to nobody but dax:DescribeParameters, and to find out by waiting would mean to write",
        )
    items_s, queries_s = facts.ttls_s
    seen = f"items live {_shown(items_s)}, queries {_shown(queries_s)} ({facts.ttls_from}); dax_ttl_s says {set_s} s"
    longest_s = max(items_s, queries_s)
    if longest_s > set_s:
        return problem(
            "dax.ttl",
            seen,
            breaks="EVENTUAL readers get what is older than they allowed",
            remedy="an entry that lives for ever can be bounded by no setting: give the parameter group a TTL"
            if longest_s == float("inf")
            else f"set dax_ttl_s to {longest_s:g}, or lower the parameter group's TTL",
        )
    if longest_s < set_s:
        return note(
            "dax.ttl",
            seen,
            breaks="EVENTUAL readers whom DAX could answer are sent to DynamoDB",
            remedy=f"set dax_ttl_s to {max(1, round(longest_s + 0.5)):g}",
        )
    return ok("dax.ttl", seen)


def _shown(seconds: float) -> str:
    return "for ever" if seconds == float("inf") else f"{seconds:g} s"
