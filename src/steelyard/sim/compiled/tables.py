"""Workload, fleet and conditions as arrays; `supported` refuses what these cannot hold."""

import itertools
import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from steelyard.domain.pool import PoolSpec
from steelyard.domain.task import LlmCall, Step
from steelyard.domain.workload import Workload, WorkloadStep, WorkloadTask
from steelyard.errors import WorkloadError
from steelyard.fleet.lessons import LEAST_ERROR_FRAC
from steelyard.placement.candidates import task_key
from steelyard.placement.scoring import mixed
from steelyard.sim.compiled import layout
from steelyard.sim.compiled.supported import CURE
from steelyard.sim.conditions import Conditions
from steelyard.sim.steps import to_steps

_MAX_ESTIMATES = 10_000
_BLOCKERS, _PROMPT = (
    list(layout.STEP.fields or ()).index("blockers"),
    list(layout.STEP.fields or ()).index("prompt"),
)
_KINDS = {"llm": layout.LLM, "tool": layout.TOOL, "human": layout.HUMAN}


@dataclass(frozen=True, slots=True)
class Sample:
    """A workload of millions of tasks: few different ones, and which of them arrives when.

    Attributes:
        tasks: The different tasks; their own ids and arrivals do not matter.
        arrival_s: When tasks arrive, ascending, shape [arrivals].
        drawn: Which of the tasks each is, shape [arrivals].
        keys: Hash of each, below 2^31, by which replicas are drawn; shape [arrivals].
        resumed: Steps of each of the tasks that are done when it arrives, as of a task that is
            under way when the simulation begins; empty when all begin at their first step. Of the
            first call of each model only the new part of the prompt is computed.
        tables: The tasks laid out by `task_tables`, so that several samples of the same tasks share
            them; laid out anew when left out.
    """

    tasks: tuple[WorkloadTask, ...]
    arrival_s: npt.NDArray[np.float64]
    drawn: npt.NDArray[np.int64]
    keys: npt.NDArray[np.int64]
    resumed: tuple[int, ...] = ()
    tables: "TaskTables | None" = None

    @classmethod
    def of(cls, workload: Workload) -> "Sample":
        """The same workload; tasks that share their steps are told apart by their arrivals only."""
        places: dict[tuple[int, str, float | None, float | None], int] = {}
        tasks: list[WorkloadTask] = []
        drawn: list[int] = []
        order = sorted(range(len(workload.tasks)), key=lambda at: workload.tasks[at].arrival_s)
        for at in order:
            task = workload.tasks[at]
            key = (id(task.steps), task.agent, task.deadline_after_s, task.budget_usd)
            if key not in places:
                places[key] = len(tasks)
                tasks.append(task)
            drawn.append(places[key])
        ids = [workload.tasks[at].task_id for at in order]
        return cls(
            tasks=tuple(tasks),
            arrival_s=np.array([workload.tasks[at].arrival_s for at in order]),
            drawn=np.array(drawn, dtype=np.int64),
            keys=np.array([task_key(one) for one in ids], dtype=np.int64),
        )

    @classmethod
    def drawn_from(
        cls,
        tasks: tuple[WorkloadTask, ...],
        arrival_s: npt.NDArray[np.float64],
        drawn: npt.NDArray[np.int64],
        seed: int,
    ) -> "Sample":
        """A sample of numbered tasks; the same for the same arguments."""
        numbers = np.arange(len(arrival_s), dtype=np.int64)
        keys = mixed(seed, numbers)  # type: ignore[arg-type]
        return cls(tasks, arrival_s, drawn, np.asarray(keys, dtype=np.int64))


@dataclass(frozen=True, slots=True)
class TaskTables:
    """The different tasks as arrays; see `layout` for their fields."""

    templates: layout.Records
    steps: layout.Records
    children: npt.NDArray[np.int64]
    sources: npt.NDArray[np.int32]
    estimates: int
    stride: int
    models: dict[str, int]


