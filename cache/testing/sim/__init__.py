"""The deterministic simulator: virtual time, a network with faults, processes that can be killed."""

from cache.testing.sim.kernel import Kernel, SimulationDeadlock, SimulationTimeout
from cache.testing.sim.network import Link, SimNetwork
from cache.testing.sim.world import ProcessKilledError, SimProcess, World, run_simulation

__all__ = [
    "Kernel",
    "Link",
    "ProcessKilledError",
    "SimNetwork",
    "SimProcess",
    "SimulationDeadlock",
    "SimulationTimeout",
    "World",
    "run_simulation",
]
