from hypothesis import given
from hypothesis import strategies as st

from steelyard.domain.task import LlmCall
from steelyard.domain.workload import WorkloadStep, WorkloadTask
from steelyard.fleet.prefix_cache import PrefixCache
from steelyard.sim.conditions import Conditions
from steelyard.sim.steps import to_steps


def task_of(prompts: list[tuple[int, int]], task_id: str = "t") -> WorkloadTask:
    steps = tuple(
        WorkloadStep(
            step_id=n,
            parents=(n - 1,) if n else (),
            kind="llm",
            name="s",
            model="m",
            prompt_tokens=prompt,
            shared_prefix_tokens=shared,
            output_tokens=1,
        )
        for n, (prompt, shared) in enumerate(prompts)
    )
    return WorkloadTask(task_id=task_id, agent="a", arrival_s=2.0, steps=steps, deadline_after_s=9)


def calls_of(task: WorkloadTask) -> list[LlmCall]:
    found: list[LlmCall] = []
    for step in to_steps(task, Conditions()):
        assert step is not None
        assert isinstance(step.call, LlmCall)
        found.append(step.call)
    return found


prompts_strategy = st.lists(
    st.tuples(st.integers(1, 300), st.integers(0, 300)).map(lambda p: (p[0], min(p))),
    min_size=1,
    max_size=12,
)


@given(prompts=prompts_strategy)
def test_a_replica_that_ran_all_earlier_steps_holds_what_they_share(
    prompts: list[tuple[int, int]],
) -> None:
    cache = PrefixCache()
    longest = 0
    for (_, shared), call in zip(prompts, calls_of(task_of(prompts)), strict=True):
        held = cache.cached_tokens(call.prefix_hashes, call.prefix_tokens)
        assert held == min(shared, longest)
        cache.add(call.prefix_hashes, call.prefix_tokens)
        # The answer, of one token here, is kept as well.
        longest = max(longest, call.input_tokens + 1)


def test_tasks_share_nothing() -> None:
    one, other = (calls_of(task_of([(100, 0), (200, 100)], name)) for name in ("one", "other"))
    assert not {h for c in one for h in c.prefix_hashes} & {
        h for c in other for h in c.prefix_hashes
    }


def test_limit_and_deadline_are_those_of_the_task_or_the_stated_default() -> None:
    (step,) = to_steps(task_of([(100, 0)]), Conditions(max_output_tokens=77))
    assert step is not None
    assert step.deadline_s == 11.0
    assert isinstance(step.call, LlmCall)
    assert step.call.max_output_tokens == 77
