from pathlib import Path

import msgspec
from tests.ledger.books import Books, llm_call

from steelyard.domain.events import StepPlaced, Usage
from steelyard.domain.workload import Workload
from steelyard.ledger.ledger import Ledger
from steelyard.ledger.recording import workload_of
from steelyard.store.workload_file import read_workload, write_workload


def _recorded(books: Books) -> Workload:
    return workload_of(Ledger.of(books.events), "w", "a log")


def test_tasks_come_in_order_of_arrival_from_second_zero() -> None:
    books = Books()
    books.open("late", 107.0, agent="x", deadline_s=117.0, budget_usd=0.5)
    books.open("soon", 103.0, agent="y")
    for name in ("late", "soon"):
        books.attempt(name, 0, times_s=(108.0, 108.0, 109.0))
        books.close(name, 110.0)
    workload = _recorded(books)
    assert (workload.name, workload.source) == ("w", "a log")
    soon, late = workload.tasks
    assert (soon.task_id, soon.agent, soon.arrival_s) == ("soon", "y", 0.0)
    assert (late.task_id, late.agent, late.arrival_s) == ("late", "x", 4.0)
    assert (soon.deadline_after_s, soon.budget_usd) == (None, None)
    assert (late.deadline_after_s, late.budget_usd) == (10.0, 0.5)


def test_a_task_that_only_requests_name_is_recorded_up_to_where_it_is() -> None:
    books = Books()
    books.open("named", 1.0, deadline_s=61.0)
    books.attempt("named", 0, times_s=(1.0, 1.0, 2.0))
    books.attempt("named", 1, times_s=(2.0, 2.0, 3.0))
    (task,) = _recorded(books).tasks
    assert (len(task.steps), task.deadline_after_s) == (2, 60.0)


def test_a_task_of_a_worker_and_one_that_is_under_way_are_not_recorded() -> None:
    books = Books()
    for name in ("durable", "busy"):
        books.open(name, 0.0)
        books.attempt(name, 0, times_s=(0.0, 0.0, 1.0))
        books.attempt(name, 1, times_s=(1.0, 1.0, 2.0))
    del books.events[-1]
    leased = [
        msgspec.structs.replace(event, step=msgspec.structs.replace(event.step, fence=1))
        if isinstance(event, StepPlaced) and event.step.task_id == "durable"
        else event
        for event in books.events
    ]
    assert workload_of(Ledger.of(leased), "w", "a log").tasks == ()


def test_only_tasks_with_a_step_that_went_well_are_recorded() -> None:
    books = Books()
    for name in ("idle", "unlucky", "good"):
        books.open(name, 0.0)
    books.attempt("unlucky", 0, times_s=(0.0, 0.0, 1.0), outcome="failed")
    books.attempt("good", 0, times_s=(0.0, 0.0, 1.0), outcome="failed")
    books.attempt("good", 0, times_s=(1.0, 1.0, 2.0), attempt=1)
    for name in ("idle", "unlucky", "good"):
        books.close(name, 9.0, "failed" if name == "unlucky" else "succeeded")
    (task,) = _recorded(books).tasks
    assert (task.task_id, len(task.steps)) == ("good", 1)


def test_an_empty_log_is_an_empty_workload() -> None:
    assert _recorded(Books()).tasks == ()


def test_parents_that_did_not_go_well_are_left_out() -> None:
    books = Books()
    books.open("t", 0.0)
    books.attempt("t", 0, times_s=(0.0, 0.0, 1.0))
    books.attempt("t", 1, times_s=(0.0, 0.0, 1.0), outcome="failed")
    books.attempt("t", 2, times_s=(1.0, 1.0, 2.0), parents=(0, 1))
    books.close("t", 3.0)
    (task,) = _recorded(books).tasks
    assert [(step.step_id, step.parents) for step in task.steps] == [(0, ()), (2, (0,))]


def test_a_step_that_was_answered_twice_is_recorded_once() -> None:
    # A client that sends a request again, with the same Idempotency-Key, after its answer.
    books = Books()
    books.open("t", 0.0)
    for output_tokens in (5, 6):
        usage = Usage(input_tokens=9, output_tokens=output_tokens)
        books.attempt("t", 0, times_s=(0.0, 0.0, 1.0), usage=usage)
    books.close("t", 3.0)
    (task,) = _recorded(books).tasks
    assert [(step.step_id, step.output_tokens) for step in task.steps] == [(0, 6)]


def test_an_llm_step_is_recorded_with_what_the_engine_counted() -> None:
    books = Books()
    books.open("t", 0.0)
    usage = Usage(input_tokens=90, cached_tokens=30, output_tokens=7, wall_s=1.5)
    books.attempt("t", 0, times_s=(0.0, 0.5, 2.0), usage=usage, name="ask")
    books.close("t", 3.0)
    (step,) = _recorded(books).tasks[0].steps
    assert (step.kind, step.name, step.model) == ("llm", "ask", "m")
    assert (step.prompt_tokens, step.output_tokens, step.cached_tokens) == (90, 7, 30)
    assert (step.max_output_tokens, step.recorded_s) == (64, 1.5)


