"""Which members should hold which partition: a sticky, load-capped, zone- and host-aware table. Pure.

The result depends on the previous holders and the set of candidates, never on the order in which candidates
are listed, so that every member computes the same. It moves as few copies as the shares allow, and giving
it its own result back changes nothing. The steps:

1. Drop holders that are no candidates; the first survivor becomes the owner, which copies nothing.
2. Give every member a fair share of copies (`shares.py`).
3. Make missing copies: in an unused zone first, then on an unused host, then where load is lowest.
4. Move copies from members over their share to members under it (`balance.py`).
5. Even out owners by exchanging roles inside replica sets, which copies nothing.

Rules that hold for every partition afterwards: its copies are in as many zones, and on as many hosts, as is
possible at all. Members without a zone count as one zone; a member without a host is a host of its own.

Source: reference/membership.md §4.4.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import ceil
from typing import Final

from xxhash import xxh3_64_intdigest

from cache.cluster.ids import MemberId
from cache.cluster.partitions.balance import balance
from cache.cluster.partitions.shares import copy_shares

_FULL: Final = 1e9
"""Added to the pressure of a member at its cap: above any quotient of load and share."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A member that may hold partitions; none when its weight is 0."""

    id: MemberId
    weight: int = 1
    host: str | None = None
    zone: str | None = None


def assign(
    previous: Sequence[Sequence[MemberId]], candidates: Sequence[Candidate], replica_count: int
) -> list[tuple[MemberId, ...]]:
    """Return the holders that each partition should have, owner first.

    Args:
        previous: current holders of each partition, owner first; may name members that are gone.
        candidates: who may hold partitions, in any order.
        replica_count: copies wanted; fewer are made when there are fewer candidates of weight above 0.
    """
    takers = sorted((c for c in candidates if c.weight > 0), key=lambda candidate: candidate.id)
    copies = min(replica_count, len(takers))
    if copies <= 0:
        return [() for _ in previous]
    if len(takers) == 1:
        return [(takers[0].id,)] * len(previous)
    layout = _Layout(takers, len(previous), copies)
    layout.keep_survivors(previous)
    layout.fill()
    balance(layout.loads, layout.shares, layout.copy_steps, layout.move)
    layout.balance_owners([taker.weight for taker in takers])
    ids = [taker.id for taker in takers]
    rows = [tuple(row) for row in layout.rows]
    named = {row: tuple(ids[member] for member in row) for row in dict.fromkeys(rows)}
    return [named[row] for row in rows]


