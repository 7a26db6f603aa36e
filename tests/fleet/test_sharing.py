"""Shares of replicas among processes: fair, within the cap, and never what another one claims."""

from hypothesis import given
from hypothesis import strategies as st

from steelyard.fleet.sharing import ReplicaLoad, fair_shares, own_share

CAPS = st.integers(1, 64)
DEMANDS = st.dictionaries(st.sampled_from("abcdef"), st.integers(0, 200), min_size=1)


@given(CAPS, DEMANDS)
def test_shares_are_the_whole_cap(cap: int, demands: dict[str, int]) -> None:
    shares = fair_shares(cap, demands)
    assert sum(shares.values()) == cap
    assert min(shares.values()) >= 0


@given(CAPS, DEMANDS)
def test_demand_that_fits_is_met(cap: int, demands: dict[str, int]) -> None:
    if sum(demands.values()) <= cap:
        shares = fair_shares(cap, demands)
        assert all(shares[name] >= demand for name, demand in demands.items())


@given(CAPS, DEMANDS)
def test_nobody_starves_while_there_is_a_place_for_each(cap: int, demands: dict[str, int]) -> None:
    asking = [name for name, demand in demands.items() if demand]
    if len(asking) <= cap:
        assert all(fair_shares(cap, demands)[name] >= 1 for name in asking)


@given(CAPS, DEMANDS)
def test_one_after_the_other_all_come_to_their_fair_shares(
    cap: int, demands: dict[str, int]
) -> None:
    claims = dict.fromkeys(demands, cap)
    for _ in range(len(demands) + 1):
        for me in sorted(demands):
            others = {
                name: ReplicaLoad(waiting=float(demands[name]), share=claims[name])
                for name in demands
                if name != me
            }
            mine = ReplicaLoad(waiting=float(demands[me]))
            claims[me] = own_share(cap, me, mine, others)
    assert claims == fair_shares(cap, demands)


def test_what_another_one_still_runs_is_not_claimed() -> None:
    others = {"b": ReplicaLoad(running=4.0, share=1)}
    assert own_share(4, "a", ReplicaLoad(waiting=3.0), others) == 0
