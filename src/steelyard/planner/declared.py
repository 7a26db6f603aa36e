"""What do declared agents ask for? Step classes from means that somebody states, not recorded."""

import math

from steelyard.config.plan_settings import DeclaredAgent, DeclaredStep
from steelyard.domain.units import SECONDS_PER_HOUR
from steelyard.errors import PlanError
from steelyard.planner.workload_demand import StepClass, WorkloadDemand

_BYTES_PER_MB = 1e6


def declared_demand(
    agents: tuple[DeclaredAgent, ...], growth_factor: float = 1.0, quantile: float = 0.95
) -> WorkloadDemand:
    """Which steps come how often, and what does one use?

    Thin: a step class has one mean size; where sizes differ much, declare two steps.

    Args:
        agents: Checked agents.
        growth_factor: Rate to provide for, over the declared one.
        quantile: Which quantile the declared high values are.

    Returns:
        The demand.

    Raises:
        PlanError: There are no agents.
    """
    if not agents:
        raise PlanError("no agents are declared; add [[agents]] or give --workload FILE")
    per_hour = math.fsum(agent.tasks_per_hour for agent in agents)
    classes = [_step_class(agent, step, growth_factor) for agent in agents for step in agent.steps]
    return WorkloadDemand(
        workload="declared: " + ", ".join(sorted(agent.name for agent in agents)),
        tasks_per_s=per_hour * growth_factor / SECONDS_PER_HOUR,
        growth_factor=growth_factor,
        quantile=quantile,
        classes=tuple(sorted(classes, key=lambda c: c.name)),
        deadlines_s={
            agent.name: agent.deadline_s
            for agent in sorted(agents, key=lambda a: a.name)
            if agent.deadline_s is not None
        },
    )


def _step_class(agent: DeclaredAgent, step: DeclaredStep, growth_factor: float) -> StepClass:
    uncached = step.prompt_tokens - step.cached_tokens
    high = uncached if step.high_uncached_tokens is None else step.high_uncached_tokens
    parts = [agent.name, step.name, step.model] if step.kind == "llm" else [agent.name, step.name]
    return StepClass(
        name=" / ".join(parts),
        agent=agent.name,
        step=step.name,
        kind=step.kind,
        model=step.model,
        count=0,
        rate_per_s=agent.tasks_per_hour * step.per_task * growth_factor / SECONDS_PER_HOUR,
        prompt_tokens=step.prompt_tokens,
        uncached_tokens=uncached,
        high_uncached_tokens=max(high, uncached),
        output_tokens=step.output_tokens,
        longest_context_tokens=math.ceil(
            max(step.prompt_tokens, step.cached_tokens + high) + step.output_tokens
        ),
        cpu_s=step.cpu_s,
        wait_s=step.wait_s,
        memory_bytes=step.memory_mb * _BYTES_PER_MB,
        per_task=step.per_task,
    )
