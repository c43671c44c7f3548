"""Planted mutations: each takes one safeguard out of the source, and names what has to notice.

A mutation is a text that stands exactly once in a file, and what to put there instead, so that a mutation
whose safeguard was rewritten fails loudly (`test_catalogue.py`). `task mutants` applies each one to a copy of
the package and runs its killer there, which must fail; the table it makes is docs/mutations.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

CAMPAIGN: Final = "campaign"
RAFT_CAMPAIGN: Final = "raft campaign"


@dataclass(frozen=True, slots=True)
class Mutation:
    """One safeguard less."""

    name: str
    file: str
    """Path below `cache/`."""
    old: str
    new: str
    killer: str = CAMPAIGN
    """A campaign of `run.CAMPAIGNS` for random seeds, else what pytest is to run."""
    first: int = 0
    """For the campaign: the seed to begin with, one that is known to notice."""


SERVICE: Final = "cluster/replication/service.py"
SENDING: Final = "cluster/replication/sending.py"
HOLDER: Final = "cluster/replication/holder.py"
GATHERED: Final = "tests/integration/test_gathered_writes.py"
GATHERED_READS: Final = "tests/integration/test_gathered_reads.py"
RESP_CONNECTION: Final = "cluster/resp/connection.py"
RESP_PARSER: Final = "cluster/resp/parser.py"
REPLICA: Final = "cluster/replication/replica.py"
REPAIR: Final = "cluster/replication/repair.py"
OWNERSHIP: Final = "cluster/replication/ownership.py"
COORDINATOR: Final = "cluster/partitions/coordinator.py"
TABLE: Final = "cluster/partitions/table.py"
READS: Final = "cluster/structures/reads.py"
READS_TESTS: Final = "tests/unit/cluster/structures/test_reads.py"
ROUTER: Final = "cluster/structures/router.py"
STRUCTURES: Final = "cluster/structures/service.py"
LOADS: Final = "cluster/structures/loads.py"
LEASES: Final = "cluster/structures/leases.py"
COPIES: Final = "cluster/structures/copies.py"
NEAR_OWNER: Final = "cluster/structures/near_owner.py"
NEAR_READER: Final = "cluster/structures/near_reader.py"
REDIS_SCRIPTS: Final = "adapters/scripts.py"
REDIS: Final = "tests/integration/test_redis.py"
NEAR: Final = "tests/integration/test_near_cache.py"
NEAR_COPIES: Final = "tests/unit/cluster/structures/test_copies.py"
LOCKS: Final = "cluster/structures/locks.py"
LOCK_TESTS: Final = "tests/integration/test_locks.py"
QUERIES: Final = "cluster/structures/queries.py"
QUERY_TESTS: Final = "tests/integration/test_queries.py"
INDEX: Final = "cluster/structures/index.py"
INDEX_TESTS: Final = "tests/unit/cluster/structures/test_index.py"
RELIABLE: Final = "tests/integration/test_reliable_topics.py"
ENTRY_EVENTS: Final = "tests/integration/test_entry_events.py"
STORES: Final = "cluster/structures/stores.py"
STORES_TEST: Final = "tests/integration/test_stores.py"
SEARCH: Final = "testing/search.py"
SQLITE: Final = "storage/sqlite.py"
CHECKER: Final = "tests/unit/testing/test_linearizability.py"
STORE: Final = "tests/unit/storage"
LAG: Final = "tests/unit/cluster/membership/test_lag.py"

DISCOVERY: Final = "tests/integration/test_discovery_kinds.py"
RECENT: Final = "cluster/replication/recent.py"
RECENT_TESTS: Final = "tests/unit/cluster/replication/test_recent.py"
RECENT_READS: Final = "tests/integration/test_recent_reads.py"
ACCELERATOR: Final = "accelerator.py"
ACCELERATOR_TESTS: Final = "tests/unit/test_accelerator.py"
OWNED_READS: Final = "cluster/replication/owned_reads.py"
ACCESS: Final = "cluster/structures/access.py"
CLIENT: Final = "tests/integration/test_client.py"
LINKS: Final = "testing/proxy/links.py"
LINK_TESTS: Final = "tests/unit/testing/proxy/test_links.py"

MUTATIONS: Final = (
    Mutation(
        "acknowledge before the copies have it",
        SERVICE,
        "        self._sender.send(pending, plain=plain)\n        return pending\n",
        "        self._sender.send(pending, plain=plain)\n        return None\n",
        "tests/integration/test_safeguards.py",
    ),
    Mutation(
        "a write that was forgotten never ends",
        "cluster/replication/upkeep.py",
        "        replication.end_overdue(now)\n",
        "",
        "tests/integration/test_safeguards.py",
    ),
    Mutation(
        "sleep through the table that names the next owner",
        ROUTER,
        "        await asyncio.wait([self.next_table()], timeout=seconds)\n",
        "        await asyncio.sleep(seconds)\n",
        "tests/integration/test_crash.py",
    ),
    Mutation(
        "gathered reads: an owner that is silent is the end of them",
        ACCESS,
        "        if not isinstance(error, RETRIED):\n            raise error\n",
        "        raise error\n",
        GATHERED_READS,
    ),
    Mutation(
        "gathered reads: nobody asks for the quorum, or for the thread",
        ROUTER,
        "        self.site.check_member_quorum()\n        return self._reads.begin(",
        "        return self._reads.begin(",
        GATHERED_READS,
    ),
    Mutation(
        "lone reads: what one brought is kept",
        READS,
        "        self.forget_lone()\n",
        "",
        READS_TESTS,
    ),
    Mutation(
        "lone reads: one under way is forgotten",
        READS,
        "        if self._lone is not None and self._lone.done():\n",
        "        if self._lone is not None:\n",
        READS_TESTS,
    ),
    Mutation(
        "gathered reads: a closed node asks",
        ROUTER,
        "        if route is None or self._closed:\n",
        "        if route is None:\n",
        GATHERED_READS,
    ),
    Mutation(
        "gathered writes: those with other copies travel along",
        "cluster/structures/routes.py",
        "        if holders not in routes:\n            routes[holders] = Route(address, holders)\n"
        "        of_partition.append(routes[holders])\n",
        "        if holders[0] not in routes:\n            routes[holders[0]] = Route(address, holders)\n"
        "        of_partition.append(routes[holders[0]])\n",
        GATHERED,
    ),
    Mutation(
        "gathered writes: any epoch will do",
        HOLDER,
        "                    self._check_partition(partition)\n"
        "                    self._check_epoch(partition, epoch, peer)\n",
        "                    self._check_partition(partition)\n",
        GATHERED,
    ),
    Mutation(
        "gathered writes: an epoch that was accepted is accepted from anybody",
        HOLDER,
        "                or owners[partition] != owner\n",
        "",
        GATHERED,
    ),
    Mutation(
        "gathered writes: a later version on a copy is not told",
        HOLDER,
        "            if not replica.apply(name, key, entry) and replica.is_later(name, key, entry):\n",
        "            if not replica.apply(name, key, entry) and entry is None:\n",
        GATHERED,
    ),
    Mutation(
        "gathered writes: what a holder refused counts as confirmed",
        SENDING,
        "for place, failure in reply.refused\n",
        "for place, failure in reply.refused[:0]\n",
        GATHERED,
    ),
    Mutation(
        "gathered writes: one confirmation answers for all",
        "cluster/structures/answers.py",
        "    left = len(alone) + len(written.batches)\n",
        "    left = min(1, len(alone) + len(written.batches))\n",
        GATHERED,
    ),
    Mutation(
        "gathered writes: what is sent alone overtakes them",
        SENDING,
        "        if self._gathered:\n            self._flush(holder)\n",
        "",
        GATHERED,
    ),
    Mutation(
        "forget a write that a copy is still asked for",
        SENDING,
        "            return  # The ownership forgets it when nobody else is waited for, and not before.\n",
        "            ownership.pending.pop(pending, None)\n            return\n",
        "tests/integration/test_safeguards.py",
    ),
    Mutation(
        "send writes to no copy",
        SERVICE,
        "        replica.apply(map_name, key, entry)\n        if not ownership.holders:\n",
        "        replica.apply(map_name, key, entry)\n        if ownership.holders is not None:\n",
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
        "cluster/replication/yielding.py",
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
        "            self.replica.operations.forget(operation.id)\n",
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
        "        elif held.hlc < hlc or (held.hlc == hlc and held.origin < entry.origin):\n",
        "        elif held.hlc != hlc or held.origin != entry.origin:\n",
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
        "                self._digest.replace(map_name, key, held, entry)\n",
        "                self._sign(map_name, key, held)\n"
        "                if entry.value is not None:\n"
        "                    self._sign(map_name, key, entry)\n",
    ),
    Mutation(
        "have the garbage collector look at every entry",
        "cluster/replication/entries.py",
        "frozen=True, gc=False",
        "frozen=True",
        "tests/unit/cluster/replication/test_entries.py",
    ),
    Mutation(
        "keep an instant for each entry that never ends",
        "cluster/structures/operations.py",
        "        return math.inf if seconds == math.inf else self.now + seconds\n",
        "        return self.now + seconds\n",
        "tests/unit/cluster/structures/test_operations.py",
    ),
    Mutation(
        "keep a number for the origin of each entry",
        "cluster/replication/service.py",
        "        return self._origins.setdefault(origin, origin)\n",
        "        return origin\n",
        "tests/integration/test_gathered_writes.py",
    ),
    Mutation(
        "start a time to live anew on every copy",
        "cluster/replication/entries.py",
        "    return Entry(value, hlc, origin, now + ttl)\n",
        "    return Entry(value, hlc, origin, now + max(ttl, 5.0))\n",
    ),
    Mutation(
        "expire too early",
        REPLICA,
        "        return None if entry is None or now >= entry.expires_at else entry.value\n",
        "        return None if entry is None or now >= entry.expires_at - 1.0 else entry.value\n",
    ),
    Mutation(
        "never expire",
        REPLICA,
        "        return None if entry is None or now >= entry.expires_at else entry.value\n",
        "        return None if entry is None else entry.value\n",
    ),
    Mutation(
        "expire too early where the owner reads",
        ACCESS,
        "if entry is None or now >= entry.expires_at or entry.value is None:\n                    ",
        "if entry is None or now >= entry.expires_at - 1.0 or entry.value is None:\n                    ",
    ),
    Mutation(
        "never expire where the owner reads",
        ACCESS,
        "if entry is None or now >= entry.expires_at or entry.value is None:\n                    ",
        "if entry is None or entry.value is None:\n                    ",
    ),
    Mutation(
        "look at an entry once, and too early",
        REPLICA,
        "                self._wheel.add(map_name, key, entry.expires_at)\n                continue\n",
        "                continue\n",
        "tests/unit/cluster/replication/test_replica_laws.py",
    ),
    Mutation(
        "look at what ends far away when it is long over",
        "cluster/replication/expiry.py",
        "            tick = tick >> narrower << narrower\n",
        "            tick = (tick >> narrower) + 1 << narrower\n",
        "tests/unit/cluster/replication/test_expiry.py",
    ),
    Mutation(
        "promote a copy that is not complete",
        COORDINATOR,
        "            if member in live and (partition, member) in self._caught_up\n",
        "            if member in live\n",
        "tests/unit/cluster/partitions",
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
        SENDING,
        "        if pending.merging:\n",
        "        if False:\n",
        "tests/integration/test_safeguards.py",
    ),
    Mutation(
        "ignore that a copy has a later version",
        SENDING,
        "            if outcome.newer and self._is_owned(pending.ownership):\n",
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
        "                    if unknown is None:\n                        raise\n",
        "                    raise\n",
        "tests/unit/cluster/structures/test_router.py",
    ),
    Mutation(
        "store although the key changed since it was read",
        "cluster/structures/builtin.py",
        "        return entry.version is not None and list(entry.version) == expected\n",
        "        return True\n",
        "tests/integration/test_processors.py",
    ),
    Mutation(
        "keep what a function changed before it raised",
        "cluster/structures/processors.py",
        "            raise ExecutionError(pack_error(error)) from error\n",
        "            return entry.take(), encode_value(None)\n",
        "tests/integration/test_processors.py",
    ),
    Mutation(
        "run a function again for a retry",
        STRUCTURES,
        "        if remembered is not None:\n",
        "        if remembered is not None and isinstance(message, Modify):\n",
        "tests/integration/test_processors.py",
    ),
    Mutation(
        "let an operation of a pipeline overtake a refused one",
        STRUCTURES,
        "                broken[place] = None\n",
        "                pass\n",
        "tests/integration/test_pipelines.py",
    ),
    Mutation(
        "do a key of a batch again by another id",
        "cluster/structures/batches.py",
        "            ids = [part_of(sent.operation, index) for index in range(len(batch.keys))]\n",
        "            ids = [part_of(sent.operation, index + 1) for index in range(len(batch.keys))]\n",
        "tests/unit/cluster/structures/test_batches.py",
    ),
    Mutation(
        "let a coordinator that stood still confirm its own table",
        ROUTER,
        "                and not self.site.stalled\n",
        "",
        "tests/integration/test_campaign.py",
    ),
    Mutation(
        "believe the table after a stall",
        "cluster/structures/access.py",
        "            if now <= self.validity.until:\n",
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
        "cluster/leaving.py",
        "        while self._is_needed() and self._has_successor()",
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
        "wait no longer for a member that says that it stalls",
        "cluster/membership/swim.py",
        "        longer = patience(target.lag, gossip.probe_interval)\n",
        "        longer = 0.0\n",
        f"{LAG}::test_two_seconds_a_minute_for_an_hour_bury_nobody_and_are_suspected_once",
    ),
    Mutation(
        "tell nobody of stalls",
        "cluster/membership/swim.py",
        "            self.book.members.set_local(lag=lag)\n",
        "            pass\n",
        LAG,
    ),
    Mutation(
        "let a burst of accusers bury a suspect unheard",
        "cluster/membership/rumours.py",
        "        hearing = awareness.scale(self.gossip.probe_timeout) if awareness.score else 0.0\n",
        "        hearing = 0.0\n",
        "tests/unit/cluster/membership/test_conformance.py",
    ),
    Mutation(
        "take different views for equal ones",
        "cluster/membership/service.py",
        "equal=self._swim.book.agrees(message.digest)",
        "equal=True",
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
    Mutation(
        "let every caller load",
        LOADS,
        "        elif lease.token != message.token:\n            return _wait(lease)\n",
        "",
        "tests/integration/test_loads.py",
    ),
    Mutation(
        "store a load that a write overtook",
        LOADS,
        "        is_overtaken = held is not None and held.version != lease.version\n",
        "        is_overtaken = False\n",
        "tests/integration/test_loads.py",
    ),
    Mutation(
        "forget that a key was deleted while it was loaded",
        STRUCTURES,
        "        removes = message.name in (MODIFY_DELETE, MODIFY_POP)\n",
        "        removes = False\n",
        "tests/integration/test_loads.py",
    ),
    Mutation(
        "store a load whose tag was invalidated",
        LOADS,
        " or any(tag in lease.invalidated for tag in tags_of(message.value)):",
        ":",
        "tests/integration/test_loads.py",
    ),
    Mutation(
        "let a lease outlive its holder",
        LEASES,
        " and is_alive(lease.holder):",
        ":",
        "tests/integration/test_loads.py",
    ),
    Mutation(
        "never renew a lease",
        LOADS,
        "        lease.renewed_at = self._clock.monotonic()\n",
        "",
        "tests/integration/test_loads.py",
    ),
    Mutation(
        "begin a half listed partition again",
        "cluster/structures/whole.py",
        "                cursors[reply.halfway] = reply.after\n",
        "                pass\n",
        "tests/integration/test_loads.py",
    ),
    Mutation(
        "read a backup by a table that may be old",
        ROUTER,
        "                and await self._tables.confirm(min(remaining, READ_PATIENCE))\n",
        "",
        "tests/integration/test_safeguards.py",
    ),
    Mutation(
        "never ask for a later epoch",
        "cluster/replication/yielding.py",
        "                await self._replication.partitions.report_fenced(fenced)\n",
        "",
        "tests/integration/test_safeguards.py",
    ),
    Mutation(
        "let a suspect find out by itself",
        "cluster/membership/swim.py",
        "        if member.state is not MemberState.ALIVE:\n",
        "        if member.state is MemberState.DEAD:\n",
        "tests/unit/cluster/membership/test_lives.py",
    ),
    Mutation(
        "do not take the way off a time to live",
        "cluster/replication/copying.py",
        "        away = min(away, TRANSIT_MAX)\n",
        "        away = 0.0\n",
        "tests/integration/test_ttl_in_transit.py",
    ),
    Mutation(
        "forget that times to live were long on the way",
        REPAIR,
        "            or self._late.has(owned.partition, address)\n",
        "",
        "tests/integration/test_ttl_in_transit.py",
    ),
    Mutation(
        "take a poll's answer for as fresh as its arrival",
        COPIES,
        "min(sent_at + kept, now)",
        "now",
        NEAR_COPIES,
    ),
    Mutation(
        "read near copies although their owner is silent",
        COPIES,
        "        if copy.source.verified_at >= now - bound or copy.sent_at >= now - bound:\n",
        "        if bound:\n",
        NEAR_COPIES,
    ),
    Mutation(
        "keep near copies over a gap",
        COPIES,
        "            self._drop_older(source, news.sequence)\n",
        "            pass\n",
        NEAR_COPIES,
    ),
    Mutation(
        "keep a near copy that a write of this member overtook",
        COPIES,
        "        if fill.is_outdated:\n",
        "        if False:\n",
        NEAR_COPIES,
    ),
    Mutation(
        "keep a near copy that a change may have overtaken",
        COPIES,
        "        if found.sequence < source.sequence or is_older:\n",
        "        if is_older:\n",
        NEAR_COPIES,
    ),
    Mutation(
        "count a near copy's time to live from its arrival",
        COPIES,
        "copies.keep(key, copy, sent_at + left, now)",
        "copies.keep(key, copy, now + left, now)",
        NEAR_COPIES,
    ),
    Mutation(
        "say nothing of a hand-over to near readers",
        NEAR_OWNER,
        "            self._journal.note_all(partition)\n",
        "",
        NEAR,
    ),
    Mutation(
        "let a stalled owner confirm near copies",
        "cluster/replication/service.py",
        """        if self.stalled:
            raise NotOwnerError(f"{self.member} was stalled and checks what it owns")
