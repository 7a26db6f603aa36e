"""Prefill in chunks, and memory that forgets prefixes."""

import math

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from steelyard.domain.events import AttemptFinished
from steelyard.domain.pool import PoolSpec
from steelyard.domain.task import LlmCall
from steelyard.domain.workload import Workload, WorkloadStep, WorkloadTask
from steelyard.errors import ConfigError
from steelyard.placement.policy import CheapestFeasible
from steelyard.sim import Conditions, Serving, simulate
from steelyard.sim.compiled.simulate import simulate_compiled
from steelyard.sim.kv_cache import KvCache


def calls(sizes: list[tuple[float, int, int]]) -> Workload:
    """Tasks of one call each: when it comes, its prompt, its answer."""
    return Workload(
        name="w",
        tasks=tuple(
            WorkloadTask(
                task_id=str(at),
                agent="a",
                arrival_s=arrival_s,
                steps=(
                    WorkloadStep(
                        step_id=0,
                        parents=(),
                        kind="llm",
                        name="s",
                        model="m",
                        prompt_tokens=prompt,
                        output_tokens=output,
                    ),
                ),
            )
            for at, (arrival_s, prompt, output) in enumerate(sizes)
        ),
        source="test",
    )


def agents(count: int, steps: int, grows: int) -> Workload:
    """Tasks whose prompts grow, one step after the other, all at once."""
    return Workload(
        name="w",
        tasks=tuple(
            WorkloadTask(
                task_id=str(at),
                agent="a",
                arrival_s=0.01 * at,
                steps=tuple(
                    WorkloadStep(
                        step_id=one,
                        parents=(one - 1,) if one else (),
                        kind="llm",
                        name="s",
                        model="m",
                        prompt_tokens=grows * (one + 1),
                        shared_prefix_tokens=grows * one,
                        output_tokens=10,
                    )
                    for one in range(steps)
                ),
            )
            for at in range(count)
        ),
        source="test",
    )


def finished(work: Workload, pool: PoolSpec, serving: Serving) -> list[AttemptFinished]:
    conditions = Conditions(serving={pool.name: serving})
    run = simulate(work, (pool,), CheapestFeasible(), 0, conditions)
    return [event for event in run.events if isinstance(event, AttemptFinished)]


def test_decodes_go_on_beside_a_prefill_in_chunks(llm_pool: PoolSpec) -> None:
    # One stream decodes 40 tokens; at 0.1 s a prompt of 1,000 tokens comes, for one token.
    work = calls([(0.0, 0, 40), (0.1, 1000, 1)])
    whole = finished(work, llm_pool, Serving())
    cut = finished(work, llm_pool, Serving(prefill_chunk_tokens=101))
    # Gaps: 0.02 s alone, 0.03 s for two; 1,000 tokens take 1 s. Whole, the first stream has 5
    # tokens at 0.1 s and stands still until 1.1 s.
    assert [e.task_id for e in whole] == ["1", "0"]
    assert [e.t_s for e in whole] == pytest.approx([1.13, 1.13 + 34 * 0.02])
    # In ten passes of 100 tokens and 0.03 s, it gets ten tokens; the first token comes 0.3 s later.
    assert cut[0].t_s == pytest.approx(0.1 + 1.0 + 10 * 0.03 + 0.03)
    assert cut[1].t_s == pytest.approx(cut[0].t_s + (40 - 5 - 10 - 1) * 0.02)


def test_chunks_take_as_much_of_the_replica_as_a_whole_prompt(llm_pool: PoolSpec) -> None:
    sizes = [(0.0, 500, 30), (0.0, 900, 60), (0.0, 200, 90), (0.0, 700, 20)]
    # Streams that all have a place from the start to the end of the last prefill lose no time.
    flat = msgspec.structs.replace(llm_pool.llm_curves["m"], itl_slope_s=0.0)
    pool = msgspec.structs.replace(llm_pool, llm_curves={"m": flat})
    whole = finished(calls(sizes), pool, Serving())
    cut = finished(calls(sizes), pool, Serving(prefill_chunk_tokens=64))
    prefill_s = sum(prompt for _, prompt, _ in sizes) * flat.prefill_s_per_token
    assert max(e.t_s for e in whole) == pytest.approx(prefill_s + 90 * flat.itl_base_s)
    assert max(e.t_s for e in cut) <= max(e.t_s for e in whole) + 60 * flat.itl_base_s
    first = {e.task_id: e.usage.start_to_first_token_s for e in cut}
    assert all(one is not None and math.isfinite(one) for one in first.values())


def test_chunks_are_nothing_to_a_prompt_that_is_alone(llm_pool: PoolSpec) -> None:
    alone = calls([(0.0, 500, 30), (10.0, 900, 60)])
    cut = finished(alone, llm_pool, Serving(prefill_chunk_tokens=64))
    whole = finished(alone, llm_pool, Serving())
    assert [e.t_s for e in cut] == pytest.approx([e.t_s for e in whole])


def test_memory_that_holds_every_context_forgets_nothing(llm_pool: PoolSpec) -> None:
    work = agents(count=3, steps=4, grows=100)
    ample = finished(work, llm_pool, Serving(kv_tokens=10_000))
    assert ample == finished(work, llm_pool, Serving())
    assert sum(e.usage.cached_tokens for e in ample) == 3 * (100 + 200 + 300)


def test_memory_for_one_context_computes_every_prompt_anew(llm_pool: PoolSpec) -> None:
    work = agents(count=3, steps=4, grows=100)
    ample = finished(work, llm_pool, Serving())
    scarce = finished(work, llm_pool, Serving(kv_tokens=410))
    cached = sum(e.usage.cached_tokens for e in scarce)
    assert cached < sum(e.usage.cached_tokens for e in ample) / 2
    assert scarce[-1].t_s > ample[-1].t_s


