"""Mutations of groups on nodes that random faults to whole clusters have to notice."""

from __future__ import annotations

from typing import Final

from tests.mutations.catalogue import Mutation

CONSISTENT_LOAD: Final = "consistent campaign"

HOST: Final = "cluster/raft/host.py"
HOSTED: Final = "cluster/raft/hosted.py"
CALLER: Final = "cluster/consistent/caller.py"
SESSIONS: Final = "cluster/raft/sessions.py"
STORED: Final = "cluster/raft/stored.py"
GIVING_UP: Final = "tests/integration/test_giving_up.py"
FOUNDING_TESTS: Final = "tests/unit/cluster/raft/test_founding.py"
MANY: Final = "tests/integration/test_many_groups.py"

GROUP_MUTATIONS: Final[tuple[Mutation, ...]] = (
    Mutation(
        "groups: a leader answers without asking a majority",
        HOSTED,
        "            await replica.read(timeout=message.remaining, lease=message.lease)\n",
        "            replica.status()\n",
        CONSISTENT_LOAD,
        first=4,
    ),
    Mutation(
        "groups: a lease never ends",
        "cluster/raft/reads.py",
        "        return began_at is not None and now < began_at + self._lease_duration\n",
        "        return True\n",
        CONSISTENT_LOAD,
        first=320,
    ),
    Mutation(
        "groups: what may be applied is said not to be",
        CALLER,
        "            trying.maybe_applied = trying.maybe_applied or isinstance(question, CallGroup)\n",
        "            trying.maybe_applied = False\n",
        CONSISTENT_LOAD,
        first=20,
    ),
    Mutation(
        "groups: a command that is sent again is a new one",
        CALLER,
        "                sequence,\n                session.answered,\n",
        "                session.begin(),\n                0,\n",
        CONSISTENT_LOAD,
        first=3,
    ),
    Mutation(
        "groups: snapshots forget what sessions were answered",
        SESSIONS,
        "number: _Session(lifetime, ends_at, answered, dict(answers))\n",
        "number: _Session(lifetime, ends_at, 0, {})\n",
        CONSISTENT_LOAD,
        first=7,
    ),
    Mutation(
        "groups: a disk keeps no vote and no term",
        STORED,
        "        if (hard := persist.hard_state) is not None:\n",
        "        if (hard := persist.hard_state) is not None and beside:\n",
        CONSISTENT_LOAD,
        first=4,
    ),
    Mutation(
        "groups: a new log takes part under the name of the one that is no more",
        HOST,
        "        hosted = next((one for one in self._all() if one.me == notice.target), None)\n",
        "        named = replica_member(notice.target) == self.people.my_name\n"
        "        hosted = next((one for one in self._all() if named), None)\n",
        CONSISTENT_LOAD,
        first=14,
    ),
    Mutation(
        "groups: a holder hears late that its session is over",
        "cluster/consistent/session.py",
        "        self.confirmed_at = max(self.confirmed_at, sent_at)\n",
        "        self.confirmed_at = max(self.confirmed_at, sent_at + 1.0)\n",
        "tests/unit/cluster/consistent/test_session.py",
    ),
    Mutation(
        "groups: sessions live for ever",
        SESSIONS,
        "        over = [number for number, one in self._sessions.items() if one.ends_at <= entry.time]\n",
        "        over: list[int] = []\n",
        CONSISTENT_LOAD,
        first=1,
    ),
    Mutation(
        "groups: the members of a log that is lost are not told",
        HOST,
        "            if replica in everyone(status.members):\n",
        "            if replica in everyone(status.members) and hosted.leads:\n",
        CONSISTENT_LOAD,
        first=8,
    ),
    Mutation(
        "groups: a log begins anew with every start",
        HOST,
        "                hosted.resume(kept, self._logs)\n",
        "                await self._logs.forget(hosted.name)\n",
        CONSISTENT_LOAD,
    ),
    Mutation(
        "groups: all names are in the first one",
        HOST,
        "    return groups[xxh3_64_intdigest(name.encode()) % len(groups)]\n",
        "    return groups[0 * xxh3_64_intdigest(name.encode())]\n",
        f"{MANY}::test_names_spread_over_four_groups[simulated]",
    ),
    Mutation(
        "groups: nobody reports another group of the same name",
        HOSTED,
        "        self._note_foreign(uuid)\n        return False\n",
        "        return False\n",
        f"{MANY}::test_two_groups_that_meet_stay_apart_and_are_reported[simulated]",
    ),
    Mutation(
        "groups: a call goes to the former leader though this member leads",
        HOSTED,
        "        if status is not None and status.leader is not None and status.term > self.leader_term:\n",
        "        if status is not None and status.leader is not None and status.term < 0:\n",
        "tests/unit/cluster/raft/test_hosted.py",
    ),
    Mutation(
        "groups: a replica is not told that it has no vote any more",
        "cluster/raft/consensus.py",
        "election.leader, self._campaign.votes)\n",
        "election.leader, True)\n",
        "tests/unit/cluster/raft/test_consensus.py",
    ),
    Mutation(
        "giving up: a majority that is only out of reach is given up",
        "cluster/raft/giving_up.py",
        "        if not hosted.is_lost:\n",
        "        if hosted.leads:\n",
        f"{GIVING_UP}::test_a_group_that_may_live_is_not_given_up[simulated]",
    ),
    Mutation(
        "giving up: a group that was given up is heard of again",
        "cluster/raft/founding.py",
        "        if self.known == NO_GROUP and uuid not in self.given_up:\n",
        "        if self.known == NO_GROUP:\n",
        FOUNDING_TESTS,
    ),
    Mutation(
        "giving up: sessions of the former group count",
        CALLER,
        "                hook(EVERY_SESSION)\n",
        "                str(hook)\n",
        f"{GIVING_UP}::test_who_held_a_lock_of_a_group_that_was_given_up_is_told[simulated]",
    ),
)
