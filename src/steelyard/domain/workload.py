"""Arrivals to serve: tasks with their steps, as recorded or generated.

The columns follow the trace schema of docs/glossary.md, so that what `steelyard` records it can
plan from and simulate.
"""

from typing import Literal

import msgspec


class WorkloadStep(msgspec.Struct, frozen=True, kw_only=True):
    """One step with what it will use, which the policy does not know in advance.

    Attributes:
        step_id: Number in the task; parents have lower numbers.
        parents: Steps that must finish first.
        kind: `human` is a person's gap; it is waited for, never placed.
        name: Name of the step within the agent.
        model: Model of an LLM step, empty otherwise.
        tool: Tool of a tool step, empty otherwise.
        prompt_tokens: Length of the prompt.
        output_tokens: Length of the answer.
        max_output_tokens: Limit that the caller set; None where the source has none.
        shared_prefix_tokens: Prompt tokens that repeat a prefix of an earlier step of the task.
        common_prefix_tokens: Prompt tokens at the start with which steps of other tasks of the
            agent begin, too: its system prompt, tools and examples.
        cpu_s: CPU seconds on the reference core.
        think_or_tool_s: Time a tool waits beside its CPU time, or a person's gap.
        memory_bytes: Peak memory of a tool.
        recorded_s: How long the step took where it was recorded; None where unknown.
        cached_tokens: Prompt tokens read from a cache there; None where unknown.
    """

    step_id: int
    parents: tuple[int, ...]
    kind: Literal["llm", "tool", "human"]
    name: str
    model: str = ""
    tool: str = ""
    prompt_tokens: int = 0
    output_tokens: int = 0
    max_output_tokens: int | None = None
    shared_prefix_tokens: int = 0
    common_prefix_tokens: int = 0
    cpu_s: float = 0.0
    think_or_tool_s: float = 0.0
    memory_bytes: int = 0
    recorded_s: float | None = None
    cached_tokens: int | None = None


class WorkloadTask(msgspec.Struct, frozen=True, kw_only=True):
    """One task to arrive.

    Attributes:
        task_id: Unique in the workload.
        agent: Name of its agent.
        arrival_s: Seconds after the workload's start.
        steps: In order of `step_id`.
        deadline_after_s: Seconds from arrival to the deadline; None without one.
        budget_usd: Budget of the task; None without one.
    """

    task_id: str
    agent: str
    arrival_s: float
    steps: tuple[WorkloadStep, ...]
    deadline_after_s: float | None = None
    budget_usd: float | None = None


class Workload(msgspec.Struct, frozen=True, kw_only=True):
    """Tasks in order of arrival.

    Attributes:
        name: What it is called in reports.
        tasks: Sorted by `arrival_s`.
        source: Where it comes from: a file, a log, a generator with its seed.
    """

    name: str
    tasks: tuple[WorkloadTask, ...]
    source: str