""",
        "",
        NEAR,
    ),
    Mutation(
        "keep near copies of a former owner",
        NEAR_READER,
        "        self.copies.leave([",
        "        self.copies.leave([] and [",
        NEAR,
    ),
    Mutation(
        "keep what a former owner says near",
        NEAR_READER,
        "owner == self._router.owner(partition)",
        "owner is not None",
        NEAR,
    ),
    Mutation(
        "believe what became known after a near copy was found, from another thread",
        "cluster/structures/copies.py",
        "        if not is_fresh or entry is None or entry[0] is not copy:\n",
        "        if not is_fresh:\n",
        "tests/unit/cluster/structures/test_copies.py",
    ),
    Mutation(
        "compare copies without ending the owner before",
        "cluster/replication/holder.py",
        "            self._raise_fence(partition, epoch)\n        held = [",
        "            pass\n        held = [",
        "tests/integration/test_safeguards.py::test_a_comparison_by_a_later_owner_ends_an_earlier_one[simulated]",
    ),
    Mutation(
        "forget what came near during a write",
        ROUTER,
        "began_at, error)\n        finally:\n            self.near.outdate(request)\n",
        "began_at, error)\n        finally:\n            pass\n",
        NEAR,
    ),
    Mutation(
        "forget what came near during a write that goes alone",
        ROUTER,
        "            return await self._until_answered(ask, deadline)\n        finally:\n"
        "            if self.near.maps:\n",
        "            return await self._until_answered(ask, deadline)\n        finally:\n"
        "            if False:\n",
        NEAR,
    ),
    Mutation(
        "tell near readers nothing of evictions",
        REPLICA,
        "            self.listener(victim.map, victim.key, held, None, EVICTED)\n",
        "            pass\n",
        NEAR,
    ),
    Mutation(
        "send topics only where somebody said so",
        "cluster/topics/interest.py",
        "                found.setdefault(member, 0)\n",
        "                pass\n",
        "tests/unit/cluster/topics",
    ),
    Mutation(
        "deliver what was overtaken",
        "cluster/topics/outbox.py",
        "        old = min(max(0, self._next - message.sequence), len(message.topics))\n",
        "        old = 0\n",
        "tests/unit/cluster/topics",
    ),
    Mutation(
        "let a silent member's outbox grow",
        "cluster/topics/outbox.py",
        "        if is_full and self._messages:\n",
        "        if False:\n",
        "tests/unit/cluster/topics",
    ),
    Mutation(
        "show messages that a copy lacks",
        "cluster/topics/ring.py",
        "                if number in segment.unconfirmed:\n                    return self._end(",
        "                if False:\n                    return self._end(",
        f"{RELIABLE}::test_nobody_is_shown_what_a_copy_lacks",
    ),
    Mutation(
        "append a retried message again",
        "cluster/topics/owner.py",
        "        if remembered is not None:\n",
        "        if False:\n",
        f"{RELIABLE}::test_a_retry_adds_nothing",
    ),
    Mutation(
        "overwrite messages without counting them",
        "cluster/topics/owner.py",
        "            ring.raise_floors(unpack_floors(value))\n",
        "            pass\n",
        f"{RELIABLE}::test_what_was_overwritten_is_reported_with_its_number",
    ),
    Mutation(
        "forget what was read on the other side of a split",
        "cluster/topics/ring.py",
        "for name in names[-CURSOR_MAX:]}",
        "for name in names if name in self._segments}",
        "tests/unit/cluster/topics",
    ),
    Mutation(
        "do not wait for a message that is merged late",
        "cluster/topics/ring.py",
        "< HOLE_PATIENCE:\n",
        "< 0:\n",
        "tests/unit/cluster/topics",
    ),
    Mutation(
        "hear a moved partition before its former owner was heard out",
        "cluster/structures/events.py",
        "        if not self._in_round and (EVENT_BEGINS in reply.kinds or",
        "        if not self._in_round and (False or",
        f"{ENTRY_EVENTS}::test_nothing_is_missed_when_partitions_move",
    ),
    Mutation(
        "say nothing when an owner died with events",
        "cluster/structures/events.py",
        "                if source.owned:\n",
        "                if False:\n",
        f"{ENTRY_EVENTS}::test_an_owner_that_dies_leaves_a_reported_gap",
    ),
    Mutation(
        "say nothing of events that were forgotten",
        "cluster/structures/events.py",
        "        if reply.missed:\n",
        "        if False:\n",
        f"{ENTRY_EVENTS}::test_a_reader_that_is_slow_is_told_how_many_it_missed",
    ),
    Mutation(
        "keep a branch that nobody else follows",
        "cluster/partitions/service.py",
        "            self._absorb(table, yielding=len(forks) > len(like_mine) + mine)\n",
        "            self._absorb(table)\n",
        "tests/integration/test_safeguards.py",
    ),
    Mutation(
        "drop a stray copy that an owner counts on",
        REPAIR,
        " and self._replication.wanted[partition] == wanted:",
        ":",
        "tests/integration/test_safeguards.py",
    ),
    Mutation(
        "on redis, store over a load without outdating it",
        REDIS_SCRIPTS,
        "    redis.call('DEL', KEYS[place + 1])\n    stored = stored + 1\n",
        "    stored = stored + 1\n",
        f"{REDIS}::test_writes_of_other_processes_outdate_a_load",
    ),
    Mutation(
        "on redis, keep a load whose tag was invalidated meanwhile",
        REDIS_SCRIPTS,
        "== 1 then is_kept = false end",
        "== 2 then is_kept = false end",
        f"{REDIS}::test_writes_of_other_processes_outdate_a_load",
    ),
    Mutation(
        "on redis, keep a load that the register forgot",
        REDIS_SCRIPTS,
        "outcome == 'S' and redis.call('ZSCORE', register, name)",
        "outcome == 'S'",
        f"{REDIS}::test_a_load_is_not_stored_when_the_register_forgot_it",
    ),
    Mutation(
        "on redis, read values that their tags have forgotten",
        REDIS_SCRIPTS,
        "name) then return false end\n  end\n  return true",
        "name) then break end\n  end\n  return true",
        f"{REDIS}::test_an_evicted_tag_takes_its_values_along",
    ),
    Mutation(
        "on redis, give everybody the lease at its end",
        REDIS_SCRIPTS,
        "if holder and holder ~= token then",
        "if holder and seen == '' then",
        f"{REDIS}::test_when_a_loader_dies_one_of_those_who_wait_loads",
    ),
    Mutation(
        "on redis, leave a value to the tags of the one before",
        REDIS_SCRIPTS,
        "  if old then unindex(name, old) end\n  if tags",
        "  if tags",
        f"{REDIS}::test_nothing_is_left_when_values_have_gone",
    ),
    Mutation(
        "on redis, count in Lua's numbers",
        REDIS_SCRIPTS,
        "redis.pcall('INCRBY', data, ARGV[2])\nlocal sum = redis.call('GET', data)",
        "redis.pcall('SET', data, string.format('%.0f', digits + ARGV[2]), 'KEEPTTL')\n"
        "local sum = redis.call('GET', data)",
        f"{REDIS}::test_counting_is_exact_and_keeps_tags",
    ),
    Mutation(
        "on redis, repeat a write that may have been carried out",
        "adapters/routing.py",
        "                if not is_read:\n                    raise\n                if self._loop",
        "                if self._loop",
        f"{REDIS}::test_a_write_to_a_stopped_server_may_have_been_carried_out",
    ),
    Mutation(
        "on redis, open connections without a bound",
        "adapters/connection.py",
        "best.load < CROWDED or is_full) else None\n\n    async def _connect",
        "best.load < CROWDED) else None\n\n    async def _connect",
        "tests/unit/adapters/test_connection.py",
    ),
    Mutation(
        "let every node that looks wait for the others to begin",
        "cluster/membership/service.py",
        "            if is_first and was_first:\n",
        "            if False:\n",
        f"{DISCOVERY}::test_nodes_that_start_at_the_same_instant_are_one_cluster[simulated-2-static]",
    ),
    Mutation(
        "let every node that looks begin a cluster",
        "cluster/membership/service.py",
        "            return answer.member >= self.local().id\n",
        "            return True\n",
        f"{DISCOVERY}::test_nodes_that_start_at_the_same_instant_are_one_cluster[simulated-2-static]",
    ),
    Mutation(
        "refuse no line of a file of peers",
        "cluster/discovery/file.py",
        '            check_address(f"peers file {name!r}, line {number}", text, port_required=True)\n',
        "",
        "tests/unit/cluster/discovery/test_sources.py",
    ),
    Mutation(
        "let a client hear of deaths by chance only",
        ROUTER,
        "isinstance(last, NotOwnerError) or not self.site.member:",
        "isinstance(last, NotOwnerError):",
        f"{CLIENT}::test_a_client_asks_for_the_table_when_a_write_fails[simulated]",
    ),
    Mutation(
        "let a client go back to an older table",
        "cluster/client/following.py",
        "    if newest is not mine or any(mine.descends_from(table.id) for table in sent):\n",
        "    if newest is not mine:\n",
        "tests/unit/cluster/client/test_following.py",
    ),
    Mutation(
        "let a client learn no new addresses",
        "cluster/client/site.py",
        "        addresses = sorted(dict.fromkeys(self.table.addresses.values()))\n",
        "        addresses = sorted(self._finder._peers)\n",
        f"{CLIENT}::test_members_may_all_be_replaced[simulated]",
    ),
    Mutation(
        "take all clients for one reader",
        NEAR_OWNER,
        'reader = "" if peer is None else peer.key',
        'reader = "" if peer is None else peer.member or ""',
        f"{CLIENT}::test_near_copies_of_several_clients_are_followed_each_by_itself[simulated]",
    ),
    Mutation(
        "let a lite member coordinate because it is the oldest",
        COORDINATOR,
        "    return next(iter(holding or staying or members), None)\n",
        "    return next(iter(staying or members), None)\n",
        "tests/integration/test_lite.py",
    ),
    Mutation(
        "give a lock that another holds",
        LOCKS,
        "        if held is None and lock not in self._queues:\n",
        "        if lock not in self._queues:\n",
        LOCK_TESTS,
    ),
    Mutation(
        "give a lock back for whoever asks",
        LOCKS,
        "        if held is None or held.value != message.attempt:\n            if self._queues",
        "        if held is None:\n            if self._queues",
        LOCK_TESTS,
    ),
    Mutation(
        "give a lock to whoever asked last",
        LOCKS,
        "            asked_at=now - message.waited,\n",
        "            asked_at=message.waited - now,\n",
        LOCK_TESTS,
    ),
    Mutation(
        "let a lock overwrite a later one of another side",
        LOCKS,
        "[change], operations, merging=True)",
        "[change], operations)",
        LOCK_TESTS,
    ),
    Mutation(
        "tell the number of a lock that another side took",
        LOCKS,
        "            if held is not None and held.version == given.version and held.value == given.value:\n",
        "            if held is not None:\n",
        LOCK_TESTS,
    ),
    Mutation(
        "give a lock to a request that comes after its release",
        LOCKS,
        "        if ownership.replica.operations.get(message.attempt) is not None:\n            return LOST",
        "        if False:\n            return LOST",
        LOCK_TESTS,
    ),
    Mutation(
        "count a lease from the arrival of the answer",
        "cluster/structures/lock.py",
        "                ends_at = sent_at + reply.kept + self._lease\n",
        "                ends_at = now + self._lease\n",
        LOCK_TESTS,
    ),
    Mutation(
        "evict locks",
        REPLICA,
        " if name[:1] != HIDDEN}",
        "}",
        "tests/unit/cluster/replication/test_replica.py",
    ),
    Mutation(
        "leave what expired in the index",
        REPLICA,
        "            self.listener(map_name, key, held, entry, cause)\n        if self._views:\n",
        "            self.listener(map_name, key, held, entry, cause)\n        if False:\n",
        INDEX_TESTS,
    ),
    Mutation(
        "let an index forget what was written while it was made",
        INDEX,
        "            if come is not None:\n",
        "            if come is not None and not field.pending:\n",
        INDEX_TESTS,
    ),
    Mutation(
        "ask an index before it is complete",
        QUERIES,
        "        return index if is_complete else None\n",
        "        return index\n",
        QUERY_TESTS,
    ),
    Mutation(
        "on the RESP port, take strings of any length",
        RESP_PARSER,
        "not 0 <= length <= limits.bulk_bytes_max",
        "length < 0",
        "tests/unit/cluster/resp/test_parser.py",
    ),
    Mutation(
        "on the RESP port, count no memory for words",
        RESP_PARSER,
        "self._size += length + ARGUMENT_OVERHEAD\n        if",
        "self._size += length\n        if",
        "tests/unit/cluster/resp/test_parser.py",
    ),
    Mutation(
        "on the RESP port, believe a line that is cut",
        RESP_PARSER,
        "if end < 0 or length is None",
        "if length is None",
        "tests/fuzz/test_resp.py",
    ),
    Mutation(
        "on the RESP port, keep slow subscribers",
        RESP_CONNECTION,
        "if unsent > self._limits.resp_output_bytes_max:",
        "if False:",
        "tests/unit/cluster/resp/test_connection.py",
    ),
    Mutation(
        "on the RESP port, read ahead without a bound",
        RESP_CONNECTION,
        "wanted = not (busy and self._parser.waiting_bytes > UNREAD_BYTES_MAX)",
        "wanted = not busy or True",
        "tests/unit/cluster/resp/test_connection.py",
    ),
    Mutation(
        "on the RESP port, let any number of clients in",
        RESP_CONNECTION,
        "if len(self._shared.clients) >= self._limits.resp_clients_max:",
        "if False:",
        "tests/integration/test_resp_limits.py::test_a_thousand_idle_connections_do_not_hinder_the_next",
    ),
    Mutation(
        "on the RESP port, ask for no password",
        "cluster/resp/dispatch.py",
        "if not client.authenticated and not command.before_login:",
        "if False:",
        "tests/integration/test_resp_cluster.py::test_the_command_line_serves_redis_clients",
    ),
    Mutation(
        "on the RESP port, let a scan skip what follows",
        "cluster/resp/cursors.py",
        "else last + 1)",
        "else last + 2**30)",
        "tests/unit/cluster/resp/test_cursors.py",
    ),
    Mutation(
        "on the RESP port, compare ends without their condition",
        "cluster/resp/processors.py",
        '("GT" in condition and (left is None or ttl <= left))',
        '("GT" in condition and left is None)',
        "tests/unit/cluster/resp/test_processors.py",
    ),
    Mutation(
        "tell an etcd that nobody vouches for",
        "cluster/discovery/etcd_gateway.py",
        "            self._ssl = ssl.create_default_context(cafile=ca)\n",
        "            self._ssl = ssl._create_unverified_context(cafile=ca)\n",
        "tests/integration/test_etcd.py::test_over_tls_without_trust_nothing_is_registered",
    ),
    Mutation(
        "keep few postings as many are kept",
        "cluster/structures/postings.py",
        "FEW: Final = 1_000\n",
        "FEW: Final = 0\n",
        f"{INDEX_TESTS}::test_the_index_of_a_small_partition_is_four_objects",
    ),
    Mutation(
        "write behind without a place in the queue",
        STORES,
        "        return [change, queued(map_name, key, entry)] if map_name in self.behind else [change]\n",
        "        return [change]\n",
        STORES_TEST,
    ),
    Mutation(
        "take a write out of the queue before the store has it",
        "cluster/structures/behind.py",
        "                    await store.write({key: _unpacked(entry) for _, key, entry in batch})\n"
        "                    self._flushed.add(len(batch))\n"
        "                    self._take_out(store, batch)\n",
        "                    self._take_out(store, batch)\n"
        "                    await store.write({key: _unpacked(entry) for _, key, entry in batch})\n"
        "                    self._flushed.add(len(batch))\n",
        STORES_TEST,
    ),
    Mutation(
        "bring to the store what may yet be taken back",
        "cluster/structures/behind.py",
        "            if (write is None or _stands(write)) and",
        "            if",
        f"{STORES_TEST}::test_what_is_not_confirmed_is_not_brought_to_the_store",
    ),
    Mutation(
        "bring a key to the store only while nobody writes it",
        "cluster/structures/behind.py",
        "            await asyncio.wait(waited, timeout=max(0.0, patience))\n",
        "            pass\n",
        f"{STORES_TEST}::test_a_key_that_is_always_being_written_reaches_the_store",
    ),
    Mutation(
        "evict writes that wait for a store",
        REPLICA,
        " if name[:1] != HIDDEN}",
        "}",
        STORES_TEST,
    ),
    Mutation(
        "apply what the store refused",
        STORES,
        '            raise StoreError(f"{name} raised',
        '            return None\n            raise StoreError(f"{name} raised',
        STORES_TEST,
    ),
    Mutation(
        "let writes of one key overtake each other on the way to the store",
        STORES,
        "        places = [(map_name, key) for key in sorted(dict.fromkeys(keys))]\n",
        "        places: list[tuple[str, bytes]] = []\n",
        STORES_TEST,
    ),
    Mutation(
        "take what a store was asked for as a write of that moment",
        STORES,
        "        entry = self._writes.stamper(map_name).loaded(*loaded, held)\n",
        "        stamper = self._writes.stamper(map_name)\n"
        "        entry = stamper.live(loaded[0], stamper.expires_at(loaded[1]))\n",
        "tests/integration/test_campaign.py",
    ),
    Mutation(
        "take what get_or_set loads before a store as a write of that moment",
        LOADS,
        "        has_store = message.map in self._replication.config.stores\n",
        "        has_store = False\n",
        f"{STORES_TEST}::test_what_a_side_of_a_split_loads_yields_to_writes_that_waited_on_the_other",
    ),
    Mutation(
        "load below what a load replaces",
        "cluster/hlc.py",
        "    hlc, origin = held or (0, 0)\n",
        "    hlc, origin = (0, 0)\n",
        f"{STORES_TEST}::test_a_row_is_loaded_once_also_in_place_of_what_ended",
    ),
    Mutation(
        "forget that a write may be in a store that did not answer",
        "cluster/structures/through.py",
        "                self._give_up(message, ownership)\n",
        "                pass\n",
        STORES_TEST,
    ),
    Mutation(
        "count idle time from before the promotion",
        "cluster/replication/kept.py",
        "            self._used = dict.fromkeys(live, now)\n",
        "            self._used = dict.fromkeys(live, now - self.rules.max_idle / 2)\n",
        "tests/integration/test_policies.py",
    ),
    Mutation(
        "never end idle entries of a partition that was taken over",
        SERVICE,
        "        ownership.replica.take_over(self.clock.monotonic())\n",
        "",
        "tests/integration/test_policies.py",
    ),
    Mutation(
        "let near copies hide that an entry is read",
        REPLICA,
        "        return math.inf if kept is None else kept.rules.max_idle * NEAR_SHARE\n",
        "        return math.inf\n",
        "tests/integration/test_policies.py",
    ),
    Mutation(
        "end idle entries on the owner only",
        "cluster/replication/upkeep.py",
        "        replication.commit(ownership, ended, merging=True)\n",
        "        for name, key, entry in ended:\n            replica.apply(name, key, entry)\n",
        "tests/integration/test_policies.py",
    ),
    Mutation(
        "checker: accept any answer",
        "testing/models.py",
        "answer is not ANY and answer != operation.result",
        "answer is ANY and answer != operation.result",
        CHECKER,
    ),
    Mutation(
        "checker: forget what had to happen before an end",
        SEARCH,
        "            if not done & self._bits[ending]:\n                break\n",
        "            if not done & self._bits[ending] and point % 2:\n                break\n",
        CHECKER,
    ),
    Mutation(
        "checker: operations of unknown end always happen",
        "testing/linearizability.py",
        "    if found.order is not None:\n",
        "    if found.order is not None and len(found.order) == len(operations):\n",
        CHECKER,
    ),
    Mutation(
        "checker: operations of unknown end never happen",
        SEARCH,
        "self._unknown[:count], self._alike",
        "self._unknown[:0], self._alike",
        CHECKER,
    ),
    Mutation(
        "checker: unknown effects before their invocation",
        SEARCH,
        "self._unknown[:count], self._alike",
        "self._unknown, self._alike",
        CHECKER,
    ),
    Mutation(
        "checker: memoize without the state",
        SEARCH,
        "setdefault((point, state, done), [])",
        "setdefault((point, done), [])",
        CHECKER,
    ),
    Mutation(
        "checker: pass what is undecided",
        "testing/linearizability.py",
        "undecided > undecided_max",
        "undecided < undecided_max",
        CHECKER,
    ),
    Mutation(
        "checker: tokens may repeat",
        "testing/models.py",
        "risen = operation.result > latest",
        "risen = operation.result >= latest",
        CHECKER,
    ),
    Mutation(
        "checker: leave writes out as if they had never been",
        "testing/linearizability.py",
        "history = [o if i in certain else _weakened(o) for i, o in enumerate(prefix)]",
        "history = [o for i, o in enumerate(prefix) if i in certain]",
        CHECKER,
    ),
    Mutation(
        "store: tear a commit",
        SQLITE,
        '        connection.execute("BEGIN IMMEDIATE")\n        try:\n',
        "        try:\n",
        STORE,
    ),
    Mutation(
        "store: checksum without the position",
        "storage/records.py",
        "xxh3_64_digest(position + content) + content",
        "xxh3_64_digest(content) + content",
        STORE,
    ),
    Mutation(
        "store: return what is damaged",
        "storage/records.py",
        "    if sealed[:CHECKSUM_BYTES] != xxh3_64_digest(position + content):\n",
        "    if not sealed:\n",
        STORE,
    ),
    Mutation(
        "store: no lock",
        SQLITE,
        "            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)\n",
        "            pass\n",
        STORE,
    ),
    Mutation(
        "store: go on after a full disk",
        SQLITE,
        "                    tell(self._stop, failure)\n",
        "                    failure = None\n",
        STORE,
    ),
    Mutation(
        "store: another node's data",
        "storage/records.py",
        "        if ours != theirs:\n",
        "        if ours != theirs and name != 'node':\n",
        STORE,
    ),
    Mutation(
        "disk: a loss of power that loses nothing",
        "testing/sim/disk.py",
        "        if power_loss and unsynced:\n",
        "        if not power_loss and unsynced:\n",
        STORE,
    ),
    Mutation(
        "proxy: cut the streams only",
        LINKS,
        "        self._path(direction).add(toxic)\n",
        "",
        LINK_TESTS,
    ),
    Mutation(
        "proxy: cut the packets only",
        LINKS,
        "                self._streams.add_toxic(_name(through), _on(toxic, stream))\n",
        "                pass\n",
        LINK_TESTS,
    ),
    Mutation(
        "proxy: cut the streams dialled only",
        LINKS,
        '    return ((source, target), "upstream"), ((target, source), "downstream")\n',
        '    return ((source, target), "upstream"), ((source, target), "upstream")\n',
        LINK_TESTS,
    ),
    Mutation(
        "proxy: heal all links but one",
        LINKS,
        "        for direction in [d for d in self._toxics if self._is_cut(d)]:\n",
        "        for direction in [d for d in self._toxics if self._is_cut(d)][1:]:\n",
        LINK_TESTS,
    ),
    Mutation(
        "proxy: cut both ways where one was to be",
        LINKS,
        "        wanted = dict.fromkeys(cuts)\n",
        "        wanted = dict.fromkeys(cut for a, b in cuts for cut in ((a, b), (b, a)))\n",
        LINK_TESTS,
    ),
    Mutation(
        "proxy: refuse a dial through a cut",
        LINKS,
        '            return Route("wait")\n',
        '            return Route("refused")\n',
        LINK_TESTS,
    ),
    Mutation(
        "proxy: forget the faults set before a member came",
        LINKS,
        "                    self._streams.add_toxic(name, _on(toxic, stream))\n",
        "                    pass\n",
        LINK_TESTS,
    ),
    Mutation(
        "proxy: a cut that loses bytes",
        "testing/proxy/toxics.py",
        'lambda given, rng, tally: Delayed(tally, lambda: float("inf"))',
        "lambda given, rng, tally: Swallowing(tally, 0.0)",
        "tests/unit/testing/proxy/test_shaping.py",
    ),
    Mutation(
        "proxy: lose what a removed toxic held back",
        "testing/proxy/shaping.py",
        "        items = [item for _, item in self._waiting]\n",
        "        items: list[Item] = []\n",
        "tests/unit/testing/proxy/test_shaping.py",
    ),
    Mutation(
        "proxy: read on while the pipe is full",
        "testing/proxy/relay.py",
        "            self.source.pause_reading()\n",
        "            pass\n",
        "tests/integration/test_proxy.py",
    ),
    Mutation(
        "proxy: tell the end before it is due",
        "testing/proxy/relay.py",
        "        self._inward.feed(End.EOF)\n        return True",
        "        self._connection.close(reset=False)\n        return True",
        "tests/integration/test_proxy.py",
    ),
    Mutation(
        "proxy: a slow link that slowed nothing is no error",
        "testing/cluster.py",
        "        assert affected != 0 or may_be_idle, ",
        "        assert True, ",
        "tests/integration/test_link_faults.py::test_a_fault_that_affects_nothing_fails",
    ),
    Mutation(
        "proxy: let a test leave faults behind that did nothing",
        "testing/cluster.py",
        "                self._check_faults()\n",
        "                pass\n",
        "tests/integration/test_link_faults.py::test_a_fault_that_a_test_leaves_behind_has_to_affect_something_too",
    ),
    Mutation(
        "recent reads: remember a value that was overwritten",
        REPLICA,
        "                self.recent.forget(map_name, key, held)\n            if self.kept",
        "                pass\n            if self.kept",
        RECENT_TESTS,
    ),
    Mutation(
        "recent reads: remember a value whose life was cut short",
        REPLICA,
        "            self.recent.forget(map_name, key, held)\n        entries[key] = entry\n",
        "            pass\n        entries[key] = entry\n",
        RECENT_TESTS,
    ),
    Mutation(
        "recent reads: remember a value that was evicted or taken back",
        REPLICA,
        "            self.recent.forget(map_name, key, entry)\n",
        "            pass\n",
        RECENT_TESTS,
    ),
    Mutation(
        "recent reads: remember what is not served any more",
        SERVICE,
        "            before.recent.clear()\n",
        "            pass\n",
    ),
    Mutation(
        "recent reads: share values that can be changed",
        RECENT,
        "if raw is None or type(value) not in SHARED or len",
        "if raw is None or len",
        RECENT_TESTS,
    ),
    Mutation(
        "recent reads: let any thread add to them",
        RECENT,
        "        return self._is_home()\n",
        "        return True\n",
        RECENT_READS,
    ),
    Mutation(
        "recent reads: grow without bound",
        RECENT,
        "        if self.size_bytes + size > self._limit:\n            self.clear()\n",
        "        if self.size_bytes + size > self._limit:\n",
        RECENT_TESTS,
    ),
    Mutation(
        "recent reads: a malformed key from a peer stops the write",
        RECENT,
        "        except UnicodeDecodeError:",
        "        except KeyError:",
        RECENT_TESTS,
    ),
    Mutation(
        "recent reads: read from memory after a stall",
        OWNED_READS,
        '''silent owner.
        """
        if type(key) is str and (value := self._recent.get(key)) is not None:
            now = self._now()
            if now <= self._validity.until:
