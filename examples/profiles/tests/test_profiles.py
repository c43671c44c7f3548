"""How an application tests its caching: in one process with a frozen clock, and in a real cluster."""

from __future__ import annotations

from profiles import Profile, Profiles


class Database:
    """Counts how often it is asked."""

    def __init__(self) -> None:
        self.count = 0

    async def fetch(self, user: int) -> Profile:
        self.count += 1
        return {"name": f"user {user}", "version": str(self.count)}


async def test_a_profile_is_fetched_again_after_five_minutes(local_cache, frozen_clock):
    """No waiting: the clock is moved."""
    database = Database()
    profiles = Profiles(local_cache, database.fetch)

    assert await profiles.get(1) == await profiles.get(1)
    frozen_clock.advance(299)
    assert (await profiles.get(1))["version"] == "1"
    frozen_clock.advance(1)

    assert (await profiles.get(1))["version"] == "2"


async def test_a_change_is_seen_by_every_member(cache_cluster):
    """Two nodes in this process, on real sockets."""
    database = Database()
    async with cache_cluster(2) as cluster:
        here, there = (
            Profiles(member.node.map("app"), database.fetch) for member in cluster.members
        )
        assert await here.get(1) == await there.get(1)
        assert database.count == 1

        await there.changed(1)

        assert (await here.get(1))["version"] == "2"


async def test_profiles_survive_the_death_of_a_member(cache_cluster):
    """Every profile has two copies."""
    database = Database()
    async with cache_cluster(3, replica_count=2) as cluster:
        profiles = Profiles(cluster.member(0).node.map("app"), database.fetch)
        for user in range(50):
            await profiles.get(user)

        await cluster.kill(2)
        await cluster.wait_for_convergence()

        for user in range(50):
            await profiles.get(user)
        assert database.count == 50
