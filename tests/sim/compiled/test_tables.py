import msgspec
import pytest

from steelyard.domain.pool import PoolSpec
from steelyard.domain.workload import Workload
from steelyard.errors import WorkloadError
from steelyard.sim.compiled.simulate import simulate_compiled
from steelyard.sim.compiled.tables import Sample


def test_refuses_a_parent_that_does_not_come_before(workload: Workload, llm_pool: PoolSpec) -> None:
    task = workload.tasks[0]
    bad = msgspec.structs.replace(task, steps=(task.steps[2], task.steps[0]))
    backwards = msgspec.structs.replace(workload, tasks=(bad,))
    with pytest.raises(WorkloadError, match="names parent 0, which does not come before it"):
        simulate_compiled(backwards, (llm_pool,), "cheapest_feasible", 0)


def test_tasks_that_share_their_steps_are_laid_out_once(workload: Workload) -> None:
    twins = tuple(
        msgspec.structs.replace(workload.tasks[0], task_id=f"t{n}", arrival_s=float(9 - n))
        for n in range(9)
    )
    sample = Sample.of(msgspec.structs.replace(workload, tasks=twins))
    assert len(sample.tasks) == 1
    assert sample.arrival_s.tolist() == [float(n + 1) for n in range(9)]
    assert len(set(sample.keys.tolist())) == 9
