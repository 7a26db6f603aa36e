"""Policies by number, and by what each ranks pools; one compiled engine holds them all."""

from steelyard.placement.ranks import (
    Traits,
    by_cost,
    by_cpu,
    by_draw,
    by_finish,
    by_first_draw,
    by_gpu,
    by_home,
    by_normalised_load,
    by_prefix,
    by_spare_slack,
)

# Numbers of the policies; 0 is the one that is not a ranking.
POLICIES = (
    "cheapest_feasible",
    "least_loaded_gpu",
    "all_cpu",
    "cheapest_first",
    "join_shortest_of_two",
    "round_robin",
    "normalised_least_load",
    "prefix_affinity",
    "earliest_deadline",
    "just_enough",
    "program_fcfs",
    "program_least_attained",
)
GPU, CPU, COST, TWO, ONE, LOAD, PREFIX, FINISH, SPARE = range(1, 10)
PROGRAM_FCFS, PROGRAM_LEAST_ATTAINED = 10, 11


def keys(policy: int, traits: Traits[float]) -> tuple[float, float]:  # noqa: PLR0911
    """Two keys by which a policy ranks a pool, the more important first; least is best."""
    if policy == GPU:
        return by_gpu(traits)
    if policy == CPU:
        return by_cpu(traits)
    if policy == COST:
        return by_cost(traits)
    if policy == TWO:
        return by_draw(traits)
    if policy == ONE:
        return by_first_draw(traits)
    if policy == LOAD:
        return by_normalised_load(traits)
    if policy == PREFIX:
        return by_prefix(traits)
    if policy == FINISH:
        return by_finish(traits)
    if policy == SPARE:
        return by_spare_slack(traits)
    return by_home(traits)
