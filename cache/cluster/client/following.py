"""Which table a client goes by, of its own and those that members send. Pure.

Tables form a tree (`partitions/table.py`). A member is told of each new one; a client asks, and may ask one
who is behind, or on the other side of a split. It stays with its own line for as long as anybody does.
"""

from __future__ import annotations

from collections.abc import Sequence

from cache.cluster.partitions.table import Table


def follow(mine: Table, sent: Sequence[Table]) -> Table:
    """Return the table to go by.

    Args:
        mine: what the client goes by now.
        sent: what members go by; of everybody who could be reached, unless one descends from `mine`.
    """
    newest = mine
    for table in sent:
        if table.descends_from(newest.id):
            newest = table
    if newest is not mine or any(mine.descends_from(table.id) for table in sent):
        return newest
    # Nobody of this line is left: the cluster was started anew, or this is the other side of a split.
    by_id = {table.id: table for table in sent}
    counts = {table_id: sum(t.id == table_id for t in sent) for table_id in by_id}
    best = max(by_id, key=lambda table_id: (counts[table_id], table_id), default=mine.id)
    return by_id.get(best, mine)
