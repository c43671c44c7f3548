"""What makes a near copy readable, step by step, and against a world in which everything is known."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from random import Random
from typing import cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cache.cluster.ids import MemberId
from cache.cluster.partitions.table import map_seed, partition_of
from cache.cluster.structures.copies import DRIFT_MAX, MapCopies, NearCopies, Source
from cache.cluster.structures.journal import Journal
from cache.cluster.structures.near import NearCache
from cache.cluster.wire.messages import (
    NEAR_ALL,
    NEVER,
    ClearEntries,
    DeleteMany,
    InvalidateTags,
    NearChanges,
    NearValue,
    Set,
)
from cache.codec import encode_value, with_tags

ADA, BOB = MemberId("ada#1"), MemberId("bob#2")
MAP, KEY, OTHER = "users", b"sann", b"sbob"
BOUND = 0.5
PARTITION = 3


@dataclass
class Near:
    """Copies of one map, and what a test says to them."""

    copies: NearCopies = field(default_factory=NearCopies)
    settings: NearCache = field(default_factory=lambda: NearCache(staleness_bound=BOUND))

    @property
    def users(self) -> MapCopies:
        return self.copies.open(MAP, self.settings)

    def fill(
        self,
        value: bytes | None = b"one",
        *,
        key: bytes = KEY,
        owner: MemberId = ADA,
        journal: int = 7,
        sequence: int = 1,
        sent_at: float = 0.0,
        now: float | None = None,
        ttl: float = NEVER,
        partition: int = PARTITION,
    ) -> Source | None:
        fill = self.users.begin(key)
        self.users.end(key, fill)
        return self.copies.install(
            self.users,
            key,
            fill,
            NearValue(value, ttl, journal, sequence),
            partition=partition,
            owner=owner,
            sent_at=sent_at,
            now=sent_at if now is None else now,
        )

    def follow(
        self,
        *changes: tuple[int, int],
        sequence: int | None = None,
        journal: int = 7,
        is_complete: bool = True,
        kept: float = 0.0,
        sent_at: float = 0.0,
        now: float | None = None,
    ) -> None:
        source = self.copies.sources[ADA]
        news = NearChanges(
            journal=journal,
            sequence=source.sequence + len(changes) if sequence is None else sequence,
            is_complete=is_complete,
            kept=kept,
            partitions=[partition for partition, _ in changes],
            digests=[digest for _, digest in changes],
        )
        late = sent_at + kept if now is None else now
        self.copies.follow(source, news, sent_at=sent_at, now=late)

    def get(self, now: float, key: bytes = KEY, most: float | None = None) -> bytes | None:
        return self.users.get(key, now, most)


@pytest.fixture
def near() -> Near:
    return Near()


# -- time --------------------------------------------------------------------------------------------


def test_a_copy_is_as_old_as_the_request_that_brought_it(near: Near) -> None:
    """However long the answer took: the owner may have read the value at any instant since."""
    near.fill(sent_at=10.0, now=10.4)

    assert b"one" == near.get(10.0 + BOUND * (1 - DRIFT_MAX))
    assert near.get(10.0 + BOUND) is None
    assert (1, 1) == (near.users.hits, near.users.unverified)


def test_a_poll_shows_what_held_when_its_answer_was_made_not_when_it_came(near: Near) -> None:
    """Sent at 10, kept for 0.2 s, on its way for a long time."""
    near.fill(sent_at=9.9)
    near.follow(sent_at=10.0, kept=0.2, now=10.6)

    assert b"one" == near.get(10.6)
    assert near.get(10.71) is None


def test_an_owner_that_says_it_kept_a_poll_for_longer_than_it_took_is_not_believed(
    near: Near,
) -> None:
    """The copy is verified as of now at best."""
    near.fill(sent_at=10.0)
    near.follow(sent_at=10.0, kept=1000.0, now=10.1)

    assert b"one" == near.get(10.5)
    assert near.get(10.61) is None


def test_silence_makes_copies_unreadable_and_an_answer_readable_again(near: Near) -> None:
    """They are kept: nothing says that they are old."""
    near.fill(sent_at=0.0)

    assert near.get(5.0) is None
    near.follow(sent_at=5.0)
    assert b"one" == near.get(5.1)


def test_one_read_may_ask_for_less(near: Near) -> None:
    """0 is never answered here; more than the bound changes nothing."""
    near.fill(sent_at=0.0)

    assert [None, None, b"one"] == [near.get(0.2, most=most) for most in (0.0, 0.1, 0.3)]
    assert near.get(0.6, most=60.0) is None


# -- from other threads ------------------------------------------------------------------------------


def test_another_thread_sees_what_a_read_would_see(near: Near) -> None:
    """Fresh, not verified any more, ended, absent."""
    near.fill(sent_at=0.0, ttl=0.6)

    assert b"one" == near.users.peek(KEY, 0.4)
    assert near.users.peek(KEY, 0.55) is None
    near.follow(sent_at=0.5)
    assert b"one" == near.users.peek(KEY, 0.55)
    assert near.users.peek(KEY, 0.6) is None
    assert near.users.peek(OTHER, 0.4) is None


def test_what_another_thread_read_counts_as_used_with_the_next_copy(near: Near) -> None:
    """It changes nothing by itself."""
    near.fill(sent_at=0.0)
    before = dict(near.users._store.entries)

    values = [near.users.peek(KEY, 0.1) for _ in range(3)]

    assert ([b"one"] * 3, before, 0) == (values, near.users._store.entries, near.users.hits)
    near.fill(key=OTHER, sent_at=0.1)
    assert 3 == near.users.hits
    assert before[KEY] != near.users._store.entries[KEY]


def test_a_copy_given_up_while_another_thread_looks_is_not_verified_by_what_follows(
    near: Near,
) -> None:
    """1. It finds a copy. 2. The loop's thread gives it up and notes what holds. 3. It reads that note."""
    near.fill(sent_at=0.0)
    source = near.copies.sources[ADA]

    class Interrupted:
        """A source; when it is looked at, the loop's thread comes first."""

        copy_count = 1

        @property
        def verified_at(self) -> float:
            near.users.drop(KEY)
            near.follow(sent_at=5.0)
            return source.verified_at

    held = near.users._store.entries[KEY]
    watched = held[0]._replace(source=cast(Source, Interrupted()))
    near.users._store.entries[KEY] = (watched, *held[1:])

    assert near.users.peek(KEY, 5.1) is None
    assert source.verified_at == 5.0


