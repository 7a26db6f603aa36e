"""A small fleet of three kinds of hardware and a small agent, shared by the tests of the core."""

import pytest
from hypothesis import HealthCheck, settings

from steelyard.domain.pool import LlmCurve, PoolSpec, ToolCurve
from steelyard.domain.workload import Workload, WorkloadStep
from steelyard.sim import ArrivalProcess, StepClass, TaskClass, synthesize

# How fast a machine draws examples says nothing about the code.
settings.register_profile(
    "any machine", suppress_health_check=[HealthCheck.too_slow], deadline=None
)
# For `make test-arm64`, where every example takes 10 to 30 times as long.
settings.register_profile("emulated", settings.get_profile("any machine"), max_examples=10)
settings.load_profile("any machine")


@pytest.fixture(scope="session")
def llm_curve() -> LlmCurve:
    return LlmCurve(
        ttft_floor_s=0.0,
        prefill_s_per_token=0.001,
        itl_base_s=0.01,
        itl_slope_s=0.01,
        concurrency_cap=4,
        context_tokens=8192,
        predicted=False,
        source="by hand",
    )


@pytest.fixture(scope="session")
def tool_curve() -> ToolCurve:
    return ToolCurve(
        relative_speed=1.0,
        cores=2.0,
        memory_bytes=1000,
        start_s=0.0,
        slots=4,
        predicted=False,
        source="by hand",
    )


@pytest.fixture(scope="session")
def llm_pool(llm_curve: LlmCurve) -> PoolSpec:
    return PoolSpec(
        name="arm",
        provider="aws",
        region="r",
        arch="arm64",
        hardware="arm",
        offering="o",
        usd_per_hour=0.3,
        replicas=1,
        llm_curves={"m": llm_curve},
    )


@pytest.fixture(scope="session")
def tool_pool(tool_curve: ToolCurve) -> PoolSpec:
    return PoolSpec(
        name="tools",
        provider="gcp",
        region="r",
        arch="arm64",
        hardware="arm",
        offering="o",
        usd_per_hour=0.2,
        replicas=1,
        tool_curve=tool_curve,
    )


@pytest.fixture(scope="session")
def fleet(llm_curve: LlmCurve) -> tuple[PoolSpec, ...]:
    """Two CPU pools and a GPU pool for model `m`, and two tool pools, of two providers."""

    def llm(name: str, provider: str, replicas: int, rent: float, speed: float) -> PoolSpec:
        curve = LlmCurve(
            ttft_floor_s=0.01,
            prefill_s_per_token=llm_curve.prefill_s_per_token / speed,
            itl_base_s=llm_curve.itl_base_s / speed,
            itl_slope_s=llm_curve.itl_slope_s / speed / 4.0,
            concurrency_cap=8,
            context_tokens=8192,
            predicted=False,
            source="by hand",
        )
        return PoolSpec(
            name=name,
            provider=provider,
            region="r",
            arch="arm64" if name == "arm" else "x86_64",
            hardware="gpu" if name == "gpu" else "arm" if name == "arm" else "x86",
            offering=f"{name}-offering",
            usd_per_hour=rent,
            replicas=replicas,
            llm_curves={"m": curve},
        )

    def tools(name: str, provider: str, rent: float, speed: float) -> PoolSpec:
        return PoolSpec(
            name=name,
            provider=provider,
            region="r",
            arch="arm64",
            hardware="arm",
            offering=f"{name}-offering",
            usd_per_hour=rent,
            replicas=2,
            tool_curve=ToolCurve(
                relative_speed=speed,
                cores=4.0,
                memory_bytes=4000,
                start_s=0.01,
                slots=6,
                predicted=False,
                source="by hand",
            ),
        )

    return (
        llm("arm", "aws", 3, 0.3, 1.0),
        llm("x86", "gcp", 2, 0.4, 1.5),
        llm("gpu", "aws", 1, 2.0, 10.0),
        tools("tools-arm", "aws", 0.2, 1.0),
        tools("tools-x86", "gcp", 0.3, 1.3),
    )


@pytest.fixture(scope="session")
def workload() -> Workload:
    """Sixty tasks of five steps, among them two that run at once, and a person's gap."""
    steps = (
        WorkloadStep(
            step_id=0,
            parents=(),
            kind="llm",
            name="plan",
            model="m",
            prompt_tokens=400,
            output_tokens=30,
            max_output_tokens=256,
        ),
        WorkloadStep(
            step_id=1,
            parents=(0,),
            kind="tool",
            name="search",
            tool="grep",
            cpu_s=0.4,
            think_or_tool_s=0.1,
            memory_bytes=900,
        ),
        WorkloadStep(
            step_id=2,
            parents=(0,),
            kind="llm",
            name="sketch",
            model="m",
            prompt_tokens=700,
            output_tokens=40,
            shared_prefix_tokens=350,
            max_output_tokens=256,
        ),
        WorkloadStep(step_id=3, parents=(1, 2), kind="human", name="look", think_or_tool_s=1.0),
        WorkloadStep(
            step_id=4,
            parents=(3,),
            kind="llm",
            name="answer",
            model="m",
            prompt_tokens=1000,
            output_tokens=60,
            shared_prefix_tokens=700,
            max_output_tokens=256,
        ),
    )
    kind = TaskClass(
        agent="coder",
        steps=tuple(StepClass(step=step, variation=0.5) for step in steps),
        deadline_after_s=12.0,
        budget_usd=0.01,
    )
    return synthesize((kind,), ArrivalProcess(rate_per_s=4.0), tasks=60, seed=7)
