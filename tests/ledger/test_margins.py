import msgspec
import pytest
from tests.ledger.books import LLM, Books

from steelyard.domain.decision import PoolVerdict
from steelyard.domain.events import PoolAdded, StepPlaced
from steelyard.ledger.ledger import Ledger
from steelyard.ledger.margins import StepMargin, step_margins

GPU = msgspec.structs.replace(LLM, name="gpu", hardware="gpu")


def margin(*verdicts: PoolVerdict) -> StepMargin:
    books = Books()
    books.events.append(PoolAdded(t_s=0.0, spec=GPU))
    books.open("t", 0.0)
    books.attempt("t", 0, times_s=(0.0, 0.0, 1.0), cost_usd=0.002)
    books.close("t", 1.0)
    events = [
        msgspec.structs.replace(
            event, decision=msgspec.structs.replace(event.decision, verdicts=verdicts)
        )
        if isinstance(event, StepPlaced)
        else event
        for event in books.events
    ]
    (found,) = step_margins(Ledger.of(events))
    return found


def verdict(word: str, usd: float | None, pool: str = "gpu") -> PoolVerdict:
    return PoolVerdict(pool=pool, verdict=word, predicted_cost_usd=usd)  # type: ignore[arg-type]


def test_arm_wins_by_what_the_cheapest_other_hardware_in_time_costs_more() -> None:
    found = margin(verdict("dearer", 0.005), verdict("later", 0.004), verdict("chosen", 1.0, "llm"))
    assert (found.hardware, found.rival_hardware) == ("arm", "gpu")
    assert found.saved_usd == pytest.approx(0.003)
    assert found.measured_usd == pytest.approx(0.002)


def test_hardware_that_would_have_been_late_or_cannot_run_the_step_is_no_rival() -> None:
    found = margin(verdict("too_late", 0.0001), verdict("cannot_run", None))
    assert (found.compared, found.saved_usd, found.rival_hardware) == (0, None, "")


def test_other_pools_of_the_same_hardware_and_unknown_pools_are_no_rivals() -> None:
    found = margin(verdict("dearer", 0.5, "vendor2"), verdict("dearer", 0.5, "tools"))
    assert found.compared == 0


def test_a_choice_that_was_not_the_cheapest_lost() -> None:
    saved_usd = margin(verdict("later", 0.0004)).saved_usd
    assert saved_usd is not None
    assert saved_usd < 0.0
