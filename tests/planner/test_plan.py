import msgspec
import pytest

from steelyard.config.catalog_table import Catalog, load_catalog
from steelyard.domain.slo import Slo
from steelyard.domain.workload import Workload, WorkloadStep, WorkloadTask
from steelyard.errors import InfeasiblePlanError, PlanError
from steelyard.perf.cost import llm_replica_s
from steelyard.planner.demand import Constraints
from steelyard.planner.plan import FleetPlan, PlanOptions, plan_fleet
from steelyard.planner.pools import pools_of
from steelyard.planner.workload_demand import demand_of


@pytest.fixture(scope="module")
def catalog() -> Catalog:
    return load_catalog()


def workload(model: str = "smollm2-135m", prompt_tokens: int = 300) -> Workload:
    steps = (
        WorkloadStep(
            step_id=0, parents=(), kind="tool", name="parse", cpu_s=0.5, memory_bytes=200_000_000
        ),
        WorkloadStep(
            step_id=1,
            parents=(0,),
            kind="llm",
            name="summarise",
            model=model,
            prompt_tokens=prompt_tokens,
            shared_prefix_tokens=100,
            output_tokens=60,
        ),
        WorkloadStep(step_id=2, parents=(1,), kind="human", name="read", think_or_tool_s=9.0),
    )
    return Workload(
        name="modules",
        tasks=tuple(
            WorkloadTask(task_id=f"t{i}", agent="librarian", arrival_s=2.0 * i, steps=steps)
            for i in range(10)
        ),
        source="test",
    )


def test_rates_come_from_counts_span_and_growth() -> None:
    demand = demand_of(workload(), growth_factor=3.0)
    assert demand.tasks_per_s == pytest.approx(1.5)
    tool, llm = sorted(demand.classes, key=lambda c: c.kind, reverse=True)
    assert (tool.kind, llm.kind) == ("tool", "llm")
    assert llm.rate_per_s == pytest.approx(1.5)
    assert llm.uncached_tokens == 200.0
    assert tool.memory_bytes == 200_000_000.0


def test_a_workload_without_a_rate_is_refused() -> None:
    one = msgspec.structs.replace(workload(), tasks=workload().tasks[:1])
    with pytest.raises(PlanError, match="duration"):
        demand_of(one)
    assert demand_of(one, duration_s=10.0).tasks_per_s == pytest.approx(0.1)


def test_an_unknown_model_names_the_nearest(catalog: Catalog) -> None:
    with pytest.raises(PlanError, match="smollm2-135m"):
        plan_fleet(workload("smollm-135m"), catalog, Slo())


def test_an_slo_that_nothing_keeps_says_why(catalog: Catalog) -> None:
    with pytest.raises(InfeasiblePlanError, match="summarise"):
        plan_fleet(workload("phi-4-14b"), catalog, Slo(itl_s=0.0001))


@pytest.fixture(scope="module")
def plan(catalog: Catalog) -> FleetPlan:
    return plan_fleet(workload(), catalog, Slo(), PlanOptions(growth_factor=100.0))


def test_the_plan_is_not_dearer_than_any_baseline(plan: FleetPlan) -> None:
    assert plan.lower_bound_usd_per_hour <= plan.usd_per_hour
    assert {b.name for b in plan.baselines} == {"all-gpu", "all-arm", "all-x86", "single-provider"}
    for baseline in plan.baselines:
        assert (baseline.usd_per_hour is None) == bool(baseline.infeasible)
        if baseline.usd_per_hour is not None:
            assert plan.lower_bound_usd_per_hour <= baseline.usd_per_hour * (1 + 1e-9)
            assert plan.usd_per_hour <= baseline.usd_per_hour


def test_every_class_is_fully_placed_on_machines_of_the_plan(plan: FleetPlan) -> None:
    bought = {m.offering for m in plan.machines}
    assert {c.offering for c in plan.choices} <= bought
    for step in plan.classes:
        shares = [c.share_frac for c in plan.choices if c.name == step.name]
        assert sum(shares) == pytest.approx(1.0, abs=1e-5)
    assert all(c.why for c in plan.choices)


