"""Planted mutations of writes that are confirmed together, and of taking them apart."""

from __future__ import annotations

from typing import Final

from tests.mutations.catalogue import GATHERED, HOLDER, OWNERSHIP, SENDING, SERVICE, Mutation

BATCH: Final = "tests/unit/cluster/replication/test_pending_batch.py"
SENT: Final = "tests/unit/cluster/replication/test_sending.py"
SAFEGUARDS: Final = "tests/integration/test_safeguards.py"
MEMORY: Final = "tests/integration/test_memory.py"

WRITE_MUTATIONS: Final[tuple[Mutation, ...]] = (
    Mutation(
        "batches of writes: the first copy that confirms is enough",
        OWNERSHIP,
        "        elif self.waiting.pop(holder, self) is None and not self.waiting:\n",
        "        elif self.waiting.pop(holder, self) is None:\n",
        BATCH,
    ),
    Mutation(
        "batches of writes: anybody confirms them",
        OWNERSHIP,
        "        elif self.waiting.pop(holder, self) is None and not self.waiting:\n",
        "        elif self.waiting.pop(holder, None) is None:\n",
        BATCH,
    ),
    Mutation(
        "batches of writes: one that was taken apart is not confirmed",
        OWNERSHIP,
        "            for part in self.parts:\n                part.confirm(holder)\n",
        "            pass\n",
        BATCH,
    ),
    Mutation(
        "batches of writes: their parts wait for the owner's copies of now",
        OWNERSHIP,
        "        part.waiting = self.waiting.copy()\n",
        "",
        BATCH,
    ),
    Mutation(
        "batches of writes: their parts come after what was written later",
        OWNERSHIP,
        "            self.pending.update(parts if pending is batch else {pending: None})\n",
        "            self.pending.update({} if pending is batch else {pending: None})\n"
        "        self.pending.update(parts)\n",
        BATCH,
    ),
    Mutation(
        "batches of writes: answered with the first of their parts",
        OWNERSHIP,
        "        self._left -= 1\n        if not self._left:\n",
        "        self._left -= 1\n        if not self.is_over:\n",
        BATCH,
    ),
    Mutation(
        "batches of writes: a joining copy that was given up is one of the holders",
        OWNERSHIP,
        "            self.held_by = tuple(self.holders)\n            self.release(holder)\n",
        "            self.release(holder)\n",
        BATCH,
    ),
    Mutation(
        "batches of writes: a joining copy is not one of the holders",
        OWNERSHIP,
        "        self.holders[holder] = None\n        self.held_by = tuple(self.holders)\n",
        "        self.holders[holder] = None\n",
        BATCH,
    ),
    Mutation(
        "batches of writes: those of lost partitions are sent",
        SENDING,
        "                wanted += [one for one in _apart([pending]) if self._is_wanted(holder, one)]\n",
        "                wanted += [one for one in _apart([pending]) if holder]\n",
        SENT,
    ),
    Mutation(
        "batches of writes: a message of any size",
        SENDING,
        "                batch.count + count > BATCH_MAX or batch.size >= BATCH_BYTES_MAX\n",
        "                batch.count > BATCH_MAX or batch.size >= BATCH_BYTES_MAX\n",
        SENT,
    ),
    Mutation(
        "batches of writes: the first time to live is that of all",
        SENDING,
        "            columns.ttls if len(set(columns.ttls)) > 1 else columns.ttls[:1],\n",
        "            columns.ttls[:1],\n",
        SENT,
    ),
    Mutation(
        "batches of writes: slow ones are confirmed as they are",
        SENDING,
        "        if special or self._clock.monotonic() - sent_at > TRANSIT_MAX:\n",
        "        if special:\n",
        SENT,
    ),
    Mutation(
        "batches of writes: those with other copies travel along",
        SERVICE,
        "                batch = batches.get(held_by)\n",
        "                batch = next(iter(batches.values()), None)\n",
        GATHERED,
    ),
    Mutation(
        "batches of writes: nobody counts how many wait",
        SERVICE,
        "            self._unconfirmed_count += len(batch.keys)\n",
        "            self._unconfirmed_count += 1\n",
        MEMORY,
    ),
    Mutation(
        "batches of writes: one that is forgotten never ends",
        SERVICE,
        "            overdue += one.take_apart() if isinstance(one, PendingBatch) else (one,)\n",
        "            overdue += () if isinstance(one, PendingBatch) else (one,)\n",
        SAFEGUARDS,
    ),
    Mutation(
        "batches of writes: one absurd version refuses all",
        HOLDER,
        "            if refused and place in refused:\n                continue\n",
        "            if refused:\n                continue\n",
        GATHERED,
    ),
    Mutation(
        "batches of writes: an absurd version is taken",
        HOLDER,
        "            if refused and place in refused:\n                continue\n",
        "",
        GATHERED,
    ),
)