def test_a_copy_ends_no_later_than_the_entry(near: Near) -> None:
    """Seconds left are counted from the request, and cut by what clocks may differ."""
    near.fill(ttl=0.2, sent_at=0.0, now=0.1)

    assert b"one" == near.get(0.19)
    assert near.get(0.2 * (1 - DRIFT_MAX)) is None


# -- changes -----------------------------------------------------------------------------------------


def test_a_change_gives_up_older_copies_only(near: Near) -> None:
    """Number 2 is before the copy was read, number 3 after."""
    near.fill(key=OTHER, sequence=1)
    near.fill(sequence=2)
    digest = near.users.digest(KEY)

    near.follow((PARTITION, digest))
    assert b"one" == near.get(0.1)
    near.follow((PARTITION, digest))

    assert near.get(0.1) is None
    assert b"one" == near.get(0.1, OTHER)
    assert 1 == near.users.invalidations


def test_all_of_a_partition_gives_up_every_map(near: Near) -> None:
    """And no other partition."""
    near.fill()
    near.fill(key=OTHER, partition=4)

    near.follow((PARTITION, NEAR_ALL))

    assert [None, b"one"] == [near.get(0.1), near.get(0.1, OTHER)]


def test_a_gap_gives_up_what_is_older_than_the_journal(near: Near) -> None:
    """A copy that was read at the very number that is known now stays."""
    near.fill(sequence=1)
    near.fill(key=OTHER, sequence=9)

    near.follow(sequence=9, is_complete=False)

    assert [None, b"one"] == [near.get(0.1), near.get(0.1, OTHER)]
    assert 1 == near.copies.gaps


@pytest.mark.parametrize(
    ("journal", "sequence"), [(8, 1), (7, 0), (7, 9)], ids=["other journal", "back", "too few"]
)
def test_an_answer_that_does_not_fit_gives_up_everything(
    near: Near, journal: int, sequence: int
) -> None:
    """Whether the owner began anew or does not keep to the rules."""
    near.fill()

    near.follow(journal=journal, sequence=sequence)

    assert near.get(0.1) is None
    assert {} == near.copies.sources


