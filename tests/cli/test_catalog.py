import json
from collections.abc import Callable
from typing import Any

import pytest

Run = Callable[..., Any]


def test_the_list_keeps_every_filter_and_is_cheapest_first(run: Run) -> None:
    asked = ("--arch", "arm64", "--provider", "azure", "--model", "gemma-2-2b")
    ran = run("catalog", "list", *asked, "--max-price", "0.5", "--json")
    assert ran.code == 0
    found = json.loads(ran.out)["offerings"]
    assert found
    for one in found:
        assert (one["arch"], one["provider"]) == ("arm64", "azure")
        assert one["usd_per_hour"] <= 0.5
        assert "gemma-2-2b" in one["models"]
        assert one["price_date"]
        assert one["price_source"]
    prices = [one["usd_per_hour"] for one in found]
    assert prices == sorted(prices)


def test_the_table_says_how_many_offerings_it_leaves_out(run: Run) -> None:
    ran = run("catalog", "list", "--hardware", "gpu", "--limit", "2")
    assert "--limit 0 shows all" in ran.out
    assert ran.out.count("on_demand") == 2


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("list", "--provider", "azur"), "azure"),
        (("list", "--arch", "arm"), "arm64"),
        (("list", "--hardware", "gpus"), "gpu"),
        (("list", "--model", "smollm-135m"), "smollm2-135m"),
        (("list", "--max-price", "-1"), "above 0"),
        (("show", "aws/m9g.lage"), "aws/m9g.large"),
        (("explain", "aws/m9g.large", "--model", "gemma-2b"), "gemma-2-2b"),
    ],
)
def test_a_wrong_name_is_one_line_with_the_nearest_and_exit_code_2(
    run: Run, arguments: tuple[str, ...], told: str
) -> None:
    ran = run("catalog", *arguments)
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.count("\n") == 1
    assert told in ran.err


def test_show_prints_the_curves_of_an_offering(run: Run) -> None:
    ran = run("catalog", "show", "aws/m9g.xlarge", "--json")
    shown = json.loads(ran.out)
    assert shown["name"] == "aws/us-east-1/m9g.xlarge/on_demand"
    assert {fit["model"] for fit in shown["llm_fits"]} == {"qwen2.5-0.5b", "smollm2-135m"}
    assert shown["tool_fit"]["curve"]["relative_speed"] > 0.0
    assert "weak" in run("catalog", "show", "aws/m9g.xlarge").out


def test_explain_gives_every_number_an_origin_and_names_what_is_missing(run: Run) -> None:
    ran = run("catalog", "explain", "aws/m9g.xlarge", "--json")
    numbers = json.loads(ran.out)["numbers"]
    for number in numbers:
        missing = number["origin"] == "missing"
        assert (number["value"] is None) == missing
        assert missing or number["source"]
    missing_topics = {n["topic"] for n in numbers if n["origin"] == "missing"}
    assert "llm phi-4-14b" in missing_topics
    fitted = [n for n in numbers if n["name"].startswith("gap between tokens")]
    assert any("leave-one-out error" in n["note"] for n in fitted)
    assert all(n["date"] for n in fitted if n["origin"] != "predicted")


def test_explain_says_what_is_borrowed_and_what_is_weak(run: Run) -> None:
    listed = json.loads(run("catalog", "list", "--hardware", "gpu", "--json").out)["offerings"]
    origins: set[str] = set()
    for one in listed[:20]:
        told = json.loads(run("catalog", "explain", one["name"], "--json").out)["numbers"]
        origins |= {n["origin"] for n in told}
        for number in (n for n in told if n["origin"] == "borrowed" and "gap" in n["name"]):
            assert "borrowed from" in number["note"]
            assert "10 % slower" in number["note"]
    assert "borrowed" in origins


def test_explain_says_what_is_predicted_and_the_list_does_not_count_it(run: Run) -> None:
    numbers = json.loads(run("catalog", "explain", "aws/m9g.large", "--json").out)["numbers"]
    guessed = [n for n in numbers if n["origin"] == "predicted" and "gap" in n["name"]]
    assert guessed
    assert all("roofline" in n["note"] for n in guessed)
    listed = json.loads(run("catalog", "show", "aws/m9g.large", "--json").out)
    assert {fit["origin"] for fit in listed["llm_fits"]} <= {"measured", "weak", "borrowed"}
