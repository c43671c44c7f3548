"""A simulated world: processes that are started, called, paused and killed; clocks; the end."""

from __future__ import annotations

import asyncio
from typing import NoReturn

import pytest

from cache.cluster.ids import Address
from cache.testing.sim.kernel import SimulationDeadlock, SimulationTimeout
from cache.testing.sim.world import EPOCH, ProcessKilledError, World, run_simulation


async def chatter(world: World) -> None:
    """Let three processes send each other packets for a while."""
    ports = [Address(f"{world.process(name).host}:7000") for name in "abc"]
    for process in list(world._processes[1:]):
        transport = process.environment().transport(Address("127.0.0.1:7000"))
        await process.run(transport.listen(lambda *_: None, asyncio.Protocol))
        for number in range(20):
            for port in ports:
                process.loop.call_later(
                    process.environment().seed(str(number)).random(),
                    transport.send_packet,
                    port,
                    b"x",
                )
    await asyncio.sleep(2)


def trace(seed: int) -> str:
    world = World(seed)
    world.run(chatter(world))
    return world.trace_hash()


# -- processes -----------------------------------------------------------------------------------


def test_a_coroutine_runs_on_the_loop_of_its_process() -> None:
    """Its result comes back to the caller, which is on another loop."""

    async def scenario(world: World) -> bool:
        a = world.process("a")

        async def loop_there() -> asyncio.AbstractEventLoop:
            return asyncio.get_running_loop()

        return await a.run(loop_there()) is a.loop is not asyncio.get_running_loop()

    assert run_simulation(0, scenario)


def test_an_exception_of_a_call_reaches_the_caller() -> None:
    """And only the caller: it does not count as unhandled."""

    async def fail() -> NoReturn:
        raise LookupError("there")

    async def scenario(world: World) -> None:
        with pytest.raises(LookupError, match="there"):
            await world.process("a").run(fail())

    run_simulation(0, scenario)


def test_every_process_has_a_host_of_its_own_unless_it_is_given_one() -> None:
    """A restarted process can have the host of its former life."""
    world = World(0)
    hosts = [world.process(str(number)).host for number in range(600)]

    again = world.process("again", hosts[0])

    assert 600 == len(set(hosts))
    assert hosts[0] == again.host


def test_a_killed_process_runs_no_finally() -> None:
    """SIGKILL leaves no time for a goodbye."""
    log: list[str] = []

    async def work() -> None:
        try:
            await asyncio.sleep(100)
        finally:
            log.append("goodbye")

    async def scenario(world: World) -> list[str]:
        a = world.process("a")
        a.loop.call_soon(lambda: a.loop.create_task(work()))
        await asyncio.sleep(1)
        a.kill()
        await asyncio.sleep(200)
        return list(log)

    assert [] == run_simulation(0, scenario)


def test_a_call_to_a_process_that_is_killed_raises() -> None:
    """The caller learns it at the kill, not by a time-out."""

    async def scenario(world: World) -> float:
        a = world.process("a")
        world.process("killer").loop.call_later(3, a.kill)
        with pytest.raises(ProcessKilledError, match="a was killed"):
            await a.run(asyncio.sleep(100))
        return world.now

    assert 3.0 == pytest.approx(run_simulation(0, scenario))


def test_a_call_to_a_dead_process_raises_at_once() -> None:
    """Nothing is queued for a process that is gone."""

    async def scenario(world: World) -> float:
        a = world.process("a")
        a.kill()
        a.kill()
        with pytest.raises(ProcessKilledError, match="a is dead"):
            await a.run(asyncio.sleep(100))
        return world.now

    assert 0.0 == run_simulation(0, scenario)


def test_a_call_to_a_paused_process_waits_for_its_resumption() -> None:
    """SIGSTOP keeps every caller waiting."""

    async def scenario(world: World) -> float:
        a = world.process("a")
        a.pause()
        world.process("resumer").loop.call_later(7, a.resume)
        await a.run(asyncio.sleep(0))
        return world.now

    assert 7.0 == pytest.approx(run_simulation(0, scenario))


