"""Reads of several copies: the latest version wins."""

from __future__ import annotations

import asyncio
from typing import Final

from cache.cluster.partitions.table import Row
from cache.cluster.replication.service import ReplicationService
from cache.cluster.wire.messages import Entries, FetchEntries, Get, Reply, Value
from cache.errors import CacheError, NoQuorumError

READ_TIMEOUT: Final = 2.0
"""Seconds for the other copies to answer."""


async def read_quorum(replication: ReplicationService, message: Get) -> Reply:
    """Read `read_quorum` copies of a key that is owned here.

    Raises:
        NoQuorumError: too few of them answered.
        NotOwnerError: it is not served here, or not any more.
    """
    ownership = replication.serve(message.partition)
    needed = replication.config.read_quorum - 1
    answers = await _ask_copies(replication, ownership.row, message)
    if len(answers) < needed:
        raise NoQuorumError(
            f"{len(answers) + 1} of read_quorum={needed + 1} copies answered for partition "
            f"{message.partition}"
        )
    records = [record for answer in answers for record in answer.entries]
    ownership = replication.serve(message.partition)
    held = ownership.replica.entry(message.map, message.key)
    newer = [r for r in records if held is None or (r.hlc, r.origin) > held.version]
    if newer:
        replication.apply_records(ownership.replica, newer)
    now = replication.clock.monotonic()
    return Value(value=ownership.replica.get(message.map, message.key, now))


async def _ask_copies(replication: ReplicationService, row: Row, message: Get) -> list[Entries]:
    request = FetchEntries(partition=message.partition, keys=[(message.map, message.key)])
    calls = [
        replication.rpc.call(address, request, timeout=READ_TIMEOUT)
        for holder in row.replicas[1:]
        if (address := replication.address_of(holder)) is not None
    ]
    replies = await asyncio.gather(*calls, return_exceptions=True)
    for reply in replies:
        if isinstance(reply, BaseException) and not isinstance(reply, CacheError):
            raise reply
    return [reply for reply in replies if isinstance(reply, Entries)]
