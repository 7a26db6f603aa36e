"""Tools that belong to a pool of their own run there and nowhere else."""

import msgspec
import pytest

from steelyard.domain.decision import Decision, Refusal
from steelyard.domain.events import PoolAdded
from steelyard.domain.pool import PoolSpec, ToolCurve
from steelyard.domain.task import Step, ToolCall
from steelyard.fleet.state import FleetState
from steelyard.placement.policy import CheapestFeasible


@pytest.fixture
def pools(llm_pool: PoolSpec, tool_curve: ToolCurve) -> tuple[PoolSpec, ...]:
    plain = msgspec.structs.replace(llm_pool, name="plain", llm_curves={}, tool_curve=tool_curve)
    own = msgspec.structs.replace(plain, name="docs", tool_prefix="mcp:docs/")
    return plain, own


@pytest.mark.parametrize(("tool", "pool"), [("m:f", "plain"), ("mcp:docs/search", "docs")])
def test_a_tool_runs_in_its_own_pool(pools: tuple[PoolSpec, ...], tool: str, pool: str) -> None:
    decision = decide(pools, tool)
    assert isinstance(decision, Decision)
    assert decision.pool == pool


def test_a_tool_of_a_missing_pool_is_refused(pools: tuple[PoolSpec, ...]) -> None:
    refusal = decide(pools, "mcp:gone/search")
    assert isinstance(refusal, Refusal)
    assert {verdict.verdict for verdict in refusal.verdicts} == {"cannot_run"}


def decide(pools: tuple[PoolSpec, ...], tool: str) -> Decision | Refusal:
    state = FleetState()
    for spec in pools:
        state.apply(PoolAdded(t_s=0.0, spec=spec))
    step = Step(task_id="t", step_id=0, agent="a", name="s", call=ToolCall(tool=tool))
    return CheapestFeasible()(step, state.view(step, 0.0))
