"""Planted mutations of the groups on nodes: founding, voters, sessions, questions, leaving."""

from __future__ import annotations

from typing import Final

from tests.mutations.catalogue import Mutation

FOUNDING: Final = "cluster/raft/founding.py"
VOTERS: Final = "cluster/raft/voters.py"
HOST: Final = "cluster/raft/host.py"
HOSTED: Final = "cluster/raft/hosted.py"
KEEPER: Final = "cluster/raft/keeper.py"
HARNESS: Final = "tests/unit/testing/test_consensus.py"
CALLER: Final = "cluster/consistent/caller.py"

FOUNDING_TESTS: Final = "tests/unit/cluster/raft/test_founding.py"
VOTERS_TESTS: Final = "tests/unit/cluster/raft/test_voters.py"
TORN: Final = (
    "tests/integration/test_founding.py::test_cuts_during_the_founding_never_make_two_groups[5]"
)


def _nodes(name: str) -> str:
    return f"tests/integration/test_consensus.py::{name}[simulated]"


HOST_MUTATIONS: Final[tuple[Mutation, ...]] = (
    Mutation(
        "founding: a member accepts a second group",
        FOUNDING,
        "        if self.known == NO_GROUP and self._reserved == uuid:\n",
        "        if self._reserved == uuid:\n",
        FOUNDING_TESTS,
    ),
    Mutation(
        "founding: a member accepts a founder that it was not reserved for last",
        FOUNDING,
        "        if self.known == NO_GROUP and self._reserved == uuid:\n",
        "        if self.known == NO_GROUP:\n",
        FOUNDING_TESTS,
    ),
    Mutation(
        "founding: a member is reserved for two founders",
        FOUNDING,
        "        if self.known != NO_GROUP or self._is_reserved_for_another(uuid, now):\n",
        "        if self.known != NO_GROUP:\n",
        FOUNDING_TESTS,
    ),
    Mutation(
        "founding: who does not answer knows no group",
        FOUNDING,
        "    if silent:\n",
        "    if silent and not present:\n",
        FOUNDING_TESTS,
    ),
    Mutation(
        "founding: a voter that may have accepted counts as one that never will",
        FOUNDING,
        "        if reply is Reply.NEVER and voter in self.voters:\n",
        "        if reply is not Reply.ACCEPTED and voter in self.voters:\n",
        FOUNDING_TESTS,
    ),
    Mutation(
        "founding: a founder that stood still goes on",
        "cluster/raft/founder.py",
        "        if is_late or len(replicas) < len(chosen):\n",
        "        if len(replicas) < len(chosen):\n",
        "tests/unit/cluster/raft/test_founder.py",
    ),
    Mutation(
        "founding: a leader tells nobody of its group",
        KEEPER,
        "            all_know = await self._tell_all()\n",
        "            all_know = True\n",
        _nodes("test_whoever_comes_later_is_told_of_the_group"),
    ),
    Mutation(
        "founding: a group that nobody uses is founded",
        HOST,
        " or not hosted.is_wanted:",
        ":",
        _nodes("test_a_group_is_founded_when_it_is_first_used"),
    ),
    Mutation(
        "founding: a node founds before it has joined",
        "cluster/node.py",
        "            await self._membership.join()\n            self._consensus.start()\n",
        "            self._consensus.start()\n            await self._membership.join()\n",
        _nodes("test_a_lone_founder_gets_two_more_voters"),
    ),
    Mutation(
        "founding: a voter whose offer was lost never begins",
        HOST,
        "            if hosted.offered(notice.uuid, notice.target) is Reply.ACCEPTED:\n",
        "            if hosted.offered(notice.uuid, notice.target) is Reply.NEVER:\n",
        TORN,
    ),
    Mutation(
        "founding: a replica that was removed before its group was born stays for ever",
        HOST,
        "            await self._give_up_if_hopeless(hosted)\n        since",
        "            await self._give_up_if_hopeless(hosted)\n            return soon\n        since",
        TORN,
    ),
    Mutation(
        "voters: a leader without a majority changes them",
        VOTERS,
        "    if voters and len(living) * 2 <= len(voters):\n",
        "    if voters and not living:\n",
        VOTERS_TESTS,
    ),
    Mutation(
        "voters: the dead outvote those that stay",
        VOTERS,
        "    kept = [*live, *away[: here - 1]]\n",
        "    kept = [*live, *away]\n",
        VOTERS_TESTS,
    ),
    Mutation(
        "voters: zones do not matter",
        VOTERS,
        "    zone = sum(one.zone == candidate.zone for one in taken)\n",
        "    zone = 0\n",
        VOTERS_TESTS,
    ),
    Mutation(
        "voters: whoever is missing is replaced at once",
        KEEPER,
        "        return Fate.DEAD if now - since >= self._config.replace_after else Fate.MISSING\n",
        "        return Fate.DEAD if now >= since else Fate.MISSING\n",
        _nodes("test_a_dead_voter_is_replaced_after_a_while"),
    ),
    Mutation(
        "voters: nobody says that a log is no more",
        HOST,
        "            self._rpc.notify(peer.address, ReplicaGone(",
        "            str(ReplicaGone(",
        _nodes("test_without_a_majority_calls_say_so_in_time"),
    ),
    Mutation(
        "calls: a repeated command gets another number",
        CALLER,
        "                sequence,\n                session.answered,\n",
        "                session.begin(),\n                0,\n",
        _nodes("test_commands_go_on_when_the_leader_dies_and_count_once"),
    ),
    Mutation(
        "calls: commands under way are said to be over",
        CALLER,
        "                session.answered,\n",
        "                session.sequence,\n",
        _nodes("test_commands_go_on_when_the_leader_dies_and_count_once"),
    ),
    Mutation(
        "calls: a leader answers questions without asking a majority",
        HOSTED,
        "            await replica.read(timeout=message.remaining, lease=message.lease)\n",
        "            replica.status()\n",
        _nodes("test_a_deposed_leader_answers_no_question"),
    ),
    Mutation(
        "calls: a held question is not asked again",
        HOSTED,
        "            self._wake_held(self._held.pop(topic, {}))\n",
        "            self._wake_held({})\n",
        _nodes("test_a_held_question_is_answered_when_the_object_changes"),
    ),
    Mutation(
        "sessions: nobody is told that one may be over",
        CALLER,
        "            if now >= ends_at:\n                self._lose(session)\n",
        "            if now >= ends_at:\n                return\n",
        _nodes("test_a_member_that_is_cut_off_knows_when_its_session_may_be_over"),
    ),
    Mutation(
        "sessions: no sign of life is given",
        CALLER,
        "            self._scope.spawn(self._keep_alive(session), ",
        "            self._scope.spawn(asyncio.sleep(0), ",
        _nodes("test_a_session_is_kept_while_something_depends_on_it"),
    ),
    Mutation(
        "sessions: a member that leaves keeps its own",
        CALLER,
        "                if session.is_kept and timeout > 0:\n",
        "                if not session.is_kept and timeout > 0:\n",
        _nodes("test_a_member_that_leaves_gives_its_session_back"),
    ),
    Mutation(
        "disks: a member with a damaged log does not start",
        HOST,
        "                await self._logs.forget(hosted.name)\n                continue\n",
        "                raise\n",
        "tests/integration/test_consensus.py::test_a_damaged_log_is_forgotten_and_fetched_anew",
    ),
    Mutation(
        "leaving: a drain does not wait for the vote to be handed on",
        "cluster/leaving.py",
        "        return bool(self._remaining() or self._consensus.voting())\n",
        "        return bool(self._remaining())\n",
        _nodes("test_a_leader_that_drains_is_replaced_first"),
    ),
    Mutation(
        "calls: a call waits for its next try when a leader is there",
        CALLER,
        "        await self._hosted.await_leader(",
        "        await asyncio.sleep(",
        _nodes("test_calls_go_on_as_soon_as_there_is_a_leader"),
    ),
    Mutation(
        "calls: a request that timed out takes its room for ever",
        "cluster/raft/service.py",
        "                self._driver.post(Cancel(request))\n",
        "                pass\n",
        "tests/unit/cluster/raft/test_service.py",
    ),
    Mutation(
        "calls: callers that doubt the same leader wake each other",
        HOSTED,
        "is_news = term > self.leader_term",
        "is_news = True",
        "tests/unit/cluster/raft/test_hosted.py",
    ),
    Mutation(
        "messages: a member that came back is sought where it was",
        "cluster/raft/people.py",
        "        self._ids = None\n",
        "        pass\n",
        _nodes("test_a_rolling_restart_in_memory_loses_nothing"),
    ),
    Mutation(
        "disks: a replica accepts its group before that is durable",
        HOST,
        "            await self._logs.create(hosted.name, persisted, uuid=uuid, log_id=log_id)\n",
        "            str((uuid, log_id))\n",
        _nodes("test_members_with_disks_lose_nothing_when_all_are_killed"),
    ),
    Mutation(
        "info: the lag of a replica is what it has",
        "cluster/raft/leadership.py",
        "replica: last - progress.match for",
        "replica: progress.match for",
        "tests/integration/test_harness.py::"
        "test_a_follower_that_was_down_catches_up_in_order[simulated]",
    ),
    Mutation(
        "info: digests leave the state out",
        "cluster/raft/service.py",
        "xxh3_64_intdigest(self._state.snapshot())",
        "id(self)",
        "tests/integration/test_harness.py::"
        "test_a_hundred_records_are_the_same_on_five_members[simulated]",
    ),
    Mutation(
        "test cluster: a member that does not answer agrees",
        "testing/consensus.py",
        "    if leader is None or None in infos.values():\n",
        "    if leader is None:\n",
        HARNESS,
    ),
    Mutation(
        "test cluster: of two that say they lead the earlier one does",
        "testing/consensus.py",
        "return max(leading)[1]",
        "return min(leading)[1]",
        HARNESS,
    ),
    Mutation(
        "test cluster: consensus does not look at terms",
        "testing/consensus.py",
        "    named = {(info.leader, info.term) for info in replicas}\n",
        "    named = {(info.leader, infos[leader].term) for info in replicas}  # type: ignore\n",
        HARNESS,
    ),
    Mutation(
        "test cluster: half of the voters are a quorum",
        "testing/consensus.py",
        "return 2 * alive > size",
        "return 2 * alive >= size",
        "tests/integration/test_harness.py::test_a_quorum_is_more_than_half",
    ),
    Mutation(
        "test cluster: a voter that stopped is in a quorum",
        "testing/consensus.py",
        "[info.replica for info in known if info.role is not None]",
        "[info.replica for info in known]",
        HARNESS,
    ),
    Mutation(
        "test cluster: replicas that differ are waited for",
        "testing/consensus.py",
        "            assert len(digests) == 1,",
        "            assert digests,",
        HARNESS,
    ),
)
