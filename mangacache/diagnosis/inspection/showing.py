"""A session's tiers for people: a column a tier, and under it what they disagree on."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from typing import TYPE_CHECKING

from mangacache.diagnosis.inspection.tiers import Failed, InDax, InMemory, InRedis
from mangacache.diagnosis.printable import printable
from mangacache.model import Version

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from mangacache.diagnosis.inspection.comparing import Difference
    from mangacache.diagnosis.inspection.tiers import InDynamoDB, Tiers
    from mangacache.sessions.copies import Copy, MetaCopy, TurnCopy

ROWS = (
    "state",
    "version",
    "turns",
    "newest turn",
    "META",
    "customer",
    "attributes",
    "summary",
    "lock's fence",
    "lease, floor",
    "age",
    "TTL left",
    "size",
)


def show(tiers: Tiers, found: Sequence[Difference]) -> None:
    """Write a session's tiers to the standard output."""
    if sys.stdout.isatty() and find_spec("rich") is not None:
        _draw(tiers)
    else:
        for line in table_lines(tiers):
            sys.stdout.write(f"{printable(line)}\n")
    for line in lines(tiers, found):
        sys.stdout.write(f"{printable(line)}\n")


def columns(tiers: Tiers) -> dict[str, Mapping[str, str]]:
    """Return the table's columns by name, each a mapping from row to cell."""
    found: dict[str, Mapping[str, str]] = {"dynamodb": _dynamodb(tiers.dynamodb)}
    if tiers.redis is not None:
        found["redis"] = _redis(tiers.redis) if isinstance(tiers.redis, InRedis) else _failed(tiers.redis)
    if tiers.dax is not None:
        found["dax"] = _dax(tiers.dax) if isinstance(tiers.dax, InDax) else _failed(tiers.dax)
    for number, memory in enumerate(tiers.memory, start=1):
        found[f"memory {number}"] = _memory(memory) if isinstance(memory, InMemory) else _failed(memory)
    return found


def table_lines(tiers: Tiers) -> Iterator[str]:
    """Iterate over the table's plain lines; rows that are empty everywhere are left out."""
    shown = columns(tiers)
    widths = {name: max(len(name), *(len(cells.get(row, "")) for row in ROWS)) for name, cells in shown.items()}
    yield "  ".join([f"{'':<12}", *(f"{name:<{widths[name]}}" for name in shown)]).rstrip()
    for row in ROWS:
        cells = [f"{shown[name].get(row, ''):<{widths[name]}}" for name in shown]
        if any(cell.strip() for cell in cells):
            yield "  ".join([f"{row:<12}", *cells]).rstrip()


def lines(tiers: Tiers, found: Sequence[Difference]) -> Iterator[str]:
    """Iterate over what is said under the table."""
    if tiers.lock is not None:
        lock = tiers.lock
        state = f"held for another {lock.lease_left_ms} ms" if lock.held else "free"
        yield f"lock: {state}, {lock.waiting} waiting"
    for one in tiers.connections:
        place = f" at {one.endpoint}" if one.endpoint else ""
        life = f", for another {one.ttl_ms / 1000:.0f} s" if one.mapped else ", which is not mapped here any more"
        yield f"connection: {one.id}{place}{life}"
    if tiers.dynamodb.moved:
        yield "the session was written to while it was looked at"
    yield from _words(tiers.dynamodb.copy)
    for each in found:
        why = f"{each.why[:1].upper()}{each.why[1:]}"
        yield f"{'allowed' if each.allowed else 'WRONG'}: {each.tier}: {each.what}. {why}."
    if not found:
        yield "The tiers agree."


def _words(copy: Copy) -> Iterator[str]:
    for turn in copy.turns:
        if turn.content is not None:
            yield f"turn {turn.number}, {turn.role}: {turn.content}"
    if copy.summary is not None and copy.summary.text is not None:
        yield f"summary up to {copy.summary.upto}: {copy.summary.text}"
    if copy.meta is not None and copy.meta.values:
        for name, value in copy.meta.values.items():
            yield f"attribute {name}: {value}"


