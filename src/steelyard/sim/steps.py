"""Workload steps as the policy sees them, with prompt prefixes that match as live ones do."""

from bisect import bisect_left, bisect_right

import msgspec

from steelyard.domain.task import LlmCall, Step, ToolCall
from steelyard.domain.workload import WorkloadStep, WorkloadTask
from steelyard.placement.candidates import spread
from steelyard.sim.conditions import Conditions

# Boundaries of a prompt that are kept, longest first; agents come back to recent ones.
_MAX_BOUNDARIES = 32
_MASK = (1 << 64) - 1
# Owner of the tokens with which all tasks of an agent begin; steps are numbered from 0.
_AGENT = -1

# (tokens up to here, step that first wrote them), ascending
_Segments = list[tuple[int, int]]


def to_steps(task: WorkloadTask, conditions: Conditions) -> tuple[Step | None, ...]:
    """What does the policy know of each step of a task before it runs?

    Args:
        task: The task; its outcomes are hidden from the policy.
        conditions: The world, for what the workload does not say.

    Returns:
        One per workload step, in their order; None for a person's gap.
    """
    prefixes = _prefixes(task)
    return tuple(
        None
        if step.kind == "human"
        else Step(
            task_id=task.task_id,
            step_id=step.step_id,
            agent=task.agent,
            name=step.name,
            call=_call(step, prefixes.get(step.step_id, ((), ())), conditions),
            parents=step.parents,
            deadline_s=(
                None if task.deadline_after_s is None else task.arrival_s + task.deadline_after_s
            ),
            budget_usd=task.budget_usd,
            on_miss=conditions.on_miss,
        )
        for step in task.steps
    )


def retried(step: Step) -> Step:
    """The same step, for its next attempt."""
    return msgspec.structs.replace(step, attempt=step.attempt + 1)


def _call(
    step: WorkloadStep, prefix: tuple[tuple[int, ...], tuple[int, ...]], conditions: Conditions
) -> LlmCall | ToolCall:
    if step.kind == "tool":
        return ToolCall(tool=step.tool, memory_bytes=step.memory_bytes)
    limit = step.max_output_tokens
    if limit is None:
        limit = max(conditions.max_output_tokens, step.output_tokens)
    return LlmCall(
        model=step.model,
        input_tokens=step.prompt_tokens,
        max_output_tokens=limit,
        prefix_hashes=prefix[0],
        prefix_tokens=prefix[1],
    )


def _prefixes(task: WorkloadTask) -> dict[int, tuple[tuple[int, ...], tuple[int, ...]]]:
    """Hashes and lengths of each prompt's prefixes, such that shared ones have equal hashes.

    A prompt is its predecessor's up to `shared_prefix_tokens`, and new from there on. The
    predecessor is the latest earlier step of the model whose prompt and answer are long enough: an
    engine keeps what it generated beside what it read, so the boundaries of a step go on through
    its answer. Prompts of two tasks of an agent share `common_prefix_tokens`, and nothing else.
    """
    calls = [step for step in task.steps if step.kind == "llm"]
    sources = [_predecessor(calls[:at], step) for at, step in enumerate(calls)]
    shared = [_shared_tokens(step, source) for step, source in zip(calls, sources, strict=True)]
    cuts = sorted(
        {*shared, *(n for step in calls for n in (step.common_prefix_tokens, step.prompt_tokens))}
    )
    agent_roots = {model: spread(f"{task.agent}/{model}", 1) for model in {s.model for s in calls}}
    roots = {model: spread(f"{task.task_id}/{model}", 0) for model in {s.model for s in calls}}
    segments: dict[int, _Segments] = {}
    prefixes: dict[int, tuple[tuple[int, ...], tuple[int, ...]]] = {}
    for step, previous, tokens_shared in zip(calls, sources, shared, strict=True):
        written = (
            _begin(step) if previous is None else _shared(segments[previous.step_id], tokens_shared)
        )
        context_tokens = step.prompt_tokens + step.output_tokens
        if context_tokens > (written[-1][0] if written else 0):
            written.append((context_tokens, step.step_id))
        segments[step.step_id] = written
        first = bisect_right(cuts, 0)
        end = bisect_right(cuts, context_tokens)
        tokens = tuple(cuts[max(first, end - _MAX_BOUNDARIES) : end])
        owners = [written[bisect_left(written, (cut, -1))][1] for cut in tokens]
        hashes = tuple(
            _mix(agent_roots[step.model] if owner == _AGENT else roots[step.model], owner, cut)
            for owner, cut in zip(owners, tokens, strict=True)
        )
        prefixes[step.step_id] = (hashes, tokens)
    return prefixes


def _begin(step: WorkloadStep) -> _Segments:
    """The segments of a prompt that continues none: what all tasks of the agent begin with."""
    common = min(step.common_prefix_tokens, step.prompt_tokens)
    return [(common, _AGENT)] if common > 0 else []


def _predecessor(earlier: list[WorkloadStep], step: WorkloadStep) -> WorkloadStep | None:
    if step.shared_prefix_tokens <= 0:
        return None
    same = [one for one in earlier if one.model == step.model]
    for one in reversed(same):
        if one.prompt_tokens + one.output_tokens >= step.shared_prefix_tokens:
            return one
    return max(same, key=lambda one: one.prompt_tokens + one.output_tokens, default=None)


def _shared_tokens(step: WorkloadStep, previous: WorkloadStep | None) -> int:
    """What a step shares with its predecessor: never more than that one read and wrote."""
    if previous is None:
        return 0
    written = previous.prompt_tokens + previous.output_tokens
    return min(step.shared_prefix_tokens, step.prompt_tokens, written)


def _shared(previous: _Segments, shared: int) -> _Segments:
    """The segments of a context up to the tokens that a later prompt shares with it."""
    whole = bisect_left(previous, (shared, -1))
    kept = previous[:whole]
    if whole < len(previous):
        kept.append((shared, previous[whole][1]))
    return kept


def _mix(root: int, owner: int, tokens: int) -> int:
    """One 64-bit hash of three numbers, the same on every machine (splitmix64's finisher)."""
    value = (root + owner * 0x9E3779B97F4A7C15 + tokens * 0xC2B2AE3D27D4EB4F) & _MASK
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & _MASK
    return value ^ (value >> 31)
