"""Planted mutations of the consistent structures: each takes away one safeguard that a test guards."""

from __future__ import annotations

from typing import Final

from tests.mutations.catalogue import Mutation

FOLDER: Final = "cluster/consistent"
TESTS: Final = "tests/unit/cluster/consistent"


def _of(name: str, file: str, old: str, new: str, killer: str) -> Mutation:
    return Mutation(f"consistent: {name}", f"{FOLDER}/{file}", old, new, f"{TESTS}/{killer}")


CONSISTENT_MUTATIONS: Final[tuple[Mutation, ...]] = (
    _of(
        "a token that is a count of grants",
        "state/grants.py",
        "            claim.token = index\n",
        "            claim.token = len(held.holding) + 1\n",
        "test_grants.py::test_tokens_rise_after_the_object_was_forgotten",
    ),
    _of(
        "the latest claim is next",
        "state/grants.py",
        "holder, claim = next(iter(held.waiting.items()))",
        "holder, claim = next(reversed(held.waiting.items()))",
        "test_grants.py::test_the_longest_waiting_is_next",
    ),
    _of(
        "take what is free before those who wait",
        "state/grants.py",
        "if not command.wait and (held.waiting or held.taken",
        "if not command.wait and (held.taken",
        "test_grants.py::test_permits_are_granted_in_order",
    ),
    _of(
        "grant more than there is",
        "state/grants.py",
        "            if claim.permits > held.capacity - held.taken:\n",
        "            if claim.permits > held.capacity - held.taken + 1:\n",
        "test_linearizability.py::test_histories_under_faults_are_linearizable[lock-0]",
    ),
    _of(
        "leave the dead what they hold",
        "state/grants.py",
        "for kind, name, owner in list(self._sessions.get(session, ())):",
        "for kind, name, owner in list(self._sessions.get(session, ()))[:1]:",
        "test_grants.py::test_a_session_that_ended_holds_and_awaits_nothing",
    ),
    _of(
        "forget a withdrawal that came first",
        "state/grants.py",
        "        withdrawn[(command.kind, command.name, command.owner)] = None\n",
        "        withdrawn.pop((command.kind, command.name, command.owner), None)\n",
        "test_grants.py::test_a_claim_that_comes_after_its_withdrawal_is_refused_once",
    ),
    _of(
        "keep all withdrawals",
        "state/grants.py",
        "if len(withdrawn) > WITHDRAWN_MAX:",
        "if len(withdrawn) > 2 * WITHDRAWN_MAX:",
        "test_grants.py::test_withdrawals_of_one_session_are_bounded",
    ),
    _of(
        "release with any token",
        "state/grants.py",
        "return claim if claim is not None and claim.token == command.token else None",
        "return claim",
        "test_grants.py::test_only_the_holder_with_its_token_gives_it_back",
    ),
    _of(
        "end a renewed lease at its first end",
        "state/grants.py",
        "            self._leases.pop((claim.ends_at, *place, holder), None)\n            claim.ends_at",
        "            claim.ends_at",
        "test_grants.py::test_a_lease_is_renewed",
    ),
    _of(
        "an unlimited queue",
        "state/grants.py",
        "if len(held.waiting) >= WAITERS_MAX:",
        "if len(held.waiting) > WAITERS_MAX:",
        "test_grants.py::test_a_queue_has_a_limit",
    ),
    _of(
        "wake nobody who waits for a grant",
        "state/grants.py",
        "        self._room.changed(*place)\n        while",
        "        while",
        "test_machine.py::test_a_held_query_changes_its_answer_only_when_its_object_was_named",
    ),
    _of(
        "a snapshot that forgets the order of those who wait",
        "state/grants.py",
        "        for holder, claim in claims.items()\n",
        "        for holder, claim in sorted(claims.items(), key=lambda item: item[0])\n",
        "test_grants.py::test_a_restored_queue_has_the_same_order",
    ),
    _of(
        "restore claims without their leases",
        "state/grants.py",
        "                if ends_at:\n",
        "                if ends_at and waiting:\n",
        "test_twins.py::TestGrants",
    ),
    _of(
        "count versions of a key from its creation",
        "state/maps.py",
        "        self._store(name, key, Entry(value, index))\n",
        "        self._store(name, key, Entry(value, min(index, self._get(name, key).version + 1)))\n",
        "test_structures.py::test_a_version_is_that_of_the_latest_change_and_rises_over_a_delete",
    ),
    _of(
        "exchange whatever is there for absent",
        "state/maps.py",
        "replaces = held.value == expected",
        "replaces = expected is None or held.value == expected",
        "test_linearizability.py::test_histories_under_faults_are_linearizable[map-0]",
    ),
    _of(
        "do not count what a delete frees",
        "state/maps.py",
        '        self._room.give(_size(name, key, entry.value or b""))\n',
        "",
        "test_machine.py::test_nothing_is_left_of_what_was_ended_and_destroyed",
    ),
    _of(
        "answer a watch that knows the version",
        "state/maps.py",
        "return None if entry.version == query.unless else entry",
        "return entry",
        "test_structures.py::test_a_watch_is_held_until_the_version_is_another",
    ),
    _of(
        "let a counter leave 64 bits",
        "state/counters.py",
        "if not INT64_MIN <= number <= INT64_MAX:",
        "if not INT64_MIN <= number:",
        "test_structures.py::test_a_counter_keeps_to_64_bits",
    ),
    _of(
        "give the last identifier again",
        "state/counters.py",
        "self.set(command.name, first + command.count)",
        "self.set(command.name, first + command.count - 1)",
        "test_structures.py::test_identifiers_are_taken_once",
    ),
    _of(
        "drop records that were just appended",
        "state/logs.py",
        "while len(log.values) > brought and (",
        "while log.values and (",
        "test_structures.py::test_a_batch_is_kept_whole_even_over_the_limits",
    ),
    _of(
        "read what is there now for what was dropped, under the old offset",
        "state/logs.py",
        "return Records(log.first, log.end, offset, values)",
        "return Records(log.first, log.end, query.offset, values)",
        "test_structures.py::test_a_log_drops_its_oldest_records",
    ),
    _of(
        "raise at what is no command",
        "machine.py",
        "        if decoded is None:\n            return encode(Failure(Code.MALFORMED))\n",
        "        assert decoded is not None\n",
        "test_machine.py::test_whatever_bytes_are_answered",
    ),
    _of(
        "name nothing after a snapshot was taken over",
        "machine.py",
        "        self._mark()\n        self._clear()",
        "        self._clear()",
        "test_machine.py::test_a_restored_machine_names_what_either_state_had",
    ),
    _of(
        "keep the session of before, not that of the claim",
        "claims.py",
        "            await self._require_session(answer.session)\n",
        "            pass\n",
        "test_lock.py::test_a_claim_in_a_session_that_was_opened_on_the_way_is_kept",
    ),
    _of(
        "leave the claim of a caller that is gone",
        "claims.py",
        "            if attempt.is_open:\n",
        "            if not attempt.is_open:\n",
        "test_lock.py::test_who_is_cancelled_while_waiting_withdraws",
    ),
    _of(
        "try a withdrawal once",
        "access.py",
        "                pause = min(2 * pause, RETRY_MAX)\n",
        "                return\n",
        "test_lock.py::test_a_withdrawal_is_repeated_until_the_group_has_it",
    ),
    _of(
        "do not tell holders of a lost session",
        "access.py",
        "        for dependent in list(self._dependents):\n",
        "        for dependent in list(self._dependents)[1:]:\n",
        "test_lock.py::test_a_lost_session_loses_the_lock_before_another_gets_it",
    ),
    _of(
        "forget a release whose answer was lost",
        "claims.py",
        "        except BaseException:\n            self._reach.settle(command)\n            raise\n",
        "        except BaseException:\n            raise\n",
        "test_lock.py::test_a_release_whose_answer_was_lost_is_repeated",
    ),
    _of(
        "count a lease from the claim, however long it waited",
        "claims.py",
        "                began_at = self._access.clock.monotonic()\n                if not",
        "                if not",
        "test_lock.py::test_a_lease_that_ended_during_a_long_wait_is_not_taken_for_held",
    ),
    _of(
        "never make the group look at its clock",
        "claims.py",
        "            if lease_left:\n                await self._access.tell(Touch(name), Outcome)\n",
        "",
        "test_lock.py::test_a_lease_ends_for_its_holder_first",
    ),
    _of(
        "let a task in again that did not ask for it",
        "claims.py",
        "        if not self._reentrant:\n",
        "        if self._reentrant is None:\n",
        "test_lock.py::test_a_lock_in_the_same_task_is_reentrant_only_if_wanted",
    ),
)
