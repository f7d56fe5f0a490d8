"""What a cell comes to: from every call and every meter to the figures of the page."""

from __future__ import annotations

import json
import math
from bisect import bisect_left, bisect_right
from collections import Counter
from itertools import pairwise

from faultcells.crowd import LIMIT_UNITS, LIMIT_WINDOW_S

TENTH_S = 0.1
GOAL = 0.99
DURABLE = frozenset({"append", "update", "summary"})
NO_FAILURE = frozenset({"ok", "conflict"})
"""A conflict is an answer: somebody else was first."""
HIT = frozenset({"memory", "redis", "dax"})


def read_results(path):
    """Return what was found in each cell of a run."""
    return json.loads(path.read_text(encoding="utf-8"))


def percentile(values, share):
    """Return the value below which so many are; None of none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, math.ceil(share * len(ordered)) - 1)] if ordered else None


def bound_95(violations, operations):
    """Return the rate below which the truth is, with 95 % confidence: of none in n, the rule of three's exact form."""
    if not operations:
        return None
    if not violations:
        return 1 - 0.05 ** (1 / operations)
    # Wilson's upper bound does for what should not be there at all.
    z, n, share = 1.645, operations, violations / operations
    middle = share + z * z / (2 * n)
    spread = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return (middle + spread) / (1 + z * z / n)


class Course:
    """The calls of a cell in the order in which they returned, by tenths of a second from its beginning."""

    def __init__(self, samples, *, began_s, ended_s):
        self.began_s = began_s
        self.tenths = max(1, round((ended_s - began_s) / TENTH_S))
        self.samples = sorted(samples, key=lambda sample: sample.returned_s)
        self.good = [0] * self.tenths
        self.bad = [0] * self.tenths
        self.reads = [0] * self.tenths
        self.hits = [0] * self.tenths
        for sample in self.samples:
            place = int((sample.returned_s - began_s) / TENTH_S)
            if not 0 <= place < self.tenths:
                continue
            good = sample.outcome in NO_FAILURE or (sample.kind, sample.outcome) == ("take", "rejected")
            self.good[place] += good
            self.bad[place] += not good
            if sample.kind == "read" and good:
                self.reads[place] += 1
                self.hits[place] += sample.source in HIT

    def place(self, at_s):
        return min(self.tenths, max(0, int((at_s - self.began_s) / TENTH_S)))

    def rate(self, from_s, to_s):
        """Return good calls a second."""
        first, last = self.place(from_s), self.place(to_s)
        return sum(self.good[first:last]) / max(TENTH_S, (last - first) * TENTH_S)

    def back_s(self, healed_s, healthy):
        """Return how long after the healing a second begins that has 99 % of the healthy throughput; None: never."""
        first = self.place(healed_s)
        for place in range(first, self.tenths - 9):
            if sum(self.good[place : place + 10]) >= GOAL * healthy:
                return round(max(0.0, (place - first) * TENTH_S), 1)
        return None

    def longest_outage_s(self):
        """Return the longest time without a single good call."""
        times = [self.began_s, *(sample.returned_s for sample in self.samples if sample.outcome in NO_FAILURE)]
        times = [at_s for at_s in times if at_s >= self.began_s]
        gaps = [later - earlier for earlier, later in pairwise(times)]
        return round(max(gaps, default=0.0), 3)

    def availability(self):
        """Return the share of good calls in each tenth; None where none returned."""
        return [
            round(good / (good + bad), 3) if good + bad else None for good, bad in zip(self.good, self.bad, strict=True)
        ]

    def latencies(self, from_s, to_s):
        """Return p50 and p99 in ms of the good reads and appends between."""
        found = {}
        for kind in ("read", "append"):
            taken = [
                (sample.returned_s - sample.invoked_s) * 1000
                for sample in self.samples
                if sample.kind == kind and sample.outcome == "ok" and from_s <= sample.invoked_s < to_s
            ]
            found[kind] = {
                "p50_ms": _rounded(percentile(taken, 0.5)),
                "p99_ms": _rounded(percentile(taken, 0.99)),
                "calls": len(taken),
            }
        return found

    def hit_ratio(self):
        """Return by second which share of the reads was answered without reading the session in DynamoDB."""
        ratios = []
        for first in range(0, self.tenths, 10):
            reads, hits = sum(self.reads[first : first + 10]), sum(self.hits[first : first + 10])
            ratios.append(round(hits / reads, 3) if reads else None)
        return ratios


def _rounded(value):
    return None if value is None else round(value, 2)


def over_admitted(takes):
    """Return by how many units any window of a customer's certainly had too many.

    An admission happened somewhere between its call and its answer; only those count that lie wholly in the window.
    """
    worst = 0
    for customer in {customer for customer, _, _ in takes}:
        spans = sorted((began_s, ended_s) for who, began_s, ended_s in takes if who == customer)
        begins = [began_s for began_s, _ in spans]
        for began_s in begins:
            first, last = bisect_left(begins, began_s), bisect_right(begins, began_s + LIMIT_WINDOW_S)
            inside = sum(ended_s < began_s + LIMIT_WINDOW_S for _, ended_s in spans[first:last])
            worst = max(worst, inside - LIMIT_UNITS)
    return worst


def counted(samples):
    """Return how many calls of each kind ended how."""
    table: dict[str, Counter] = {}
    for sample in samples:
        table.setdefault(sample.kind, Counter())[sample.outcome] += 1
    return {kind: dict(sorted(outcomes.items())) for kind, outcomes in sorted(table.items())}


def by_tenth(rows, name, course):
    """Return how much a counter grew in each tenth."""
    grown = [0] * course.tenths
    for before, after in pairwise(rows):
        place = int((after["at_s"] - course.began_s) / TENTH_S)
        if 0 <= place < course.tenths:
            grown[place] += after[name] - before[name]
    return grown


def between(rows, name, from_s, to_s):
    """Return by how much a counter grew a second between two times."""
    inside = [row for row in rows if from_s <= row["at_s"] <= to_s]
    if len(inside) < 2:
        return 0.0
    return (inside[-1][name] - inside[0][name]) / max(TENTH_S, inside[-1]["at_s"] - inside[0]["at_s"])
