"""Events in the words of older versions."""

import pytest

from steelyard.domain.decision import PoolVerdict, Refusal
from steelyard.domain.events import StepRefused
from steelyard.domain.task import LlmCall, Step
from steelyard.store.backend import SCHEMA_VERSION
from steelyard.store.older_versions import as_version

STEP = Step(
    task_id="t",
    step_id=0,
    agent="a",
    name="s",
    call=LlmCall(model="m", input_tokens=1, max_output_tokens=1),
)
REFUSED = StepRefused(
    t_s=1.0,
    step=STEP,
    refusal=Refusal(
        cause="spend_cap",
        earliest_finish_s=None,
        policy="p",
        verdicts=(PoolVerdict(pool="a", verdict="over_cap"),),
        retry_after_s=60.0,
    ),
)


@pytest.mark.parametrize("version", [3, 4])
def test_older_logs_have_neither_the_verdict_nor_the_cause_of_a_spend_cap(version: int) -> None:
    (told,) = as_version(REFUSED, version)
    assert isinstance(told, StepRefused)
    assert told.refusal.cause == "no_pool"
    assert told.refusal.verdicts[0].verdict == "down"
    assert as_version(REFUSED, SCHEMA_VERSION) == (REFUSED,)
