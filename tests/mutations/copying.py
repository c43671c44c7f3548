"""Planted mutations of copying partitions: many entries at once, sent as columns, and the tables it takes."""

from __future__ import annotations

from typing import Final

from tests.mutations.catalogue import Mutation

DIGEST: Final = "cluster/replication/digest.py"
REPLICA: Final = "cluster/replication/replica.py"
CHUNKS: Final = "cluster/replication/chunks.py"
ASSIGNMENT: Final = "cluster/partitions/assignment.py"
BALANCE: Final = "cluster/partitions/balance.py"
COORDINATOR: Final = "cluster/partitions/coordinator.py"
COPYING: Final = "cluster/replication/copying.py"
ENTRIES: Final = "cluster/replication/entries.py"
HOLDER: Final = "cluster/replication/holder.py"
REPAIR: Final = "cluster/replication/repair.py"
MESSAGES: Final = "cluster/wire/messages.py"
PARTITIONS: Final = "cluster/partitions/service.py"
ROOM: Final = "cluster/replication/room.py"
SERVICE: Final = "cluster/replication/service.py"
TABLE: Final = "cluster/partitions/table.py"
TRANSIT: Final = "cluster/replication/transit.py"

ASSIGNMENT_TESTS: Final = "tests/unit/cluster/partitions/test_assignment.py"
RULES: Final = "tests/unit/cluster/partitions/test_coordinator_rules.py"
CHUNK_TESTS: Final = "tests/unit/cluster/replication/test_chunks.py"
TABLE_TESTS: Final = "tests/unit/cluster/partitions/test_table.py"
TESTS: Final = "tests/integration/test_copying.py"
DIGEST_TESTS: Final = "tests/unit/cluster/replication/test_digest.py"
FILL_TESTS: Final = "tests/unit/cluster/replication/test_fill.py"
FOLLOWING_TESTS: Final = "tests/integration/test_following_tables.py"