def task_tables(sample: Sample, conditions: Conditions) -> TaskTables:
    """Lay the different tasks out as arrays.

    Args:
        sample: The workload.
        conditions: The world, for what the workload does not say.

    Returns:
        The arrays.

    Raises:
        WorkloadError: Steps are not in order, or have too many different names.
    """
    estimates: dict[tuple[str, str], int] = {}
    models: dict[str, int] = {}
    tasks = sample.tasks
    templates = np.zeros(len(tasks), layout.TEMPLATE)
    rows: list[tuple[float, ...]] = []
    children: list[int] = []
    sources: list[npt.NDArray[np.int32]] = []
    held = 0
    for number, task in enumerate(tasks):
        seen = to_steps(task, conditions)
        table = _sources(task, seen)
        done = sample.resumed[number] if sample.resumed else 0
        templates[number] = (
            len(rows),
            len(task.steps) - done,
            0,
            _merges(task, table),
            math.inf if task.deadline_after_s is None else task.deadline_after_s,
            math.inf if task.budget_usd is None else task.budget_usd,
        )
        warm = _first_calls(task, done) if done else frozenset[int]()
        for at, step in enumerate(task.steps[done:], start=done):
            ours = [child - done for child in _children(task, step)]
            place = estimates.setdefault((task.agent, step.name), len(estimates))
            model = models.setdefault(step.model, len(models)) if step.kind == "llm" else 0
            sources_at = held + at * len(task.steps) + done
            span = (len(children), len(children) + len(ours))
            row = _row(step, seen[at], (model, place, sources_at), span)
            row[_BLOCKERS] = sum(_place_of(task, one) >= done for one in set(step.parents))
            if at in warm:
                row[_PROMPT] = step.prompt_tokens - step.shared_prefix_tokens
            rows.append(tuple(row))
            children.extend(ours)
        sources.append(table)
        held += table.size
    if len(estimates) > _MAX_ESTIMATES:
        raise WorkloadError(
            f"{len(estimates)} different step names: the compiled simulator learns at most "
            f"{_MAX_ESTIMATES}; {CURE}"
        )
    return TaskTables(
        templates=templates,
        steps=np.array(rows, layout.STEP),
        children=np.array(children or [0], dtype=np.int64),
        sources=np.concatenate([*sources, np.zeros(1, dtype=np.int32)]),
        estimates=len(estimates),
        stride=max((len(task.steps) for task in tasks), default=1),
        models=models,
    )


def _row(
    step: WorkloadStep, seen: Step | None, at: tuple[int, int, int], span: tuple[int, int]
) -> list[float]:
    call = None if seen is None else seen.call
    return [
        _KINDS[step.kind],
        at[0],
        step.step_id,
        at[1],
        step.step_id.bit_length(),
        len(set(step.parents)),
        *span,
        len(call.prefix_hashes) if isinstance(call, LlmCall) else 0,
        step.prompt_tokens,
        step.output_tokens,
        call.max_output_tokens if isinstance(call, LlmCall) else 0,
        at[2],
        step.cpu_s,
        step.think_or_tool_s,
        step.memory_bytes,
    ]


def _place_of(task: WorkloadTask, step_id: int) -> int:
    return next((at for at, step in enumerate(task.steps) if step.step_id == step_id), -1)


def _first_calls(task: WorkloadTask, done: int) -> frozenset[int]:
    """Places of the first call of each model among the steps that are not done."""
    first: dict[str, int] = {}
    for at, step in enumerate(task.steps):
        if at >= done and step.kind == "llm":
            first.setdefault(step.model, at)
    return frozenset(first.values())


def _children(task: WorkloadTask, parent: WorkloadStep) -> list[int]:
    found: list[int] = []
    for at, step in enumerate(task.steps):
        if parent.step_id in step.parents:
            if task.steps.index(parent) >= at:
                raise WorkloadError(
                    f"task {task.task_id}: step {step.step_id} names parent {parent.step_id}, "
                    "which does not come before it; order steps by step_id, parents first"
                )
            found.append(at)
    return found


def _sources(task: WorkloadTask, seen: tuple[Step | None, ...]) -> npt.NDArray[np.int32]:
    """Tokens at the start of each step's prompt that each other step's prompt begins with.

    Returns:
        Row by row, shape [steps * steps].
    """
    count = len(seen)
    table = np.zeros((count, count), dtype=np.int32)
    calls = [
        step.call if step is not None and isinstance(step.call, LlmCall) else None for step in seen
    ]
    held: list[frozenset[int]] = [
        frozenset() if call is None else frozenset(call.prefix_hashes) for call in calls
    ]
    for at, call in enumerate(calls):
        if call is None or task.steps[at].shared_prefix_tokens <= 0:
            continue
        for other in range(count):
            pairs = zip(reversed(call.prefix_hashes), reversed(call.prefix_tokens), strict=True)
            if held[other] and other != at:
                table[at, other] = next((n for h, n in pairs if h in held[other]), 0)
    return table.reshape(-1)


def _merges(task: WorkloadTask, table: npt.NDArray[np.int32]) -> bool:
    """Does the last step that ran on a replica tell all that the replica holds of the task?"""
    steps = task.steps
    for before, step in itertools.pairwise(steps):
        if step.parents != (before.step_id,):
            return False
    calls = [at for at, step in enumerate(steps) if step.kind == "llm"]
    square = table.reshape(len(steps), len(steps))
    return all(
        bool((np.diff(square[at, [other for other in calls if other < at]]) >= 0).all())
        for at in calls
    )