class _Layout:
    """The assignment in the making; members are numbered by ascending id."""

    def __init__(self, takers: list[Candidate], partition_count: int, copies: int) -> None:
        self._seeds = [taker.id.encode() for taker in takers]
        self._index = {taker.id: number for number, taker in enumerate(takers)}
        zone_names = [taker.zone for taker in takers]
        # Hosts of one name in two zones are two hosts: zones contain hosts, whatever labels say.
        host_names = [
            (taker.zone, taker.host, "" if taker.host is not None else taker.id) for taker in takers
        ]
        self._zones = _numbered(zone_names)
        self._hosts = _numbered(host_names)
        self._copies = copies
        self._zones_needed = min(copies, max(self._zones) + 1)
        self._hosts_needed = min(copies, max(self._hosts) + 1)
        self._flat = self._zones_needed == 1 and max(self._hosts) + 1 == len(takers)
        weights = [taker.weight for taker in takers]
        fractions = copy_shares(weights, self._zones, self._hosts, copies)
        self.shares = [part * partition_count for part in fractions]
        self.loads = [0] * len(takers)
        self.rows: list[list[int]] = [[] for _ in range(partition_count)]
        self._held: list[dict[int, None]] = [{} for _ in takers]
        self._fresh: list[dict[int, None]] = [{} for _ in takers]

    # -- steps 1 and 3: survivors, missing copies ---------------------------------------------

    def keep_survivors(self, previous: Sequence[Sequence[MemberId]]) -> None:
        """Take over the previous holders, as far as they may stay."""
        for partition, holders in enumerate(previous):
            row = [
                self._index[holder] for holder in dict.fromkeys(holders) if holder in self._index
            ]
            while self._wasteful(row):
                del row[self._least_useful(row)]
            self.rows[partition] = row
            for member in row:
                self.loads[member] += 1
                self._held[member][partition] = None

    def fill(self) -> None:
        """Make the missing copies; ties by rendezvous score, so that no history is needed."""
        caps = [ceil(share) for share in self.shares]
        quotas = [float(share) for share in self.shares]

        def pressure(member: int) -> float:
            load = self.loads[member]
            return load / quotas[member] + (_FULL if load >= caps[member] else 0.0)

        pressures = [pressure(member) for member in range(len(quotas))]
        for partition, row in enumerate(self.rows):
            while len(row) < self._copies:
                pool = self._pool(row)
                lowest = min([pressures[member] for member in pool])
                tied = [member for member in pool if pressures[member] == lowest]
                member = tied[0]
                if len(tied) > 1:
                    member = max(tied, key=lambda m: xxh3_64_intdigest(self._seeds[m], partition))
                row.append(member)
                self.loads[member] += 1
                self._held[member][partition] = None
                self._fresh[member][partition] = None
                pressures[member] = pressure(member)

    def _pool(self, row: list[int]) -> list[int]:
        """Return the members among which the next copy is to be made."""
        everybody = range(len(self._seeds))
        if not self._flat:
            used_zones = [self._zones[member] for member in row]
            pool = [member for member in everybody if self._zones[member] not in used_zones]
            if pool:
                return pool
            used_hosts = [self._hosts[member] for member in row]
            pool = [member for member in everybody if self._hosts[member] not in used_hosts]
            if pool:
                return pool
        return [member for member in everybody if member not in row]

    def _wasteful(self, row: list[int]) -> bool:
        """Return whether these copies leave no room for enough others in other places."""
        missing = self._copies - len(row)
        if missing < 0 or self._flat:
            return missing < 0
        return (
            missing + self._zone_count(row) < self._zones_needed
            or missing + self._host_count(row) < self._hosts_needed
        )

    def _least_useful(self, row: list[int]) -> int:
        """Return the position to drop: never the owner, rather one that shares its place, the last."""
        hosts = [self._hosts[member] for member in row]
        zones = [self._zones[member] for member in row]
        return max(
            range(1, len(row)),
            key=lambda i: (hosts.count(hosts[i]) > 1, zones.count(zones[i]) > 1, i),
        )

    def _zone_count(self, row: list[int]) -> int:
        return len({self._zones[member] for member in row})

    def _host_count(self, row: list[int]) -> int:
        return len({self._hosts[member] for member in row})

    # -- step 4: moving copies ----------------------------------------------------------------

    def copy_steps(self, giver: int, seen: list[bool]) -> Iterator[tuple[int, int]]:
        """Yield moves of one copy: copies not made yet first, then backups, then owners."""
        takers = [member for member, visited in enumerate(seen) if not visited]
        for partition in self._movable(giver):
            if not takers:
                return
            for taker in takers:
                if self._may_move(partition, giver, taker):
                    yield taker, partition
            takers = [member for member in takers if not seen[member]]

    def _movable(self, giver: int) -> Iterator[int]:
        fresh, owned = self._fresh[giver].copy(), []
        yield from fresh
        for partition in [partition for partition in self._held[giver] if partition not in fresh]:
            if self.rows[partition][0] == giver:
                owned.append(partition)
            else:
                yield partition
        yield from owned

    def _may_move(self, partition: int, giver: int, taker: int) -> bool:
        row = self.rows[partition]
        if taker in row:
            return False
        if self._flat:
            return True
        after = [taker if member == giver else member for member in row]
        return (
            self._zone_count(after) >= self._zones_needed
            and self._host_count(after) >= self._hosts_needed
        )

    def move(self, partition: int, giver: int, taker: int) -> None:
        """Move one copy; it comes last in its row, so that a copy that exists becomes the owner."""
        assert self._may_move(partition, giver, taker), "two steps exclude each other"
        self.rows[partition].remove(giver)
        self.rows[partition].append(taker)
        del self._held[giver][partition]
        self._fresh[giver].pop(partition, None)
        self._held[taker][partition] = None
        self._fresh[taker][partition] = None

    # -- step 5: roles ------------------------------------------------------------------------

    def balance_owners(self, weights: list[int]) -> None:
        """Even out owners; a copy yet to be made becomes an owner only when that cannot be helped."""
        shares = [Fraction(len(self.rows) * weight, sum(weights)) for weight in weights]
        counts = [0] * len(weights)
        for row in self.rows:
            counts[row[0]] += 1
        for fresh in (self._fresh, None):
            offers = _Offers(self.rows, len(weights), fresh)
            balance(counts, shares, offers.steps, offers.promote)


class _Offers:
    """Which partitions each owner could leave to which other holder.

    Args:
        rows: holders of each partition, owner first; changed in place.
        fresh: copies yet to be made by each member, which are not to become owners; None if they may.
    """

    def __init__(
        self, rows: list[list[int]], members: int, fresh: list[dict[int, None]] | None
    ) -> None:
        self._rows = rows
        self._fresh = fresh
        self._of: list[dict[int, dict[int, None]]] = [{} for _ in range(members)]
        self._is_known = False

    def steps(self, giver: int, seen: list[bool]) -> Iterator[tuple[int, int]]:
        """Yield whom `giver` could make an owner, and of what."""
        if not self._is_known:
            self._is_known = True
            for partition in range(len(self._rows)):
                self._add(partition)
        for taker, partitions in list(self._of[giver].items()):
            for partition in list(partitions):
                if seen[taker]:
                    break
                yield taker, partition

    def promote(self, partition: int, giver: int, taker: int) -> None:
        """Let two holders change roles."""
        row, offered = self._rows[partition], self._of[giver]
        for other in row[1:]:
            if other in offered:
                offered[other].pop(partition, None)
        position = row.index(taker)
        row[0], row[position] = taker, giver
        self._add(partition)

    def _add(self, partition: int) -> None:
        owner, *others = self._rows[partition]
        for other in others:
            if self._fresh is None or partition not in self._fresh[other]:
                self._of[owner].setdefault(other, {})[partition] = None


def _numbered(names: Sequence[object]) -> list[int]:
    """Number equal names alike, in order of first appearance."""
    numbers: dict[object, int] = {}
    return [numbers.setdefault(name, len(numbers)) for name in names]
