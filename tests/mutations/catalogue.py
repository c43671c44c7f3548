"""Planted mutations: each takes one safeguard out of the source, and names what has to notice.

A mutation is a text that stands exactly once in a file, and what to put there instead, so that a mutation
whose safeguard was rewritten fails loudly (`test_catalogue.py`). `task mutants` applies each one to a copy of
the package and runs its killer there, which must fail; the table it makes is docs/mutations.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

CAMPAIGN: Final = "campaign"


@dataclass(frozen=True, slots=True)
class Mutation:
    """One safeguard less."""

    name: str
    file: str
    """Path below `cache/`."""
    old: str
    new: str
    killer: str = CAMPAIGN
    """`campaign` for random seeds, else what pytest is to run."""
    first: int = 0
    """For the campaign: the seed to begin with, one that is known to notice."""


SERVICE: Final = "cluster/replication/service.py"
REPLICA: Final = "cluster/replication/replica.py"
REPAIR: Final = "cluster/replication/repair.py"
OWNERSHIP: Final = "cluster/replication/ownership.py"
COORDINATOR: Final = "cluster/partitions/coordinator.py"
TABLE: Final = "cluster/partitions/table.py"
ROUTER: Final = "cluster/structures/router.py"
STRUCTURES: Final = "cluster/structures/service.py"

MUTATIONS: Final = (
    Mutation(
        "acknowledge before the copies have it",
        SERVICE,
        "        pending.settle()\n        return pending.future\n",
        "        pending.settle()\n        return None\n",
        "tests/integration/test_safeguards.py",
    ),
    Mutation(
        "send writes to no copy",
        SERVICE,
        "        if not ownership.holders:\n            return None\n",
        "        if ownership.holders is not None:\n            return None\n",
    ),
    Mutation(
        "ignore epochs: let a deposed owner write",
        "cluster/replication/holder.py",
        "        if stale or usurper:\n",
        "        if stale and usurper and False:\n",
        "tests/integration/test_safeguards.py",
    ),
    Mutation(
        "serve while not the owner any more",
        SERVICE,
        "            elif ownership is not None:\n                del self.owned[partition]\n",
        "            elif ownership is not None:\n                continue\n",
    ),
    Mutation(
        "hand over without waiting for the last writes",
        SERVICE,
        "            if any(pending.waiting for pending in ownership.pending):\n",
        "            if False:\n",
        "tests/integration/test_safeguards.py",
    ),
    Mutation(
        "keep what a fenced owner wrote",
        OWNERSHIP,
        "                self._undo(pending)\n",
        "                pass\n",
        "tests/integration/test_safeguards.py",
    ),
    Mutation(
        "remember an operation that was undone",
        OWNERSHIP,
        "            self.replica.forget_operation(operation.id)\n",
        "            pass\n",
        "tests/integration/test_safeguards.py",
    ),
    Mutation(
        "count a joining copy that missed a write",
        OWNERSHIP,
        "        if holder in self.row.replicas or holder in self.joined:\n            return\n",
        "        if holder:\n            return\n",
        "tests/integration/test_safeguards.py",
    ),
    Mutation(
        "apply an older version",
        REPLICA,
        "        elif held[1:3] < entry[1:3]:\n",
        "        elif held[1:3] != entry[1:3]:\n",
        "tests/unit/cluster/replication",
    ),
    Mutation(
        "forget deletes at once",
        "cluster/structures/operations.py",
        "self.now + self._tombstone_lifetime)",
        "self.now)",
    ),
    Mutation(
        "digest that skips tombstones",
        REPLICA,
        "        entries[key] = entry\n        self._digest.toggle(map_name, key, entry[1], entry[2])\n",
        "        entries[key] = entry\n        if entry[0] is not None:\n"
        "            self._digest.toggle(map_name, key, entry[1], entry[2])\n",
    ),
    Mutation(
        "start a time to live anew on every copy",
        REPLICA,
        "    return (record.value, record.hlc, record.origin, now + record.ttl)\n",
        "    return (record.value, record.hlc, record.origin, now + max(record.ttl, 5.0))\n",
    ),
    Mutation(
        "expire too early",
        REPLICA,
        "        if entry is None or now >= entry[3]:\n            return None\n",
        "        if entry is None or now >= entry[3] - 1.0:\n            return None\n",
    ),
    Mutation(
        "never expire",
        REPLICA,
        "        if entry is None or now >= entry[3]:\n            return None\n",
        "        if entry is None:\n            return None\n",
    ),
    Mutation(
        "promote a copy that is not complete",
        COORDINATOR,
        "            if member in live and (partition, member) in self._caught_up\n",
        "            if member in live\n",
        first=98,
    ),
    Mutation(
        "give a partition away while its owner still serves it",
        COORDINATOR,
        "            if owner in (target[0], self._released.get(partition)) or owner != serving:\n",
        "            if owner:\n",
        "tests/unit/cluster/partitions",
    ),
    Mutation(
        "keep the epoch when the owner changes",
        COORDINATOR,
        "        epoch = row.epoch if same else ",
        "        epoch = row.epoch if row.epoch else ",
    ),
    Mutation(
        "use the same epochs on both sides of a split",
        TABLE,
        " | xxh32_intdigest(table.coordinator.encode()) >> 12",
        "",
        "tests/unit/cluster/partitions",
    ),
    Mutation(
        "trust copies of the other side of a split",
        COORDINATOR,
        "            del replicas[1:]\n",
        "            pass\n",
        "tests/unit/cluster/partitions",
    ),
    Mutation(
        "lose partitions silently",
        COORDINATOR,
        "                lost_at = version\n",
        "                pass\n",
        first=55,
    ),
    Mutation(
        "never strike a copy that does not answer",
        COORDINATOR,
        "            self._struck[partition, replica] = None\n",
        "",
        "tests/integration/test_safeguards.py",
    ),
    Mutation(
        "drop stray data instead of offering it",
        REPAIR,
        "                answer = await self._rpc.call(address, message, timeout=CALL_TIMEOUT)\n"
        "                assert isinstance(answer, Offered)\n",
        "",
        first=13,
    ),
    Mutation(
        "stamp merged versions as if written now",
        SERVICE,
        "        if pending.merging:\n",
        "        if False:\n",
        "tests/integration/test_campaign.py",
    ),
    Mutation(
        "ignore that a copy has a later version",
        SERVICE,
        "            if reply.newer and self.owned.get(ownership.partition) is ownership:\n",
        "            if False:\n",
        "tests/integration/test_safeguards.py",
    ),
    Mutation(
        "forget operation ids",
        STRUCTURES,
        "        if remembered is not None:\n",
        "        if False:\n",
        "tests/integration/test_safeguards.py",
    ),
    Mutation(
        "say rejected although an attempt was sent",
        ROUTER,
        "                if unknown is None:\n                    raise\n",
        "                raise\n",
        first=33,
    ),
    Mutation(
        "believe the table after a stall",
        "cluster/structures/map.py",
        "            if now <= self._router.replication.valid_until:\n",
        "            if True:\n",
        "tests/integration/test_safeguards.py",
    ),
    Mutation(
        "compare doubtful copies only at the next round",
        REPAIR,
        "            if self._replication.doubtful:\n",
        "            if False:\n",
        "tests/integration/test_safeguards.py",
    ),
    Mutation(
        "look for stray data only after a new table",
        REPAIR,
        "            await _event_or_timeout(self._offers_due, OFFER_INTERVAL)\n",
        "            await self._offers_due.wait()\n",
        "tests/integration/test_safeguards.py",
    ),
    Mutation(
        "never compare copies in the background",
        REPAIR,
        "            await self._compare_with_replicas()\n",
        "            pass\n",
        first=56,
    ),
    Mutation(
        "leave without waiting for the hand-over",
        "cluster/node.py",
        "        while self._remaining() and self._has_successor()",
        "        while False and self._has_successor()",
        "tests/integration/test_leave.py",
    ),
    Mutation(
        "lose a refutation",
        "cluster/membership/rumours.py",
        "        self.tell(self.members.set_local(incarnation=news.incarnation + 1), local.id, now)\n",
        "        return\n",
        "tests/integration/test_split.py",
    ),
    Mutation(
        "serve below the member quorum",
        SERVICE,
        "        if not self._has_quorum:\n",
        "        if False:\n",
        "tests/integration/test_quorum.py",
    ),
    Mutation(
        "serve below the write quorum",
        SERVICE,
        "        if quorum is not None and len(ownership.row.replicas) < quorum:\n",
        "        if False:\n",
        "tests/integration/test_quorum.py",
    ),
    Mutation(
        "accept packets without their authentication code",
        "cluster/wire/packets.py",
        "hmac.compare_digest",
        "max",
        "tests/unit/cluster/wire/test_packets.py",
    ),
)