# -- clocks and randomness -----------------------------------------------------------------------


def test_the_wall_clock_starts_at_the_epoch_of_the_world_and_follows_virtual_time() -> None:
    """Never the real clock."""

    async def scenario(world: World) -> float:
        await asyncio.sleep(42)
        return world.process("a").environment().clock.wall()

    assert EPOCH + 42 == pytest.approx(run_simulation(0, scenario), abs=1e-3)


def test_a_skewed_wall_clock_leaves_the_monotonic_one() -> None:
    """Skew is a wrong date, not a wrong pace."""

    async def scenario(world: World) -> tuple[float, float]:
        clock = world.process("a").clock
        wall, monotonic = clock.wall(), clock.monotonic()
        clock.skew = -3600.0
        return clock.wall() - wall, clock.monotonic() - monotonic

    assert (-3600.0, 0.0) == run_simulation(0, scenario)


def test_randomness_of_a_process_comes_from_seed_process_and_name() -> None:
    """No two streams are alike, and each is the same in every run."""

    def draws(seed: int) -> list[float]:
        world = World(seed)
        places = [world.process(name).environment() for name in "ab"]
        return [place.seed(name).random() for place in places for name in ("x", "y")]

    assert draws(1) == draws(1)
    assert 8 == len({*draws(1), *draws(2)})


# -- the end -------------------------------------------------------------------------------------


def test_a_run_returns_what_the_scenario_returned() -> None:
    """Virtual hours pass without real ones."""

    async def scenario(world: World) -> str:
        await asyncio.sleep(3000)
        return "done"

    assert "done" == run_simulation(0, scenario)


def test_an_exception_of_the_scenario_comes_out_as_it_is() -> None:
    """A failed assertion of a test stays that assertion."""

    async def scenario(world: World) -> None:
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        run_simulation(0, scenario)


def test_an_exception_in_a_packet_handler_surfaces() -> None:
    """A bug in a receiver cannot pass as a lost packet."""

    def handler(source: Address, payload: bytes) -> None:
        raise ZeroDivisionError(payload)

    async def scenario(world: World) -> None:
        a = world.process("a")
        transport = a.environment().transport(Address("127.0.0.1:7000"))
        address = await a.run(transport.listen(handler, asyncio.Protocol))
        transport.send_packet(address, b"x")
        await asyncio.sleep(1)

    with pytest.raises(ZeroDivisionError):
        run_simulation(0, scenario)


def test_a_scenario_that_waits_for_nothing_is_a_deadlock() -> None:
    """It fails at once instead of hanging."""

    async def scenario(world: World) -> None:
        await asyncio.Event().wait()

    with pytest.raises(SimulationDeadlock):
        run_simulation(0, scenario)


def test_a_scenario_that_takes_too_long_is_stopped() -> None:
    """The limit is in virtual seconds."""

    async def scenario(world: World) -> None:
        await asyncio.sleep(61)

    with pytest.raises(SimulationTimeout, match="60"):
        run_simulation(0, scenario, limit=60)


async def test_a_run_inside_another_loop_gives_that_loop_back() -> None:
    """A simulation may be started from a test that is itself a coroutine."""
    outer = asyncio.get_running_loop()

    async def scenario(world: World) -> None:
        await asyncio.sleep(1)

    run_simulation(0, scenario)

    assert outer is asyncio.get_running_loop()


def test_every_process_is_dead_after_the_run() -> None:
    """Nothing of a world acts on the next one."""
    world = World(0)
    a = world.process("a")

    world.run(a.run(asyncio.sleep(0)))

    assert a.loop.is_closed()


def test_the_same_seed_gives_the_same_trace() -> None:
    """Time, process and callback of every step are alike."""
    assert trace(5) == trace(5)


def test_different_seeds_give_different_traces() -> None:
    """Ten seeds are ten runs."""
    assert 10 == len({trace(seed) for seed in range(10)})