def pool_table(pools: tuple[PoolSpec, ...], models: dict[str, int]) -> layout.Records:
    """Lay the pools out as an array; their prices are left to `hours.lay_out_prices`.

    Args:
        pools: The fleet.
        models: Numbers of the models that the workload asks for.
    """
    table = np.zeros(len(pools), layout.POOL)
    first = places = 0
    for at, spec in enumerate(pools):
        row = table[at]
        row["first"], row["replicas"], row["places_from"] = first, spec.replicas, places
        row["off_gpu"] = spec.hardware != "gpu"
        row["off_cpu"] = spec.hardware not in {"arm", "x86"}
        row["correction"] = 1.0
        row["error_frac"] = LEAST_ERROR_FRAC
        row["failed_s"] = row["open_until_s"] = -math.inf
        row["model"] = -2
        _fill_speed(row, spec, models)
        first += spec.replicas
        places += spec.replicas * int(row["cap"])
    return table


def _fill_speed(row: np.void, spec: PoolSpec, models: dict[str, int]) -> None:
    price = spec.token_price
    if price is not None:
        row["by_token"] = 1
        row["usd_per_input"] = price.usd_per_input_token
        row["usd_per_cached"] = price.usd_per_cached_token
        row["usd_per_output"] = price.usd_per_output_token
    for model, curve in spec.llm_curves.items():
        # A model that nobody asks for gets a number that no step has.
        row["model"] = models.get(model, len(models))
        row["floor_s"] = curve.ttft_floor_s
        row["per_token_s"] = curve.prefill_s_per_token
        row["itl_base_s"] = curve.itl_base_s
        row["itl_slope_s"] = curve.itl_slope_s
        row["cap"] = curve.concurrency_cap
        row["context_tokens"] = curve.context_tokens
    if spec.tool_curve is not None:
        row["model"] = layout.NONE
        row["speed"] = spec.tool_curve.relative_speed
        row["cores"] = spec.tool_curve.cores
        row["memory_bytes"] = spec.tool_curve.memory_bytes
        row["start_s"] = spec.tool_curve.start_s
        row["cap"] = spec.tool_curve.slots


def arrival_table(
    sample: Sample, seed: int, conditions: Conditions
) -> tuple[layout.Records, npt.NDArray[np.float64]]:
    """Arrivals, and the factor on the service time of each of their steps.

    Args:
        sample: The workload.
        seed: Of the noise.
        conditions: The world.

    Returns:
        Records of shape [arrivals], and factors; without noise all tasks share the same few.
    """
    table = np.zeros(len(sample.arrival_s), layout.ARRIVAL)
    table["t_s"], table["template"], table["key"] = sample.arrival_s, sample.drawn, sample.keys
    table["success_s"] = math.nan
    factor, sigma = conditions.service_factor, conditions.noise_sigma
    if sigma == 0.0:
        return table, np.full(_longest(sample), factor)
    counts = np.array([len(task.steps) for task in sample.tasks], dtype=np.int64)[sample.drawn]
    ends = np.cumsum(counts)
    table["slowness"] = ends - counts
    random = np.random.default_rng(seed)
    draws = random.standard_normal(int(ends[-1]) if len(ends) else 0)
    # math.exp, as in the reference path: NumPy's differs in the last digit.
    noisy = [factor * math.exp(sigma * float(one) - sigma * sigma / 2.0) for one in draws]
    return table, np.array(noisy or [factor])


def _longest(sample: Sample) -> int:
    return max((len(task.steps) for task in sample.tasks), default=1)


def outage_tables(
    pools: tuple[PoolSpec, ...], conditions: Conditions
) -> tuple[layout.Records, npt.NDArray[np.bool_]]:
    """Begins and ends of outages in order of time, and which pools each begin or end is about.

    What takes longer to start comes back later, so an outage may have several ends.
    """
    changes: list[tuple[float, int, int]] = []
    hits: list[list[bool]] = []
    starts_s = [conditions.renting_of(spec.name).start_s for spec in pools]
    for outage in conditions.outages:
        hit = [outage.hits(spec) and spec.replicas > 0 for spec in pools]
        changes.append((outage.start_s, 1, len(hits)))
        hits.append(hit)
        for start_s in sorted({one for one, is_hit in zip(starts_s, hit, strict=True) if is_hit}):
            changes.append((outage.start_s + outage.duration_s + start_s, 0, len(hits)))
            hits.append(
                [is_hit and one == start_s for one, is_hit in zip(starts_s, hit, strict=True)]
            )
    changes.sort(key=lambda one: one[0])
    shape = (len(hits), len(pools))
    return np.array(changes, layout.OUTAGE), np.array(hits, dtype=np.bool_).reshape(shape)


def names_ranked(pools: tuple[PoolSpec, ...]) -> npt.NDArray[np.int64]:
    """Rank of each pool's name among all names, which breaks ties."""
    order = sorted(range(len(pools)), key=lambda at: pools[at].name)
    ranks = np.zeros(len(pools), dtype=np.int64)
    ranks[order] = np.arange(len(pools))
    return ranks
