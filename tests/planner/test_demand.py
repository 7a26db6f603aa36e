import json
from typing import Any

import pytest

from steelyard.errors import InfeasiblePlanError, PlanError
from steelyard.planner.demand import parse_demand


def plain() -> dict[str, Any]:
    return {
        "offers": [
            {"name": "arm", "provider": "aws", "usd_per_hour": 1.0},
            {"name": "gpu", "provider": "gcp", "usd_per_hour": 4.0, "stock": 3},
        ],
        "buckets": [{"name": "chat", "rate_per_s": 2.0}, {"name": "rag", "rate_per_s": 1.0}],
        "capacity_per_s": [[2.0, None], [10.0, 5.0]],
    }


def test_reads_the_plain_form() -> None:
    demand = parse_demand(json.dumps(plain()))
    assert demand.offers[1].stock == 3
    assert demand.load().tolist() == [[1.0, float("inf")], [0.2, 0.2]]


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("buckets", 0, "rate_per_s"), -1.0, "'chat'.*-1.0.*0 or more"),
        (("buckets", 0), {"name": "chat"}, "rate_per_s"),
        (("buckets",), [], "buckets is empty"),
        (("buckets", 1, "name"), "chat", "'chat' twice"),
        (("offers", 0, "usd_per_hour"), 0.0, "'arm'.*above 0"),
        (("offers", 1, "stock"), -2, "'gpu'.*-2"),
        (("offers", 1, "name"), "arm", "'arm' twice"),
        (("offers", 1, "colour"), "red", "colour"),
        (("capacity_per_s",), [[2.0, None]], "1 rows for 2 offers"),
        (("capacity_per_s", 0), [2.0], "'arm' has 1 values for 2 buckets"),
        (("capacity_per_s", 0), [0.0, None], "'arm' for bucket 'chat' is 0.0"),
        (("constraints",), {"provider_share_cap": 0.0}, "provider_share_cap is 0.0"),
        (("constraints",), {"survive_provider_loss_frac": 1.5}, "loss_frac is 1.5"),
        (("constraints",), {"survive_region_loss_frac": -0.1}, "region_loss_frac is -0.1"),
        (("constraints",), {"survive_region_loss_frac": 0.1}, "'arm' has no region"),
        (("constraints",), {"spot_share_cap": 1.1}, "spot_share_cap is 1.1"),
    ],
)
def test_refuses_bad_input_in_one_line(
    path: tuple[str | int, ...], value: object, message: str
) -> None:
    problem: Any = plain()
    place = problem
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    with pytest.raises(PlanError, match=message) as error:
        parse_demand(json.dumps(problem), "d.json")
    assert str(error.value).startswith("d.json: ")
    assert "\n" not in str(error.value)


def test_refuses_text_that_is_not_json() -> None:
    with pytest.raises(PlanError, match=r"d\.json"):
        parse_demand("{", "d.json")


def test_names_the_bucket_that_no_offer_can_serve() -> None:
    problem = plain()
    problem["capacity_per_s"][1][1] = None
    with pytest.raises(InfeasiblePlanError, match="'rag'"):
        parse_demand(json.dumps(problem))


def test_names_the_bucket_that_depends_on_one_provider() -> None:
    problem = plain()
    problem["constraints"] = {"survive_provider_loss_frac": 0.5}
    with pytest.raises(InfeasiblePlanError, match=r"'gcp'.*'rag'"):
        parse_demand(json.dumps(problem))


def test_names_contradictory_caps() -> None:
    problem = plain()
    problem["constraints"] = {"provider_share_cap": 0.4}
    with pytest.raises(InfeasiblePlanError, match="aws, gcp"):
        parse_demand(json.dumps(problem))


def test_names_the_bucket_that_depends_on_a_region_or_on_spot() -> None:
    problem = plain()
    problem["offers"][0] |= {"region": "east"}
    problem["offers"][1] |= {"region": "west", "spot": True}
    problem["constraints"] = {"survive_region_loss_frac": 0.5}
    with pytest.raises(InfeasiblePlanError, match=r"region 'west' of 'gcp'.*'rag'.*0\.5"):
        parse_demand(json.dumps(problem))
    problem["constraints"] = {"spot_share_cap": 0.5}
    with pytest.raises(InfeasiblePlanError, match=r"spot machines.*'rag'.*spot_share_cap 0\.5"):
        parse_demand(json.dumps(problem))


def test_a_loss_that_another_one_implies_is_left_out() -> None:
    problem = plain()
    problem["offers"] = [
        offer | {"region": f"r{i}", "provider": "aws"} for i, offer in enumerate(problem["offers"])
    ]
    problem["offers"].append(problem["offers"][1] | {"name": "z", "provider": "gcp"})
    problem["capacity_per_s"] = [[2.0, 2.0]] * 3
    problem["constraints"] = {"survive_provider_loss_frac": 0.5, "survive_region_loss_frac": 0.5}
    demand = parse_demand(json.dumps(problem))
    assert [loss.what for loss in demand.losses()] == ["provider 'aws'", "provider 'gcp'"]
    problem["constraints"]["survive_region_loss_frac"] = 0.6
    told = [loss.what for loss in parse_demand(json.dumps(problem)).losses()]
    assert told == [
        "provider 'aws'",
        "region 'r0' of 'aws'",
        "region 'r1' of 'aws'",
        "region 'r1' of 'gcp'",
    ]
