import numpy as np

from steelyard.planner.branching import PseudoCosts, Step, narrowed


def test_the_dearer_machine_is_split_first_when_nothing_is_known() -> None:
    costs = PseudoCosts(np.array([1.0, 3.0]))
    assert costs.best_offer(np.array([0.5, 0.5]), [0, 1]) == 1


def test_what_earlier_roundings_gained_counts_more_than_the_price() -> None:
    costs = PseudoCosts(np.array([1.0, 3.0]))
    for up in (False, True):
        costs.learn(Step(offer=0, part=0.5, up=up), 2.0)
        costs.learn(Step(offer=1, part=0.5, up=up), 0.1)
    assert costs.best_offer(np.array([0.5, 0.5]), [0, 1]) == 0


def test_a_node_keeps_the_narrowest_bounds() -> None:
    bounds = narrowed(narrowed((), 4, 0.0, 7.0), 4, 3.0, 9.0)
    assert bounds == ((4, 3.0, 7.0),)
