"""What goes wrong in one run: each seed draws its own subset of faults and their rates (swarm testing).

Source: Groce et al., Swarm Testing, ISSTA 2012.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Final

from cache.cluster.raft.messages import ReplicaId
from cache.cluster.raft.outputs import ChangeMembers, Transfer
from cache.testing.raft.world import Host, World

FAULTS: Final = (
    "crash",
    "crash all",
    "cut groups",
    "cut leader",
    "cut one way",
    "pause",
    "transfer",
    "members",
)
NOISES: Final = ("loss", "repeat", "slow", "slow disk", "drift")


class Nemesis:
    """Draws faults, and undoes them."""

    def __init__(self, world: World, seed: str) -> None:
        self._world = world
        self._rng = Random(f"nemesis {seed}")
        self.faults = [fault for fault in FAULTS if self._rng.random() < 0.5]
        self.noises = [noise for noise in NOISES if self._rng.random() < 0.5]
        self._interval = self._rng.choice((0.05, 0.15, 0.5))
        self._stopped = False
        self._strike: dict[str, Callable[[], None]] = {
            "crash": self._crash,
            "crash all": self._crash_all,
            "cut groups": self._cut_groups,
            "cut leader": self._cut_leader,
            "cut one way": self._cut_one_way,
            "pause": self._pause,
            "transfer": self._transfer,
            "members": self._change_members,
        }

    def start(self) -> None:
        """Begin."""
        links, rng = self._world.links, self._rng
        links.loss = rng.uniform(0, 0.15) if "loss" in self.noises else 0.0
        links.repeat = rng.uniform(0, 0.2) if "repeat" in self.noises else 0.0
        links.slow = rng.uniform(0, 0.1) if "slow" in self.noises else 0.0
        if "slow disk" in self.noises:
            self._world.sync_max = rng.choice((0.03, 0.15))
        self._later()

    def rate(self) -> float:
        """Return how fast the clock of a host runs, within what the configuration allows."""
        drift = self._world.config.clock_drift_max if "drift" in self.noises else 0.0
        return 1 + self._rng.choice((-drift, 0.0, drift, self._rng.uniform(-drift, drift)))

    def stop(self) -> None:
        """Undo everything; nothing happens from now on."""
        self._stopped = True
        links = self._world.links
        links.loss = links.repeat = links.slow = 0.0
        links.cut.clear()
        self._world.sync_max = 0.004
        for host in self._world.hosts.values():
            host.paused_until = 0.0
            if not host.up:
                host.start()

    def _later(self) -> None:
        self._world.later(self._rng.expovariate(1 / self._interval), self._act)

    def _act(self) -> None:
        if self._stopped:
            return
        self._later()
        links = self._world.links
        if links.cut and self._rng.random() < 0.6:
            links.cut.clear()
            self._world.counts["fault: heal"] += 1
        elif self.faults:
            fault = self._rng.choice(self.faults)
            self._world.counts[f"fault: {fault}"] += 1
            self._strike[fault]()

    def _up(self) -> list[Host]:
        return [host for host in self._world.hosts.values() if host.up]

    def _crash(self) -> None:
        leader = self._world.leader()
        if up := self._up():
            victim = leader if leader and self._rng.random() < 0.5 else self._rng.choice(up)
            self._crash_one(victim)

    def _crash_one(self, victim: Host) -> None:
        victim.crash(written=self._rng.random() < 0.5)

        def restart() -> None:
            if not victim.up:
                victim.start()

        self._world.later(self._rng.choice((0.01, 0.1, 0.5)), restart)

    def _crash_all(self) -> None:
        for host in self._up():
            self._crash_one(host)

    def _cut_groups(self) -> None:
        names = list(self._world.hosts)
        side = {name for name in names if self._rng.random() < 0.5}
        self._cut(lambda a, b: (a in side) != (b in side))

    def _cut_leader(self) -> None:
        leader = self._world.leader()
        if leader is not None:
            self._cut(lambda a, b: leader.name in (a, b))

    def _cut_one_way(self) -> None:
        leader = self._world.leader()
        names = list(self._world.hosts)
        one = leader.name if leader is not None else self._rng.choice(names)
        deaf = self._rng.random() < 0.5
        self._cut(lambda a, b: (b if deaf else a) == one and self._rng.random() < 0.8)

    def _cut(self, apart: Callable[[str, str], bool]) -> None:
        names = list(self._world.hosts)
        pairs = [(a, b) for a in names for b in names if a != b]
        self._world.links.cut = {pair for pair in pairs if apart(*pair)}

    def _pause(self) -> None:
        if up := self._up():
            leader = self._world.leader()
            host = leader if leader and self._rng.random() < 0.5 else self._rng.choice(up)
            host.paused_until = self._world.time + self._rng.choice((0.1, 0.4, 0.8))

    def _transfer(self) -> None:
        leader = self._world.leader()
        if leader is not None:
            target = self._rng.choice([None, *self._world.hosts])
            leader.post(Transfer(None if target is None else ReplicaId(target)))

    def _change_members(self) -> None:
        """Ask the leader for other members: newcomers learn first, then vote."""
        leader = self._world.leader()
        if leader is None:
            return
        members = leader.machine.status().members
        voters, learners = list(members.voters), list(members.learners)
        outside = [name for name in self._world.hosts if name not in (*voters, *learners)]
        choice = self._rng.randrange(4)
        if choice == 0 and outside:
            learners.append(self._rng.choice(outside))
        elif choice == 1 and learners:
            voters.append(learners.pop(self._rng.randrange(len(learners))))
        elif choice == 2 and len(voters) > 1:
            gone = voters.pop(self._rng.randrange(len(voters)))
            if self._rng.random() < 0.5:
                learners.append(gone)
        elif learners and len(voters) > 1:
            self._rng.shuffle(learners)
            voters[self._rng.randrange(len(voters))], learners[0] = (
                learners[0],
                voters[self._rng.randrange(len(voters))],
            )
        if len({*voters, *learners}) == len(voters) + len(learners):
            request = leader.ask(self._changed)
            event = ChangeMembers(request=request, voters=tuple(voters), learners=tuple(learners))
            leader.post(event)

    def _changed(self, result: object, place: int) -> None:
        self._world.counts["members changed" if place else "members not changed"] += 1