''',
        '''silent owner.
        """
        if type(key) is str and (value := self._recent.get(key)) is not None:
            now = self._now()
            if True:
''',
        RECENT_READS,
    ),
    Mutation(
        "recent reads: read from memory after a stall, in another thread",
        OWNED_READS,
        '''else `missing`; no await."""
        if type(key) is str and (value := self._recent.get(key)) is not None:
            now = self._now()
            if now <= self._validity.until:
''',
        '''else `missing`; no await."""
        if type(key) is str and (value := self._recent.get(key)) is not None:
            now = self._now()
            if True:
''',
        RECENT_READS,
    ),
    Mutation(
        "recent reads: read from memory what has ended",
        OWNED_READS,
        "                if now < value[1]:\n                    self._counts.hits += 1\n"
        "                    return value[0]\n        source = self._reads_from\n",
        "                if True:\n                    self._counts.hits += 1\n"
        "                    return value[0]\n        source = self._reads_from\n",
        RECENT_READS,
    ),
    Mutation(
        "recent reads: read from memory what has ended, in another thread",
        OWNED_READS,
        "                if now < value[1]:\n                    self._counts.hits += 1\n"
        "                    return value[0]\n        found = self._reads_from.read_here(",
        "                if True:\n                    self._counts.hits += 1\n"
        "                    return value[0]\n        found = self._reads_from.read_here(",
        RECENT_READS,
    ),
    Mutation(
        "recent reads: take a subclass of text for its value",
        OWNED_READS,
        '''silent owner.
        """
        if type(key) is str and (''',
        '''silent owner.
        """
        if isinstance(key, str) and (''',
        RECENT_READS,
    ),
    Mutation(
        "recent reads: a pipeline reads past its own writes",
        ACCESS,
        "        other.recent, other.recent_bytes_max = {}, -1\n",
        "",
        RECENT_READS,
    ),
    Mutation(
        "recent reads: remember maps that count reads",
        ACCESS,
        " and serializer is None and not watches_reads and keeps_some\n",
        " and serializer is None and keeps_some\n",
        RECENT_READS,
    ),
    Mutation(
        "recent reads: share values among handles that decode differently",
        ACCESS,
        " and serializer is None and not watches_reads and keeps_some\n",
        " and not watches_reads and keeps_some\n",
        RECENT_READS,
    ),
    Mutation(
        "recent reads: let a closed handle read on",
        "cluster/structures/map.py",
        "        self._recent = {}\n",
        "",
        RECENT_READS,
    ),
    Mutation(
        "accelerator: take what another source was compiled from",
        ACCELERATOR,
        "hashlib.sha256(source)",
        "hashlib.sha256(name.encode())",
        f"{ACCELERATOR_TESTS}::test_a_changed_source_is_not_shadowed",
    ),
    Mutation(
        "accelerator: do not ask the variable",
        ACCELERATOR,
        'os.environ.get(PURE_VARIABLE, "")',
        '""',
        f"{ACCELERATOR_TESTS}::test_a_variable_has_python_run_everything",
    ),
    Mutation(
        "accelerator: what does not load stops the import",
        ACCELERATOR,
        "    except ImportError as error:\n",
        "    except ZeroDivisionError as error:\n",
        f"{ACCELERATOR_TESTS}::test_a_file_that_is_no_module_is_as_none",
    ),
    Mutation(
        "accelerator: use what is slower on a later Python",
        ACCELERATOR,
        "    if python >= TOO_NEW:\n",
        "    if False:\n",
        f"{ACCELERATOR_TESTS}::test_on_a_python_where_it_gains_nothing_python_runs_the_source",
    ),
    Mutation(
        "accelerator: leave what other sources were compiled to",
        "compiling.py",
        "        if path.name not in but:\n",
        "        if not but:\n",
        f"{ACCELERATOR_TESTS}::test_compiling_again_leaves_one_module",
    ),
    Mutation(
        "accelerator: say that it is there when it is not",
        "cluster/replication/owned.py",
        "accelerated: Final = CHOICE.is_compiled\n",
        "accelerated: Final = True\n",
        f"{ACCELERATOR_TESTS}::test_a_variable_has_python_run_everything",
    ),
)
