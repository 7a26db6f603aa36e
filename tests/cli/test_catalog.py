import json
import sqlite3
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from tests.config.test_price_refresh import PRICES, SCHEMA

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


def test_refresh_prints_what_changed_and_leaves_the_packaged_table(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    source = tmp_path / "prices.db"
    with closing(sqlite3.connect(source)) as made:
        made.executescript(SCHEMA)
        row = (*PRICES[0][:8], 0.0, "[]", *PRICES[0][8:], "2026-11-01 12:00:00")
        made.execute(f"INSERT INTO server_price VALUES ({','.join('?' * 13)})", row)  # noqa: S608
        made.commit()
    before = run("catalog", "show", "aws/m9g.xlarge", "--json").out
    ran = run("catalog", "refresh", "--from", str(source), "--json")
    told = json.loads(ran.out)
    assert told["prices"] == 1
    assert [c["new_usd_per_hour"] for c in told["changes"]] == [0.25]
    assert run("catalog", "show", "aws/m9g.xlarge", "--json").out == before
    shown = run("catalog", "refresh", "--from", str(source))
    assert "1 changed, 0 new offerings" in shown.out
    bad = run("catalog", "refresh", "--from", str(source), "--region", "frankfurt")
    assert (bad.code, bad.err.count("\n")) == (2, 1)


def test_refresh_without_a_source_says_what_to_install(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As on a machine without the optional package.
    monkeypatch.setitem(sys.modules, "sc_data", None)
    ran = run("catalog", "refresh")
    assert (ran.code, ran.out) == (2, "")
    assert "pip install 'steelyard[catalog]'" in ran.err


def test_refresh_that_cannot_download_says_so_in_one_line(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The real package raises this when it is imported without internet.
    (tmp_path / "sc_data.py").write_text("raise RuntimeError('Failed to download database')\n")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    monkeypatch.delitem(sys.modules, "sc_data", raising=False)
    ran = run("catalog", "refresh")
    assert (ran.code, ran.out, ran.err.count("\n")) == (2, "", 1)
    assert "cannot download its database: Failed to download database" in ran.err
