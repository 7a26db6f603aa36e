"""The virtual driver: workloads run through simulated fleets with the live policy and state."""

from steelyard.sim.conditions import Conditions, Outage
from steelyard.sim.renting import Renting, Scaling
from steelyard.sim.serving import Serving
from steelyard.sim.simulate import Progress, Simulation, simulate
from steelyard.sim.synth import (
    ArrivalProcess,
    StepClass,
    TaskClass,
    recorded_rate_per_s,
    scale_workload,
    synthesize,
)

__all__ = [
    "ArrivalProcess",
    "Conditions",
    "Outage",
    "Progress",
    "Renting",
    "Scaling",
    "Serving",
    "Simulation",
    "StepClass",
    "TaskClass",
    "recorded_rate_per_s",
    "scale_workload",
    "simulate",
    "synthesize",
]