def _dynamodb(found: InDynamoDB) -> dict[str, str]:
    copy = found.copy
    state = "nothing stored" if copy.meta is None and not copy.turns else "stored"
    state = "another writer's" if copy.foreign else state
    extra = [f"adopting ({found.adopting})"] * bool(found.adopting) + ["old turns unswept"] * found.unswept
    return _copied(copy) | {
        "state": ", ".join([state, *extra]),
        "lock's fence": str(found.fence) if found.fence else "",
        "age": f"touched {found.last_active_at}, at {found.last_number}" if found.last_active_at else "",
        "TTL left": f"{found.expires_in_s / 86_400:.1f} days" if found.expires_in_s is not None else "",
        "size": f"{found.item_bytes} bytes" if found.item_bytes else "",
    }


def _redis(found: InRedis) -> dict[str, str]:
    cells = _copied(found.copy) if found.copy is not None else {}
    cells["state"] = found.state + (", an earlier epoch's is there still" if found.earlier else "")
    if found.lease_left_ms is not None:
        floor = f", floor {Version(*found.floor)}" if found.floor is not None else ", no floor"
        cells["lease, floor"] = f"{found.lease_left_ms} ms{floor}"
    if found.age_s is not None:
        cells["age"] = f"filled {found.age_s:.1f} s ago"
    if found.state != "absent":
        cells["TTL left"] = "NONE" if found.ttl_ms < 0 else f"{found.ttl_ms / 1000:.1f} s"
    if found.memory_bytes is not None:
        cells["size"] = f"{found.memory_bytes} bytes"
    return cells


def _dax(found: InDax) -> dict[str, str]:
    cells = {"state": "META is absent" if found.meta is None else "as DAX has it", "age": "up to its TTL"}
    if found.meta is not None:
        cells |= _meta(found.meta)
    if found.newest is not None:
        cells["newest turn"] = _newest(found.newest)
    return cells


def _memory(found: InMemory) -> dict[str, str]:
    held = found.remembered
    if held is None or held.copy is None:
        return {"state": "nothing held"}
    waiting = f", {held.waiting} messages wait" if held.waiting else ""
    validated = f"validated {held.validated_s:.1f} s ago" if held.validated_s is not None else "never validated"
    state = {"state": f"{'busy' if held.busy else 'idle'}{waiting}", "age": validated, "size": f"{held.kib} KiB"}
    return _copied(held.copy) | state


def _failed(found: Failed) -> dict[str, str]:
    return {"state": f"could not be looked at: {found.why}"}


def _copied(copy: Copy) -> dict[str, str]:
    cells = {"version": str(Version(*copy.version))}
    if copy.turns:
        first, last = copy.turns[0].number, copy.turns[-1].number
        cells["turns"] = f"{len(copy.turns)}: {first} to {last}"
        cells["newest turn"] = _newest(copy.turns[-1])
    if copy.meta is not None:
        cells |= _meta(copy.meta)
    if copy.summary is not None:
        cells["summary"] = f"up to {copy.summary.upto}, {copy.summary.text_bytes} bytes"
    return cells


def _meta(meta: MetaCopy) -> dict[str, str]:
    return {
        "META": f"{meta.status}, life {meta.incarnation}, revision {meta.revision}",
        "customer": meta.customer_id or "",
        "attributes": ", ".join(meta.attributes),
    }


def _newest(turn: TurnCopy) -> str:
    return f"{turn.number} {turn.role} {turn.turn_id[:12]}, {turn.content_bytes} bytes, {turn.created_at}"


def _draw(tiers: Tiers) -> None:
    from rich.console import Console  # noqa: PLC0415 - an extra that need not be there
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    shown = columns(tiers)
    table = Table(title=f"session {printable(tiers.session_id)}", title_justify="left")
    table.add_column("")
    for name in shown:
        table.add_column(name)
    for row in ROWS:
        cells = [shown[name].get(row, "") for name in shown]
        if any(cells):
            table.add_row(row, *(Text(printable(cell)) for cell in cells))
    Console().print(table)
