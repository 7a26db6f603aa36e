"""What the compiled path would have to ignore is refused in one line."""

import msgspec
import pytest

from steelyard.domain.pool import LlmCurve, PoolSpec, SpendCap, ToolCurve
from steelyard.domain.workload import Workload
from steelyard.errors import ConfigError, WorkloadError
from steelyard.sim.compiled.simulate import simulate_compiled


def refusal(workload: Workload, pools: tuple[PoolSpec, ...]) -> str:
    with pytest.raises((ConfigError, WorkloadError)) as raised:
        simulate_compiled(workload, pools, "cheapest_feasible", 0)
    told = str(raised.value)
    assert "\n" not in told
    return told


def test_refuses_a_pool_of_models_and_tools(
    workload: Workload, llm_pool: PoolSpec, tool_curve: ToolCurve
) -> None:
    mixed = msgspec.structs.replace(llm_pool, tool_curve=tool_curve)
    assert "pool arm: the compiled simulator knows pools of one model" in refusal(
        workload, (mixed,)
    )


def test_refuses_a_pool_of_two_models(
    workload: Workload, llm_pool: PoolSpec, llm_curve: LlmCurve
) -> None:
    two = msgspec.structs.replace(llm_pool, llm_curves={"m": llm_curve, "n": llm_curve})
    assert "run the reference path" in refusal(workload, (two,))


def test_refuses_prefixes_shared_between_tasks(workload: Workload, llm_pool: PoolSpec) -> None:
    task = workload.tasks[0]
    first = msgspec.structs.replace(task.steps[0], common_prefix_tokens=50)
    shared = msgspec.structs.replace(task, steps=(first, *task.steps[1:]))
    told = refusal(msgspec.structs.replace(workload, tasks=(shared,)), (llm_pool,))
    assert "common_prefix_tokens 50" in told


def test_refuses_tools_of_a_pool_of_their_own(workload: Workload, llm_pool: PoolSpec) -> None:
    task = workload.tasks[0]
    own = msgspec.structs.replace(task.steps[1], tool="mcp:files/read")
    asks = msgspec.structs.replace(task, steps=(task.steps[0], own))
    told = refusal(msgspec.structs.replace(workload, tasks=(asks,)), (llm_pool,))
    assert "mcp:files/read" in told


def test_refuses_a_pool_of_which_the_memory_is_known(
    workload: Workload, llm_pool: PoolSpec
) -> None:
    sized = msgspec.structs.replace(llm_pool, kv_tokens=1000)
    assert "kv_tokens of pool arm is 1000" in refusal(workload, (sized,))


def test_refuses_a_pool_whose_provider_has_a_spend_cap(
    workload: Workload, llm_pool: PoolSpec
) -> None:
    capped = msgspec.structs.replace(llm_pool, spend_cap=SpendCap(usd_per_day=1.0))
    assert "provider aws of pool arm has a spend cap" in refusal(workload, (capped,))
