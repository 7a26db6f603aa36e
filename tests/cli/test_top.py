"""`steelyard top` against a real gateway, and what it reads of metrics."""

import json
import os
import pty
import select
import signal
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path

import pytest
from tests.cli.conftest import Run

from steelyard.cli.top_figures import look_at, look_grids, read_metrics

METRICS = """# TYPE steelyard_replicas_up gauge
steelyard_replicas_up{pool="a"} 2
steelyard_num_requests_running{pool="a"} 1
steelyard_attempts_total{outcome="ok",pool="a"} 7
steelyard_attempts_total{outcome="failed",pool="a"} 2
steelyard_prompt_tokens_total{pool="a"} 100
steelyard_prompt_tokens_cached_total{pool="a"} 25
steelyard_cost_usd_total{pool="a"} 0.5
steelyard_tasks_open 3
steelyard_tasks_total{status="succeeded"} 6
"""


def test_a_look_counts_what_the_metrics_count() -> None:
    look = look_at(read_metrics(METRICS), (), 10.0)
    (pool,) = look.pools
    assert (pool.replicas_up, pool.running, pool.ended, pool.failed) == (2, 1, 9, 2)
    assert (pool.cached_frac, pool.cost_usd, pool.ttft_s) == (0.25, 0.5, None)
    assert (look.tasks_open, look.ended, look.cost_usd) == (3, 6, 0.5)


def test_rates_are_of_the_time_between_two_looks() -> None:
    before = look_at(read_metrics(METRICS), (), 10.0)
    later = METRICS.replace('status="succeeded"} 6', 'status="succeeded"} 16')
    grids = look_grids(look_at(read_metrics(later), (), 15.0), before)
    assert "2.00 tasks/s" in grids[1].rows[0]


def test_labels_with_quotes_and_backslashes_are_read() -> None:
    found = read_metrics(r'up{pool="a\"b\\c"} 1')
    assert list(found) == [("up", (("pool", 'a"b\\c'),))]


@pytest.fixture
def gateway(tmp_path: Path) -> Generator[str]:
    (tmp_path / "s.toml").write_text(
        '[gateway]\nport = 0\n[pools.far]\nkind = "endpoint"\nbase_urls = ["http://127.0.0.1:9/v1"]\n'
        'models = ["m"]\nusd_per_hour = 1.0\n',
        encoding="utf-8",
    )
    command = [sys.executable, "-m", "steelyard", "up", "--config", "s.toml", "--json"]
    with subprocess.Popen(  # noqa: S603 - this program
        command, cwd=tmp_path, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        try:
            told = json.loads(process.stdout.readline())
            assert told["base_url"] == f"{told['dashboard_url']}/v1"
            assert (told["models"], told["log"]) == (["m"], "steelyard.db")
            yield told["dashboard_url"]
        finally:
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=60)


def test_a_running_gateway_is_shown_once_in_a_pipe(gateway: str, run: Run) -> None:
    ran = run("top", "--url", gateway, "--once")
    assert ran.code == 0, ran.err
    assert "Pools (measured)" in ran.out
    assert "far" in ran.out
    assert "\x1b" not in ran.out
    look = json.loads(run("top", "--url", f"{gateway}/v1", "--json").out)
    assert [one["pool"] for one in look["pools"]] == ["far"]


def test_q_ends_the_live_view_in_a_terminal(gateway: str) -> None:
    outer, inner = pty.openpty()
    environment = os.environ | {"TERM": "xterm", "COLUMNS": "120"}
    command = [sys.executable, "-m", "steelyard", "top", "--url", gateway, "--every", "0.1"]
    with subprocess.Popen(  # noqa: S603 - this program
        command, stdin=inner, stdout=inner, stderr=inner, env=environment
    ) as process:
        os.close(inner)
        shown = b""
        while shown.count(b"q ends") < 2:
            assert select.select([outer], [], [], 60.0)[0], shown
            shown += os.read(outer, 65536)
        # Whoever leans on other keys first gets out, too.
        os.write(outer, b"xq")
        while select.select([outer], [], [], 60.0)[0]:
            try:
                if not os.read(outer, 65536):
                    break
            except OSError:
                break
        assert process.wait(60) == 0
    os.close(outer)


@pytest.mark.parametrize("url", ["http://127.0.0.1:9", "http://127.0.0.1:x"])
def test_where_no_gateway_answers_is_told_in_one_line(run: Run, url: str) -> None:
    ran = run("top", "--url", url)
    assert ran.code == 2
    assert "no gateway answers" in ran.err
    assert ran.err.count("\n") == 1


def test_an_address_that_is_none_is_told_in_one_line(run: Run) -> None:
    ran = run("top", "--url", "file:///etc/passwd")
    assert ran.code == 2
    assert "must start with http" in ran.err


def test_spend_caps_are_shown_where_there_are_any() -> None:
    assert len(look_grids(look_at(read_metrics(METRICS), (), 10.0), None)) == 3
    capped = METRICS + (
        'steelyard_provider_spend_usd{provider="openai",span="day"} 5\n'
        'steelyard_provider_cap_usd{provider="openai",span="day"} 20\n'
    )
    grid = look_grids(look_at(read_metrics(capped), (), 10.0), None)[2]
    assert grid.rows[0][:2] == ("openai", "day")
    assert grid.rows[0][-1].startswith("25")
