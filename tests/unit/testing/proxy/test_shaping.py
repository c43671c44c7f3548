"""Bytes of a stream under toxics, stepped by hand: no socket and no clock."""

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cache.testing.proxy.shaping import RETRANSMISSION, End, Item, Pipe, retransmitted
from cache.testing.proxy.toxics import KINDS, Toxic


def toxic(kind: str, **attributes: float) -> Toxic:
    given = {**KINDS[kind].attributes, **attributes}
    return Toxic(name=kind, type=kind, attributes=given)


def pipe_with(*toxics: Toxic, seed: int = 0) -> Pipe:
    pipe = Pipe()
    for one in toxics:
        shaper = one.shaper(Random(seed))
        assert shaper is not None
        pipe.add(one.name, shaper, 0.0)
    return pipe


def arrivals(pipe: Pipe, until: float = 100.0) -> list[tuple[float, Item]]:
    """Step from deadline to deadline; return what arrives, and when."""
    arrived: list[tuple[float, Item]] = [(0.0, item) for item in pipe.take(0.0)]
    while (at := pipe.deadline()) is not None and at <= until:
        arrived += [(round(at, 6), item) for item in pipe.take(at)]
    return arrived


def test_without_toxics_everything_arrives_at_once_and_in_order() -> None:
    pipe = Pipe()
    for item in (b"a", b"b", End.EOF):
        pipe.feed(item, 0.0)

    assert [b"a", b"b", End.EOF] == pipe.take(0.0)
    assert pipe.deadline() is None


def test_latency_adds_what_it_was_told_to_each_piece_and_to_the_end() -> None:
    """Toxiproxy: `latency` in milliseconds."""
    slow = toxic("latency", latency=250)
    pipe = pipe_with(slow)
    pipe.feed(b"a", 0.0)
    pipe.feed(End.EOF, 0.1)

    assert [(0.25, b"a"), (0.35, End.EOF)] == arrivals(pipe)
    assert 2 == slow.tally.count


def test_jitter_never_changes_the_order() -> None:
    """Latency ± jitter, but a stream is a stream."""
    pipe = pipe_with(toxic("latency", latency=50, jitter=50))
    for number in range(100):
        pipe.feed(bytes([number]), number / 1000)

    arrived = arrivals(pipe)

    assert [bytes([number]) for number in range(100)] == [item for _, item in arrived]
    assert all(at <= 0.1 + 0.099 for at, _ in arrived)


def test_the_same_seed_draws_the_same_jitter() -> None:
    def run(seed: int) -> list[tuple[float, Item]]:
        pipe = pipe_with(toxic("latency", latency=50, jitter=50), seed=seed)
        for number in range(20):
            pipe.feed(bytes([number]), number / 10)
        return arrivals(pipe)

    assert run(1) == run(1)
    assert run(1) != run(2)


def test_bandwidth_lets_so_many_bytes_a_second_through() -> None:
    """Toxiproxy: `rate` in kB/s. 250 bytes at 1 kB/s take a quarter of a second."""
    pipe = pipe_with(toxic("bandwidth", rate=1))
    pipe.feed(bytes(250), 0.0)

    arrived = arrivals(pipe)

    assert [0.1, 0.2, 0.25] == [at for at, _ in arrived]
    assert bytes(250) == b"".join(item for _, item in arrived if isinstance(item, bytes))


def test_slow_close_delays_the_end_only() -> None:
    pipe = pipe_with(toxic("slow_close", delay=1000))
    pipe.feed(b"a", 0.0)
    pipe.feed(End.EOF, 0.0)

    assert [(0.0, b"a"), (1.0, End.EOF)] == arrivals(pipe)


def test_timeout_swallows_and_closes_after_its_time() -> None:
    pipe = pipe_with(toxic("timeout", timeout=500))
    pipe.feed(b"a", 0.1)

    assert [(0.5, End.CLOSE)] == arrivals(pipe)


def test_timeout_of_zero_swallows_until_it_is_removed_and_then_closes() -> None:
    """The stream has a hole, nobody may go on reading it."""
    pipe = pipe_with(toxic("timeout"))
    pipe.feed(b"a", 0.1)
    assert [] == arrivals(pipe)

    pipe.remove("timeout", 2.0)

    assert [End.CLOSE] == pipe.take(2.0)


def test_reset_comes_so_long_after_the_first_bytes() -> None:
    pipe = pipe_with(toxic("reset_peer", timeout=100))
    assert [] == arrivals(pipe)

    pipe.feed(b"a", 3.0)
    pipe.feed(b"b", 3.05)

    assert [(3.1, End.RESET)] == arrivals(pipe)


def test_slicer_makes_small_pieces_with_pauses() -> None:
    """Toxiproxy: sizes in bytes, `delay` in microseconds."""
    pipe = pipe_with(toxic("slicer", average_size=10, size_variation=3, delay=1000))
    pipe.feed(bytes(range(100)), 0.0)

    arrived = arrivals(pipe)
    pieces = [item for _, item in arrived if isinstance(item, bytes)]

    assert bytes(range(100)) == b"".join(pieces)
    assert all(7 <= len(piece) <= 13 for piece in pieces[:-1])
    assert [round(number * 0.001, 6) for number in range(len(pieces))] == [at for at, _ in arrived]


