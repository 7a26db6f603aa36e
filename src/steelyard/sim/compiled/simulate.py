"""Run a workload through a fleet of any size, on arrays."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from steelyard.domain.pool import PoolSpec
from steelyard.domain.workload import Workload
from steelyard.errors import ConfigError
from steelyard.placement.baselines import policy_named
from steelyard.sim.compiled import layout
from steelyard.sim.compiled.books import integrate_load
from steelyard.sim.compiled.engine import DONE, FULL, run
from steelyard.sim.compiled.layout import World
from steelyard.sim.compiled.rankings import POLICIES
from steelyard.sim.compiled.supported import check_supported
from steelyard.sim.compiled.tables import Sample
from steelyard.sim.compiled.translate import translated
from steelyard.sim.compiled.worlds import grown, make_world
from steelyard.sim.conditions import Conditions

# (simulated seconds, changes of state so far)
Progress = Callable[[float, int], None]
# Prompt boundaries that the reference path keeps per replica (steelyard.fleet.prefix).
_REFERENCE_BOUNDARIES = 4096


class Span(msgspec.Struct, frozen=True, kw_only=True):
    """How long is simulated, and what is kept of it.

    Attributes:
        until_s: Nothing later happens; infinite to run until all tasks have ended.
        window_s: Figures are kept per window of so many simulated seconds.
        windows: How many; the last one takes what comes later.
        logged: Whether every change of state is kept.
        compiled: Whether Numba compiles the kernels; otherwise Python runs them.
        actions: Actions between two calls of the progress callback.
    """

    until_s: float = math.inf
    window_s: float = 60.0
    windows: int = 64
    logged: bool = False
    compiled: bool = True
    actions: int = 2_000_000


@dataclass(frozen=True, slots=True)
class CompiledRun:
    """What happened.

    Attributes:
        end_s: Simulated time of the last change.
        changes: Changes of state by kind, see `layout.CHANGES`.
        windows: What happened to tasks and steps, shape [windows]; see `layout.WINDOW`.
        flow: What happened in pools, shape [windows, pools]; see `layout.FLOW`.
        latencies: Counts by window, kind and bin, shape [windows, kinds, bins].
        success_s: When each task succeeded, NaN where it has not; shape [arrivals].
        log: Every change, where it was wanted; see `layout.LOGGED`.
        notes: In what the reference path would have gone on differently.
    """

    end_s: float
    changes: dict[str, int]
    windows: layout.Records
    flow: layout.Records
    latencies: npt.NDArray[np.int64]
    success_s: npt.NDArray[np.float64]
    log: layout.Records
    notes: tuple[str, ...]

    @property
    def events(self) -> int:
        """Changes of state, all kinds together."""
        return sum(self.changes.values())


def simulate_compiled(
    workload: Workload | Sample,
    pools: tuple[PoolSpec, ...],
    policy: str,
    seed: int,
    conditions: Conditions | None = None,
    options: tuple[Span, Progress | None] = (Span(), None),
) -> CompiledRun:
    """What happens when this workload meets this fleet under this policy?

    The same as in `steelyard.sim.simulate`, event for event, with two differences, which the
    result's notes tell of: prefixes are kept until their task has ended, which shows in large runs
    only; and a step that one outage after another has taken from two pools may go back to the
    first, from which `steelyard.placement.elsewhere` would keep it. What this path does not know
    is refused.

    Args:
        workload: Tasks to arrive.
        pools: The fleet.
        policy: Name of the policy.
        seed: Of the noise; without noise nothing is drawn.
        conditions: The world beside workload and fleet; the usual one when left out.
        options: How long and in which windows; and who is told the simulated time and the number
            of changes now and then.

    Returns:
        Figures per window, and the log if it is wanted.

    Raises:
        ConfigError: Numba is missing, the policy unknown, or policy, pool or condition not
            supported.
        WorkloadError: The workload is not supported.
    """
    span, progress = options
    given = Conditions() if conditions is None else conditions
    sample = workload if isinstance(workload, Sample) else Sample.of(workload)
    check_supported(sample.tasks, pools, given)
    name = _known_policy(policy)
    told = (span.window_s, span.windows, span.logged)
    world = make_world(sample, pools, given, name, seed, told)
    kernel: Any = translated(run, compiled=span.compiled)
    while (state := kernel(world, span.until_s, span.actions)) != DONE:
        if state == FULL:
            world = grown(world)
        if progress is not None:
            progress(float(world.clock["now_s"][0]), int(world.counts.sum()))
    return _result(world, span)


def _known_policy(policy: str) -> str:
    name = policy_named(policy).name
    if name not in POLICIES:
        raise ConfigError(
            f"the compiled simulator does not know policy {name!r}; use the reference path, or one "
            f"of {', '.join(POLICIES)}"
        )
    return name


def _result(world: World, span: Span) -> CompiledRun:
    pools = len(world.pools)
    for at in range(pools):
        integrate_load(world, at)
    shape = (span.windows, len(layout.LATENCIES), layout.BINS)
    return CompiledRun(
        end_s=float(world.clock["now_s"][0]),
        changes=dict(zip(layout.CHANGES, world.counts.tolist(), strict=True)),
        windows=world.windows,
        flow=world.flow.reshape(span.windows, pools),
        latencies=world.latencies.reshape(shape),
        success_s=world.arrivals["success_s"],
        log=world.log[: int(world.clock["log_n"][0])],
        notes=_notes(world),
    )


def _notes(world: World) -> tuple[str, ...]:
    notes: list[str] = []
    full = int(np.count_nonzero(world.machines["boundaries"] > _REFERENCE_BOUNDARIES))
    if full:
        told = f"{full} replicas took up more than {_REFERENCE_BOUNDARIES} prompt boundaries"
        notes.append(f"{told}; the reference path would have forgotten the oldest")
    again = int(world.clock["lost_again"][0])
    if again:
        told = f"{again} times a step was tried anew that had been lost twice or more"
        notes.append(f"{told}; the reference path prefers pools that have not lost it")
    return tuple(notes)
