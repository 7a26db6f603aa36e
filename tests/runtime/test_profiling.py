import asyncio
import selectors
from collections.abc import AsyncGenerator, Coroutine
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import pytest

from steelyard.config.figures_file import FiguresFile, read_figures, write_figures
from steelyard.errors import ConfigError, FigureError, PoolRejectedError
from steelyard.perf.profile import TimedRequest, fit_profile
from steelyard.pools.backend import Embeddings, LlmChunk, LlmRequest, LlmUsage, ReplicaWatcher
from steelyard.pools.engine.pool import EmbeddedEnginePool
from steelyard.runtime.measured_figures import MeasuredPool, measured_figures
from steelyard.runtime.profiling import SHORT_PLAN, ProfilePlan, profile

_T = TypeVar("_T")

FLOOR_S, PREFILL_S, BASE_S, SLOPE_S = 0.04, 0.0005, 0.012, 0.003


class _JumpingSelector(selectors.DefaultSelector):
    """Never waits: reports how long it was asked to."""

    waited_s = 0.0

    def select(self, timeout: float | None = None) -> list[Any]:
        if timeout is None:
            # Nothing is timed: something outside must wake the loop.
            return super().select(None)
        ready = super().select(0)
        if not ready:
            self.waited_s += timeout
        return ready


class VirtualLoop(asyncio.SelectorEventLoop):
    """Its clock jumps to the next timer: time passes only while every coroutine waits."""

    def __init__(self) -> None:
        self._jumping = _JumpingSelector()
        super().__init__(self._jumping)

    def time(self) -> float:
        return self._jumping.waited_s


class KnownSpeedPool:
    """Answers after as many virtual seconds as its curve says; it caches prompts word by word."""

    def __init__(self, caches: bool = True, words_per_token: float = 0.5) -> None:
        self._caches = caches
        self._words_per_token = words_per_token
        self._running = 0
        self._seen: set[str] = set()

    @property
    def replicas(self) -> int:
        return 1

    @property
    def supports_embeddings(self) -> bool:
        return False

    def models(self) -> tuple[str, ...]:
        return ("known",)

    async def start(self, watch: ReplicaWatcher | None = None) -> None: ...

    async def close(self) -> None: ...

    async def embed(self, texts: list[str], model: str, replica: int) -> Embeddings:
        raise PoolRejectedError("no embeddings")

    async def complete(self, request: LlmRequest, replica: int) -> AsyncGenerator[LlmChunk, None]:
        prompt = request.prompt or str(request.messages[0]["content"])
        words = prompt.split()
        starts = [" ".join(words[:n]) for n in range(1, len(words) + 1)]
        hits = [n for n, start in enumerate(starts, 1) if start in self._seen]
        cached = max(hits, default=0) if self._caches else 0
        self._seen.update(starts)
        tokens = round(len(words) / self._words_per_token)
        new = tokens - round(cached / self._words_per_token)
        self._running += 1
        try:
            await asyncio.sleep(FLOOR_S + PREFILL_S * new)
            asked = request.max_output_tokens or 1
            for number in range(asked):
                if number:
                    await asyncio.sleep(BASE_S + SLOPE_S * self._running)
                yield LlmChunk(text="a ")
        finally:
            self._running -= 1
        yield LlmChunk(
            finish_reason="length",
            usage=LlmUsage(
                input_tokens=tokens,
                cached_tokens=0,
                output_tokens=asked,
                cached_tokens_measured=False,
            ),
        )


def virtually(work: Coroutine[Any, Any, _T]) -> _T:
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(work)


def silent(what: str, done: int, total: int) -> None:
    del what, done, total


async def timed(
    pool: KnownSpeedPool, plan: ProfilePlan, stages: list[str] | None = None
) -> tuple[TimedRequest, ...]:
    told: list[str] = [] if stages is None else stages

    def tick(what: str, done: int, total: int) -> None:
        assert done <= total
        told.append(what)

    return await profile(pool, "known", plan, tick, asyncio.get_running_loop().time)


@pytest.mark.parametrize("kind", ["chat", "completion"])
def test_the_fit_recovers_a_known_speed(kind: Any) -> None:
    plan = msgspec.structs.replace(ProfilePlan(), kind=kind, repetitions=3)
    fit = fit_profile(virtually(timed(KnownSpeedPool(), plan)))
    assert fit.itl.base_s == pytest.approx(BASE_S, rel=0.02)
    assert fit.itl.slope_s == pytest.approx(SLOPE_S, rel=0.02)
    assert fit.prefill.floor_s == pytest.approx(FLOOR_S, rel=0.02)
    assert fit.prefill.s_per_token == pytest.approx(PREFILL_S, rel=0.02)
    assert fit.quality == "ok"
    assert fit.itl.loo_error_frac == pytest.approx(0.0, abs=0.01)
    assert fit.concurrency_cap == max(plan.concurrencies)


@pytest.mark.parametrize(("caches", "benefit"), [(True, 1.0), (False, 0.0)])
def test_the_benefit_of_a_cache_is_measured(caches: bool, benefit: float) -> None:
    fit = fit_profile(virtually(timed(KnownSpeedPool(caches), ProfilePlan(repetitions=3))))
    assert fit.cache_benefit_frac == pytest.approx(benefit, abs=0.03)


def test_prompts_have_about_the_length_asked_for_whatever_a_token_is() -> None:
    requests = virtually(timed(KnownSpeedPool(words_per_token=0.31), SHORT_PLAN))
    lengths = sorted({r.input_tokens for r in requests if r.phase == "prefill"})
    assert lengths == pytest.approx(list(SHORT_PLAN.prompt_tokens), rel=0.05)


