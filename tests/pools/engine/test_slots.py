from hypothesis import given
from hypothesis import strategies as st

from steelyard.pools.engine.slots import SlotTable, shared_tokens

PREFIX = list(range(100, 140))


def table(**fields: int) -> SlotTable:
    return SlotTable(**{"slots": 2, "snapshot_tokens": 200, "worth_tokens": 4, **fields})


def test_goes_back_to_the_slot_that_holds_the_most_of_the_prompt() -> None:
    slots = table(snapshot_tokens=0)
    first, second = slots.take(PREFIX), slots.take([1, 2, 3])
    slots.release(first.slot, PREFIX)
    slots.release(second.slot, [1, 2, 3])
    again = slots.take([*PREFIX, 7])
    assert (again.slot, again.shared_tokens, again.snapshot) == (first.slot, 40, None)


def test_copies_a_snapshot_when_the_slot_that_has_the_prefix_is_busy() -> None:
    slots = table()
    first = slots.take(PREFIX)
    assert slots.saved(9, PREFIX) == []
    second = slots.take([*PREFIX[:30], 1])
    assert second.slot != first.slot
    assert (second.snapshot, second.shared_tokens) == (9, 30)


def test_does_not_copy_to_save_less_than_the_copy_costs() -> None:
    slots = table()
    slots.take(PREFIX)
    slots.saved(9, PREFIX)
    assert slots.take([*PREFIX[:3], 1]).snapshot is None


def test_saves_what_no_snapshot_holds_before_it_is_overwritten() -> None:
    slots = table(slots=1)
    slots.release(slots.take(PREFIX).slot, [*PREFIX, 1, 2])
    place = slots.take([5, 6, 7])
    assert place.displaced == (*PREFIX, 1, 2)
    slots.saved(9, place.displaced)
    slots.release(place.slot, PREFIX)
    assert slots.take([5, 6, 7]).displaced == ()


def test_drops_snapshots_that_a_new_one_contains_and_the_least_recently_used() -> None:
    slots = table(snapshot_tokens=100)
    assert slots.saved(1, PREFIX[:20]) == []
    assert slots.saved(2, PREFIX) == [1]
    assert slots.saved(3, list(range(40))) == []
    slots.take([*PREFIX, 1])
    assert slots.saved(4, list(range(200, 240))) == [3]
    assert slots.saved(5, list(range(101))) == [5]


def test_forgets_a_snapshot_that_is_lost() -> None:
    slots = table()
    slots.saved(9, PREFIX)
    slots.lost(9)
    assert slots.take(PREFIX).snapshot is None


@given(
    st.lists(st.integers(0, 3), max_size=600),
    st.lists(st.integers(0, 3), max_size=600),
    st.lists(st.integers(0, 3), max_size=600),
)
def test_counts_the_common_start(common: list[int], a: list[int], b: list[int]) -> None:
    shared = shared_tokens(common + a, common + b)
    assert shared >= len(common)
    assert (common + a)[:shared] == (common + b)[:shared]
    assert shared == min(len(common + a), len(common + b)) or (
        (common + a)[shared] != (common + b)[shared]
    )
