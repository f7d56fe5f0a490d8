"""What the three scripts do to the hash of a session: the only thing in the protocol that happens at once.

A hash is None (absent), `(FILLING, lease, live, floor)` or `(FULL, version, whole, young)`. `whole` says whether the
content is exactly what the version names (I2); only a removed rule makes it false. `young` is false past the
absolute maximum age.
"""

from __future__ import annotations

from contextmodel.versions import LOWEST, covers, each_part, join

FILLING = "filling"
FULL = "full"

SAME = "same"
HIT = "hit"
BUSY = "busy"
LEASE = "lease"


def get(rules, found, lease, least, have):
    """Return the hash after GET, and the answer: `same`, `hit`, `busy` or `lease`."""
    floor = LOWEST
    if found is not None:
        if found[0] is FULL:
            version = found[1]
            young = found[3] or not rules.maximum_age
            if young and (covers(version, least) or not rules.least):
                return found, SAME if _is_had(rules, version, have) else HIT
        elif found[2]:
            return found, BUSY
        elif not rules.floor_of_lease:
            floor = found[3]
    return (FILLING, lease, True, floor), LEASE


def _is_had(rules, version, have):
    if have is None or (have[0] != version[0] and rules.have_incarnation):
        return False
    return have[1] >= version[1] and have[2] >= version[2]


def fill(rules, found, lease, version):
    """Return the hash after FILL."""
    filling = found is not None and found[0] is FILLING
    if (filling and found[1] == lease) or (not rules.lease and (found is None or filling)):
        if found is None or _reaches(rules, version, found[3]):
            return (FULL, version, True, True)
        return None if rules.floor_of_lease else (FILLING, 0, False, found[3])
    if rules.refused_observes:
        return commit(rules, found, version, None, meta=False)
    return found


def _reaches(rules, version, floor):
    if not rules.floor:
        return True
    if not rules.fill_incarnation:
        return version[1:] >= floor[1:] and version[2] >= floor[2]
    if not rules.floor_parts:
        return version >= floor
    return covers(version, floor)


def commit(rules, found, version, first, *, meta):
    """Return the hash after COMMIT of the turns `first`..version and, where `meta`, META; without both, OBSERVE."""
    if found is None:
        return None
    lives = rules.observe_incarnation if first is None and not meta else rules.commit_incarnation
    if found[0] is FULL:
        return _written(rules, found, version, first, meta=meta, lives=lives)
    if not rules.floor:
        return found
    return (FILLING, found[1], found[2], (join if lives else each_part)(found[3], version))


def _written(rules, found, version, first, *, meta, lives):
    there = found[1]
    if lives and version[0] != there[0]:
        begins = rules.begins_in_place and first == 1 and meta
        higher = (FULL, version, True, True) if begins else None
        return higher if version[0] > there[0] else found
    grows, raises = version[1] > there[1], version[2] > there[2]
    if not (grows or raises):
        return found
    joins_on = not grows or (first is not None and first <= there[1] + 1)
    if (grows and first is None) or (rules.contiguity and not joins_on) or (raises and not meta and rules.whole_meta):
        return None
    whole = found[2] and joins_on and (meta or not raises) and version[0] == there[0]
    return (FULL, each_part(there, version), whole, found[3])
