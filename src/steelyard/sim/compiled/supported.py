"""What the compiled path would have to ignore is refused, before anything is laid out."""

from collections.abc import Sequence

from steelyard.domain.pool import OWN_POOL_PREFIX, PoolSpec
from steelyard.domain.workload import WorkloadTask
from steelyard.errors import ConfigError, WorkloadError
from steelyard.sim.conditions import Conditions
from steelyard.sim.renting import Renting

CURE = "run the reference path, steelyard.sim.simulate"
_SUPPORTED = frozenset(
    {
        "bids_usd_per_hour",
        "first_hour",
        "outages",
        "renting",
        "service_factor",
        "noise_sigma",
        "max_attempts",
        "max_output_tokens",
        "on_miss",
    }
)
_RENTING = frozenset({"start_s", "usd_per_hour_by_hour", "bid_usd_per_hour_by_hour"})


def check_supported(
    tasks: Sequence[WorkloadTask], pools: tuple[PoolSpec, ...], conditions: Conditions
) -> None:
    """Refuse what the compiled path would have to ignore.

    Args:
        tasks: The different tasks.
        pools: The fleet.
        conditions: The world.

    Raises:
        ConfigError: A pool or a condition is not supported.
        WorkloadError: A task is not supported.
    """
    conditions.check(pools)
    usual = Conditions()
    for field in conditions.__struct_fields__:
        if field not in _SUPPORTED and getattr(conditions, field) != getattr(usual, field):
            raise ConfigError(f"the compiled simulator does not know condition {field}; {CURE}")
    _check_renting(conditions)
    for spec in pools:
        _check_pool(spec)
        if len(spec.llm_curves) + (spec.tool_curve is not None) > 1 or spec.tool_prefix:
            raise ConfigError(
                f"pool {spec.name}: the compiled simulator knows pools of one model, or of tools "
                f"for all agents, and no others; {CURE}"
            )
    for task in tasks:
        for step in task.steps:
            if step.common_prefix_tokens > 0:
                raise WorkloadError(
                    f"task {task.task_id}: step {step.step_id} shares a prompt prefix with other "
                    f"tasks (common_prefix_tokens {step.common_prefix_tokens}), which the compiled "
                    f"simulator does not know; {CURE}"
                )
            if step.tool.startswith(OWN_POOL_PREFIX):
                raise WorkloadError(
                    f"task {task.task_id}: tool {step.tool} runs in a pool of its own, which the "
                    f"compiled simulator does not know; {CURE}"
                )


def _check_pool(spec: PoolSpec) -> None:
    if spec.spend_cap is not None:
        told = f"provider {spec.provider} of pool {spec.name} has a spend cap"
        raise ConfigError(f"{told}; the compiled simulator knows none; {CURE}")
    if spec.kv_tokens is not None:
        told = f"kv_tokens of pool {spec.name} is {spec.kv_tokens}"
        raise ConfigError(f"{told}; the compiled simulator knows no memory; {CURE}")


def _check_renting(conditions: Conditions) -> None:
    usual = Renting()
    for pool, renting in sorted(conditions.renting.items()):
        for field in renting.__struct_fields__:
            if field not in _RENTING and getattr(renting, field) != getattr(usual, field):
                raise ConfigError(
                    f"renting of {pool}: the compiled simulator does not know {field}; {CURE}"
                )