def test_a_floor_that_is_work_of_the_replica_stalls_its_decodes(llm_pool: PoolSpec) -> None:
    curve = msgspec.structs.replace(llm_pool.llm_curves["m"], ttft_floor_s=0.5)
    pool = msgspec.structs.replace(llm_pool, llm_curves={"m": curve})
    work = calls([(0.0, 0, 40), (0.6, 100, 1)])
    beside = finished(work, pool, Serving())
    stalled = finished(work, pool, Serving(floor_stalls=True))
    # Beside another stream, it stands still for the floor as well.
    assert stalled[0].task_id == "1"
    assert stalled[-1].t_s > beside[-1].t_s


def test_the_first_token_of_an_embedded_engine_is_not_counted_twice(llm_pool: PoolSpec) -> None:
    curve = msgspec.structs.replace(llm_pool.llm_curves["m"], ttft_floor_s=0.5)
    pool = msgspec.structs.replace(llm_pool, llm_curves={"m": curve})
    alone = calls([(0.0, 100, 30)])
    gap_s = curve.itl_base_s + curve.itl_slope_s
    (stalls,) = finished(alone, pool, Serving(floor_stalls=True))
    (waits,) = finished(alone, pool, Serving())
    assert stalls.t_s == pytest.approx(waits.t_s - gap_s)


def test_a_prompt_waits_for_the_pass_that_an_embedded_engine_has_begun(llm_pool: PoolSpec) -> None:
    work = calls([(0.0, 0, 40), (0.2, 100, 1)])
    curve = llm_pool.llm_curves["m"]
    half_s = (curve.itl_base_s + curve.itl_slope_s) / 2.0
    first_s = {
        stalls: next(
            one.usage.start_to_first_token_s or math.nan
            for one in finished(work, llm_pool, Serving(floor_stalls=stalls))
            if one.task_id == "1"
        )
        for stalls in (False, True)
    }
    assert first_s[True] == pytest.approx(first_s[False] + half_s)


def test_whole_blocks_alone_are_found_again(llm_pool: PoolSpec) -> None:
    work = agents(count=1, steps=3, grows=100)
    found = finished(work, llm_pool, Serving(cache_block_tokens=32))
    # Of 100 and 200 shared tokens; the last one of each was chosen and never computed.
    assert [e.usage.cached_tokens for e in found] == [0, 96, 192]
    assert Serving(cache_block_tokens=32).found_tokens(0) == 0


def test_the_answer_that_a_later_prompt_repeats_is_cached(llm_pool: PoolSpec) -> None:
    (task,) = agents(count=1, steps=2, grows=100).tasks
    first, second = task.steps
    second = msgspec.structs.replace(second, shared_prefix_tokens=106)
    task = msgspec.structs.replace(task, steps=(first, second))
    work = Workload(name="w", tasks=(task,), source="test")
    assert [e.usage.cached_tokens for e in finished(work, llm_pool, Serving())] == [0, 106]
    # It wrote ten tokens after 100: no more than that can be found.
    second = msgspec.structs.replace(second, shared_prefix_tokens=150)
    task = msgspec.structs.replace(task, steps=(first, second))
    work = Workload(name="w", tasks=(task,), source="test")
    for serving in (Serving(), Serving(kv_tokens=1000)):
        found = finished(work, llm_pool, serving)
        assert [e.usage.cached_tokens for e in found] == [0, 110]


lengths = st.lists(st.integers(1, 400), min_size=1, max_size=4)


@given(prompts=st.lists(st.tuples(st.integers(0, 3), lengths, st.integers(0, 50)), max_size=12))
def test_what_runs_never_takes_more_than_there_is_unless_it_runs_alone(
    prompts: list[tuple[int, list[int], int]],
) -> None:
    cache = KvCache(1000)
    running: list[tuple[LlmCall, int]] = []
    for root, parts, output in prompts:
        ends = tuple(sum(parts[: at + 1]) for at in range(len(parts)))
        hashes = tuple(hash((root, *parts[: at + 1])) for at in range(len(parts)))
        call = LlmCall(
            model="m",
            input_tokens=ends[-1] + 5,
            max_output_tokens=output,
            prefix_hashes=hashes,
            prefix_tokens=ends,
        )
        while not cache.fits(call, output):
            cache.leave(*running.pop(0))
        assert 0 <= cache.take(call, output) <= call.input_tokens
        running.append((call, output))
        assert cache.reserved_tokens <= 1000 or len(running) == 1
    for one in running:
        cache.leave(*one)
    assert cache.reserved_tokens == 0


def test_what_makes_no_sense_is_refused(llm_pool: PoolSpec) -> None:
    work = calls([(0.0, 1, 1)])
    with pytest.raises(ConfigError, match="serving of arm: kv_tokens is 0; it must be at least 1"):
        finished(work, llm_pool, Serving(kv_tokens=0))
    with pytest.raises(ConfigError, match="serving: pool 'gpu' is not in the fleet"):
        Conditions(serving={"gpu": Serving()}).check((llm_pool,))


def test_the_compiled_path_says_that_it_knows_neither(llm_pool: PoolSpec) -> None:
    conditions = Conditions(serving={"arm": Serving(kv_tokens=100)})
    with pytest.raises(ConfigError, match="does not know condition serving"):
        simulate_compiled(calls([(0.0, 1, 1)]), (llm_pool,), "cheapest_feasible", 0, conditions)