def test_every_stage_is_told() -> None:
    stages: list[str] = []
    virtually(timed(KnownSpeedPool(), SHORT_PLAN, stages))
    assert len(stages) == 1 + SHORT_PLAN.repetitions * (3 + 1 + 3)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"concurrencies": (1, 8)}, "2 loads, at least 3"),
        ({"prompt_tokens": (100, 400)}, "2 prompt lengths, at least 3"),
        ({"repetitions": 2}, "2 times"),
        ({"output_tokens": 4}, "0 loads"),
    ],
)
def test_too_few_points_are_refused(change: dict[str, Any], told: str) -> None:
    plan = msgspec.structs.replace(SHORT_PLAN, **change)
    with pytest.raises(FigureError, match=told):
        fit_profile(virtually(timed(KnownSpeedPool(), plan)))


@pytest.mark.parametrize(
    "change", [{"repetitions": 0}, {"cached_fracs": (1.0,)}, {"concurrencies": (2, 2, 3)}]
)
def test_a_plan_that_makes_no_sense_is_refused(change: dict[str, Any]) -> None:
    plan = msgspec.structs.replace(SHORT_PLAN, **change)
    with pytest.raises(ConfigError):
        virtually(timed(KnownSpeedPool(), plan))


def test_decode_can_be_timed_after_long_prompts_that_are_computed_beforehand() -> None:
    plan = msgspec.structs.replace(SHORT_PLAN, decode_prompt_tokens=300)
    requests = virtually(timed(KnownSpeedPool(), plan))
    decode = [request for request in requests if request.phase == "decode"]
    assert decode
    assert all(250 <= request.input_tokens <= 350 for request in decode)


def test_repetitions_that_disagree_make_the_fit_weak() -> None:
    requests = virtually(timed(KnownSpeedPool(), SHORT_PLAN))
    disturbed = [
        msgspec.structs.replace(r, e2e_s=r.ttft_s + 3.0 * (r.e2e_s - r.ttft_s))
        if r.phase == "decode" and r.repetition == 0
        else r
        for r in requests
    ]
    fit = fit_profile(disturbed)
    assert fit.quality == "weak"
    assert "is the machine idle?" in fit.doubts[0]


def test_every_setting_is_measured_once_before_any_is_again() -> None:
    requests = virtually(timed(KnownSpeedPool(), SHORT_PLAN))
    rounds = [request.repetition for request in requests]
    assert rounds == sorted(rounds)
    assert len(set(rounds)) == SHORT_PLAN.repetitions


def test_a_slow_moment_moves_the_mean_and_not_the_median() -> None:
    requests = virtually(timed(KnownSpeedPool(), SHORT_PLAN))
    slowed = [
        msgspec.structs.replace(r, e2e_s=r.ttft_s + 4.0 * (r.e2e_s - r.ttft_s))
        if r.phase == "decode" and r.repetition == 0
        else r
        for r in requests
    ]
    alone_s = BASE_S + SLOPE_S
    assert fit_profile(slowed, "median").itl.at(1.0) == pytest.approx(alone_s, rel=0.02)
    assert fit_profile(slowed, "mean").itl.at(1.0) == pytest.approx(2.0 * alone_s, rel=0.02)


def test_a_pool_is_profiled_again_with_prompts_of_another_mark() -> None:
    async def twice() -> tuple[TimedRequest, ...]:
        pool = KnownSpeedPool()
        await timed(pool, SHORT_PLAN)
        return await timed(pool, msgspec.structs.replace(SHORT_PLAN, mark="again"))

    fit = fit_profile(virtually(twice()))
    assert fit.prefill.s_per_token == pytest.approx(PREFILL_S, rel=0.02)
    assert fit.prefill.floor_s == pytest.approx(FLOOR_S, rel=0.02)


POOL = MeasuredPool(
    model="smollm2-135m",
    target="local",
    engine="e-1",
    machine="2 cores",
    offering="",
    replicas=1,
    context_tokens=8192,
    date="2026-11-22",
)


def figures(pool: MeasuredPool = POOL) -> FiguresFile:
    return measured_figures(pool, SHORT_PLAN, virtually(timed(KnownSpeedPool(), SHORT_PLAN)))


def test_figures_survive_writing_and_reading(tmp_path: Path) -> None:
    found = figures()
    write_figures(tmp_path / "f.json", found)
    assert read_figures(tmp_path / "f.json") == found
    assert not found.curve.predicted
    assert all(one.unit and one.points for one in found.figures)
    assert "2026-11-22" in found.curve.source


def test_impossible_figures_are_refused(tmp_path: Path) -> None:
    bad = figures()
    bad = msgspec.structs.replace(
        bad, curve=msgspec.structs.replace(bad.curve, prefill_s_per_token=-1.0)
    )
    write_figures(tmp_path / "f.json", bad)
    with pytest.raises(FigureError, match="impossible"):
        read_figures(tmp_path / "f.json")
    (tmp_path / "g.json").write_text("{}", encoding="utf-8")
    with pytest.raises(ConfigError, match="measure again"):
        read_figures(tmp_path / "g.json")


@pytest.mark.engine
async def test_the_real_engine_can_be_measured() -> None:
    plan = ProfilePlan(
        prompt_tokens=(32, 96, 160),
        cached_fracs=(0.5,),
        concurrencies=(1, 2, 3),
        output_tokens=8,
        repetitions=3,
    )
    pool = EmbeddedEnginePool()
    await pool.start()
    try:
        requests = await profile(pool, pool.models()[0], plan, silent)
    finally:
        await pool.close()
    found = measured_figures(POOL, plan, requests)
    assert found.curve.prefill_s_per_token > 0.0
    assert found.curve.itl_base_s + found.curve.itl_slope_s > 0.0
    assert found.longest_tokens >= 150
