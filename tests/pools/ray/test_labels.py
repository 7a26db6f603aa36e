"""Which nodes may be used, and why none may."""

from hypothesis import given
from hypothesis import strategies as st

from steelyard.pools.ray.labels import NodeFacts, room, selects, value_matches, why_no_room

VALUES = st.sampled_from(["spot", "on_demand", "reserved"])


def node(cores: float = 2.0, leaves_in_s: float | None = None, **labels: str) -> NodeFacts:
    return NodeFacts(node_id="n", labels=labels, cores=cores, leaves_in_s=leaves_in_s)


@given(VALUES, st.none() | VALUES)
def test_not_a_value_is_the_opposite_of_the_value(wanted: str, value: str | None) -> None:
    assert value_matches(f"!{wanted}", value) is not value_matches(wanted, value)
    assert value_matches(f"!in({wanted},x)", value) is not value_matches(f"in({wanted},x)", value)


@given(VALUES, VALUES)
def test_one_of_one_is_that_one(wanted: str, value: str) -> None:
    assert value_matches(f"in({wanted})", value) is value_matches(wanted, value)


def test_all_labels_of_a_selector_must_fit() -> None:
    spot_arm = {"arch": "arm64", "capacity_type": "spot"}
    assert selects({"arch": "arm64"}, spot_arm)
    assert not selects({"arch": "arm64", "capacity_type": "!spot"}, spot_arm)
    assert selects({}, spot_arm)


def test_counts_whole_replicas_on_nodes_that_stay() -> None:
    nodes = [node(5.0, arch="arm64"), node(4.0, arch="x86_64"), node(8.0, 60.0, arch="arm64")]
    assert room(nodes, [{"arch": "arm64"}], 2.0) == 2
    assert room(nodes, [{"arch": "arm64"}, {"arch": "x86_64"}], 2.0) == 4
    assert room(nodes, [{"arch": "riscv"}], 2.0) == 0


def test_tells_in_one_line_what_was_wanted_and_what_is_there() -> None:
    told = why_no_room([node(provider="aws"), node()], [{"provider": "gcp"}], 1.0)
    assert told == "no node has provider=gcp; there are nodes with any labels; provider=aws"
    assert "over 2" in why_no_room([node(provider="aws")], [{"provider": "aws"}], 4.0)
    leaving = [node(provider="aws", leaves_in_s=5.0)]
    assert "told to leave" in why_no_room(leaving, [{"provider": "aws"}], 1.0)