def test_an_owner_with_another_journal_is_followed_anew(near: Near) -> None:
    """Numbers of two journals are not to be compared."""
    first = near.fill(sequence=90)
    second = near.fill(key=OTHER, journal=8, sequence=2)

    assert first is not None
    assert second is not None
    assert [None, b"one"] == [near.get(0.1), near.get(0.1, OTHER)]
    assert near.fill(key=KEY, journal=8, sequence=3) is None  # Already followed.


def test_a_poll_about_a_forgotten_source_is_ignored(near: Near) -> None:
    """Its owner left, and came back, while the answer was on its way."""
    old = near.fill()
    assert old is not None
    near.copies.forget(ADA)
    near.fill(sent_at=0.0)

    news = NearChanges(7, 1, True, 0.0, [], [])
    near.copies.follow(old, news, sent_at=9.0, now=9.0)

    assert near.get(9.0) is None


def test_a_partition_with_another_owner_loses_its_copies(near: Near) -> None:
    """The former owner does not answer for it any more."""
    near.fill()
    near.fill(key=OTHER, partition=4)

    near.copies.leave([PARTITION])

    assert [None, b"one"] == [near.get(0.1), near.get(0.1, OTHER)]


# -- fills and writes --------------------------------------------------------------------------------


def test_a_fill_older_than_what_is_known_is_not_kept(near: Near) -> None:
    """A change in between may be that of its key."""
    near.fill(sequence=1)
    near.follow((PARTITION, 5))

    near.fill(key=OTHER, sequence=1)

    assert near.get(0.1, OTHER) is None
    assert 1 == near.users.overtaken


def test_a_fill_does_not_replace_a_later_one(near: Near) -> None:
    """Two reads of one key, whose answers came in the other order."""
    near.fill(b"later", sequence=2)
    near.fill(b"sooner", sequence=1)

    assert b"later" == near.get(0.1)


@pytest.mark.parametrize(
    "write",
    [
        Set(MAP, PARTITION, KEY, b"", NEVER, b""),
        DeleteMany(MAP, [PARTITION], [KEY], b""),
        ClearEntries(MAP, [PARTITION], b""),
        InvalidateTags(MAP, [PARTITION], ["team"]),
    ],
    ids=lambda write: type(write).__name__,
)
def test_a_write_through_this_member_beats_copies_and_fills(near: Near, write: object) -> None:
    """A value that was asked for before is not kept, also when it comes after."""
    tagged = with_tags(encode_value(1), ["team"])
    near.fill(tagged)
    fill = near.users.begin(KEY)

    near.copies.outdate(write)

    assert near.get(0.1) is None
    near.users.end(KEY, fill)
    old = NearValue(tagged, NEVER, 7, 5)
    near.copies.install(
        near.users, KEY, fill, old, partition=PARTITION, owner=ADA, sent_at=0.0, now=0.0
    )
    assert near.get(0.1) is None
    assert near.fill(b"new", sequence=6) is None
    assert b"new" == near.get(0.1)


def test_tags_leave_other_copies_alone(near: Near) -> None:
    """Only copies that bear one are given up."""
    near.fill(with_tags(encode_value(1), ["team"]))
    near.fill(key=OTHER)

    near.copies.outdate(InvalidateTags(MAP, [PARTITION], ["team"]))

    assert [None, b"one"] == [near.get(0.1), near.get(0.1, OTHER)]


def test_absent_keys_are_not_kept_and_end_the_copy(near: Near) -> None:
    """The key was deleted; the change is still on its way."""
    near.fill()

    near.fill(None, sequence=2)

    assert near.get(0.1) is None
    assert 0 == near.users.count


# -- bounds ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", ["s3fifo", "lru", "wtinylfu"])
def test_bounds_hold_and_every_copy_is_accounted_for(policy: str) -> None:
    """Sources count their copies, also those that make room, whatever makes it."""
    near = Near(settings=NearCache(max_entries=8, max_bytes=100, policy=policy))  # type: ignore[arg-type]  # a literal
    rng = Random(1)
    for number in range(500):
        key, owner = b"s%d" % rng.randrange(20), rng.choice((ADA, BOB))
        value = b"x" * rng.randrange(1, 120)
        near.fill(value, key=key, owner=owner, sequence=number, partition=rng.randrange(3))
        assert near.users.count <= 8
        assert near.users.size_bytes <= 100
        assert near.users.count == sum(s.copy_count for s in near.copies.sources.values())
    near.copies.clear()
    assert (0, 0) == (near.users.count, near.users.size_bytes)
    assert [] == near.copies._places.all()


