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
LOADS: Final = "cluster/structures/loads.py"
LEASES: Final = "cluster/structures/leases.py"
COPIES: Final = "cluster/structures/copies.py"
NEAR_OWNER: Final = "cluster/structures/near_owner.py"
NEAR_READER: Final = "cluster/structures/near_reader.py"
REDIS_SCRIPTS: Final = "adapters/scripts.py"
REDIS: Final = "tests/integration/test_redis.py"
NEAR: Final = "tests/integration/test_near_cache.py"
NEAR_COPIES: Final = "tests/unit/cluster/structures/test_copies.py"
STORES: Final = "cluster/structures/stores.py"
STORES_TEST: Final = "tests/integration/test_stores.py"
LAG: Final = "tests/unit/cluster/membership/test_lag.py"

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
        SERVICE,
        "        if pending.merging:\n",
        "        if False:\n",
        "tests/integration/test_safeguards.py",
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
        "            ids = [part_of(sent.operation, index) for index in range(len(batch))]\n",
        "            ids = [part_of(sent.operation, index + 1) for index in range(len(batch))]\n",
        "tests/unit/cluster/structures/test_batches.py",
    ),
    Mutation(
        "let a coordinator that stood still confirm its own table",
        ROUTER,
        "                and not self.replication.stalled\n",
        "",
        "tests/integration/test_campaign.py",
    ),
    Mutation(
        "believe the table after a stall",
        "cluster/structures/access.py",
        "            if now <= self.router.replication.valid_until:\n",
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
        "        is_overtaken = held is not None and held[1:3] != lease.version\n",
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
        "                cursors[reply.halfway] = reply.keys[-1]\n",
        "                pass\n",
        "tests/integration/test_loads.py",
    ),
    Mutation(
        "read a backup by a table that may be old",
        ROUTER,
        "                and await self._partitions.confirm(min(remaining, READ_PATIENCE))\n",
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
        REPAIR,
        "        away = min(away, TRANSIT_MAX)\n",
        "        away = 0.0\n",
        "tests/integration/test_ttl_in_transit.py",
    ),
    Mutation(
        "forget that times to live were long on the way",
        REPAIR,
        "            and not self._late.has(owned.partition, address)\n",
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
        NEAR_OWNER,
        "        if self._replication.stalled:\n",
        "        if False:\n",
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
        "forget what came near during a write",
        ROUTER,
        "            if self.near.maps:\n                self.near.outdate(request)\n",
        "            pass\n",
        NEAR,
    ),
    Mutation(
        "tell near readers nothing of evictions",
        REPLICA,
        "            self.listener(victim.map, victim.key)\n",
        "            pass\n",
        NEAR,
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
        "write behind without a place in the queue",
        STORES,
        "        return [change, queued(map_name, key, entry)] if map_name in self.behind else [change]\n",
        "        return [change]\n",
        STORES_TEST,
    ),
    Mutation(
        "take a write out of the queue before the store has it",
        "cluster/structures/behind.py",
        "                await store.write({key: _unpacked(entry) for _, key, entry in batch})\n"
        "                self._flushed.add(len(batch))\n"
        "                self._take_out(store, batch)\n",
        "                self._take_out(store, batch)\n"
        "                await store.write({key: _unpacked(entry) for _, key, entry in batch})\n"
        "                self._flushed.add(len(batch))\n",
        STORES_TEST,
    ),
    Mutation(
        "evict writes that wait for a store",
        REPLICA,
        "        return bool(self.kept) and map_name in self.kept and self.kept[map_name].rules.internal\n",
        "        return False\n",
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
)
