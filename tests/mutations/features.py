"""Mutations of locks, reliable topics, entry events and write-behind that random faults have to notice."""

from __future__ import annotations

from typing import Final

from tests.mutations.catalogue import LOCKS, STORES, Mutation

FEATURES: Final = "features campaign"
LOCK_LOAD: Final = "locks campaign"
TOPIC_LOAD: Final = "topics campaign"
EVENT_LOAD: Final = "events campaign"
BEHIND_LOAD: Final = "behind campaign"

EVENTS: Final = "cluster/structures/events.py"
BEHIND: Final = "cluster/structures/behind.py"
TOPIC_OWNER: Final = "cluster/topics/owner.py"
RING: Final = "cluster/topics/ring.py"
RELIABLE: Final = "cluster/topics/reliable.py"

FEATURE_MUTATIONS: Final = (
    Mutation(
        "let the owner end a lease before its holder does",
        LOCKS,
        "    return lease * (1 + DRIFT_MAX) + TRANSIT_MAX\n",
        "    return lease / 2\n",
        LOCK_LOAD,
        first=1,
    ),
    Mutation(
        "give a lock before the copies know of it",
        LOCKS,
        "        return verdict() if pending is None else _decided(pending.future, verdict)",
        "        return verdict()",
        LOCK_LOAD,
        first=1,
    ),
    Mutation(
        "ask a lock's owner for longer than there is time",
        "cluster/structures/router.py",
        "lambda remaining: min(patience, remaining), deadline",
        "lambda remaining: patience, deadline",
        LOCK_LOAD,
        first=13,
    ),
    Mutation(
        "say nothing of messages that were overwritten",
        RING,
        "                    found.missed.append(missed)\n",
        "                    found.missed.append(0)\n",
        TOPIC_LOAD,
    ),
    Mutation(
        "let a position point after messages that were not read",
        RELIABLE,
        "        return format_position(self._read)\n",
        "        return format_position(self._cursor or {})\n",
        TOPIC_LOAD,
    ),
    Mutation(
        "let an owner go on with a former owner's segment",
        RING,
        "            self._own = (stamp, origin)\n",
        "            last = self._segments.peekitem()[0] if self._segments else None\n"
        "            self._own = last or (stamp, origin)\n",
        TOPIC_LOAD,
        first=6,
    ),
    Mutation(
        "hear a member that comes back from its beginning",
        EVENTS,
        "                self._sources[member] = _Source(UNKNOWN)\n",
        "                pass\n",
        FEATURES,
        first=95,
    ),
    Mutation(
        "report a gap before what is older",
        EVENTS,
        "        if self._in_round:\n            self._heard.append(_Heard(",
        "        if False:\n            self._heard.append(_Heard(",
        FEATURES,
        first=95,
    ),
    Mutation(
        "do not hear all out when something may be missing",
        EVENTS,
        "(EVENT_BEGINS in reply.kinds or reply.missed < 0)",
        "EVENT_BEGINS in reply.kinds",
        FEATURES,
        first=95,
    ),
    Mutation(
        "forget in a token who was taken for dead",
        EVENTS,
        "        places += [[member, UNKNOWN, 0, 0] for member in self._former]\n",
        "",
        FEATURES,
        first=102,
    ),
    Mutation(
        "note as events what a stalled owner hears of others",
        "cluster/structures/event_owner.py",
        "        if map_name in self._maps and self._replication.stalled:\n",
        "        if False:\n",
        "tests/integration/test_entry_events.py::test_what_a_stalled_owner_hears_of_others_is_a_gap",
    ),
    Mutation(
        "hide from other copies that a store has a write",
        "cluster/replication/replica.py",
        "2 * entry.origin + (entry.value is None)",
        "2 * entry.origin",
        BEHIND_LOAD,
        first=69,
    ),
    Mutation(
        "take a write out of the queue that came after the one that was stored",
        BEHIND,
        "            if held is not None and held.version == entry.version:\n"
        "                tombstone = Entry(None, entry.hlc, entry.origin, ends_at)",
        "            if held is not None:\n"
        "                tombstone = Entry(None, held.hlc, held.origin, ends_at)",
        BEHIND_LOAD,
    ),
    Mutation(
        "let the queue of a store grow",
        STORES,
        "        if waiting >= store.config.queue_max:\n",
        "        if False:\n",
        BEHIND_LOAD,
        first=18,
    ),
    Mutation(
        "read from the store what waits to be deleted there",
        STORES,
        "            if waiting is not None and waiting.value is not None:\n",
        "            if False:\n",
        BEHIND_LOAD,
        first=1,
    ),
    Mutation(
        "give up on a store that failed once",
        BEHIND,
        "                longer = min(config.backoff_max,",
        "                return\n                longer = min(config.backoff_max,",
        BEHIND_LOAD,
        first=3,
    ),
)
