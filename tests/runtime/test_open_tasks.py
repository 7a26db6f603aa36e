from hypothesis import given
from hypothesis import strategies as st

from steelyard.runtime.open_tasks import OpenTasks, TaskTerms

TERMS = TaskTerms(agent="a", deadline_s=None, budget_usd=None)


def _opened() -> OpenTasks:
    tasks = OpenTasks()
    tasks.open("t", TERMS)
    return tasks


def _submit(tasks: OpenTasks) -> tuple[int, tuple[int, ...]]:
    step_id = tasks.next_step_id("t")
    parents = tasks.parents("t", step_id)
    tasks.step_submitted("t", step_id, parents)
    return step_id, parents


def test_steps_one_after_another_are_a_chain() -> None:
    tasks = _opened()
    found: list[tuple[int, ...]] = []
    for _ in range(4):
        step_id, parents = _submit(tasks)
        found.append(parents)
        tasks.step_done("t", step_id)
    assert found == [(), (0,), (1,), (2,)]


def test_steps_side_by_side_share_parents_and_are_the_parents_of_what_joins_them() -> None:
    tasks = _opened()
    tasks.step_done("t", _submit(tasks)[0])
    one, two = _submit(tasks), _submit(tasks)
    assert (one[1], two[1]) == ((0,), (0,))
    tasks.step_done("t", two[0])
    tasks.step_done("t", one[0])
    assert _submit(tasks)[1] == (1, 2)


def test_a_step_is_built_on_what_had_finished_when_it_was_numbered() -> None:
    # ctx.llm numbers its step before the request goes out; a tool beside it may be done sooner.
    tasks = _opened()
    asked = tasks.next_step_id("t")
    tool, _ = _submit(tasks)
    tasks.step_done("t", tool)
    assert tasks.parents("t", asked) == ()


def test_a_step_that_its_caller_numbered_is_built_on_lower_numbers_alone() -> None:
    tasks = _opened()
    for step_id in (3, 9):
        tasks.step_submitted("t", step_id, ())
        tasks.step_done("t", step_id)
    assert tasks.parents("t", 7) == (3,)
    assert tasks.parents("t", 10) == (3, 9)


def test_a_failed_step_is_nobodys_parent() -> None:
    tasks = _opened()
    _submit(tasks)
    assert _submit(tasks)[1] == ()


def test_tasks_do_not_mix_and_a_closed_one_is_forgotten() -> None:
    tasks = _opened()
    tasks.open("u", TaskTerms(agent="b", deadline_s=1.0, budget_usd=2.0))
    tasks.step_done("t", _submit(tasks)[0])
    assert tasks.next_step_id("u") == 0
    assert tasks.parents("u", 0) == ()
    tasks.close("t")
    assert tasks.terms("t") is None
    assert tasks.terms("u") == TaskTerms(agent="b", deadline_s=1.0, budget_usd=2.0)
    assert (tasks.next_step_id("t"), tasks.parents("t", 5)) == (0, ())


@given(st.data())
def test_parents_come_before_their_step_whatever_the_order_of_events(data: st.DataObject) -> None:
    tasks = _opened()
    numbered: list[int] = []
    running: list[int] = []
    finished: set[int] = set()
    parents_of: dict[int, tuple[int, ...]] = {}
    for _ in range(data.draw(st.integers(1, 25))):
        move = data.draw(st.sampled_from(["number", "submit", "finish", "fail"]))
        if move == "number":
            numbered.append(tasks.next_step_id("t"))
        elif move == "submit" and numbered:
            step_id = numbered.pop(data.draw(st.integers(0, len(numbered) - 1)))
            parents_of[step_id] = tasks.parents("t", step_id)
            tasks.step_submitted("t", step_id, parents_of[step_id])
            running.append(step_id)
        elif running and move in {"finish", "fail"}:
            step_id = running.pop(data.draw(st.integers(0, len(running) - 1)))
            if move == "finish":
                tasks.step_done("t", step_id)
                finished.add(step_id)
    for step_id, parents in parents_of.items():
        assert all(parent < step_id for parent in parents)
        assert finished >= set(parents)
        assert parents == tuple(sorted(set(parents)))
