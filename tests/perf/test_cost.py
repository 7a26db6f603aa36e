import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steelyard.domain.events import Usage
from steelyard.domain.offering import TokenPrice
from steelyard.domain.pool import LlmCurve, PoolSpec, ToolCurve
from steelyard.domain.task import LlmCall, Step, ToolCall
from steelyard.domain.units import rental_usd
from steelyard.errors import SteelyardBugError
from steelyard.perf.cost import attempt_usd, llm_replica_s, tool_replica_s

LLM = Step(
    task_id="t",
    step_id=0,
    agent="a",
    name="s",
    call=LlmCall(model="m", input_tokens=100, max_output_tokens=10),
)
TOOL = Step(task_id="t", step_id=0, agent="a", name="s", call=ToolCall(tool="grep"))


curves = st.builds(
    LlmCurve,
    ttft_floor_s=st.just(0.0),
    prefill_s_per_token=st.floats(0.0, 0.01),
    itl_base_s=st.floats(1e-4, 0.1),
    itl_slope_s=st.floats(0.0, 0.1),
    concurrency_cap=st.integers(1, 256),
    context_tokens=st.just(100_000),
    predicted=st.just(True),
    source=st.just("drawn"),
)


@given(curve=curves, prompt=st.integers(0, 10_000), output=st.integers(1, 2_000))
def test_a_full_batch_is_charged_the_time_it_takes(
    curve: LlmCurve, prompt: int, output: int
) -> None:
    cap = curve.concurrency_cap
    charged_s = math.fsum([llm_replica_s(curve, prompt, output)] * cap)
    prefill_s = cap * prompt * curve.prefill_s_per_token
    decode_s = output * (curve.itl_base_s + curve.itl_slope_s * cap)
    assert charged_s == pytest.approx(prefill_s + decode_s)


def test_an_attempt_costs_what_its_usage_costs(llm_pool: PoolSpec, tool_pool: PoolSpec) -> None:
    usage = Usage(input_tokens=100, cached_tokens=60, output_tokens=10, wall_s=9.0)
    used_s = llm_replica_s(llm_pool.llm_curves["m"], 40, 10)
    assert attempt_usd(llm_pool, LLM, usage) == rental_usd(llm_pool.usd_per_hour, used_s)
    curve = tool_pool.tool_curve
    assert isinstance(curve, ToolCurve)
    tool = Usage(cpu_s=3.0, memory_bytes=100, wall_s=5.0)
    used_s = tool_replica_s(curve, 3.0 * curve.relative_speed, 5.0, 100)
    assert attempt_usd(tool_pool, TOOL, tool) == rental_usd(tool_pool.usd_per_hour, used_s)


def test_a_vendor_is_paid_by_the_token(llm_pool: PoolSpec) -> None:
    price = TokenPrice(
        usd_per_input_token=3e-6, usd_per_cached_token=1e-6, usd_per_output_token=1e-5
    )
    vendor = PoolSpec(
        name="vendor",
        provider="v",
        region="r",
        arch="x86_64",
        hardware="vendor",
        offering="o",
        usd_per_hour=0.0,
        replicas=1,
        token_price=price,
        llm_curves=llm_pool.llm_curves,
    )
    usage = Usage(input_tokens=100, cached_tokens=60, output_tokens=10)
    assert attempt_usd(vendor, LLM, usage) == pytest.approx(40 * 3e-6 + 60 * 1e-6 + 10 * 1e-5)


def test_a_tool_in_a_pool_without_tools_is_a_bug(llm_pool: PoolSpec) -> None:
    with pytest.raises(SteelyardBugError, match="pool arm ran tool step"):
        attempt_usd(llm_pool, TOOL, Usage(cpu_s=1.0))