def test_a_tools_cpu_time_is_converted_to_the_reference_core() -> None:
    books = Books()
    books.open("t", 0.0)
    usage = Usage(cpu_s=3.0, wall_s=5.0, memory_bytes=777)
    books.attempt("t", 0, times_s=(0.0, 0.0, 5.0), usage=usage, pool="tools")
    books.close("t", 6.0)
    (step,) = _recorded(books).tasks[0].steps
    # The pool's cores are twice as fast as the reference core.
    assert (step.kind, step.tool, step.cpu_s, step.think_or_tool_s) == ("tool", "t", 6.0, 2.0)
    assert (step.memory_bytes, step.recorded_s) == (777, 5.0)


def test_the_prefix_that_an_earlier_step_had_is_shared() -> None:
    books = Books()
    books.open("t", 0.0)
    prefixes = [((1,), (40,)), ((1, 2), (40, 80)), ((1, 2, 3), (40, 80, 95)), ((7,), (50,))]
    for step_id, (hashes, tokens) in enumerate(prefixes):
        call = llm_call(prefix_hashes=hashes, prefix_tokens=tokens)
        books.attempt(
            "t", step_id, times_s=(0.0, 0.0, 1.0), usage=Usage(input_tokens=100), call=call
        )
    other = llm_call(model="other", prefix_hashes=(1, 2), prefix_tokens=(40, 80))
    books.attempt("t", 4, times_s=(0.0, 0.0, 1.0), usage=Usage(input_tokens=100), call=other)
    short = llm_call(prefix_hashes=(1, 2), prefix_tokens=(40, 80))
    books.attempt("t", 5, times_s=(0.0, 0.0, 1.0), usage=Usage(input_tokens=60), call=short)
    books.close("t", 2.0)
    (task,) = _recorded(books).tasks
    # Another model has another cache; the last prompt is shorter than the gateway guessed.
    assert [step.shared_prefix_tokens for step in task.steps] == [0, 40, 80, 0, 0, 48]


def test_a_prompt_that_goes_on_past_an_earlier_one_shares_its_answer_too() -> None:
    books = Books()
    books.open("t", 0.0)
    # The gateway guesses 100 tokens for each; the engine counts fewer.
    for step_id, (hashes, tokens) in enumerate(
        [((1, 2), (40, 100)), ((1, 2, 3, 4), (40, 60, 70, 100))]
    ):
        call = llm_call(prefix_hashes=hashes, prefix_tokens=tokens)
        usage = Usage(input_tokens=70 + step_id * 20, output_tokens=9)
        books.attempt("t", step_id, times_s=(0.0, 0.0, 1.0), usage=usage, call=call)
    again = llm_call(prefix_hashes=(1, 2, 3, 4), prefix_tokens=(40, 60, 70, 100))
    books.attempt(
        "t", 2, times_s=(0.0, 0.0, 1.0), usage=Usage(input_tokens=90, output_tokens=5), call=again
    )
    books.close("t", 2.0)
    (task,) = _recorded(books).tasks
    # Asked again word by word, there is no answer in the prompt.
    assert [step.shared_prefix_tokens for step in task.steps] == [0, 79, 90]


def test_the_beginning_that_other_tasks_of_the_agent_had_is_common() -> None:
    books = Books()
    for name, own in (("t", 5), ("u", 6)):
        books.open(name, 0.0)
        call = llm_call(prefix_hashes=(1, own), prefix_tokens=(40, 80))
        usage = Usage(input_tokens=100)
        books.attempt(name, 0, times_s=(0.0, 0.0, 1.0), usage=usage, call=call)
        books.close(name, 2.0)
    found = [task.steps[0].common_prefix_tokens for task in _recorded(books).tasks]
    assert found == [40, 40]


def test_what_is_recorded_can_be_written_and_read(tmp_path: Path) -> None:
    books = Books()
    books.open("t", 0.0, deadline_s=9.0)
    books.attempt("t", 0, times_s=(0.0, 0.0, 1.0), usage=Usage(input_tokens=5, output_tokens=2))
    usage = Usage(cpu_s=1.0, wall_s=1.5, memory_bytes=10)
    books.attempt("t", 1, times_s=(1.0, 1.0, 2.5), pool="tools", usage=usage, parents=(0,))
    books.close("t", 3.0)
    workload = _recorded(books)
    path = tmp_path / "w.parquet"
    write_workload(workload, path)
    assert read_workload(path).tasks == workload.tasks
