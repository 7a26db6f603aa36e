"""Hypothesis strategies for the nouns: any valid event, any valid workload."""

from typing import Any

import msgspec
from hypothesis import strategies as st

from steelyard.domain.decision import Decision, PoolVerdict, Refusal
from steelyard.domain.events import (
    AttemptFinished,
    AttemptStarted,
    BidChanged,
    Event,
    PoolAdded,
    PoolRemoved,
    ReplicaChanged,
    StepPlaced,
    StepRefused,
    TaskFinished,
    TaskSubmitted,
    Usage,
)
from steelyard.domain.offering import TokenPrice
from steelyard.domain.pool import LlmCurve, PoolSpec, ToolCurve
from steelyard.domain.task import LlmCall, Step, ToolCall
from steelyard.domain.workload import Workload, WorkloadStep, WorkloadTask

# Whatever text a user may write; lone surrogates are no Unicode text.
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
names = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12)
# A database cannot hold NUL in text; stores refuse it in the id of a task.
task_ids = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=12
)
numbers = st.floats(allow_nan=False, allow_infinity=False)
amounts = st.floats(min_value=0.0, max_value=1e12)
counts = st.integers(min_value=0, max_value=2**53)
optional_numbers = st.none() | numbers
json_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | numbers | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=5,
)

llm_curves = st.builds(
    LlmCurve,
    ttft_floor_s=amounts,
    prefill_s_per_token=amounts,
    itl_base_s=amounts,
    itl_slope_s=amounts,
    concurrency_cap=counts,
    context_tokens=counts,
    source=texts,
)
tool_curves = st.builds(
    ToolCurve,
    relative_speed=amounts,
    cores=amounts,
    memory_bytes=counts,
    start_s=amounts,
    slots=counts,
    source=texts,
)
token_prices = st.builds(
    TokenPrice,
    usd_per_input_token=amounts,
    usd_per_cached_token=amounts,
    usd_per_output_token=amounts,
)
pool_specs = st.builds(
    PoolSpec,
    name=names,
    provider=texts,
    region=texts,
    offering=texts,
    usd_per_hour=amounts,
    replicas=counts,
    token_price=st.none() | token_prices,
    llm_curves=st.dictionaries(names, llm_curves, max_size=2),
    tool_curve=st.none() | tool_curves,
)


@st.composite
def llm_calls(draw: st.DrawFn) -> LlmCall:
    boundaries = draw(st.lists(st.integers(0, 10_000), max_size=4, unique=True))
    hashes = st.lists(st.integers(0, 2**63 - 1), min_size=len(boundaries), max_size=len(boundaries))
    return LlmCall(
        model=draw(names),
        input_tokens=draw(counts),
        max_output_tokens=draw(counts),
        prefix_hashes=tuple(draw(hashes)),
        prefix_tokens=tuple(sorted(boundaries)),
    )


