import pytest
from tests.runtime.conftest import llm_spec, llm_step, tool_spec, tool_step

from steelyard.errors import PoolUnavailableError, SteelyardBugError
from steelyard.perf.cost import attempt_usd
from steelyard.pools.backend import LlmUsage, ToolOutcome
from steelyard.runtime.meter import AttemptMeter


def _llm_meter() -> AttemptMeter:
    return AttemptMeter(llm_step("t"), llm_spec())


def test_an_answer_that_was_counted_is_recorded_as_counted() -> None:
    meter = _llm_meter()
    meter.start(10.0)
    meter.piece(10.5, None, has_text=False)
    meter.piece(11.0, None, has_text=True)
    meter.piece(11.5, None, has_text=True)
    usage = LlmUsage(
        input_tokens=48, cached_tokens=32, output_tokens=9, cached_tokens_measured=False
    )
    meter.piece(12.0, usage, has_text=False)
    ended = meter.finish(13.0, "ok")
    used = ended.usage
    assert (used.input_tokens, used.cached_tokens, used.output_tokens) == (48, 32, 9)
    assert (used.counting, used.cached_counting) == ("measured", "estimated")
    # The first piece without text, an endpoint's headers, is no token.
    assert (used.wall_s, used.start_to_first_token_s) == (3.0, 1.0)
    assert ended.cost_usd == attempt_usd(llm_spec(), llm_step("t"), used)


def test_an_answer_cut_short_counts_its_prompt_and_every_piece_as_a_token() -> None:
    meter = _llm_meter()
    meter.start(10.0)
    for t_s in (11.0, 12.0):
        meter.piece(t_s, None, has_text=True)
    used = meter.finish(12.5, "cancelled").usage
    assert (used.input_tokens, used.cached_tokens, used.output_tokens) == (50, 0, 2)
    assert (used.counting, used.cached_counting) == ("estimated", "estimated")


def test_a_prompt_counts_from_the_first_token_on() -> None:
    meter = _llm_meter()
    meter.start(10.0)
    used = meter.finish(12.5, "cancelled").usage
    assert (used.input_tokens, used.output_tokens, used.wall_s) == (0, 0, 2.5)
    assert used.start_to_first_token_s is None


def test_an_attempt_that_never_started_costs_nothing() -> None:
    ended = _llm_meter().finish(12.5, "cancelled")
    assert (ended.cost_usd, ended.usage.wall_s) == (0.0, 0.0)


def test_a_failure_is_recorded_with_its_code_and_without_a_result() -> None:
    meter = _llm_meter()
    meter.result = "half"
    meter.start(1.0)
    ended = meter.finish(2.0, "failed", PoolUnavailableError("the replica died"))
    assert (ended.error_code, ended.error) == ("pool_unavailable", "the replica died")
    assert ended.result is None
    assert meter.finished is ended


def test_a_tool_is_charged_for_what_it_used_on_the_core_it_ran_on() -> None:
    meter = AttemptMeter(tool_step("t"), tool_spec())
    meter.result = {"a": 1}
    meter.start(1.0)
    meter.tool_done(ToolOutcome(result={"a": 1}, cpu_s=2.0, wall_s=3.0, max_memory_bytes=1000))
    ended = meter.finish(5.0, "ok")
    assert (ended.usage.cpu_s, ended.usage.memory_bytes, ended.usage.wall_s) == (2.0, 1000, 4.0)
    # 2 s on this pool's one core, whatever its speed, at 3.6 USD per hour.
    assert ended.cost_usd == pytest.approx(0.002)
    assert ended.result == {"a": 1}


def test_settling_before_the_end_is_a_bug() -> None:
    with pytest.raises(SteelyardBugError, match="settled before its end"):
        _ = _llm_meter().finished
