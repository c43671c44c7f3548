"""Many keys of one map at a time: one request per member, all at once; what is left over goes key by key."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from cache.cluster.ids import MemberId
from cache.cluster.structures.router import Router
from cache.cluster.wire.messages import DeleteMany, GetMany, Many, Outcomes, SetMany
from cache.errors import CacheError
from cache.keys import K

Located = Mapping[K, tuple[bytes, int]]
"""Encoded key and partition of each key."""


class Batches:
    """Sends columns of keys of one map to their owners.

    Every method leaves out the keys that it could not deal with; the caller tries those one by one.
    """

    def __init__(self, name: str, router: Router) -> None:
        self._name = name
        self._router = router

    async def get(self, located: Located[K]) -> dict[K, bytes | None]:
        """Return the encoded values, None for absent keys."""
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
        self, located: Located[K], encoded: Mapping[K, bytes], seconds: float
    ) -> dict[K, int]:
        """Store the encoded values."""
        return await self._write(
            self._by_owner(located),
            lambda batch: SetMany(
                self._name,
                [located[key][1] for key in batch],
                [located[key][0] for key in batch],
                [encoded[key] for key in batch],
                seconds,
                b"",
            ),
        )

    async def delete(self, located: Located[K], operation_id: Callable[[], bytes]) -> dict[K, int]:
        """Remove the keys: 1 for each that was present, 0 for the others."""
        return await self._write(
            self._by_owner(located),
            lambda batch: DeleteMany(
                self._name,
                [located[key][1] for key in batch],
                [located[key][0] for key in batch],
                operation_id(),
            ),
        )

    async def _write(
        self,
        batches: Sequence[tuple[MemberId | None, list[K]]],
        request: Callable[[list[K]], SetMany | DeleteMany],
    ) -> dict[K, int]:
        requests = [(member, request(batch)) for member, batch in batches]
        replies = await self._router.to_members(requests)
        codes: dict[K, int] = {}
        for (_, batch), reply in zip(batches, replies, strict=True):
            if not isinstance(reply, CacheError):
                assert isinstance(reply, Outcomes)
                pairs = zip(batch, reply.codes, strict=True)
                codes.update((key, code) for key, code in pairs if code >= 0)
        return codes

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