tool_calls = st.builds(ToolCall, tool=names, memory_bytes=counts)
steps = st.builds(
    Step,
    task_id=task_ids,
    step_id=counts,
    agent=names,
    name=names,
    call=llm_calls() | tool_calls,
    parents=st.lists(counts, max_size=3).map(tuple),
    deadline_s=optional_numbers,
    budget_usd=st.none() | amounts,
    attempt=st.integers(0, 3),
    pools=st.lists(names, max_size=2).map(tuple),
)
verdicts = st.builds(
    PoolVerdict,
    pool=names,
    predicted_finish_s=optional_numbers,
    predicted_cost_usd=optional_numbers,
)
decisions = st.builds(
    Decision,
    pool=names,
    replica=counts,
    predicted_wait_s=amounts,
    predicted_ttft_s=amounts,
    predicted_finish_s=amounts,
    predicted_cached_tokens=counts,
    predicted_output_tokens=amounts,
    predicted_cost_usd=amounts,
    bid_usd_per_hour=amounts,
    slack_s=optional_numbers,
    policy=names,
    reason=texts,
    verdicts=st.lists(verdicts, max_size=3).map(tuple),
)
refusals = st.builds(
    Refusal,
    earliest_finish_s=optional_numbers,
    policy=names,
    verdicts=st.lists(verdicts, max_size=3).map(tuple),
)
usages = st.builds(
    Usage,
    input_tokens=counts,
    cached_tokens=counts,
    output_tokens=counts,
    cpu_s=amounts,
    memory_bytes=counts,
    wall_s=amounts,
    start_to_first_token_s=st.none() | amounts,
)
events: st.SearchStrategy[Event] = st.one_of(
    st.builds(PoolAdded, t_s=numbers, spec=pool_specs),
    st.builds(PoolRemoved, t_s=numbers, pool=names),
    st.builds(BidChanged, t_s=numbers, pool=names, bid_usd_per_hour=amounts),
    st.builds(ReplicaChanged, t_s=numbers, pool=names, replica=counts, reason=texts),
    st.builds(
        TaskSubmitted,
        t_s=numbers,
        task_id=task_ids,
        agent=texts,
        deadline_s=optional_numbers,
        budget_usd=st.none() | amounts,
    ),
    st.builds(StepPlaced, t_s=numbers, step=steps, decision=decisions),
    st.builds(StepRefused, t_s=numbers, step=steps, refusal=refusals),
    st.builds(AttemptStarted, t_s=numbers, task_id=task_ids, step_id=counts, attempt=counts),
    st.builds(
        AttemptFinished,
        t_s=numbers,
        task_id=task_ids,
        step_id=counts,
        attempt=counts,
        usage=usages,
        cost_usd=amounts,
        error_code=texts,
        error=texts,
        result=json_values,
    ),
    st.builds(
        TaskFinished,
        t_s=numbers,
        task_id=task_ids,
        error_code=texts,
        error=texts,
        result=json_values,
    ),
)

_tokens = st.integers(0, 2**40)


@st.composite
def _workload_steps(draw: st.DrawFn, step_id: int) -> WorkloadStep:
    """A step as files hold it: what a kind does not have is at its default."""
    kind = draw(st.sampled_from(["llm", "tool", "human"]))
    parents = draw(st.sets(st.integers(0, step_id - 1), max_size=3)) if step_id else set[int]()
    shared: dict[str, Any] = {
        "step_id": step_id,
        "parents": tuple(sorted(parents)),
        "kind": kind,
        "name": draw(names),
    }
    if kind == "llm":
        return WorkloadStep(
            **shared,
            model=draw(texts),
            prompt_tokens=draw(_tokens),
            output_tokens=draw(_tokens),
            max_output_tokens=draw(st.none() | _tokens),
            shared_prefix_tokens=draw(_tokens),
            common_prefix_tokens=draw(_tokens),
            cached_tokens=draw(st.none() | _tokens),
            recorded_s=draw(st.none() | amounts),
        )
    if kind == "tool":
        return WorkloadStep(
            **shared,
            tool=draw(texts),
            cpu_s=draw(amounts),
            think_or_tool_s=draw(amounts),
            memory_bytes=draw(counts),
            recorded_s=draw(st.none() | amounts),
        )
    gap_s = draw(amounts)
    return WorkloadStep(**shared, think_or_tool_s=gap_s, recorded_s=gap_s)


@st.composite
def workloads(draw: st.DrawFn) -> Workload:
    tasks: list[WorkloadTask] = []
    for task_id in draw(st.lists(names, min_size=1, max_size=3, unique=True)):
        step_ids = sorted(draw(st.sets(st.integers(0, 6), min_size=1, max_size=4)))
        own: list[WorkloadStep] = []
        for step_id in step_ids:
            step = draw(_workload_steps(step_id))
            parents = tuple(parent for parent in step.parents if parent in step_ids)
            own.append(msgspec.structs.replace(step, parents=parents))
        tasks.append(
            WorkloadTask(
                task_id=task_id,
                agent=draw(names),
                arrival_s=draw(amounts),
                steps=tuple(own),
                deadline_after_s=draw(st.none() | amounts),
                budget_usd=draw(st.none() | amounts),
            )
        )
    tasks.sort(key=lambda task: (task.arrival_s, task.task_id))
    return Workload(name="generated", tasks=tuple(tasks), source="hypothesis")
