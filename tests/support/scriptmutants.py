"""Scripts weakened on purpose, one rule each, and which rule: the cases must catch every one of them."""

from __future__ import annotations

from dataclasses import dataclass

from redises import SCRIPTS


@dataclass(frozen=True)
class Mutant:
    """A script in which something is missing.

    Attributes:
        script: its name.
        missing: what it does without.
        changes: text, and what stands there instead.
    """

    script: str
    missing: str
    changes: tuple[tuple[str, str], ...]

    def __str__(self) -> str:
        return f"{self.script}: {self.missing}"

    def text(self) -> str:
        """Return the weakened script; raises ValueError where the text to be changed does not stand there once."""
        text = SCRIPTS[self.script].text
        for old, new in self.changes:
            if text.count(old) != 1:
                raise ValueError(f"{self}: {old!r} stands {text.count(old)} times in the script")
            text = text.replace(old, new)
        return text


MUTANTS = (
    Mutant("get", "what was seen", (("local enough = ", "local enough = true or "),)),
    Mutant("get", "what was seen, revision", ((" and least_r <= r)", ")"),)),
    Mutant("get", "what was seen, turn", ((" and least_t <= t and", " and"),)),
    Mutant(
        "get",
        "each part compared",
        (("least_t <= t and least_r <= r", "(least_t < t or (least_t == t and least_r <= r))"),),
    ),
    Mutant("get", "an earlier life is enough", (("local enough = least_i < i or ", "local enough = "),)),
    Mutant("get", "the stale context's end", (("  redis.call('DEL', key)\nelseif", "elseif"),)),
    Mutant("get", "the maximum age", ((" and age <= tonumber(ARGV[4])", ""),)),
    Mutant("get", "an age that is none", (("age >= 0 and ", ""),)),
    Mutant("get", "the life of what is held", (("if tonumber(ARGV[9]) == i then", "if true then"),)),
    Mutant("get", "META where it alone is older", (("if have_t >= t and have_r >= r then", "if have_t >= t then"),)),
    Mutant(
        "get", "turns where they alone are older", (("if have_t >= t and have_r >= r then", "if have_r >= r then"),)
    ),
    Mutant("get", "META in a hit", (("if have_r < r then meta", "if false then meta"),)),
    Mutant("get", "the window's beginning", (("math.max(have_t + 1, tonumber(h[4]))", "have_t + 1"),)),
    Mutant("get", "the sliding expiry", (("      redis.call('PEXPIRE', key, ARGV[3])\n", ""),)),
    Mutant("get", "waiting for a lease", (("if left > 0 and left", "if false and left"),)),
    Mutant("get", "the lease's end", (("if left > 0 and left <= tonumber(ARGV[2]) then", "if true then"),)),
    Mutant("get", "the longest that a lease may last", ((" and left <= tonumber(ARGV[2])", ""),)),
    Mutant(
        "get",
        "a floor of the lease's own",
        (
            (", 'fi', -1, 'ft', -1, 'fr', -1)", ", 'fi', h[8] or -1, 'ft', h[9] or -1, 'fr', h[10] or -1)"),
            ("'l', 'lx')\n", "'l', 'lx', 'fi', 'ft', 'fr')\n"),
        ),
    ),
    Mutant("get", "the lease's expiry", (("redis.call('PEXPIRE', key, ARGV[2] * 4)\n", ""),)),
    Mutant("commit", "no hole between", ((" and first <= t + 1)", ")"),)),
    Mutant("commit", "the turns counted", (("count == to_t - first + 1 and", "count >= to_t - first + 1 and"),)),
    Mutant(
        "commit", "turns that belong to the number", (("local holds_turns = to_t <= t or ", "local holds_turns = "),)
    ),
    Mutant("commit", "META that belongs to the revision", ((" or (to_r > r and meta == '')", ""),)),
    Mutant("commit", "late is known", (("(to_i == i and to_t <= t and to_r <= r)", "false"),)),
    Mutant(
        "commit",
        "each part compared",
        (("to_t <= t and to_r <= r)", "(to_t < t or (to_t == t and to_r <= r)))"),),
    ),
    Mutant("commit", "an earlier life", (("if to_i < i or (to_i == i and ", "if (to_i <= i and "),)),
    Mutant(
        "commit", "a later life", (("(to_i == i and to_t <= t", "(to_t <= t"), ("if to_i > i then", "if false then"))
    ),
    Mutant("commit", "a later life's first turn", (("count ~= to_t or count == 0 or", "count ~= to_t or"),)),
    Mutant(
        "commit", "the earlier life's end", (("  redis.call('DEL', key)\n  redis.call('HSET'", "  redis.call('HSET'"),)
    ),
    Mutant(
        "commit",
        "the age kept",
        (("local at = redis.call('HGET', key, 'at')", "local at = redis.call('TIME')[1] * 1000"),),
    ),
    Mutant("commit", "a newer turn keeps META's revision", (("if to_r > r then\n", "if meta ~= '' then\n"),)),
    Mutant("commit", "the window's move", (("math.max(lo, to_t - window + 1)", "lo"),)),
    Mutant("commit", "the window's bound", (("math.max(t + 1, to_t - window + 1), to_t do", "t + 1, t + 1 do"),)),
    Mutant(
        "commit",
        "what is not known goes",
        (
            (
                "  redis.call('DEL', key)\n  return {'deleted', -1, -1, -1}\nend\n\nlocal fields",
                "  return {'deleted', -1, -1, -1}\nend\n\nlocal fields",
            ),
        ),
    ),
    Mutant(
        "commit",
        "the floor",
        (("  local fi, ft, fr", "  if true then return {'filling', -1, -1, -1} end\n  local fi, ft, fr"),),
    ),
    Mutant("commit", "the floor's turn", (("math.max(ft, to_t)", "ft"),)),
    Mutant("commit", "a floor that does not sink", (("math.max(fr, to_r)", "to_r"),)),
    Mutant("commit", "the floor of a later life", (("if to_i > fi then", "if false then"),)),
    Mutant("commit", "the floor of an earlier life", (("elseif to_i == fi then", "else"),)),
    Mutant("commit", "the sliding expiry", (("redis.call('PEXPIRE', key, ARGV[1])\n", ""),)),
    Mutant("fill", "the floor", (("  if to_i < fi or", "  if false and"),)),
    Mutant("fill", "the floor's revision", (("(to_t < ft or to_r < fr)", "(to_t < ft)"),)),
    Mutant("fill", "each part of the floor", (("or to_r < fr)", "or (to_t == ft and to_r < fr))"),)),
    Mutant(
        "fill",
        "the floor's life",
        (("to_i < fi or (to_i == fi and (to_t < ft or to_r < fr))", "to_t < ft or to_r < fr"),),
    ),
    Mutant("fill", "a floor of an earlier life", (("if to_i < fi or (", "if ("),)),
    Mutant("fill", "the lease compared", (("if h[4] and h[4] == ARGV[8] then", "if h[4] then"),)),
    Mutant(
        "fill",
        "a lease at all",
        (("if h[4] and h[4] == ARGV[8] then", "if not i then"), (" fi or (to_i", " (fi or -1) or (to_i")),
    ),
    Mutant("fill", "the lease's end", (("  redis.call('DEL', key)\n  if to_i", "  if to_i"),)),
    Mutant("fill", "the window", (("local lo = math.max(first, to_t - window + 1)", "local lo = first"),)),
    Mutant("fill", "the expiry", (("  redis.call('PEXPIRE', key, ARGV[1])\n", ""),)),
    Mutant("fill", "a refused one's OBSERVE of what is full", (("then redis.call('DEL', key) end", "then end"),)),
    Mutant("fill", "a refused one's revision", (("(to_t > t or to_r > r)", "to_t > t"),)),
    Mutant("fill", "a refused one's life", (("if to_i > i or (to_i == i and ", "if (to_i == i and "),)),
    Mutant("fill", "an earlier life refused", (("(to_i == i and (to_t > t or to_r > r))", "to_t > t or to_r > r"),)),
    Mutant("fill", "a refused one's floor", (("elseif h[4] then", "elseif false then"),)),
    Mutant("fill", "a refused one's floor's turn", (("math.max(ft, to_t)", "ft"),)),
    Mutant("fill", "a refused one's floor that does not sink", (("math.max(fr, to_r)", "to_r"),)),
    Mutant("fill", "a refused one's floor of a later life", (("  if to_i > fi then", "  if false then"),)),
    Mutant("fill", "a refused one's floor of an earlier life", (("elseif to_i == fi then", "else"),)),
    Mutant(
        "release", "the lease compared", (("if redis.call('HGET', KEYS[1], 'l') ~= ARGV[1] then return 0 end\n", ""),)
    ),
    Mutant(
        "discard", "a look at the state", (("if redis.call('HEXISTS', KEYS[1], 'i') == 0 then return 0 end\n", ""),)
    ),
)
