"""Every planted mutation still has its place in the source."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.mutations.catalogue import MUTATIONS, Mutation
from tests.mutations.consistent import CONSISTENT_MUTATIONS
from tests.mutations.copying import COPYING_MUTATIONS
from tests.mutations.features import FEATURE_MUTATIONS
from tests.mutations.groups import GROUP_MUTATIONS
from tests.mutations.host import HOST_MUTATIONS
from tests.mutations.large import LARGE_MUTATIONS
from tests.mutations.node import NODE_MUTATIONS
from tests.mutations.raft import RAFT_MUTATIONS
from tests.mutations.writes import WRITE_MUTATIONS

ALL = (
    *MUTATIONS,
    *COPYING_MUTATIONS,
    *FEATURE_MUTATIONS,
    *RAFT_MUTATIONS,
    *WRITE_MUTATIONS,
    *NODE_MUTATIONS,
    *CONSISTENT_MUTATIONS,
    *HOST_MUTATIONS,
    *GROUP_MUTATIONS,
    *LARGE_MUTATIONS,
)

PACKAGE = Path(__file__).parents[2] / "cache"


@pytest.mark.parametrize("mutation", ALL, ids=lambda mutation: mutation.name)
def test_a_mutation_has_one_place_and_changes_it(mutation: Mutation) -> None:
    """A safeguard that was rewritten takes its mutation along."""
    source = (PACKAGE / mutation.file).read_text()

    assert 1 == source.count(mutation.old)
    assert mutation.old != mutation.new


def test_there_are_at_least_twenty_mutations_with_names_of_their_own() -> None:
    """Each safeguard counts once."""
    assert 20 <= len({mutation.name for mutation in ALL}) == len(ALL)