def test_keys_with_one_digest_do_not_share_a_place(near: Near) -> None:
    """Of two keys that a change could not tell apart, the later one is kept."""
    near.users.digest = lambda key: 5  # type: ignore[method-assign]  # a collision
    near.fill()
    near.fill(key=OTHER)

    assert [None, b"one"] == [near.get(0.1), near.get(0.1, OTHER)]
    near.follow((PARTITION, 5), (PARTITION, 5))
    assert near.get(0.1, OTHER) is None


# -- against a world in which everything is known ----------------------------------------------------


class Twin:
    """One owner with a journal, a network that holds messages back, and the history of every key."""

    def __init__(self, length: int) -> None:
        self.near = Near()
        self.journal = Journal(7, length)
        self.journal.follow(MAP)
        self.now = 0.0
        self.history: dict[bytes, list[tuple[float, bytes]]] = {}
        self.fills: list[tuple[bytes, object, NearValue, float]] = []
        self.polls: list[tuple[Source, NearChanges, float]] = []

    def write(self, key: bytes, *, here: bool) -> None:
        if here:
            self.near.users.outdate(key)
        values = self.history.setdefault(key, [])
        values.append((self.now, b"%d" % len(values)))
        self.journal.note(partition_of(key, map_seed(MAP), 8), MAP, key)
        if here:
            self.near.users.outdate(key)

    def ask(self, key: bytes) -> None:
        values = self.history.get(key)
        value = values[-1][1] if values else None
        reply = NearValue(value, NEVER, 7, self.journal.sequence)
        self.fills.append((key, self.near.users.begin(key), reply, self.now))

    def answer(self) -> None:
        if not self.fills:
            return
        key, fill, reply, sent_at = self.fills.pop(0)
        self.near.users.end(key, fill)  # type: ignore[arg-type]  # a Fill
        self.near.copies.install(
            self.near.users,
            key,
            fill,  # type: ignore[arg-type]  # a Fill
            reply,
            partition=partition_of(key, map_seed(MAP), 8),
            owner=ADA,
            sent_at=sent_at,
            now=self.now,
        )

    def poll(self) -> None:
        source = self.near.copies.sources.get(ADA)
        if source is None or self.polls:
            return
        changes = self.journal.since(7, source.sequence)
        news = NearChanges(
            7,
            self.journal.sequence,
            changes is not None,
            0.0,
            [partition for partition, _ in changes or ()],
            [digest for _, digest in changes or ()],
        )
        self.polls.append((source, news, self.now))

    def told(self) -> None:
        if self.polls:
            source, news, sent_at = self.polls.pop(0)
            self.near.copies.follow(source, news, sent_at=sent_at, now=self.now)

    def check(self, key: bytes, written_here: dict[bytes, int]) -> None:
        value = self.near.get(self.now, key)
        if value is None:
            return
        history = self.history[key]
        version = int(value)
        if version + 1 < len(history):
            assert history[version + 1][0] >= self.now - BOUND, "older than the bound"
        assert version >= written_here.get(key, 0), "older than a write of this member"


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from([2, 64]))
def test_no_copy_that_is_read_is_older_than_the_bound(seed: int, length: int) -> None:
    """Whatever is held back, and for how long; nor older than what this member wrote."""
    rng = Random(seed)
    twin = Twin(length)
    own: dict[bytes, int] = {}
    for _ in range(120):
        key = rng.choice((b"sa", b"sb", b"sc"))
        match rng.randrange(7):
            case 0:
                twin.write(key, here=False)
            case 1:
                twin.write(key, here=True)
                own[key] = len(twin.history[key]) - 1
            case 2:
                twin.ask(key)
            case 3:
                twin.answer()
            case 4:
                twin.poll()
            case 5:
                twin.told()
            case _:
                twin.now += rng.choice((0.01, 0.1, 0.4))
        for each in (b"sa", b"sb", b"sc"):
            twin.check(each, own)


def test_the_twin_reads_near() -> None:
    """An assertion about reads that never happen would hold."""
    twin = Twin(64)
    twin.write(b"sa", here=False)
    twin.ask(b"sa")
    twin.answer()
    twin.poll()
    twin.now = 0.3
    twin.told()

    assert b"0" == twin.near.get(0.3, b"sa")
    assert math.isclose(0.0, twin.near.copies.sources[ADA].verified_at)
