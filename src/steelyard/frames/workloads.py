"""Workloads as frames: a row per task, a row per step."""

from typing import NamedTuple

import polars as pl

from steelyard.domain.workload import Workload, WorkloadStep, WorkloadTask
from steelyard.frames.column import Column, Table


class _Placed(NamedTuple):
    task: WorkloadTask
    step: WorkloadStep


TASKS: Table[WorkloadTask] = Table(
    name="workload_tasks",
    row="a task, in order of arrival",
    columns=(
        Column("task_id", pl.String, "", "its id", lambda one: one.task_id),
        Column("agent", pl.String, "", "its agent", lambda one: one.agent),
        Column(
            "arrival_s", pl.Float64, "s", "after the workload's start", lambda one: one.arrival_s
        ),
        Column("steps", pl.Int64, "steps", "of all kinds", lambda one: len(one.steps)),
        Column(
            "prompt_tokens",
            pl.Int64,
            "tokens",
            "of all its LLM steps",
            lambda one: sum(step.prompt_tokens for step in one.steps),
        ),
        Column(
            "output_tokens",
            pl.Int64,
            "tokens",
            "of all its LLM steps",
            lambda one: sum(step.output_tokens for step in one.steps),
        ),
        Column(
            "deadline_after_s",
            pl.Float64,
            "s",
            "from arrival to deadline; null without one",
            lambda one: one.deadline_after_s,
        ),
        Column(
            "budget_usd",
            pl.Float64,
            "USD",
            "of the whole task; null without one",
            lambda one: one.budget_usd,
        ),
    ),
)

STEPS: Table[_Placed] = Table(
    name="workload_steps",
    row="a step, by task and number",
    columns=(
        Column("task_id", pl.String, "", "its task", lambda one: one.task.task_id),
        Column("agent", pl.String, "", "the task's agent", lambda one: one.task.agent),
        Column("step_id", pl.Int64, "", "number in the task", lambda one: one.step.step_id),
        Column(
            "parents",
            pl.List(pl.Int64),
            "",
            "steps that must finish first",
            lambda one: list(one.step.parents),
        ),
        Column(
            "kind", pl.String, "", "llm, tool, or human: a person's gap", lambda one: one.step.kind
        ),
        Column("step", pl.String, "", "its name", lambda one: one.step.name),
        Column("model", pl.String, "", "of LLM steps; else empty", lambda one: one.step.model),
        Column("tool", pl.String, "", "of tool steps; else empty", lambda one: one.step.tool),
        Column(
            "prompt_tokens",
            pl.Int64,
            "tokens",
            "length of the prompt",
            lambda one: one.step.prompt_tokens,
        ),
        Column(
            "output_tokens",
            pl.Int64,
            "tokens",
            "length of the answer",
            lambda one: one.step.output_tokens,
        ),
        Column(
            "shared_prefix_tokens",
            pl.Int64,
            "tokens",
            "of the prompt, that an earlier step of the task had",
            lambda one: one.step.shared_prefix_tokens,
        ),
        Column(
            "common_prefix_tokens",
            pl.Int64,
            "tokens",
            "of the prompt, with which other tasks of the agent begin, too",
            lambda one: one.step.common_prefix_tokens,
        ),
        Column(
            "cached_tokens",
            pl.Int64,
            "tokens",
            "read from a cache where it was recorded; null where unknown",
            lambda one: one.step.cached_tokens,
        ),
        Column(
            "cpu_s", pl.Float64, "s", "of a tool, on the reference core", lambda one: one.step.cpu_s
        ),
        Column(
            "think_or_tool_s",
            pl.Float64,
            "s",
            "that a tool waits beside its CPU time, or a person's gap",
            lambda one: one.step.think_or_tool_s,
        ),
        Column(
            "memory_bytes",
            pl.Int64,
            "bytes",
            "peak of a tool",
            lambda one: one.step.memory_bytes,
        ),
        Column(
            "recorded_s",
            pl.Float64,
            "s",
            "that it took where it was recorded; null where unknown",
            lambda one: one.step.recorded_s,
        ),
    ),
)


def workload_tasks(workload: Workload) -> pl.DataFrame:
    """Which tasks does a workload hold?

    Args:
        workload: The workload.

    Returns:
        One row per task; columns as `TASKS`.
    """
    return TASKS.frame(workload.tasks)


def workload_steps(workload: Workload) -> pl.DataFrame:
    """Which steps does a workload hold?

    Args:
        workload: The workload.

    Returns:
        One row per step; columns as `STEPS`.
    """
    return STEPS.frame(_Placed(task, step) for task in workload.tasks for step in task.steps)
