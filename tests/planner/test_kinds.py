import math

from steelyard.planner.kinds import KindCost, usd_per_task


def cost(name: str, hardware: str, usd: float, steps_per_task: float = 1.0) -> KindCost:
    return KindCost(
        name=name, agent="a", step=name, hardware=hardware, offering="o", usd_per_step=usd,
        latency_s=1.0, steps_per_task=steps_per_task, origin="measured",
    )  # fmt: skip


def test_a_task_costs_what_its_steps_cost_times_how_often_they_come() -> None:
    costs = (cost("x", "arm", 0.1, 3.0), cost("y", "arm", 0.2), cost("x", "gpu", 1.0))
    assert math.isclose(usd_per_task(costs, "arm") or 0.0, 0.5)


def test_hardware_that_cannot_run_one_step_has_no_cost_per_task() -> None:
    costs = (cost("x", "arm", 0.1), cost("y", "arm", 0.2), cost("x", "gpu", 1.0))
    assert usd_per_task(costs, "gpu") is None
    assert usd_per_task(costs, "x86") is None
