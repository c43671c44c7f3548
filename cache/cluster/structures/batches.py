"""Many keys of one map at a time: one request per member, all at once; what is left over goes key by key."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from cache.cluster.ids import MemberId
from cache.cluster.structures.columns import Columns
from cache.cluster.structures.outcomes import BATCH_SHARE, each, raise_failed, uncertain
from cache.cluster.structures.router import Router
from cache.cluster.wire.messages import (
    CODE_INDETERMINATE,
    CODE_UNAVAILABLE,
    MODIFY_DELETE,
    NEVER,
    DeleteMany,
    GetMany,
    Many,
    Modify,
    Outcomes,
    Set,
    SetMany,
    Value,
    part_of,
)
from cache.errors import CacheError, IndeterminateError, RejectedError
from cache.keys import K


class Batches:
    """Sends columns of keys of one map to their owners."""

    def __init__(self, name: str, router: Router) -> None:
        self._name = name
        self._router = router

    async def get(self, columns: Columns[K]) -> dict[K, bytes | None]:
        """Return the encoded values, None for absent keys; what was not answered is left out."""
        batches = self._by_owner(columns)
        replies = await self._router.to_members(
            [
                (member, GetMany(self._name, batch.partitions, batch.encoded, False))
                for member, batch in batches
            ],
            share=BATCH_SHARE,
        )
        found: dict[K, bytes | None] = {}
        for (_, batch), reply in zip(batches, replies, strict=True):
            if not isinstance(reply, CacheError):
                assert isinstance(reply, Many)
                found.update(zip(batch.keys, reply.values, strict=True))
        return found

    async def set(self, columns: Columns[K], encoded: Mapping[K, bytes], seconds: float) -> None:
        """Store the encoded values.

        Raises:
            RejectedError: no key was stored.
            BatchError: says which keys were not, or may not have been.
        """
        deadline = self._router.deadline()
        replies = await self._send(
            columns,
            lambda batch: SetMany(
                self._name,
                batch.partitions,
                batch.encoded,
                [encoded[key] for key in batch.keys],
                seconds,
                b"",
            ),
        )

        def alone(key: K, place: bytes, partition: int, _: bytes) -> Any:
            return Set(self._name, partition, place, encoded[key], seconds, b"")

        await self._finish(columns, replies, alone, deadline)

    async def delete(self, columns: Columns[K], operation_id: Callable[[], bytes]) -> int:
        """Remove the keys; return how many were present.

        Raises:
            RejectedError: no key was removed.
            BatchError: says which keys were not, or may not have been.
        """
        deadline = self._router.deadline()
        replies = await self._send(
            columns,
            lambda batch: DeleteMany(self._name, batch.partitions, batch.encoded, operation_id()),
        )

        def alone(_: K, place: bytes, partition: int, operation: bytes) -> Any:
            return Modify(self._name, partition, place, operation, MODIFY_DELETE, b"", NEVER, 0)

        return await self._finish(columns, replies, alone, deadline)

    async def _send(
        self, columns: Columns[K], request: Callable[[Columns[K]], SetMany | DeleteMany]
    ) -> dict[K, tuple[int, bytes]]:
        """Send the batches; return the code and the operation id of each key."""
        batches = [(member, batch, request(batch)) for member, batch in self._by_owner(columns)]
        requests = [(member, sent) for member, _, sent in batches]
        replies = await self._router.to_members(requests, share=BATCH_SHARE)
        outcomes: dict[K, tuple[int, bytes]] = {}
        for (_, batch, sent), reply in zip(batches, replies, strict=True):
            ids = [part_of(sent.operation, index) for index in range(len(batch.keys))]
            if isinstance(reply, CacheError):
                was_sent = isinstance(reply, IndeterminateError)
                code = -CODE_INDETERMINATE if was_sent else -CODE_UNAVAILABLE
                codes = [code] * len(batch.keys)
            else:
                assert isinstance(reply, Outcomes)
                codes = reply.codes
            outcomes.update(zip(batch.keys, zip(codes, ids, strict=True), strict=True))
        return outcomes

    async def _finish(
        self,
        columns: Columns[K],
        outcomes: Mapping[K, tuple[int, bytes]],
        request: Callable[[K, bytes, int, bytes], Any],  # Any: a map request
        deadline: float,
    ) -> int:
        """Do alone what the batch did not, by one deadline; return how many keys there was an effect on."""
        effects = sum(code for code, _ in outcomes.values() if code > 0)
        left = {key: outcome for key, outcome in outcomes.items() if outcome[0] < 0}
        if not left:
            return effects
        places = columns.places()

        async def alone(key: K) -> int:
            code, operation = left[key]
            encoded, partition = places[key]
            asked = request(key, encoded, partition, operation)
            try:
                reply = await self._router.write(partition, asked, deadline)
            except RejectedError as error:
                raise (uncertain(key, error) if code == -CODE_INDETERMINATE else error) from error
            return not isinstance(reply, Value) or reply.value is not None

        settled = await each(left, alone)
        failed = {key: what for key, what in settled.items() if isinstance(what, CacheError)}
        raise_failed(failed, len(failed), len(places), "keys")
        return effects + sum(what for what in settled.values() if isinstance(what, int))

    def _by_owner(self, columns: Columns[K]) -> list[tuple[MemberId | None, Columns[K]]]:
        limit = self._router.config.limits.batch_keys_max
        return columns.by_owner(self._router.owners, limit)
