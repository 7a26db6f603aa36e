"""The virtual driver: workloads run through simulated fleets with the live policy and state."""

from steelyard.sim.conditions import Conditions, Outage
from steelyard.sim.simulate import Progress, Simulation, simulate

__all__ = ["Conditions", "Outage", "Progress", "Simulation", "simulate"]
