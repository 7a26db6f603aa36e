"""Steps that wait for what is down."""

from tests.sim.test_simulate import llm_task

from steelyard.domain.task import Step
from steelyard.domain.workload import WorkloadTask
from steelyard.sim import Conditions
from steelyard.sim.agenda import Agenda
from steelyard.sim.steps import to_steps
from steelyard.sim.tasks import SimTask
from steelyard.sim.waiting_room import WaitingRoom


def waiting(number: int) -> tuple[SimTask, Step]:
    task: WorkloadTask = llm_task(f"t{number}", 0.0, 100, 10)
    steps = to_steps(task, Conditions())
    step = steps[0]
    assert step is not None
    return SimTask(task, steps, [1.0]), step


def test_replicas_that_come_back_together_make_every_step_ask_once() -> None:
    agenda, asked = Agenda(), list[tuple[str, float]]()

    def look(run: SimTask, at: int, step: Step, now_s: float) -> None:
        asked.append((step.task_id, now_s))
        room.leave(step)

    room = WaitingRoom(agenda, 60.0, look)
    for number in range(20):
        run, step = waiting(number)
        assert room.take(run, 0, step, 0.0)
    before = len(agenda)
    for _ in range(50):
        room.look_soon(0.0)
    # One entry, not one per replica and step: 10,000 of each came to 10^8.
    assert len(agenda) == before + 1
    while agenda:
        agenda.run_next()
    assert asked == [(f"t{number}", 0.0) for number in range(20)]


def test_a_step_that_finds_nothing_again_asks_again_later_and_gives_up_in_the_end() -> None:
    agenda, asked = Agenda(), list[float]()

    def look(run: SimTask, at: int, step: Step, now_s: float) -> None:
        asked.append(now_s)
        room.take(run, at, step, now_s)

    room = WaitingRoom(agenda, 1.2, look)
    run, step = waiting(0)
    assert room.take(run, 0, step, 0.0)
    room.look_soon(0.0)
    while agenda:
        agenda.run_next()
    assert asked == [0.0, 0.5, 1.0, 1.2]
