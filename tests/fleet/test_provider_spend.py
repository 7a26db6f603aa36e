"""Books of providers: which caps there are after pools have changed."""

import msgspec

from steelyard.domain.pool import PoolSpec, SpendCap
from steelyard.fleet.provider_spend import ProviderSpend

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
