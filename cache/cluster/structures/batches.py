"""Many keys of one map at a time: one request per member, all at once; what is left over goes key by key."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

from cache.cluster.ids import MemberId
from cache.cluster.structures.router import Router
from cache.cluster.wire.messages import (
    CODE_INDETERMINATE,
    CODE_UNAVAILABLE,
    DeleteMany,
    GetMany,
    Many,
    Outcomes,
    SetMany,
)
from cache.errors import CacheError, IndeterminateError, RejectedError
from cache.keys import K

Located = Mapping[K, tuple[bytes, int]]
"""Encoded key and partition of each key."""


Alone = Callable[[K], Awaitable[int]]
"""Does for one key what the batch did not, with retries; returns 1 if it had an effect."""


class Batches:
    """Sends columns of keys of one map to their owners."""

    def __init__(self, name: str, router: Router) -> None:
        self._name = name
        self._router = router

    async def get(self, located: Located[K]) -> dict[K, bytes | None]:
        """Return the encoded values, None for absent keys; what was not answered is left out."""
        batches = self._by_owner(located)
        replies = await self._router.to_members(
            [
                (
                    member,
                    GetMany(
                        self._name,
                        [located[key][1] for key in batch],
                        [located[key][0] for key in batch],
                        False,
                    ),
                )
                for member, batch in batches
            ]
        )
        found: dict[K, bytes | None] = {}
        for (_, batch), reply in zip(batches, replies, strict=True):
            if not isinstance(reply, CacheError):
                assert isinstance(reply, Many)
                found.update(zip(batch, reply.values, strict=True))
        return found

    async def set(
        self, located: Located[K], encoded: Mapping[K, bytes], seconds: float, alone: Alone[K]
    ) -> None:
        """Store the encoded values."""
        await self._write(
            located,
            lambda batch: SetMany(
                self._name,
                [located[key][1] for key in batch],
                [located[key][0] for key in batch],
                [encoded[key] for key in batch],
                seconds,
                b"",
            ),
            alone,
        )

    async def delete(
        self, located: Located[K], operation_id: Callable[[], bytes], alone: Alone[K]
    ) -> int:
        """Remove the keys; return how many were present."""
        return await self._write(
            located,
            lambda batch: DeleteMany(
                self._name,
                [located[key][1] for key in batch],
                [located[key][0] for key in batch],
                operation_id(),
            ),
            alone,
        )

    async def _write(
        self,
        located: Located[K],
        request: Callable[[list[K]], SetMany | DeleteMany],
        alone: Alone[K],
    ) -> int:
        """Return on how many keys there was an effect.

        Raises:
            RejectedError: what `alone` raised for a key, which was not applied.
            IndeterminateError: as well, or the batch may have applied it all the same.
        """
        batches = self._by_owner(located)
        replies = await self._router.to_members([(m, request(batch)) for m, batch in batches])
        codes: dict[K, int] = {}
        for (_, batch), reply in zip(batches, replies, strict=True):
            if isinstance(reply, CacheError):
                sent = isinstance(reply, IndeterminateError)
                codes.update(
                    dict.fromkeys(batch, -CODE_INDETERMINATE if sent else -CODE_UNAVAILABLE)
                )
            else:
                assert isinstance(reply, Outcomes)
                codes.update(zip(batch, reply.codes, strict=True))
        effects = 0
        for key, code in codes.items():
            effects += code if code >= 0 else await _again(key, code, alone)
        return effects

    def _by_owner(self, located: Located[K]) -> list[tuple[MemberId | None, list[K]]]:
        """Return the keys of each owner, in batches of at most `limits.batch_keys_max`."""
        limit = self._router.config.limits.batch_keys_max
        batches: list[tuple[MemberId | None, list[K]]] = []
        filling: dict[MemberId | None, list[K]] = {}
        for key, (_, partition) in located.items():
            member = self._router.owner(partition)
            batch = filling.get(member)
            if batch is None or len(batch) >= limit:
                batch = filling[member] = []
                batches.append((member, batch))
            batch.append(key)
        return batches


async def _again(key: K, code: int, alone: Alone[K]) -> int:
    try:
        return await alone(key)
    except RejectedError as error:
        if code != -CODE_INDETERMINATE:
            raise
        # This attempt was refused, but that of the batch may have been applied.
        raise IndeterminateError(f"{key!r} of a batch, not confirmed; then: {error}") from error