def test_limit_data_lets_exactly_so_many_bytes_pass_and_closes() -> None:
    pipe = pipe_with(toxic("limit_data", bytes=5))
    pipe.feed(b"abc", 0.0)
    pipe.feed(b"defg", 0.0)
    pipe.feed(b"h", 0.0)

    assert [b"abc", b"de", End.CLOSE] == pipe.take(0.0)


def test_a_limit_that_is_changed_counts_what_has_passed() -> None:
    pipe = pipe_with(toxic("limit_data", bytes=5))
    pipe.feed(b"abc", 0.0)
    larger = toxic("limit_data", bytes=6).shaper(Random(0))
    assert larger is not None

    pipe.add("limit_data", larger, 0.0)
    pipe.feed(b"defg", 0.0)

    assert [b"abc", b"def", End.CLOSE] == pipe.take(0.0)


def test_a_cut_holds_everything_and_loses_nothing() -> None:
    """As TCP: what was not confirmed is sent again when the network is back."""
    cut = toxic("cut")
    pipe = pipe_with(cut)
    for item in (b"a", b"b", End.EOF):
        pipe.feed(item, 1.0)
    assert [] == arrivals(pipe)
    assert 2 == pipe.size_bytes

    pipe.remove("cut", 60.0)

    assert [b"a", b"b", End.EOF] == pipe.take(60.0)
    assert 3 == cut.tally.count
    assert 0 == pipe.size_bytes


def test_lost_segments_are_late_by_retransmissions() -> None:
    """Each attempt waits twice as long as the one before. RFC 6298 §5.5."""
    pipe, late = pipe_with(toxic("drop", probability=0.5)), set()
    for number in range(200):
        pipe.feed(b"x", number * 1000.0)
        at = pipe.deadline() or number * 1000.0
        late.add(round(at - number * 1000, 6))
        assert [b"x"] == pipe.take(at)

    sums = [0.0, *(round(RETRANSMISSION * (2**n - 1), 6) for n in range(1, 7))]
    assert sums[: len(late)] == sorted(late)
    assert 3 <= len(late)
    assert float("inf") == retransmitted(1.0, Random(0))


def test_toxics_add_up() -> None:
    """The second shaper takes over when the first hands on, not when somebody looks."""
    pipe = pipe_with(toxic("latency", latency=100), toxic("bandwidth", rate=1))
    pipe.feed(bytes(50), 0.0)

    assert [] == pipe.take(0.149)
    assert [bytes(50)] == pipe.take(10.0)
    pipe.feed(bytes(100), 20.0)
    assert [(20.2, bytes(100))] == arrivals(pipe)


def test_what_a_removed_toxic_held_back_moves_on_at_once() -> None:
    """And what follows it does not overtake it."""
    pipe = pipe_with(toxic("latency", latency=10_000), toxic("slow_close", delay=0))
    pipe.feed(b"a", 0.0)

    pipe.remove("latency", 1.0)
    pipe.feed(b"b", 1.0)

    assert [b"a", b"b"] == pipe.take(1.0)


@pytest.mark.parametrize("kind", ["timeout", "reset_peer"])
def test_a_changed_toxic_does_not_end_the_stream_by_being_changed(kind: str) -> None:
    """Only removing it shows the hole."""
    pipe = pipe_with(toxic(kind, timeout=1000))
    pipe.feed(b"a", 0.0)
    longer = toxic(kind, timeout=5000).shaper(Random(0))
    assert longer is not None

    pipe.add(kind, longer, 0.5)

    assert [] == pipe.take(5.4)
    assert 1 == len(pipe.take(5.5))


KEEPING = [
    toxic("latency", latency=20, jitter=20),
    toxic("bandwidth", rate=3),
    toxic("slow_close", delay=30),
    toxic("slicer", average_size=4, size_variation=2, delay=700),
    toxic("drop", probability=0.3),
]
"""Toxics that lose nothing."""


@given(
    chosen=st.lists(st.sampled_from(range(len(KEEPING))), unique=True),
    pieces=st.lists(st.tuples(st.floats(0, 0.2), st.binary(min_size=1, max_size=40)), max_size=20),
    removed=st.integers(0, 19),
    seed=st.integers(0, 1000),
)
def test_whatever_loses_nothing_keeps_every_byte_in_order(
    chosen: list[int], pieces: list[tuple[float, bytes]], removed: int, seed: int
) -> None:
    """In any combination, and when one of them is taken out half-way."""
    pipe, now, got = pipe_with(*(KEEPING[number] for number in chosen), seed=seed), 0.0, b""
    for place, (pause, piece) in enumerate(pieces):
        now += pause
        pipe.feed(piece, now)
        for name in [KEEPING[number].name for number in chosen][: place == removed]:
            pipe.remove(name, now)
        got += b"".join(item for item in pipe.take(now) if isinstance(item, bytes))
    pipe.feed(End.EOF, now)

    rest = [item for _, item in arrivals(pipe, 1e9)]

    assert End.EOF is rest[-1]
    assert b"".join(piece for _, piece in pieces) == got + b"".join(
        item for item in rest if isinstance(item, bytes)
    )
    assert 0 == pipe.size_bytes