def test_headroom_is_kept_on_every_machine(plan: FleetPlan) -> None:
    most = 1.0 / min(plan.headroom)
    assert all(m.used_frac <= most + 1e-6 for m in plan.machines)


def test_the_same_input_gives_the_same_plan_byte_for_byte(catalog: Catalog) -> None:
    options = PlanOptions(growth_factor=20.0, with_baselines=False)
    one, two = (plan_fleet(workload(), catalog, Slo(), options) for _ in range(2))
    assert msgspec.json.encode(one) == msgspec.json.encode(two)
    assert msgspec.json.decode(msgspec.json.encode(one), type=FleetPlan) == one


def test_the_pools_of_a_plan_can_run_every_step(plan: FleetPlan, catalog: Catalog) -> None:
    pools = pools_of(plan, catalog)
    assert sum(p.usd_per_hour * p.replicas for p in pools) == pytest.approx(plan.usd_per_hour)
    assert any("smollm2-135m" in p.llm_curves for p in pools)
    assert any(p.tool_curve is not None for p in pools)


def test_memory_of_planned_gpus_is_derived_and_says_so(plan: FleetPlan, catalog: Catalog) -> None:
    for pool in pools_of(plan, catalog):
        machine = catalog.offering(pool.offering).instance_type
        derivable = machine.accelerator_count == 1 and len(pool.llm_curves) == 1
        assert (pool.kv_tokens is not None) == derivable
        assert pool.kv_tokens_source == ("derived" if derivable else "")


def test_planned_cost_is_that_of_the_one_cost_function(plan: FleetPlan, catalog: Catalog) -> None:
    pools = {p.name: p for p in pools_of(plan, catalog)}
    step = next(c for c in plan.classes if c.kind == "llm")
    headroom = plan.headroom[plan.classes.index(step)]
    for choice in (c for c in plan.choices if c.name == step.name and c.measured):
        pool = pools[choice.offering]
        used_s = llm_replica_s(
            pool.llm_curves[step.model], step.uncached_tokens, step.output_tokens
        )
        usd = 1000.0 * headroom * used_s * pool.usd_per_hour / 3600.0
        assert choice.usd_per_1000_steps == pytest.approx(usd)


def test_a_provider_loss_makes_the_plan_buy_from_two(catalog: Catalog) -> None:
    options = PlanOptions(
        growth_factor=50.0,
        constraints=Constraints(survive_provider_loss_frac=0.5),
        with_baselines=True,
    )
    plan = plan_fleet(workload(), catalog, Slo(), options)
    assert len({m.provider for m in plan.machines}) >= 2
    single = next(b for b in plan.baselines if b.name == "single-provider")
    assert single.usd_per_hour is None


def test_filters_are_kept(catalog: Catalog) -> None:
    options = PlanOptions(providers=("azure",), archs=("arm64",), with_baselines=False)
    plan = plan_fleet(workload(), catalog, Slo(), options)
    assert {(m.provider, m.hardware) for m in plan.machines} == {("azure", "arm")}


def test_steps_that_use_nothing_still_get_a_machine_that_can_run_them(catalog: Catalog) -> None:
    tasks = tuple(
        msgspec.structs.replace(
            task, steps=(msgspec.structs.replace(task.steps[0], cpu_s=0.0), *task.steps[1:])
        )
        for task in workload().tasks
    )
    idle = msgspec.structs.replace(workload(), tasks=tasks)
    # No offering but this GPU, which cannot be known to run tools, and a small CPU.
    offerings = tuple(catalog.offering(name) for name in ("gcp/a2-highgpu-2g", "aws/m9g.medium"))
    few = msgspec.structs.replace(catalog, offerings=offerings)
    few = msgspec.structs.replace(
        few, tool_fits={("aws", "m9g.medium"): few.tool_fits["aws", "m9g.medium"]}
    )
    few = msgspec.structs.replace(
        few, llm_fits={("gcp", "a2-highgpu-2g"): few.llm_fits["gcp", "a2-highgpu-2g"]}
    )
    plan = plan_fleet(idle, few, Slo(), PlanOptions(with_baselines=False))
    assert plan.fleet() == {one.name: 1 for one in offerings}