COPYING_MUTATIONS: Final[tuple[Mutation, ...]] = (
    Mutation(
        "copying: an entry is put over a later one",
        REPLICA,
        "            is_new = held.keys().isdisjoint(fresh)\n",
        "            is_new = True\n",
        FILL_TESTS,
    ),
    Mutation(
        "copying: of two versions of a key in one batch the last one stays",
        REPLICA,
        "        if is_watched or len(fresh) < len(keys):\n",
        "        if is_watched:\n",
        FILL_TESTS,
    ),
    Mutation(
        "copying: a listener hears nothing",
        REPLICA,
        "is_watched = self.listener is not None or map_name in self._views",
        "is_watched = map_name in self._views",
        FILL_TESTS,
    ),
    Mutation(
        "copying: a view misses what is filled in",
        REPLICA,
        "is_watched = self.listener is not None or map_name in self._views or ",
        "is_watched = self.listener is not None or ",
        FILL_TESTS,
    ),
    Mutation(
        "copying: no books are kept of what is filled in",
        REPLICA,
        "map_name in self._views or map_name in self.kept\n",
        "map_name in self._views\n",
        FILL_TESTS,
    ),
    Mutation(
        "copying: entries that are filled in never end",
        REPLICA,
        "            if entry.expires_at < NO_END:\n                self._remember_expiry(map_name, key, ",
        "            if entry.expires_at < 0:\n                self._remember_expiry(map_name, key, ",
        FILL_TESTS,
    ),
    Mutation(
        "copying: memory of what is filled in does not count",
        REPLICA,
        "        self._count(size, ENTRY_BYTES * len(fresh))\n",
        "        self._count(size)\n",
        FILL_TESTS,
    ),
    Mutation(
        "copying: the total of a digest misses what is filled in",
        DIGEST,
        "        self.total = reduce(xor, digests, self.total)\n",
        "        reduce(xor, digests, self.total)\n",
        FILL_TESTS,
    ),
    Mutation(
        "copying: buckets are cut by what partitions are cut by",
        DIGEST,
        "        buckets[hashed >> _BUCKET_SHIFT] ^= digest\n",
        "        buckets[hashed % BUCKET_COUNT] ^= digest\n",
        DIGEST_TESTS,
    ),
    Mutation(
        "copying: a digest forgets what was in it",
        DIGEST,
        "reduce(xor, digests, self.total)",
        "reduce(xor, digests, 0)",
        DIGEST_TESTS,
    ),
    Mutation(
        "copying: buckets do not tell an end from what it ends",
        REPLICA,
        "            origins = [self._origin(name, entry) for entry in entries.values()]\n",
        "            origins = [entry.origin for entry in entries.values()]\n",
        FILL_TESTS,
    ),
    Mutation(
        "copying: a digest goes by the first origin only",
        REPLICA,
        "[e.origin for e in entries])",
        "[e.origin for e in entries][:1] * len(fresh))",
        FILL_TESTS,
    ),
    Mutation(
        "copying: a tombstone comes back as a live entry",
        ENTRIES,
        "ttls[0] == NEVER and None not in values:\n",
        "ttls[0] == NEVER:\n",
        CHUNK_TESTS,
    ),
    Mutation(
        "copying: one time to live is taken for that of all",
        CHUNKS,
        "        is_endless = ends.count(math.inf) == len(ends)\n",
        "        is_endless = ends[0] == math.inf\n",
        CHUNK_TESTS,
    ),
    Mutation(
        "copying: one origin is taken for that of all",
        CHUNKS,
        "origins[:1] if origins.count(origins[0]) == len(origins) else origins,",
        "origins[:1],",
        CHUNK_TESTS,
    ),
    Mutation(
        "copying: a message has whatever size its first entries let expect",
        CHUNKS,
        "            if size <= 2 * room or len(present) <= 1:\n",
        "            if size:\n",
        CHUNK_TESTS,
    ),
    Mutation(
        "copying: the rest of a slice that was cut is left out",
        CHUNKS,
        "        self._at += len(keys)\n",
        "        self._at += max(1, room // self._entry_bytes)\n",
        CHUNK_TESTS,
    ),
    Mutation(
        "copying: keys that are gone stop it",
        CHUNKS,
        "                present = [key for key in keys if key in entries]\n",
        "                present = list(keys)\n",
        CHUNK_TESTS,
    ),
    Mutation(
        "copying: a time to live that may be too long is not noted",
        TRANSIT,
        " if ttl != NEVER and value is not None]\n",
        " if ttl == NEVER and value is not None]\n",
        CHUNK_TESTS,
    ),
    Mutation(
        "copying: columns of any length are taken",
        MESSAGES,
        "        if not 0 < sum(self.counts) == count:\n",
        "        if count and sum(self.counts) < 0:\n",
        "tests/unit/cluster/wire/test_copy_entries.py",
    ),
    Mutation(
        "copying: an older owner goes on copying",
        HOLDER,
        "        self._check_epoch(message.partition, message.epoch, peer)\n"
        "        self._raise_fence(message.partition, message.epoch)\n"
        "        if not self._replication.hlc.observe(max(",
        "        self._raise_fence(message.partition, message.epoch)\n"
        "        if not self._replication.hlc.observe(max(",
        TESTS,
    ),
    Mutation(
        "copying: an owner before is not fenced",
        HOLDER,
        "        self._raise_fence(message.partition, message.epoch)\n"
        "        if not self._replication.hlc.observe(max(",
        "        if not self._replication.hlc.observe(max(",
        TESTS,
    ),
    Mutation(
        "copying: a stalled holder takes lives that may have grown old",
        HOLDER,
        "        if self._replication.stalled and any(ttl != NEVER for ttl in message.ttls):\n",
        "        if self._replication.stalled and not message.ttls:\n",
        TESTS,
    ),
    Mutation(
        "copying: later versions of a holder stay unknown",
        HOLDER,
        "                if replica.is_later(name, key, entry):\n",
        "                if not replica.is_later(name, key, entry):\n",
        TESTS,
    ),
    Mutation(
        "copying: a chunk that was long on the way counts as taken",
        COPYING,
        "        check_transit(self._clock.monotonic() - sent_at)\n",
        "",
        "tests/integration/test_ttl_in_transit.py",
    ),
    Mutation(
        "copying: every copy counts as empty",
        REPAIR,
        "            _Unequal(owned, count == 0, away)\n",
        "            _Unequal(owned, True, away)\n",
        TESTS,
    ),
    Mutation(
        "copying: an empty copy is asked what is in it",
        REPAIR,
        "            _Unequal(owned, count == 0, away)\n",
        "            _Unequal(owned, False, away)\n",
        TESTS,
    ),
    Mutation(
        "copying: the window is for each partition by itself",
        COPYING,
        "self._windows.setdefault(address, asyncio.Semaphore(self._window))",
        "asyncio.Semaphore(self._window)",
        TESTS,
    ),
    Mutation(
        "tables: a complete copy is not looked at",
        COORDINATOR,
        "                    self._caught_up[pair] = None\n"
        "                    self._reported[pair[0]] = None\n",
        "                    self._caught_up[pair] = None\n",
        RULES,
    ),
    Mutation(
        "tables: a released partition is not looked at",
        COORDINATOR,
        "            self._released[partition] = owner\n            self._reported[partition] = None\n",
        "            self._released[partition] = owner\n",
        RULES,
    ),
    Mutation(
        "tables: a refused epoch is not looked at",
        COORDINATOR,
        "            self._renewed[partition] = None\n            self._reported[partition] = None\n",
        "            self._renewed[partition] = None\n",
        RULES,
    ),
    Mutation(
        "tables: a struck copy is not looked at",
        COORDINATOR,
        "            self._struck[partition, replica] = None\n"
        "            self._reported[partition] = None\n",
        "            self._struck[partition, replica] = None\n",
        f"{RULES}::test_a_struck_copy_joins_anew",
    ),
    Mutation(
        "tables: rows stay as they are when members die",
        COORDINATOR,
        " and changed.isdisjoint(still[0].holders)\n",
        "\n",
        f"{RULES}::test_a_leaver_that_dies_is_replaced_in_every_row",
    ),
    Mutation(
        "tables: rows stay as they are when targets change",
        COORDINATOR,
        "if targets[partition] == aims[partition] and changed",
        "if changed",
        RULES,
    ),
    Mutation(
        "tables: who is to release is forgotten",
        COORDINATOR,
        "self._still[partition] = (row, releasing)",
        "self._still[partition] = (row, None)",
        RULES,
    ),
    Mutation(
        "tables: rows stay as they are when a split heals",
        COORDINATOR,
        "        if self._merged or len(aims) != len(targets):\n",
        "        if len(aims) != len(targets):\n",
        f"{RULES}::test_every_epoch_begins_anew_after_a_split_at_rest",
    ),
    Mutation(
        "tables: a row goes into another place",
        TABLE,
        "                changed[place] = row\n",
        "                changed[-1 - place] = row\n",
        TABLE_TESTS,
    ),
    Mutation(
        "tables: changes to one table are made to another",
        TABLE,
        '        _require(record.base == _version_to_record(self.id), "changes another table")\n',
        "",
        TABLE_TESTS,
    ),
    Mutation(
        "tables: a place counts from the end",
        TABLE,
        "all(0 <= place < len(self.rows) for place in places)",
        "all(place < len(self.rows) for place in places)",
        TABLE_TESTS,
    ),
    Mutation(
        "tables: a holder may be without an address",
        TABLE,
        "        if not self.addresses.keys() <= table.addresses.keys():\n",
        "        if not table.addresses:\n",
        TABLE_TESTS,
    ),
    Mutation(
        "tables: whoever has another table is sent changes for ever",
        PARTITIONS,
        "        self._confirmed.pop(member.id, None)\n        return base is not None and",
        "        return base is None and",
        TESTS,
    ),
    Mutation(
        "tables: a copy is given to two members",
        BALANCE,
        "            if item != given:\n",
        "            if item is not None:\n",
        ASSIGNMENT_TESTS,
    ),
    Mutation(
        "tables: a member is given more than its share",
        BALANCE,
        "                full[taker] = loads[taker] >= lower[taker]\n",
        "",
        ASSIGNMENT_TESTS,
    ),
    Mutation(
        "tables: who left a partition to another offers it on",
        ASSIGNMENT,
        "                offered[other].pop(partition, None)\n",
        "                offered[other].get(partition)\n",
        ASSIGNMENT_TESTS,
    ),
    Mutation(
        "tables: a copy yet to be made becomes an owner at once",
        ASSIGNMENT,
        "for fresh in (self._fresh, None):",
        "for fresh in (None,):",
        ASSIGNMENT_TESTS,
    ),
    Mutation(
        "tables: members are sent the table before",
        "cluster/partitions/updates.py",
        "            self._target = table\n            self._made.clear()\n",
        "            self._target = table\n",
        FOLLOWING_TESTS,
    ),
    Mutation(
        "tables: every fifth is told to nobody",
        PARTITIONS,
        "        self._coordinator.adopt(table)\n        self._announce(old)\n",
        "        self._coordinator.adopt(table)\n"
        "        if table.id.version % 5:\n"
        "            self._announce(old)\n",
        FOLLOWING_TESTS,
    ),
    Mutation(
        "tables: a row counts as changed only when its owner is another",
        TABLE,
        "enumerate(pairs) if before is not row]",
        "enumerate(pairs) if before.owner != row.owner]",
        FOLLOWING_TESTS,
    ),
    Mutation(
        "tables: a partition that was not handed over is not served again",
        SERVICE,
        "dict.fromkeys((*new.changed_since(old), *frozen))",
        "new.changed_since(old)",
        TESTS,
    ),
    Mutation(
        "tables: copies that are gone take room for ever",
        ROOM,
        "        self._held.subtract(holder for p in changed for holder in old.rows[p].holders)\n",
        "",
        "tests/unit/cluster/replication/test_room.py",
    ),
)
