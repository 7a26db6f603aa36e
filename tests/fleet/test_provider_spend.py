"""Books of providers: which caps there are after pools have changed."""

import msgspec

from steelyard.domain.events import PoolAdded, PoolRemoved
from steelyard.domain.pool import PoolSpec, SpendCap
from steelyard.fleet.provider_spend import ProviderSpend
from steelyard.fleet.state import FleetState

SPEC = PoolSpec(
    name="llm",
    provider="p",
    region="",
    arch="arm64",
    hardware="vendor",
    offering="",
    usd_per_hour=0.0,
    replicas=1,
    spend_cap=SpendCap(usd_per_hour=1.0),
)


def test_a_provider_whose_last_pool_changed_to_another_has_no_cap() -> None:
    books = ProviderSpend()
    books.put(SPEC, (SPEC,))
    assert [use.provider for use in books.uses(0.0)] == ["p"]
    moved = msgspec.structs.replace(SPEC, provider="q", spend_cap=None)
    books.put(moved, (moved,))
    assert books.caps() == {}
    assert not books.capped


def test_what_was_spent_before_a_cap_went_is_no_news_after() -> None:
    books = ProviderSpend()
    books.put(SPEC, (SPEC,))
    books.reserve("p", 0.5)
    books.settle("p", 0.5, 0.25, 10.0)
    assert books.has_untold
    free = msgspec.structs.replace(SPEC, spend_cap=None)
    books.put(free, (free,))
    assert not books.has_untold


def test_a_cap_goes_with_the_last_pool_of_its_provider_and_comes_back_with_what_was_spent() -> None:
    state = FleetState()
    other = msgspec.structs.replace(SPEC, name="other")
    for spec in (SPEC, other):
        state.apply(PoolAdded(t_s=0.0, spec=spec))
    state.spend.reserve("p", 0.5)
    state.apply(PoolRemoved(t_s=1.0, pool="llm"))
    assert [use.provider for use in state.spend.uses(1.0)] == ["p"]
    state.apply(PoolRemoved(t_s=2.0, pool="other"))
    assert state.spend.uses(2.0) == []
    assert not state.spend.capped
    state.spend.settle("p", 0.5, 0.25, 3.0)
    state.apply(PoolAdded(t_s=4.0, spec=SPEC))
    assert [use.used_usd for use in state.spend.uses(4.0)] == [0.25]


def test_room_comes_with_the_end_of_every_span_that_is_full() -> None:
    cap = SpendCap(usd_per_hour=1.0, usd_per_day=1.5)
    spec = msgspec.structs.replace(SPEC, spend_cap=cap)
    books = ProviderSpend()
    books.put(spec, (spec,))
    assert books.room_after_s("p", 0.5, 600.0) == 0.0
    books.reserve("p", 0.8)
    # What is under way ends before an hour does.
    assert books.room_after_s("p", 0.5, 600.0) == 0.0
    books.settle("p", 0.8, 0.8, 600.0)
    assert books.room_after_s("p", 0.5, 600.0) == 3000.0
    assert books.room_after_s("p", 0.9, 600.0) == 86_400.0 - 600.0
    assert books.room_after_s("p", 1.1, 600.0) is None
    assert books.room_after_s("p", 0.5, 3700.0) == 0.0
    assert books.room_after_s("nobody", 0.5, 600.0) == 0.0


def test_what_others_spent_fills_a_cap_but_not_that_of_a_span_that_has_just_begun() -> None:
    books = ProviderSpend()
    books.put(SPEC, (SPEC,))
    books.hear("p", (1.0, 1.0))
    assert books.room_after_s("p", 0.5, 600.0) == 3000.0
    assert books.room_after_s("p", 0.0, 600.0) == 3000.0
    assert books.room_after_s("p", 0.5, 3600.0 + 30.0) == 0.0
