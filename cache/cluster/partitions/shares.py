"""Fair shares: how many copies each member should hold. Pure, exact arithmetic.

Members sit on hosts, hosts in zones. A share follows the weight, as far as placement allows: one member holds
a partition at most once, and a zone (host) holds at most one of its copies while there are enough zones
(hosts) for all of them, and at least one when there are not. Water-filling finds the weighted split within
these bounds, level by level.

Any set of shares found here can be met by whole copies, each member within one copy of its share: giving each
partition the fraction share/P of a copy on each member satisfies all bounds, they are nested, and a flow with
nested integer bounds has an integer solution.

Source: reference/membership.md §4.4, step 2.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction


def water_fill(
    total: Fraction, weights: Sequence[int], lows: Sequence[int], highs: Sequence[int]
) -> list[Fraction]:
    """Split `total` in proportion to `weights`, each part kept within its low and high.

    Returns the parts min(max(level * weight, low), high) for the one level where they add up to `total`,
    which must lie between the sum of the lows and the sum of the highs.
    """
    bounds = list(zip(weights, lows, highs, strict=True))
    assert sum(lows) <= total <= sum(highs), "the bounds leave no split"

    def parts(level: Fraction) -> list[Fraction]:
        return [min(max(level * w, Fraction(low)), Fraction(high)) for w, low, high in bounds]

    levels = sorted(Fraction(bound, w) for w, low, high in bounds for bound in (low, high))
    first, last = 0, len(levels) - 1  # parts(levels[first]) adds up to at most `total`.
    while first < last:
        middle = (first + last + 1) // 2
        if sum(parts(levels[middle])) <= total:
            first = middle
        else:
            last = middle - 1
    level = levels[first]
    rest = total - sum(parts(level))
    if rest:  # Between two levels the sum grows by the weights that are not at a bound.
        level += rest / sum(w for w, low, high in bounds if low <= level * w < high)
    return parts(level)


def copy_shares(
    weights: Sequence[int], zones: Sequence[int], hosts: Sequence[int], replica_count: int
) -> list[Fraction]:
    """Return how many copies of an average partition each member should hold, from above 0 up to 1.

    Args:
        weights: of each member, above 0.
        zones: number of each member's zone.
        hosts: number of each member's host; a host lies in one zone.
        replica_count: copies of a partition, at most the number of members.
    """
    by_host = _group(range(len(weights)), hosts)
    by_zone = _group(list(by_host), {host: zones[group[0]] for host, group in by_host.items()})
    crowded = replica_count >= len(by_host)  # Every host holds a copy of every partition.
    low = {host: int(crowded) for host in by_host}
    high = {
        host: 1 if replica_count <= len(by_host) else len(group) for host, group in by_host.items()
    }
    weight = {host: sum(weights[member] for member in group) for host, group in by_host.items()}
    zone_shares = water_fill(
        Fraction(replica_count),
        [sum(weight[host] for host in group) for group in by_zone.values()],
        [
            max(int(replica_count >= len(by_zone)), sum(low[host] for host in group))
            for group in by_zone.values()
        ],
        [
            1 if replica_count <= len(by_zone) else sum(high[host] for host in group)
            for group in by_zone.values()
        ],
    )
    shares = [Fraction(0)] * len(weights)
    for zone_share, zone_hosts in zip(zone_shares, by_zone.values(), strict=True):
        columns = [[column[host] for host in zone_hosts] for column in (weight, low, high)]
        host_shares = water_fill(zone_share, *columns)
        for host_share, host in zip(host_shares, zone_hosts, strict=True):
            group = by_host[host]
            ones = [1] * len(group)
            parts = water_fill(host_share, [weights[m] for m in group], [0] * len(group), ones)
            for member, part in zip(group, parts, strict=True):
                shares[member] = part
    return shares


def _group(items: Sequence[int], key: Sequence[int] | dict[int, int]) -> dict[int, list[int]]:
    groups: dict[int, list[int]] = {}
    for item in items:
        groups.setdefault(key[item], []).append(item)
    return groups
