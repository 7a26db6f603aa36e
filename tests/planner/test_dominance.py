from steelyard.planner.demand import Bucket, Constraints, Demand, Offer
from steelyard.planner.dominance import undominated


def demand(rules: Constraints, provider: str = "aws", stock: int | None = None) -> Demand:
    return Demand(
        offers=(
            Offer(name="dear", provider="aws", usd_per_hour=2.0),
            Offer(name="good", provider=provider, usd_per_hour=1.0, stock=stock),
            Offer(name="twin", provider=provider, usd_per_hour=1.0, stock=stock),
        ),
        buckets=(Bucket(name="chat", rate_per_s=1.0), Bucket(name="rag", rate_per_s=1.0)),
        capacity_per_s=((2.0, None), (2.0, 1.0), (2.0, 1.0)),
        constraints=rules,
    )


def test_keeps_the_first_of_equals_and_drops_what_is_beaten() -> None:
    assert undominated(demand(Constraints())) == [1]


def test_an_offer_that_is_lost_otherwise_or_has_little_stock_beats_nothing() -> None:
    surviving = Constraints(survive_provider_loss_frac=0.5)
    assert undominated(demand(surviving, provider="gcp")) == [0, 1]
    assert undominated(demand(Constraints(), provider="gcp")) == [1]
    assert undominated(demand(Constraints(), stock=1)) == [0, 1, 2]
