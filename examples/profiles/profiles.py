"""A small application: profiles are slow to make, so they are cached. It takes whatever cache it is given."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from cache.interface import Cache

Profile = dict[str, str]


class Profiles:
    """Profiles by user."""

    def __init__(self, cache: Cache[Profile], fetch: Callable[[int], Awaitable[Profile]]) -> None:
        self._cache = cache.namespace("profile", ttl="5m")
        self._fetch = fetch

    async def get(self, user: int) -> Profile:
        """Return a user's profile, from the cache if it is there."""
        return await self._cache.get_or_set(user, lambda: self._fetch(user), tags=[f"user:{user}"])

    async def changed(self, user: int) -> None:
        """Forget everything about a user, everywhere."""
        await self._cache.invalidate_tags(f"user:{user}")
